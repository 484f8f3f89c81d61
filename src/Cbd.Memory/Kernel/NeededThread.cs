namespace Cbd.Memory;

/// <summary>
/// Threads where each may be one too many: the limits of processes (ulimit -u, pids.max of a control group) and of memory count for
/// them, too. All threads of this project start here.
/// </summary>
public static class NeededThread
{
    /// <summary>Starts a thread that does not keep the process alive.</summary>
    /// <param name="name">Its name, for people.</param>
    /// <param name="run">What it does; must not throw.</param>
    /// <param name="stackBytes">Size of its stack; 0: the usual one.</param>
    /// <exception cref="CbdException">No thread can be had; nothing was started.</exception>
    public static Thread Start(string name, Action run, int stackBytes = 0)
    {
        var thread = new Thread(() => run(), stackBytes) { IsBackground = true, Name = name };
        Begin(thread);
        return thread;
    }

    /// <summary>Starts a thread that was made before.</summary>
    /// <exception cref="CbdException">No thread can be had; it may be tried again with another one.</exception>
    public static void Begin(Thread thread)
    {
        try
        {
            thread.Start();
        }
        catch (Exception e) when (e is OutOfMemoryException or ThreadStartException)
        {
            throw new CbdException(CbdErrorKind.Exhausted, Describe(thread.Name), e);
        }
    }

    /// <summary>As <see cref="Begin"/>, but false if no thread can be had.</summary>
    public static bool TryBegin(Thread thread)
    {
        try
        {
            Begin(thread);
            return true;
        }
        catch (CbdException)
        {
            return false;
        }
    }

    private static string Describe(string? name) =>
        $"cbdd cannot have another thread ({name}): raise its limits (TasksMax= and MemoryMax= of its unit, ulimit -u and -v), then try again";
}
