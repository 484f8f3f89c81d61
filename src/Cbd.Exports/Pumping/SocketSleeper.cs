using Cbd.Blocks;
using Cbd.Memory.Sockets;

namespace Cbd.Exports.Pumping;

/// <summary>Sleeps for sockets, in epoll; for a device too, where its queue sleeps for a descriptor.</summary>
internal struct SocketSleeper(EventPoll poll, IBlockQueue queue) : IPumpSleeper
{
    /// <summary>While the device works, sockets are looked at once in this many turns of the spin.</summary>
    private const int TurnsPerLook = 4;

    private const long NanosecondsPerMicrosecond = 1000;

    private readonly IDescriptorWait? _device = queue as IDescriptorWait;
    private int _turn;

    public readonly int Look() => poll.Wait(0);

    public int LookInSpin(bool deviceIsBusy) => !deviceIsBusy || ++_turn % TurnsPerLook == 0 ? poll.Wait(0) : 0;

    public readonly int Sleep(int timeoutMicroseconds) => poll.Wait(timeoutMicroseconds * NanosecondsPerMicrosecond);

    public readonly bool TrySleepWithDevice(int timeoutMicroseconds, out int events)
    {
        events = 0;
        if (_device is null || !_device.TryWait(poll.Descriptor, timeoutMicroseconds))
            return false;
        events = poll.Wait(0);
        return true;
    }
}
