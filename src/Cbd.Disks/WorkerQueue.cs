using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>The pread engine's queue: every request is done by one of the disk's worker threads.</summary>
internal sealed class WorkerQueue : IBlockQueue, IWorkQueue
{
    private readonly DescriptorDisk _disk;
    private readonly WakeEvent _wake = new();
    private FinishedList _finished;
    private PendingRequest? _free;
    private PendingRequest? _done;
    private bool _disposed;

    public WorkerQueue(DescriptorDisk disk, int depth)
    {
        _disk = disk;
        for (int i = 0; i < depth; i++)
            _free = new PendingRequest(this, i) { Next = _free };
    }

    public int Outstanding { get; private set; }

    public bool TrySubmit(in BlockRequest request)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        PendingRequest? pending = _free;
        if (pending is null)
            return false;
        _free = pending.Next;
        pending.Start(request);
        Outstanding++;
        pending.Error = _disk.Check(request);
        if (pending.Error == 0)
        {
            _disk.Workers.Enqueue(pending);
            return true;
        }
        pending.Next = _done;
        _done = pending;
        return true;
    }

    public int Poll(Span<BlockCompletion> completions)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        int count = 0;
        while (count < completions.Length)
        {
            _done ??= _finished.TakeAll();
            if (_done is not { } pending)
                break;
            _done = pending.Next;
            completions[count++] = new BlockCompletion(pending.Request.Cookie, pending.Error, pending.Result);
            pending.Request = default;
            pending.Next = _free;
            _free = pending;
        }
        Outstanding -= count;
        return count;
    }

    public void Wait(int timeoutMicroseconds)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (_done is null && _finished.IsEmpty)
            _wake.Wait(timeoutMicroseconds);
    }

    public void Interrupt() => _wake.Signal();

    void IWorkQueue.Finish(PendingRequest request)
    {
        _finished.Push(request);
        _wake.Signal();
    }

    /// <summary>Waits for what is outstanding: the workers still use its memory.</summary>
    public void Dispose()
    {
        if (_disposed)
            return;
        var completions = new BlockCompletion[1];
        while (Outstanding > 0)
        {
            if (Poll(completions) == 0)
                Wait(int.MaxValue);
        }
        _disposed = true;
        _wake.Dispose();
        _disk.CountClosedQueue();
    }
}
