namespace Cbd.Exports.Pumping;

/// <summary>The threads of pumps.</summary>
internal static class PumpThreads
{
    /// <summary>Waits for the end of a thread, which need not have been started.</summary>
    internal static void JoinIfStarted(this Thread thread)
    {
        if ((thread.ThreadState & ThreadState.Unstarted) == 0)
            thread.Join();
    }
}
