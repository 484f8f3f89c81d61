using Cbd.Blocks;
using Cbd.Exports.Pumping;
using Cbd.Memory;

namespace Cbd.Exports.Ublk;

/// <summary>
/// Sleeps in the ring in which requests come, so that one call commits, sleeps and fetches; for a device too, where its
/// queue has a doorbell that a ring can wait for. Events are reaped from the ring by the pump.
/// </summary>
internal readonly struct RingSleeper(IoUring ring, RingDoorbell doorbell, IBlockQueue queue) : IPumpSleeper
{
    private readonly IRingWait? _device = queue as IRingWait;

    /// <summary>Returns 1 if it had to enter the kernel.</summary>
    public int Look()
    {
        if (ring.PreparedCount == 0 && !ring.NeedsEnter)
            return 0;
        ring.Enter();
        return 1;
    }

    public int LookInSpin(bool deviceIsBusy) => Look();

    public int Sleep(int timeoutMicroseconds)
    {
        ring.EnterAndWait(timeoutMicroseconds);
        return 1;
    }

    public bool TrySleepWithDevice(int timeoutMicroseconds, out int events)
    {
        events = 1;
        return _device is not null && _device.TryWait(doorbell, timeoutMicroseconds);
    }
}
