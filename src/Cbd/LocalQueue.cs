using Cbd.Blocks;
using Cbd.Host;
using Cbd.Host.Threads;

namespace Cbd;

/// <summary>
/// One queue of a <see cref="LocalBlkdev"/> while its user has it. The blkdev can take it away at any time, from another
/// thread: what is outstanding is answered then, and nothing behind it is touched any more.
/// </summary>
/// <remarks>
/// The user's thread says that it is inside with a plain store and looks whether the queue is still its own with a plain load.
/// The thread that takes the queue away has the kernel put a barrier between the two on every CPU (membarrier(2)), so
/// that the hot path needs none: either it sees the user inside, or the user sees that the queue was taken.
/// </remarks>
internal sealed class LocalQueue(LocalExport export, BlkdevQueue queue, int depth) : IBlockQueue, IWakeCount
{
    private const int DrainWaitMicroseconds = 10_000;

    private const int Open = 0, Closing = 1, Ended = 2;

    /// <summary>Completions of requests that the user had when the queue was taken, or submitted afterwards.</summary>
    private readonly Queue<BlockCompletion> _last = new();
    private int _state = Open;
    private bool _isInside;
    private bool _isDisposed;

    /// <summary>How long <see cref="Dispose"/> waits for a backend that is there.</summary>
    internal int DrainLimitMs { get; set; } = 10_000;

    public int Outstanding => Volatile.Read(ref _state) == Open ? queue.Outstanding : _last.Count;

    public int WakeCount => queue.WakeCount;

    public bool CanBeWoken => queue.CanBeWoken;

    public bool TrySubmit(in BlockRequest request)
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        if (TryEnter())
        {
            try
            {
                return queue.TrySubmit(request);
            }
            finally
            {
                Leave();
            }
        }

        if (Volatile.Read(ref _state) != Ended || _last.Count >= depth)
            return false;
        _last.Enqueue(new BlockCompletion(request.Cookie, Memory.Errno.ESHUTDOWN, 0));
        return true;
    }

    public int Poll(Span<BlockCompletion> completions)
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        if (TryEnter())
        {
            try
            {
                return queue.Poll(completions);
            }
            finally
            {
                Leave();
            }
        }

        int count = 0;
        if (Volatile.Read(ref _state) == Ended)
        {
            while (count < completions.Length && _last.TryDequeue(out BlockCompletion completion))
                completions[count++] = completion;
        }

        return count;
    }

    public void Wait(int timeoutMicroseconds)
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        if (TryEnter())
        {
            try
            {
                queue.Wait(timeoutMicroseconds);
            }
            finally
            {
                Leave();
            }
        }
        else if (timeoutMicroseconds > 0 && (Volatile.Read(ref _state) != Ended || _last.Count == 0))
        {
            Thread.Sleep(1);
        }
    }

    public void Interrupt() => queue.Interrupt();

    /// <summary>
    /// Waits until what is outstanding has ended, with limits (<see cref="LocalBlkdev.OpenQueue"/>), and drops the
    /// completions.
    /// </summary>
    public void Dispose()
    {
        if (_isDisposed)
            return;
        _isDisposed = true;
        Drain();
        export.Close(this);
    }

    /// <summary>Takes the queue from its user. Under the lock of the export.</summary>
    public void End(bool isPolledOn)
    {
        Volatile.Write(ref _state, Closing);
        Interlocked.MemoryBarrierProcessWide();
        var spin = default(SpinWait);
        while (Volatile.Read(ref _isInside))
        {
            queue.Interrupt();
            spin.SpinOnce();
        }

        foreach (BlockCompletion completion in queue.End(isPolledOn))
            _last.Enqueue(completion);
        // Publishes the completions.
        Volatile.Write(ref _state, Ended);
    }

    private void Drain()
    {
        long limit = MonotonicClock.Milliseconds + DrainLimitMs;
        var completions = new BlockCompletion[64];
        while (TryEnter())
        {
            try
            {
                if (queue.Outstanding == 0 || queue.IsBackendAway || MonotonicClock.Milliseconds > limit)
                    return;
                if (queue.Poll(completions) == 0)
                    queue.Wait(DrainWaitMicroseconds);
            }
            finally
            {
                Leave();
            }
        }
    }

    private bool TryEnter()
    {
        Volatile.Write(ref _isInside, true);
        if (Volatile.Read(ref _state) == Open)
            return true;
        Leave();
        return false;
    }

    private void Leave() => Volatile.Write(ref _isInside, false);
}
