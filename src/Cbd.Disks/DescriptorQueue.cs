using System.Runtime.CompilerServices;
using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>
/// What the queues of a <see cref="DescriptorDisk"/> have in common: the places for requests in flight, the check of a
/// request, completions, and their hand-over by the disk's workers. How a request is done is the engine's.
/// </summary>
/// <remarks>
/// A place goes from the free list to the engine and, done, to one of two lists: the queue's own, or that of the workers.
/// Nothing is allocated, locked or called virtually per request here.
/// </remarks>
internal abstract class DescriptorQueue : IBlockQueue
{
    private readonly PendingRequest[] _places;
    private FinishedList _finished;
    private PendingRequest? _free;
    private PendingRequest? _done;
    private bool _disposed;

    protected DescriptorQueue(DescriptorDisk disk, int depth)
    {
        Disk = disk;
        _places = new PendingRequest[depth];
        for (int i = depth - 1; i >= 0; i--)
            _free = _places[i] = new PendingRequest(this, i) { Next = _free };
    }

    public int Outstanding { get; private set; }

    protected DescriptorDisk Disk { get; }

    /// <summary>Ends the queue's sleep.</summary>
    protected WakeEvent Waker { get; } = new();

    /// <summary>A completion is there to be taken.</summary>
    protected bool HasDone => _done is not null || !_finished.IsEmpty;

    public abstract bool TrySubmit(in BlockRequest request);

    public abstract int Poll(Span<BlockCompletion> completions);

    public abstract void Wait(int timeoutMicroseconds);

    public void Interrupt() => Waker.Signal();

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
        EndEngine();
        Waker.Dispose();
        Disk.CountClosedQueue();
    }

    protected void ThrowIfDisposed() => ObjectDisposedException.ThrowIf(_disposed, this);

    /// <summary>Takes back a request that a worker is done with. Any thread.</summary>
    internal void HandBack(PendingRequest pending)
    {
        _finished.Push(pending);
        Waker.Signal();
    }

    /// <summary>Nothing is outstanding any more: frees what the engine has.</summary>
    protected virtual void EndEngine()
    {
    }

    /// <summary>
    /// Takes a request into a free place; false if there is none. <paramref name="pending"/> is for the engine to begin;
    /// null if the request may not be: then its completion is there.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    protected bool TryTake(in BlockRequest request, out PendingRequest? pending)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        pending = _free;
        if (pending is null)
            return false;
        _free = pending.Next;
        pending.Start(request);
        Outstanding++;
        int error = Disk.Check(request);
        if (error != 0)
        {
            Complete(pending, error);
            pending = null;
        }
        return true;
    }

    /// <summary>The request is done, or has failed with an errno. The queue's thread.</summary>
    protected void Complete(PendingRequest pending, int error)
    {
        pending.End(error);
        pending.Next = _done;
        _done = pending;
    }

    /// <summary>Gives out the next completion and frees its place; false if there is none.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    protected bool TryTakeDone(ref BlockCompletion completion)
    {
        _done ??= _finished.TakeAll();
        if (_done is not { } pending)
            return false;
        _done = pending.Next;
        completion = new BlockCompletion(pending.Request.Cookie, pending.Error, pending.Result);
        pending.Request = default;
        pending.Next = _free;
        _free = pending;
        Outstanding--;
        return true;
    }

    /// <summary>The request in that place, whose number came back from the kernel.</summary>
    protected PendingRequest At(ulong place) => place < (ulong)_places.Length
        ? _places[(int)place]
        : throw new InvalidOperationException($"the kernel completed request {place} of {_places.Length}");
}
