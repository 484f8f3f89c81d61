using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>
/// The io_uring engine's queue: reads, writes, flushes and what fallocate does go through a ring of its own, submitted
/// by each Poll; the calls that have no ring operation go to the disk's worker.
/// </summary>
internal sealed class RingQueue : IBlockQueue, IWorkQueue
{
    private const ulong WakeUserData = ulong.MaxValue;

    private readonly DescriptorDisk _disk;
    private readonly IoUring _ring;
    private readonly WakeEvent _wake = new();
    private readonly PendingRequest[] _places;
    private FinishedList _finished;
    private PendingRequest? _free;
    private PendingRequest? _done;
    private bool _wakeArmed;
    private bool _disposed;

    private RingQueue(DescriptorDisk disk, IoUring ring, int depth)
    {
        _disk = disk;
        _ring = ring;
        _places = new PendingRequest[depth];
        for (int i = depth - 1; i >= 0; i--)
            _free = _places[i] = new PendingRequest(this, i) { Next = _free };
    }

    /// <summary>Returns 0 or a negative errno.</summary>
    public static int TryCreate(DescriptorDisk disk, int depth, NativeBuffer? buffers, out RingQueue? queue)
    {
        queue = null;
        // One more entry than places: the poll of the wake event.
        int error = IoUring.TryCreate(depth + 1, out IoUring? ring);
        if (error != 0)
            return error;
        try
        {
            error = ring!.RegisterFile(disk.File);
            if (error != 0)
                return error;
            // Registration may fail, for instance at the limit of locked memory; the kernel then pins per request.
            if (buffers is not null && disk.IsDirect)
                _ = ring.RegisterBuffer(buffers);
            queue = new RingQueue(disk, ring, depth);
            return 0;
        }
        finally
        {
            if (queue is null)
                ring!.Dispose();
        }
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
        int error = _disk.Check(request);
        if (error == 0)
            Issue(pending);
        else
            Finish(pending, error);
        return true;
    }

    public int Poll(Span<BlockCompletion> completions)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (_ring.PreparedCount > 0 || _ring.NeedsEnter)
            _ring.Enter();
        int count = 0;
        while (count < completions.Length)
        {
            _done ??= _finished.TakeAll();
            if (_done is { } pending)
            {
                _done = pending.Next;
                completions[count++] = new BlockCompletion(pending.Request.Cookie, pending.Error, pending.Result);
                pending.Request = default;
                pending.Next = _free;
                _free = pending;
            }
            else if (_ring.TryReap(out ulong userData, out int result))
            {
                Advance(userData, result);
            }
            else
            {
                break;
            }
        }
        Outstanding -= count;
        return count;
    }

    public void Wait(int timeoutMicroseconds)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (_done is not null || !_finished.IsEmpty || _ring.HasCompletion)
            return;
        if (_wake.PrepareSleep() && _finished.IsEmpty && timeoutMicroseconds > 0)
        {
            if (!_wakeArmed)
                _wakeArmed = _ring.PreparePoll(_wake, WakeUserData);
            _ring.EnterAndWait(timeoutMicroseconds);
        }
        _wake.EndSleep();
    }

    public void Interrupt() => _wake.Signal();

    void IWorkQueue.Finish(PendingRequest request)
    {
        _finished.Push(request);
        _wake.Signal();
    }

    /// <summary>Waits for what is outstanding: the kernel and the workers still use its memory.</summary>
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
        _ring.Dispose();
        _wake.Dispose();
        _disk.CountClosedQueue();
    }

    /// <summary>Starts the request's next step, or what is left of the last one.</summary>
    private void Issue(PendingRequest pending)
    {
        ref readonly BlockRequest request = ref pending.Request;
        ulong place = (ulong)pending.Index;
        bool prepared;
        if (_disk.NeedsSyncInTurn(pending))
        {
            _disk.Workers.Enqueue(pending);
            return;
        }

        if (pending.Syncing)
        {
            prepared = _ring.PrepareSyncData(place);
        }
        else if (request.Operation == BlockOperation.Read)
        {
            prepared = _ring.PrepareRead(_disk.NextPart(pending), request.Offset + pending.DoneBytes, place);
        }
        else if (request.Operation == BlockOperation.Write)
        {
            bool durable = (request.Flags & BlockFlags.ForceUnitAccess) != 0;
            prepared = _ring.PrepareWrite(_disk.NextPart(pending), request.Offset + pending.DoneBytes, durable, place);
        }
        else if (request.Operation == BlockOperation.Flush)
        {
            pending.Syncing = true;
            prepared = _ring.PrepareSyncData(place);
        }
        else if (_disk.GetAllocateMode(request) is { } mode)
        {
            prepared = _ring.PrepareAllocate(mode, request.Offset, request.Length, place);
        }
        else
        {
            _disk.Workers.Enqueue(pending);
            return;
        }
        if (!prepared)
            throw new InvalidOperationException("the ring has fewer entries than the queue has requests");
    }

    private void Advance(ulong userData, int result)
    {
        if (userData == WakeUserData)
        {
            _wakeArmed = false;
            _wake.Drain();
            return;
        }
        if (userData >= (ulong)_places.Length)
            throw new InvalidOperationException($"the ring completed request {userData} of {_places.Length}");
        PendingRequest pending = _places[(int)userData];
        if (-result is Errno.EINTR or Errno.EAGAIN)
        {
            Issue(pending);
            return;
        }
        if (pending.Syncing)
        {
            Finish(pending, -Math.Min(result, 0));
            return;
        }
        switch (pending.Request.Operation)
        {
            case BlockOperation.Read:
            case BlockOperation.Write:
                AdvanceTransfer(pending, result);
                break;
            default:
                AdvanceAllocate(pending, result);
                break;
        }
    }

    private void AdvanceTransfer(PendingRequest pending, int result)
    {
        int error = _disk.AdvanceTransfer(pending, result);
        if (error != 0 || pending.DoneBytes == pending.Request.Length)
            Finish(pending, error);
        else
            Issue(pending);
    }

    private void AdvanceAllocate(PendingRequest pending, int result)
    {
        if (DescriptorDisk.IsUnsupported(-result))
        {
            // The worker knows the other ways, down to writing zeroes.
            _disk.Workers.Enqueue(pending);
        }
        else if (result == 0 && (pending.Request.Flags & BlockFlags.ForceUnitAccess) != 0)
        {
            pending.Syncing = true;
            Issue(pending);
        }
        else
        {
            Finish(pending, -Math.Min(result, 0));
        }
    }

    private void Finish(PendingRequest pending, int error)
    {
        pending.Error = error;
        pending.Result = error == 0 && pending.Request.Operation == BlockOperation.Read ? pending.DoneBytes : 0;
        pending.Next = _done;
        _done = pending;
    }
}
