using Cbd.Blocks;
using Cbd.Memory.Sockets;
using Cbd.Host;

namespace Cbd.Exports.Nbd;

/// <summary>
/// How a pump waits: spins as long as something happened lately, then sleeps. The one place to tune it. Single-threaded.
/// </summary>
/// <remarks>
/// While requests are at the device, a queue that can sleeps for their ends and for the sockets at once. Of any other
/// queue nothing announces an end to epoll: the pump looks again after short sleeps that grow. With nothing at the
/// device it sleeps until a socket wakes it, or for the second after which the queue must be polled.
/// </remarks>
internal sealed class PumpWait
{
    private const long FirstSleepNanoseconds = 50_000;
    private const long LongestSleepNanoseconds = 1_000_000;
    private const long IdleSleepNanoseconds = 1_000_000_000;

    /// <summary>Longest sleep while the device works and can wake us: its deadlines are looked after in between.</summary>
    private const int DeviceSleepMicroseconds = 100_000;

    /// <summary>While the device works, sockets are looked at once in this many turns of the spin.</summary>
    private const int TurnsPerSocketCheck = 4;

    private readonly EventPoll _poll;
    private readonly IDescriptorWait? _device;
    private SpinWindow _spin;
    private long _sleepNanoseconds = FirstSleepNanoseconds;
    private int _turn;

    internal PumpWait(EventPoll poll, IBlockQueue queue, PollMode mode)
    {
        _spin = new SpinWindow(mode, queue);
        _poll = poll;
        _device = queue as IDescriptorWait;
    }

    /// <summary>
    /// Returns how many socket events there are, possibly after waiting. <paramref name="progressed"/>: something
    /// happened since the last call. <paramref name="mayWait"/>: there is nothing that the pump could do now.
    /// <paramref name="outstanding"/>: requests at the device.
    /// </summary>
    internal int Next(bool progressed, bool mayWait, int outstanding)
    {
        if (progressed)
        {
            _spin.Extend();
            _sleepNanoseconds = FirstSleepNanoseconds;
        }

        if (!mayWait || progressed)
            return _poll.Wait(0);
        if (_spin.IsOpen)
        {
            int events = 0;
            if (outstanding == 0 || ++_turn % TurnsPerSocketCheck == 0)
                events = _poll.Wait(0);
            if (events == 0)
                _spin.Yield();
            return events;
        }

        if (outstanding == 0)
            return _poll.Wait(IdleSleepNanoseconds);
        if (_device is not null && _device.TryWait(_poll.Descriptor, DeviceSleepMicroseconds))
            return _poll.Wait(0);
        long sleep = _sleepNanoseconds;
        _sleepNanoseconds = Math.Min(2 * sleep, LongestSleepNanoseconds);
        return _poll.Wait(sleep);
    }
}
