using Cbd.Memory;

namespace Cbd.Blocks;

/// <summary>
/// One interface for everything that has blocks: a local disk, and a blkdev that reaches a disk through a channel.
/// Handlers drive disks with it, exports drive blkdevs with it, and an export can sit on a disk directly.
/// </summary>
/// <remarks>All members may be called by any thread. Dispose the queues before the device.</remarks>
public interface IBlockDevice : IDisposable
{
    /// <summary>Size, block sizes and abilities now. May change (growth); read it again, it is cheap. Any thread.</summary>
    BlockDeviceInfo Info { get; }

    /// <summary>
    /// Number of queues that <see cref="OpenQueue"/> can give out at once; <see cref="int.MaxValue"/> if unlimited.
    /// </summary>
    int MaxQueues { get; }

    /// <summary>
    /// Opens one independent queue.
    /// </summary>
    /// <param name="depth">
    /// Requests that the caller wants outstanding at once, at most; &gt; 0. A queue may take fewer.
    /// </param>
    /// <param name="buffers">
    /// The memory that payload lies in, if it is always the same: it can be registered with the kernel then. Other memory
    /// stays allowed.
    /// </param>
    /// <exception cref="ArgumentOutOfRangeException">The depth is not above 0.</exception>
    /// <exception cref="CbdException">All queues are open, or the kernel has no room for another one.</exception>
    IBlockQueue OpenQueue(int depth, NativeBuffer? buffers = null);
}

/// <summary>
/// One queue: requests in, completions out, in any order. Single-threaded: one thread uses it at a time. Does not
/// block except in <see cref="Wait"/>, and allocates nothing per request.
/// </summary>
/// <remarks>
/// <para>Requests in flight at once have no order among each other. A request is retried inside (short I/O, EINTR, a channel
/// reset) until it is wholly done or has failed: a completion is for the whole request. The memory of its payload
/// belongs to the queue from a successful <see cref="TrySubmit"/> until its completion was returned by
/// <see cref="Poll"/>.</para>
/// <para>Dispose ends what is outstanding, drops its completions, and touches no memory of it afterwards. A disk
/// waits until its requests are done. After it all members but <see cref="Interrupt"/> and a second Dispose throw
/// <see cref="ObjectDisposedException"/>.</para>
/// </remarks>
public interface IBlockQueue : IDisposable
{
    /// <summary>Requests submitted whose completion <see cref="Poll"/> has not returned yet.</summary>
    int Outstanding { get; }

    /// <summary>
    /// Takes a request, or returns false if there is no room for it now (poll, and offer it again). The request must
    /// be inside the device and fit <see cref="BlockDeviceInfo"/>; what does not is completed with EINVAL, and a
    /// write to a read-only device with EPERM. Nothing may have reached the device before the next Poll. Errors come with
    /// the completion.
    /// </summary>
    bool TrySubmit(in BlockRequest request);

    /// <summary>
    /// Makes progress and returns how many completions it stored. Call it while anything is outstanding, and at least
    /// once a second otherwise.
    /// </summary>
    /// <param name="completions">Where they go; with no room only progress is made.</param>
    int Poll(Span<BlockCompletion> completions);

    /// <summary>
    /// Sleeps until a completion may be there, another thread called <see cref="Interrupt"/>, or the time is over.
    /// May return early.
    /// </summary>
    /// <param name="timeoutMicroseconds">The longest sleep; 0 or less: none.</param>
    void Wait(int timeoutMicroseconds);

    /// <summary>Ends a <see cref="Wait"/>, or the next one. Any thread, also after Dispose, where it does nothing.</summary>
    void Interrupt();
}

/// <summary>
/// A queue whose device lies in memory: reads are copied from there, and writes to where it says. One of them at a time,
/// each to its end, and nothing is submitted meanwhile. The thread of the queue.
/// </summary>
public interface IBlocksInMemory
{
    /// <summary>Begins a read. False if it may not have the range; submit it then, for its error.</summary>
    bool TryBeginRead(long offset, long length);

    /// <summary>
    /// The next bytes, as many as lie together, to be copied; <see cref="ConfirmRead"/> says whether the copy is worth
    /// something, for others may store there.
    /// </summary>
    ReadOnlySpan<byte> NextToRead();

    /// <summary>Whether the device held what was copied since <see cref="NextToRead"/>; if not, that gives it once more.</summary>
    bool ConfirmRead();

    /// <summary>Begins a write. False if it cannot be done so; submit it then.</summary>
    bool TryBeginWrite(long offset, long length);

    /// <summary>Where the next bytes go, as many as lie together. Nobody sees them before <see cref="EndWrite"/>.</summary>
    Span<byte> NextToWrite();

