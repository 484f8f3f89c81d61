namespace Cbd.Memory;

/// <summary>
/// The CPU time of one thread of this process, read by any of them. The default value is a clock that stands at 0, as
/// does that of a thread that has ended.
/// </summary>
public readonly unsafe struct ThreadClock
{
    private readonly int _clock;

    private ThreadClock(int clock) => _clock = clock;

    /// <summary>The clock of the calling thread (pthread_getcpuclockid(3)).</summary>
    public static ThreadClock OfCurrentThread()
    {
        int clock;
        return LibC.GetThreadCpuClock(LibC.ThreadSelf(), &clock) == 0 ? new ThreadClock(clock) : default;
    }

    /// <summary>CPU time used so far, µs.</summary>
    public long CpuMicroseconds
    {
        get
        {
            LibC.TimeSpec time;
            if (_clock == 0 || LibC.ClockGetTime(_clock, &time) < 0)
                return 0;
            return time.Seconds * 1_000_000 + time.Nanoseconds / 1000;
        }
    }
}
