using System.Diagnostics;
using Cbd.Blocks;
using Cbd.Memory.Sockets;

namespace Cbd.Exports.Nbd;

/// <summary>
/// How a pump waits: spins as long as something happened lately, then sleeps. The one place to tune it. Single-threaded.
/// </summary>
/// <remarks>
/// While requests are at the device, a queue that can sleeps for their ends and for the sockets at once. Of any other
/// queue nothing announces an end to epoll: the pump looks again after short sleeps that grow. With nothing at the device it sleeps until a socket wakes it, or for the second
/// after which the queue must be polled. Where other threads want the CPU, a thread that spins and yields is served
/// worse than one that sleeps and is woken, so a yield that takes long ends the spinning for a while.
/// </remarks>
internal sealed class PumpWait
{
    private const long SpinMicroseconds = 75;
    private const long FirstSleepNanoseconds = 50_000;
    private const long LongestSleepNanoseconds = 1_000_000;
    private const long IdleSleepNanoseconds = 1_000_000_000;

    /// <summary>Longest sleep while the device works and can wake us: its deadlines are looked after in between.</summary>
    private const int DeviceSleepMicroseconds = 100_000;

    /// <summary>While the device works, sockets are looked at once in this many turns of the spin.</summary>
    private const int TurnsPerSocketCheck = 4;

    /// <summary>A yield that took longer gave the CPU to somebody else: it is wanted.</summary>
    private const long CrowdedMicroseconds = 15;

    /// <summary>How long it sleeps without spinning first after that.</summary>
    private const long CrowdedPauseMicroseconds = 20_000;

    private static readonly long s_ticksPerMicrosecond = Stopwatch.Frequency / 1_000_000;

    private readonly EventPoll _poll;
    private long _spinUntil;
    private long _spinNotBefore;
    private long _sleepNanoseconds = FirstSleepNanoseconds;
    private int _turn;

    private readonly IDescriptorWait? _device;

    internal PumpWait(EventPoll poll, IBlockQueue queue)
    {
        _poll = poll;
        _device = queue as IDescriptorWait;
    }

    /// <summary>
    /// Returns how many socket events there are, possibly after waiting. <paramref name="progressed"/>: something
    /// happened since the last call. <paramref name="mayWait"/>: there is nothing that the pump could do now.
    /// <paramref name="outstanding"/>: requests at the device.
    /// </summary>
    internal int Next(long now, bool progressed, bool mayWait, int outstanding)
    {
        if (progressed)
        {
            _spinUntil = now >= _spinNotBefore ? now + (SpinMicroseconds * s_ticksPerMicrosecond) : 0;
            _sleepNanoseconds = FirstSleepNanoseconds;
        }

        if (!mayWait || progressed)
            return _poll.Wait(0);
        if (now < _spinUntil)
        {
            int events = 0;
            if (outstanding == 0 || ++_turn % TurnsPerSocketCheck == 0)
                events = _poll.Wait(0);
            if (events == 0)
                YieldOnce();
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

    private void YieldOnce()
    {
        long start = Stopwatch.GetTimestamp();
        PumpThread.Yield();
        long end = Stopwatch.GetTimestamp();
        if (end - start <= CrowdedMicroseconds * s_ticksPerMicrosecond)
            return;
        _spinUntil = 0;
        _spinNotBefore = end + (CrowdedPauseMicroseconds * s_ticksPerMicrosecond);
    }
}
