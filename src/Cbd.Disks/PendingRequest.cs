using Cbd.Blocks;

namespace Cbd.Disks;

/// <summary>
/// One place for a request in a queue of a <see cref="DescriptorDisk"/>, used again and again. It belongs to one at a
/// time: to its queue's thread, to the kernel, to the disk's workers, and, done, to the completion list.
/// </summary>
internal sealed class PendingRequest(DescriptorQueue queue, int index)
{
    /// <summary>Number of this place in its queue.</summary>
    public readonly int Index = index;

    public BlockRequest Request;

    /// <summary>Payload bytes that were transferred so far.</summary>
    public int DoneBytes;

    /// <summary>0 or a positive errno, once done.</summary>
    public int Error;

    /// <summary>Bytes of payload stored, once done.</summary>
    public int Result;

    /// <summary>The request's own part is done; what runs is the flush that makes it durable.</summary>
    public bool Syncing;

    /// <summary>The next one in whichever list it is in.</summary>
    public PendingRequest? Next;

    public void Start(in BlockRequest request)
    {
        Request = request;
        DoneBytes = 0;
        Error = 0;
        Result = 0;
        Syncing = false;
    }

    /// <summary>The request is done, or has failed with an errno.</summary>
    public void End(int error)
    {
        Error = error;
        Result = error == 0 && Request.Operation == BlockOperation.Read ? DoneBytes : 0;
    }

    /// <summary>Called by a worker thread when the request is done.</summary>
    public void HandBack() => queue.HandBack(this);
}

/// <summary>
/// Requests that other threads are done with. Any thread pushes; one thread takes all at once, so that no element can
/// come back while it is looked at. The order among them is lost, which completions do not have anyway.
/// </summary>
internal struct FinishedList
{
    private PendingRequest? _head;

    public readonly bool IsEmpty => Volatile.Read(in _head) is null;

    public void Push(PendingRequest request)
    {
        PendingRequest? head = Volatile.Read(ref _head);
        while (true)
        {
            request.Next = head;
            PendingRequest? seen = Interlocked.CompareExchange(ref _head, request, head);
            if (ReferenceEquals(seen, head))
                return;
            head = seen;
        }
    }

    /// <summary>All that were pushed, linked by <see cref="PendingRequest.Next"/>; null if none.</summary>
    public PendingRequest? TakeAll() => IsEmpty ? null : Interlocked.Exchange(ref _head, null);
}
