using Cbd.Memory;

namespace Cbd.Programs.Daemon.Supervision;

/// <summary>What follows from the end of a worker.</summary>
internal enum AfterEnd
{
    /// <summary>The next worker is started.</summary>
    Restart,

    /// <summary>The next worker is started at once: this one left all to it. If none is to follow, it ends what is kept.</summary>
    GoOn,

    /// <summary>The supervisor ends with the worker's exit code.</summary>
    EndWithCode,

    /// <summary>The supervisor ends by the worker's signal.</summary>
    EndBySignal,
}

/// <summary>What a supervisor does about a worker that ended. No state.</summary>
internal static class SupervisorRules
{
    /// <summary>Of a worker that left all it served to the next one (EX_TEMPFAIL of sysexits.h).</summary>
    public const int ParkedExitCode = 75;

    /// <param name="end">How it ended.</param>
    /// <param name="isStopping">The supervisor was told to end.</param>
    /// <param name="wasAnyReady">This worker, or one before it, was ready.</param>
    /// <param name="wasAnyStarted">This worker, or one before it, had done all that the command line asks for.</param>
    public static AfterEnd Decide(ProcessEnd end, bool isStopping, bool wasAnyReady, bool wasAnyStarted) => end switch
    {
        { ExitCode: ParkedExitCode } => AfterEnd.GoOn,
        _ when isStopping => end.ExitCode is null ? AfterEnd.EndBySignal : AfterEnd.EndWithCode,
        // It could not start, and said why: the next one would say the same. A line of its command line may have waited for long before it failed.
        { ExitCode: not 0 and not null } when !wasAnyStarted => AfterEnd.EndWithCode,
        { ExitCode: 0 } when !wasAnyReady => AfterEnd.EndWithCode,
        _ => AfterEnd.Restart,
    };

    /// <summary>For how long a worker that ended did what it was started for, milliseconds; null: not at all.</summary>
    /// <param name="end">How it ended.</param>
    /// <param name="readyMs">For how long it was ready; null: not at all.</param>
    /// <param name="startedMs">For how long it had done what the command line asks for; null: not at all.</param>
    public static long? ServedMs(ProcessEnd end, long? readyMs, long? startedMs) => end.ExitCode is null ? readyMs : startedMs;
}
