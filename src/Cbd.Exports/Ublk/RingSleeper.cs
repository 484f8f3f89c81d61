using Cbd.Blocks;
using Cbd.Memory;
using Cbd.Host;

namespace Cbd.Exports.Ublk;

/// <summary>
/// How a pump waits: spins as long as something happened lately, then sleeps in its ring. Single-threaded.
/// </summary>
/// <remarks>
/// While requests are at the device, a queue that can sleeps for their ends and for new requests at once. Of any other
/// queue nothing announces an end to the ring: the pump looks again after short sleeps that grow.
/// </remarks>
internal sealed class UblkWait
{
    private const int FirstSleepMicroseconds = 50;
    private const int LongestSleepMicroseconds = 1000;

    /// <summary>Longest sleep with nothing at the device: its queue must be polled once a second.</summary>
    private const int IdleSleepMicroseconds = 1_000_000;

    /// <summary>Longest sleep while the device works and can wake us: its deadlines are looked after in between.</summary>
    private const int DeviceSleepMicroseconds = 100_000;

    private readonly IoUring _ring;
    private readonly RingDoorbell _doorbell;
    private readonly IRingWait? _device;
    private SpinWindow _spin;
    private int _sleepMicroseconds = FirstSleepMicroseconds;

    internal UblkWait(IoUring ring, RingDoorbell doorbell, IBlockQueue queue, PollMode mode)
    {
        _ring = ring;
        _doorbell = doorbell;
        _device = queue as IRingWait;
        _spin = new SpinWindow(mode, queue);
    }

    /// <summary>
    /// Submits what was prepared, possibly after waiting. <paramref name="progressed"/>: something happened since the
    /// last call. <paramref name="outstanding"/>: requests at the device.
    /// </summary>
    internal void Next(bool progressed, int outstanding)
    {
        if (progressed)
        {
            _spin.Extend();
            _sleepMicroseconds = FirstSleepMicroseconds;
        }

        if (_spin.IsOpen || progressed)
        {
            if (_ring.PreparedCount != 0 || _ring.NeedsEnter)
                _ring.Enter();
            else if (!progressed)
                _spin.Yield();
            return;
        }

        if (outstanding == 0)
        {
            _ring.EnterAndWait(IdleSleepMicroseconds);
            return;
        }

        if (_device is not null && _device.TryWait(_doorbell, DeviceSleepMicroseconds))
            return;
        int sleep = _sleepMicroseconds;
        _sleepMicroseconds = Math.Min(2 * sleep, LongestSleepMicroseconds);
        _ring.EnterAndWait(sleep);
    }
}
