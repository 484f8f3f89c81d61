using Cbd.Blocks;

namespace Cbd.Disks;

/// <summary>The pread engine's queue: every request is done by one of the disk's worker threads.</summary>
internal sealed class WorkerQueue(DescriptorDisk disk, int depth) : DescriptorQueue(disk, depth)
{
    public override bool TrySubmit(in BlockRequest request)
    {
        if (!TryTake(request, out PendingRequest? pending))
            return false;
        if (pending is not null)
            Disk.Workers.Enqueue(pending);
        return true;
    }

    public override int Poll(Span<BlockCompletion> completions)
    {
        ThrowIfDisposed();
        int count = 0;
        while (count < completions.Length && TryTakeDone(ref completions[count]))
            count++;
        return count;
    }

    public override void Wait(int timeoutMicroseconds)
    {
        ThrowIfDisposed();
        if (!HasDone)
            Waker.Wait(timeoutMicroseconds);
    }
}
