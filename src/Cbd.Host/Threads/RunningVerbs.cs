using Cbd.Memory;

namespace Cbd.Host.Threads;

/// <summary>
/// Counts the verbs that are under way on one transport, so that it can be left: leaving lets no other begin, tells those that
/// wait to give up, and waits until they have. Thread-safe.
/// </summary>
internal sealed class RunningVerbs
{
    private readonly Lock _lock = new();
    private int _count;
    private volatile bool _isEnding;

    /// <summary>No verb may begin, and those that wait give up.</summary>
    public bool IsEnding => _isEnding;

    /// <summary>Verbs that have begun and not ended.</summary>
    public int Count => Volatile.Read(ref _count);

    /// <summary>A verb begins; dispose what it returns at its end. Null if none may begin any more.</summary>
    public IDisposable? TryBegin()
    {
        lock (_lock)
        {
            if (_isEnding)
                return null;
            Interlocked.Increment(ref _count);
            return new RunningVerb(this);
        }
    }

    /// <summary>Lets no other begin. False if somebody else did so already.</summary>
    public bool TryBeginEnd()
    {
        lock (_lock)
        {
            if (_isEnding)
                return false;
            return _isEnding = true;
        }
    }

    /// <summary>Waits until those that had begun have given up, or are done.</summary>
    public void AwaitEnd()
    {
        while (Count > 0)
            Thread.Sleep(1);
    }

    private sealed class RunningVerb(RunningVerbs owner) : IDisposable
    {
        private int _isDone;

        public void Dispose()
        {
            if (Interlocked.Exchange(ref _isDone, 1) == 0)
                Interlocked.Decrement(ref owner._count);
        }
    }
}