    /// <summary>
    /// Gives the device the bytes of the write, all of which were stored where <see cref="NextToWrite"/> said. Others may see
    /// some of them before the rest.
    /// </summary>
    void EndWrite();

    /// <summary>The write is not done, and the device is as it was.</summary>
    void AbandonWrite();
}

/// <summary>A queue that tells how often it had to wake a sleeper that serves it.</summary>
public interface IWakeCount
{
    /// <summary>Grows with every wake. The thread of the queue.</summary>
    int WakeCount { get; }

    /// <summary>Whoever answers can wake this side when it sleeps; else it looks again after sleeps that grow.</summary>
    bool CanBeWoken { get; }
}

/// <summary>A queue whose sleep a descriptor can end too: for a pump that serves sockets with it.</summary>
public interface IDescriptorWait
{
    /// <summary>
    /// Sleeps like <see cref="IBlockQueue.Wait"/>, and no longer than until the descriptor is readable (always the same
    /// one). False at once if that cannot be done here: use short sleeps then, and ask again later.
    /// </summary>
    bool TryWait(int descriptor, int timeoutMicroseconds);
}

/// <summary>A queue whose sleep a ring of the caller can hold: for a pump that gets its requests through io_uring.</summary>
public interface IRingWait
{
    /// <summary>
    /// Submits what was prepared in the caller's ring and sleeps like <see cref="IBlockQueue.Wait"/>, and no longer than
    /// until a completion is in that ring. <paramref name="doorbell"/> is always the same one. False at once, with
    /// nothing submitted, if that cannot be done here: use short sleeps then, and ask again later.
    /// </summary>
    bool TryWait(RingDoorbell doorbell, int timeoutMicroseconds);
}

/// <summary>What a block device is. Sizes and granularities in bytes.</summary>
public sealed record BlockDeviceInfo
{
    /// <summary>Size; a multiple of <see cref="LogicalBlockBytes"/>, &gt; 0.</summary>
    public required long SizeBytes { get; init; }

    /// <summary>Smallest addressable unit: offsets and lengths are multiples of it. 512 or 4096.</summary>
    public int LogicalBlockBytes { get; init; } = 512;

    /// <summary>Unit that is written without read-modify-write; a multiple of the logical block.</summary>
    public int PhysicalBlockBytes { get; init; } = 4096;

    /// <summary>Requests that change the device are answered with EPERM.</summary>
    public bool ReadOnly { get; init; }

    /// <summary>Discard does something; otherwise it completes with success and does nothing.</summary>
    public bool CanDiscard { get; init; }

    /// <summary>Write-zeroes is faster than writing zeroes.</summary>
    public bool CanZeroFast { get; init; }

    /// <summary>The hint that a range will be read does something; otherwise it is not offered to clients.</summary>
    public bool CanCache { get; init; }

    /// <summary>Seeking takes time: requests are best done in the order of their offsets.</summary>
    public bool IsRotational { get; init; }

    /// <summary>Unit of discards.</summary>
    public int DiscardGranularityBytes { get; init; } = 4096;

    /// <summary>Largest read, write or block-status payload of one request, bytes.</summary>
    public int MaxTransferBytes { get; init; } = 32 << 20;

    /// <summary>
    /// What is the same as long as acknowledged but unflushed writes cannot have been lost: boot id and disk identity
    /// hashed together, random for each life of a memory disk. Of a blkdev, the first half of that, and since which session.
    /// </summary>
    public Guid DurabilityId { get; init; }
}

/// <summary>
/// One request. <paramref name="Cookie"/> comes back with the completion. <paramref name="Offset"/> and
/// <paramref name="Length"/> are bytes (flush: 0 and 0). <paramref name="Data"/> is the payload of a write, or the
/// room for that of a read (exactly Length bytes) or of a block-status (room for at least one
/// <see cref="BlockExtent"/>); default for the others.
/// </summary>
/// <param name="Cookie">Any number of the caller's.</param>
/// <param name="Operation">What to do.</param>
/// <param name="Flags">How; a flag that is not known is answered with EINVAL.</param>
/// <param name="Offset">First byte on the device; a multiple of the logical block.</param>
/// <param name="Length">Bytes; a multiple of the logical block, above 0 but for a flush.</param>
/// <param name="Data">The payload.</param>
public readonly record struct BlockRequest(
    ulong Cookie, BlockOperation Operation, BlockFlags Flags, long Offset, long Length, BufferSlice Data);

/// <summary>
/// The end of one request. <paramref name="Error"/> is 0 or a positive errno; <paramref name="Result"/> the bytes of
/// payload stored for read and block-status, else 0.
/// </summary>
/// <param name="Cookie">The request's.</param>
/// <param name="Error">0 or a positive errno of Linux.</param>
/// <param name="Result">Bytes of payload.</param>
public readonly record struct BlockCompletion(ulong Cookie, int Error, int Result);
