namespace Cbd.Memory;

/// <summary><c>struct timespec</c> of 64-bit Linux: seconds, then nanoseconds, 8 bytes each.</summary>
internal struct TimeSpec
{
    internal const long NanosecondsPerSecond = 1_000_000_000;

    internal long Seconds;
    internal long Nanoseconds;

    internal static TimeSpec FromMicroseconds(long microseconds) => new()
    {
        Seconds = microseconds / 1_000_000,
        Nanoseconds = microseconds % 1_000_000 * 1000,
    };

    internal static TimeSpec FromNanoseconds(long nanoseconds) => new()
    {
        Seconds = nanoseconds / NanosecondsPerSecond,
        Nanoseconds = nanoseconds % NanosecondsPerSecond,
    };
}
