using System.Buffers;
using Cbd.Memory;

namespace Cbd.Programs.Daemon;

/// <summary>
/// The threads of .NET's pool, and of its timers. They exist from the start, stay (<c>ThreadsToKeepAlive</c> in the project file), and never become
/// more: the pool ends the process when it wants another thread and none can be had. So nothing that may hang runs there, but for
/// two looks at disks: verbs and other work have threads of their own where they can.
/// </summary>
internal static class PoolThreads
{
    /// <summary>As many as the project file keeps.</summary>
    public const int Count = 6;

    private const int PatienceMs = 10_000;

    /// <summary>Starts them, and waits until they run.</summary>
    /// <exception cref="CbdException">They cannot be had.</exception>
    public static void Start()
    {
        ThreadPool.GetMinThreads(out _, out var completions);
        if (!ThreadPool.SetMinThreads(Count, completions) || !ThreadPool.SetMaxThreads(Count, completions))
            throw new InvalidOperationException($"the pool cannot have {Count} threads");
        // Not disposed: one that comes too late still uses them.
        var running = new SemaphoreSlim(0);
        var release = new ManualResetEventSlim();
        try
        {
            // The first timer starts the thread of all timers. Later that may fail, when the socket stops say.
            using (new Timer(static _ => { }, null, PatienceMs, Timeout.Infinite))
            {
            }

            for (var i = 0; i < Count; i++)
            {
                // One after the other: who finds more work queued starts the next thread itself, and ends the process if that fails.
                ThreadPool.UnsafeQueueUserWorkItem(_ =>
                {
                    // A thread's first array makes an entry of a table that .NET leaves half made where there is no memory for it. The
                    // next collection of garbage ends the process then.
                    ArrayPool<byte>.Shared.Return(ArrayPool<byte>.Shared.Rent(1));
                    ArrayPool<char>.Shared.Return(ArrayPool<char>.Shared.Rent(1));
                    running.Release();
                    release.Wait();
                }, null);
                if (!running.Wait(PatienceMs))
                    throw Exhausted(new TimeoutException($"no thread within {PatienceMs} ms"));
            }
        }
        catch (Exception e) when (e is OutOfMemoryException or ThreadStartException)
        {
            throw Exhausted(e);
        }
        finally
        {
            release.Set();
        }
    }

    private static CbdException Exhausted(Exception inner) =>
        new(CbdErrorKind.Exhausted, $"cbdd cannot have {Count} threads for its control socket: raise its limits (TasksMax= and MemoryMax= of its unit, ulimit -u and -v)", inner);
}
