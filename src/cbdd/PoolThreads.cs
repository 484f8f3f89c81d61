using Cbd.Control.Server;
using Cbd.Memory;

namespace Cbd.Programs.Daemon;

/// <summary>
/// The threads of .NET's pool that answer the control socket. They exist from the start, and stay (<c>ThreadsToKeepAlive</c> in the
/// project file): where no other can be had later, verbs are still answered.
/// </summary>
internal static class PoolThreads
{
    /// <summary>As many as the project file keeps.</summary>
    public const int Count = 4;

    private const int PatienceMs = 10_000;

    /// <summary>Starts them, and waits until they run.</summary>
    /// <exception cref="CbdException">They cannot be had.</exception>
    public static void Start()
    {
        ThreadPool.GetMinThreads(out var workers, out var completions);
        // So many more are had at once when they are needed, not one after the other: verbs may hold theirs for long.
        ThreadPool.SetMinThreads(Math.Max(Count + VerbGate.VerbsAtOnce, workers), completions);
        // Not disposed: one that comes too late still uses them.
        var together = new Barrier(Count);
        var ended = new CountdownEvent(Count);
        for (var i = 0; i < Count; i++)
        {
            ThreadPool.UnsafeQueueUserWorkItem(_ =>
            {
                // Each holds its thread until all have one.
                together.SignalAndWait(PatienceMs);
                ended.Signal();
            }, null);
        }

        if (!ended.Wait(2 * PatienceMs) || together.CurrentPhaseNumber == 0)
            throw new CbdException(CbdErrorKind.Exhausted, $"cbdd cannot have {Count} threads for its control socket: raise its limits (TasksMax= and MemoryMax= of its unit, ulimit -u and -v)");
    }
}
