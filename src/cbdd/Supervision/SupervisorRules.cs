using Cbd.Memory;

namespace Cbd.Programs.Daemon.Supervision;

/// <summary>What follows from the end of a worker.</summary>
internal enum AfterEnd
{
    /// <summary>The next worker is started.</summary>
    Restart,

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
    public static AfterEnd Decide(ProcessEnd end, bool isStopping, bool wasAnyReady) => end switch
    {
        _ when isStopping => end.ExitCode is null ? AfterEnd.EndBySignal : AfterEnd.EndWithCode,
        // It refused to start, and said why: the next one would say the same.
        { ExitCode: not null } when !wasAnyReady => AfterEnd.EndWithCode,
        _ => AfterEnd.Restart,
    };
}
