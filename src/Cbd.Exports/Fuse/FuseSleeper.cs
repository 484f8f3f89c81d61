using Cbd.Blocks;
using Cbd.Memory.Sockets;
using Cbd.Host;

namespace Cbd.Exports.Fuse;

/// <summary>
/// How a pump waits: looks on as long as something happened lately, then sleeps for requests of the kernel and for the
/// device at once. Where the queue cannot do that, it looks again after short sleeps that grow. Single-threaded.
/// </summary>
internal struct FuseWait(EventPoll poll, IBlockQueue queue, PollMode mode)
{
    private const long FirstSleepNanoseconds = 50_000;
    private const long LongestSleepNanoseconds = 1_000_000;

    /// <summary>A queue is polled at least once a second.</summary>
    private const long IdleSleepNanoseconds = 1_000_000_000;

    /// <summary>Longest sleep while the device works and can wake us: its deadlines are looked after in between.</summary>
    private const int DeviceSleepMicroseconds = 100_000;

    private readonly IDescriptorWait? _device = queue as IDescriptorWait;
    private SpinWindow _spin = new(mode, queue);
    private long _sleepNanoseconds = FirstSleepNanoseconds;

    /// <summary>Something happened.</summary>
    internal void Progressed()
    {
        _spin.Extend();
        _sleepNanoseconds = FirstSleepNanoseconds;
    }

    /// <summary>Nothing happened for a while; if not for so long, lets others run, and returns false.</summary>
    internal bool MustSleep()
    {
        if (!_spin.IsOpen)
            return true;
        _spin.Yield();
        return false;
    }

    /// <summary>
    /// Sleeps; returns whether a descriptor ended it. <paramref name="canTake"/>: requests of the kernel could be taken;
    /// otherwise that they are there is no reason to wake up.
    /// </summary>
    internal bool Sleep(int outstanding, bool canTake)
    {
        if (outstanding == 0)
            return poll.Wait(IdleSleepNanoseconds) > 0;
        if (canTake && _device is not null && _device.TryWait(poll.Descriptor, DeviceSleepMicroseconds))
            return poll.Wait(0) > 0;
        if (!canTake)
        {
            queue.Wait(DeviceSleepMicroseconds);
            return false;
        }

        long sleep = _sleepNanoseconds;
        _sleepNanoseconds = Math.Min(2 * sleep, LongestSleepNanoseconds);
        return poll.Wait(sleep) > 0;
    }
}
