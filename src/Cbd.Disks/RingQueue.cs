using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>
/// The io_uring engine's queue: reads, writes, flushes and what fallocate does go through a ring of its own, submitted
/// by each Poll; the calls that have no ring operation go to the disk's worker.
/// </summary>
internal sealed class RingQueue : DescriptorQueue
{
    private const ulong WakeUserData = ulong.MaxValue;

    private readonly IoUring _ring;
    private bool _wakeArmed;

    private RingQueue(DescriptorDisk disk, IoUring ring, int depth)
        : base(disk, depth) => _ring = ring;

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

    public override bool TrySubmit(in BlockRequest request)
    {
        if (!TryTake(request, out PendingRequest? pending))
            return false;
        if (pending is not null)
            Issue(pending);
        return true;
    }

    public override int Poll(Span<BlockCompletion> completions)
    {
        ThrowIfDisposed();
        if (_ring.PreparedCount > 0 || _ring.NeedsEnter)
            _ring.Enter();
        int count = 0;
        while (count < completions.Length)
        {
            if (TryTakeDone(ref completions[count]))
                count++;
            else if (_ring.TryReap(out ulong userData, out int result))
                Advance(userData, result);
            else
                break;
        }
        return count;
    }

    public override void Wait(int timeoutMicroseconds)
    {
        ThrowIfDisposed();
        if (HasDone || _ring.HasCompletion)
            return;
        if (Waker.PrepareSleep() && !HasDone && timeoutMicroseconds > 0)
        {
            if (!_wakeArmed)
                _wakeArmed = _ring.PreparePoll(Waker, WakeUserData);
            _ring.EnterAndWait(timeoutMicroseconds);
        }
        Waker.EndSleep();
    }

    protected override void EndEngine() => _ring.Dispose();

    /// <summary>Starts the request's next step, or what is left of the last one.</summary>
    private void Issue(PendingRequest pending)
    {
        ref readonly BlockRequest request = ref pending.Request;
        ulong place = (ulong)pending.Index;
        bool prepared;
        if (Disk.NeedsSyncInTurn(pending))
        {
            Disk.Workers.Enqueue(pending);
            return;
        }

        if (pending.Syncing)
        {
            prepared = _ring.PrepareSyncData(place);
        }
        else if (request.Operation == BlockOperation.Read)
        {
            prepared = _ring.PrepareRead(Disk.NextPart(pending), request.Offset + pending.DoneBytes, place);
        }
        else if (request.Operation == BlockOperation.Write)
        {
            bool durable = (request.Flags & BlockFlags.ForceUnitAccess) != 0;
            prepared = _ring.PrepareWrite(Disk.NextPart(pending), request.Offset + pending.DoneBytes, durable, place);
        }
        else if (request.Operation == BlockOperation.Flush)
        {
            pending.Syncing = true;
            prepared = _ring.PrepareSyncData(place);
        }
        else if (Disk.GetAllocateMode(request) is { } mode)
        {
            prepared = _ring.PrepareAllocate(mode, request.Offset, request.Length, place);
        }
        else
        {
            Disk.Workers.Enqueue(pending);
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
            Waker.Drain();
            return;
        }
        PendingRequest pending = At(userData);
        if (-result is Errno.EINTR or Errno.EAGAIN)
        {
            Issue(pending);
            return;
        }
        if (result == -Errno.ECANCELED)
        {
            // The kernel could not have a thread for it. The worker is there.
            Disk.Workers.Enqueue(pending);
            return;
        }
        if (pending.Syncing)
        {
            Complete(pending, -Math.Min(result, 0));
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
        int error = Disk.AdvanceTransfer(pending, result);
        if (error != 0 || pending.DoneBytes == pending.Request.Length)
            Complete(pending, error);
        else
            Issue(pending);
    }

    private void AdvanceAllocate(PendingRequest pending, int result)
    {
        if (DescriptorDisk.IsUnsupported(-result))
        {
            // The worker knows the other ways, down to writing zeroes.
            Disk.Workers.Enqueue(pending);
        }
        else if (result == 0 && (pending.Request.Flags & BlockFlags.ForceUnitAccess) != 0)
        {
            pending.Syncing = true;
            Issue(pending);
        }
        else
        {
            Complete(pending, -Math.Min(result, 0));
        }
    }
}
