using Cbd.Memory;
using Cbd.Host;

namespace Cbd.Programs.Ctrl.Bench;

/// <summary>What one run of bench does, checked. Sizes are bytes; names are fio's.</summary>
internal sealed record BenchOptions
{
    public const int MaxDepth = 4096;
    public const int MaxJobs = 128;

    public required string Pattern { get; init; }
    public required long BlockBytes { get; init; }
    public required int Depth { get; init; }
    public required int Jobs { get; init; }
    public required TimeSpan RunTime { get; init; }
    public required TimeSpan RampTime { get; init; }

    /// <summary>How much of the device is used, from its start; null: all of it.</summary>
    public long? SizeBytes { get; init; }

    /// <summary>Pause after each request, µs.</summary>
    public int ThinkMicroseconds { get; init; }
    public bool Verify { get; init; }
    public PollMode Mode { get; init; }

    public bool IsRandom => Pattern.StartsWith("rand", StringComparison.Ordinal);

    public bool Reads => Pattern is "read" or "randread" or "randrw";

    public bool Writes => Pattern is "write" or "randwrite" or "randrw";

    /// <summary>Refuses what cannot be run, with the option, its value and what to give.</summary>
    /// <exception cref="CbdException">The first thing that is wrong.</exception>
    public void Check()
    {
        if (BlockBytes is < 512 or > 32 << 20)
            throw Invalid($"--bs is {BlockBytes}: give 512 to 32M");
        if (Depth is < 1 or > MaxDepth)
            throw Invalid($"--iodepth is {Depth}: give 1 to {MaxDepth}");
        if (Jobs is < 1 or > MaxJobs)
            throw Invalid($"--numjobs is {Jobs}: give 1 to {MaxJobs}");
        if (RunTime <= TimeSpan.Zero || RunTime > TimeSpan.FromDays(1))
            throw Invalid($"--runtime is {RunTime.TotalSeconds} s: give more than 0 and at most 86400");
        if (RampTime < TimeSpan.Zero || RampTime > TimeSpan.FromHours(1))
            throw Invalid($"--ramp-time is {RampTime.TotalSeconds} s: give 0 to 3600");
        if (ThinkMicroseconds is < 0 or > 60_000_000)
            throw Invalid($"--thinktime is {ThinkMicroseconds} µs: give 0 to 60000000");
        if (ThinkMicroseconds > 0 && Depth > 1)
            throw Invalid($"--thinktime needs --iodepth 1, not {Depth}");
    }

    private static CbdException Invalid(string message) => new(CbdErrorKind.Invalid, message);
}
