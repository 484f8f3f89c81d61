using Cbd.Memory;

namespace Cbd.Programs.Daemon;

/// <summary>
/// The threads of .NET's pool. They exist from the start, stay (<c>ThreadsToKeepAlive</c> in the project file), and never become
/// more: the pool ends the process when it wants another thread and none can be had. So nothing that may hang runs there, but for
/// two looks at disks: verbs and other work have threads of their own where they can.
/// </summary>
internal static class PoolThreads
{
    /// <summary>As many as the project file keeps.</summary>
    public const int Count = 6;

    private const int Margin = 4;
    private const int PatienceMs = 10_000;

    /// <summary>Starts them, and waits until they run.</summary>
    /// <exception cref="CbdException">They cannot be had.</exception>
    public static void Start()
    {
        Try();
        ThreadPool.GetMinThreads(out _, out var completions);
        if (!ThreadPool.SetMinThreads(Count, completions) || !ThreadPool.SetMaxThreads(Count, completions))
            throw new InvalidOperationException($"the pool cannot have {Count} threads");
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

    /// <summary>A thread of the pool that cannot start the next one ends the process, so others are started first, and more of them.</summary>
    private static void Try()
    {
        using var release = new ManualResetEventSlim();
        var threads = new List<Thread>();
        try
        {
            for (var i = 0; i < Count + Margin; i++)
                threads.Add(NeededThread.Start("cbd-try", release.Wait));
        }
        finally
        {
            release.Set();
            threads.ForEach(thread => thread.Join());
        }
    }
}
