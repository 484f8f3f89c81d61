using System.Diagnostics;
using Cbd.Blocks;
using Cbd.Memory.Sockets;

namespace Cbd.Host;

/// <summary>
/// How a thread waits that serves a queue or a ring: it spins for a while after the last event, yielding each time, and then
/// sleeps. It decides which, and how long; how a thread sleeps, and who wakes it, is the thread's. Single-threaded.
/// </summary>
/// <remarks>
/// <para>The spin is long enough to spare a busy channel the wake-up, and short enough to cost nothing when idle.</para>
/// <para>A yield lets a client or the other side on the same CPU do its part of a request, and brings the CPU back without
/// the wake-up of a sleeping core, the dearest part of a small request. If somebody takes the CPU for a good part of a time
/// slice, it is wanted for something else: then a thread that sleeps and is woken is served better than one that yields.</para>
/// </remarks>
/// <param name="mode">How the thread waits.</param>
/// <param name="queue">The queue that it drives, if there is somebody at the other end of it who may have to be woken.</param>
internal struct IdleStrategy(PollMode mode, IBlockQueue? queue = null)
{
    /// <summary>A futex sleep and wake costs about this much for both sides together.</summary>
    private const long SpinMicroseconds = 75;

    /// <summary>
    /// Who was just woken answers after about 50 to 150 µs. Sleeping before that would put a second wake-up behind the
    /// first: the first request after a pause would take twice as long.
    /// </summary>
    private const long WakeMicroseconds = 250;

    /// <summary>
    /// A yield that took longer gave the CPU to somebody who did not give it back by himself. Longer than a client takes
    /// for what is in flight (some 10 µs for one small request, a few 100 µs for some MiB), shorter than a slice.
    /// </summary>
    private const long CrowdedMicroseconds = 1_000;

    /// <summary>
    /// How long it sleeps without spinning first after that; twice as long each time that it happens again before as much time
    /// has passed. Where programs want every CPU each try costs a time slice, and the scheduler holds it against the
    /// thread when it is woken next. Where nobody can wake it the first pause is all: sleeping costs more there.
    /// </summary>
    private const long FirstPauseMicroseconds = 20_000, LongestPauseMicroseconds = 640_000;

    /// <summary>Sleeps that nobody ends: short, so that an event is seen soon, and longer the longer none comes.</summary>
    private const int FirstSleepMicroseconds = 50, LongestSleepMicroseconds = 1_000;

    private static readonly long s_ticksPerMicrosecond = Math.Max(1, Stopwatch.Frequency / 1_000_000);

    /// <summary>Looks between two yields in mode busy: rare enough to cost nothing, often enough to be fair.</summary>
    private const int BusyLooks = 1024;

    private readonly IWakeCount? _waker = queue as IWakeCount;
    private int _wakes;
    private long _until;
    private long _notBefore;
    private long _pause;
    private int _looks;
    private int _sleepMicroseconds = FirstSleepMicroseconds;

    /// <summary>Something happened: the spin starts anew.</summary>
    public void Progressed()
    {
        _sleepMicroseconds = FirstSleepMicroseconds;
        Open(SpinMicroseconds);
    }

    /// <summary>Yield and look again, instead of sleeping.</summary>
    public bool KeepsSpinning
    {
        get
        {
            if (mode != PollMode.Adaptive)
                return mode == PollMode.Busy;
            if (_waker is not null && _waker.WakeCount != _wakes)
            {
                _wakes = _waker.WakeCount;
                Open(WakeMicroseconds);
            }

            return Stopwatch.GetTimestamp() < _until;
        }
    }

    /// <summary>How long to sleep now, where nobody can end the sleep.</summary>
    public int NextSleepMicroseconds()
    {
        int sleep = _sleepMicroseconds;
        _sleepMicroseconds = Math.Min(2 * sleep, LongestSleepMicroseconds);
        return sleep;
    }

    private void Open(long microseconds)
    {
        if (mode != PollMode.Adaptive)
            return;
        long now = Stopwatch.GetTimestamp();
        _until = now >= _notBefore ? Math.Max(_until, now + microseconds * s_ticksPerMicrosecond) : 0;
    }

    /// <summary>Lets others run between two looks; ends the spin if they keep the CPU.</summary>
    /// <param name="canBeWoken">Who has something for this thread can wake it from its sleep.</param>
    public void Yield(bool canBeWoken = true)
    {
        if (mode == PollMode.Busy)
        {
            if (++_looks % BusyLooks == 0)
                PumpThread.Yield();
            return;
        }

        long start = Stopwatch.GetTimestamp();
        PumpThread.Yield();
        long end = Stopwatch.GetTimestamp();
        if (end - start > CrowdedMicroseconds * s_ticksPerMicrosecond)
        {
            bool again = start - _notBefore < _pause && canBeWoken && (_waker is null || _waker.CanBeWoken);
            _pause = again ? Math.Min(2 * _pause, LongestPauseMicroseconds * s_ticksPerMicrosecond) : FirstPauseMicroseconds * s_ticksPerMicrosecond;
            _until = 0;
            _notBefore = end + _pause;
        }
    }
}
