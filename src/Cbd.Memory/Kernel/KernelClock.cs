using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>Clocks of this kernel. Never compared with those of another host.</summary>
public static unsafe class KernelClock
{
    /// <summary>CLOCK_BOOTTIME, nanoseconds since boot, time in suspend included.</summary>
    public static long BootTimeNs => Read(ClockBootTime);

    /// <summary>CLOCK_MONOTONIC, nanoseconds; stands still in suspend. What futex and epoll time-outs count on.</summary>
    public static long MonotonicNs => Read(ClockMonotonic);

    /// <summary>Sleeps; a signal may end it early.</summary>
    internal static void Sleep(int timeoutMicroseconds)
    {
        LibC.TimeSpec time = LibC.TimeSpec.FromMicroseconds(Math.Max(timeoutMicroseconds, 0));
        _ = LibC.ClockNanoSleep(ClockMonotonic, 0, &time, null);
    }

    private static long Read(int clock)
    {
        LibC.TimeSpec now;
        if (LibC.ClockGetTime(clock, &now) < 0)
            throw SystemCallException.Last("clock_gettime");
        return now.Seconds * LibC.TimeSpec.NanosecondsPerSecond + now.Nanoseconds;
    }
}
