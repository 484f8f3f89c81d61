using System.Diagnostics;

namespace Cbd.Host;

/// <summary>This process's monotonic clock. Values of two processes are never compared.</summary>
internal static class MonotonicClock
{
    private static readonly double s_microsecondsPerTick = 1e6 / Stopwatch.Frequency;

    public static long Microseconds => (long)(Stopwatch.GetTimestamp() * s_microsecondsPerTick);

    /// <summary>Moves every few milliseconds only, and costs next to nothing to read: for deadlines of a second.</summary>
    public static long CoarseMicroseconds => Environment.TickCount64 * 1000;

    public static long Milliseconds => Environment.TickCount64;
}
