using System.Diagnostics;

namespace Cbd.Runtime;

/// <summary>This process's monotonic clock. Values of two processes are never compared.</summary>
internal static class MonotonicClock
{
    private static readonly double s_microsecondsPerTick = 1e6 / Stopwatch.Frequency;

    public static long Microseconds => (long)(Stopwatch.GetTimestamp() * s_microsecondsPerTick);

    public static long Milliseconds => Environment.TickCount64;
}
