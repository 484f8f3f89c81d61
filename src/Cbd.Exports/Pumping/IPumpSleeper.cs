namespace Cbd.Exports.Pumping;

/// <summary>
/// How a pump sleeps: what wakes it, besides the queue of its device. An event is news of the pump's own descriptors: the
/// sockets of clients, or a channel to the kernel. A structure, so that <see cref="PumpIdle{TSleeper}"/> calls it directly.
/// </summary>
internal interface IPumpSleeper
{
    /// <summary>Looks for events between two turns that had work, and submits what was prepared. Returns how many there are.</summary>
    int Look();

    /// <summary>The same in a spin without work; may skip a look that costs too much each time.</summary>
    /// <param name="deviceIsBusy">Requests are at the device, whose completions matter more.</param>
    int LookInSpin(bool deviceIsBusy);

    /// <summary>Sleeps until there are events or the time is over. Returns how many there are.</summary>
    int Sleep(int timeoutMicroseconds);

    /// <summary>
    /// Sleeps until there are events, the device has a completion or the time is over. False at once if no sleep ends by
    /// the completions of this queue, now or ever.
    /// </summary>
    bool TrySleepWithDevice(int timeoutMicroseconds, out int events);
}
