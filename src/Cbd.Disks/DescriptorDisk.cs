using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>
/// A disk behind one open file description: a regular file or a block device. The description holds the disk's lock
/// and does all its I/O.
/// </summary>
public abstract class DescriptorDisk : Disk
{
    private readonly Lock _syncLock = new();
    private int _syncError;
    private long _end = long.MaxValue;
    private const int PreadThreads = 4;
    private const int ZeroPieceBytes = 1 << 20;

    private static readonly Lazy<NativeBuffer> s_zeroes = new(() => new NativeBuffer(ZeroPieceBytes));

    private readonly DiskEngine _engine;
    private readonly int _memoryAlignmentMask;
    private int _openQueues;
    private bool _disposed;

    private protected DescriptorDisk(DiskOptions options, OpenedDisk opened)
        : base(options)
    {
        File = opened.File;
        IsDirect = opened.IsDirect;
        _memoryAlignmentMask = opened.IsDirect ? opened.DirectMemoryAlignmentBytes - 1 : 0;
        _engine = options.Engine;
        Engine = ChooseEngine(options);
        Workers = new DiskWorkers(this, PreadThreads);
        Identity = opened.Identity;
        OldIdentity = opened.OldIdentity;
        Info = opened.Info;
    }

    /// <summary>I/O goes past the page cache: an acknowledged write is in the disk, if not on its medium.</summary>
    internal bool IsDirect { get; }

    public override string Identity { get; }

    /// <inheritdoc/>
    public override string OldIdentity { get; }

    /// <inheritdoc/>
    public override FileIdentity? OpenFile => File.TryGetStatus(out FileStatus status) == 0 ? new FileIdentity(status.Device, status.Inode) : null;

    public override string Engine { get; }

    internal DiskFile File { get; }

    internal DiskWorkers Workers { get; }

    public override IBlockQueue OpenQueue(int depth, NativeBuffer? buffers = null)
    {
        CheckDepth(depth);
        Interlocked.Increment(ref _openQueues);
        int error = 0;
        try
        {
            if (Engine == "pread")
                return new WorkerQueue(this, depth);
            error = RingQueue.TryCreate(this, depth, buffers, out RingQueue? queue);
            if (error == 0)
                return queue!;
            if (_engine == DiskEngine.Auto)
                return new WorkerQueue(this, depth);
        }
        catch
        {
            CountClosedQueue();
            throw;
        }
        CountClosedQueue();
        throw new CbdException(
            CbdErrorKind.Exhausted,
            $"disk {Path}: io_uring for a queue of {depth} requests failed (errno {-error}); raise the limits of locked memory and open files, or use the engine pread");
    }

    public override bool IsBuffered => !IsDirect;

    /// <summary>Ends the workers after their last request, then the lock.</summary>
    public override void Dispose()
    {
        GC.SuppressFinalize(this);
        Workers.Dispose();
        // With a queue left open there may be I/O in flight, which the lock must outlive: it then ends with the
        // description.
        if (!_disposed && Volatile.Read(ref _openQueues) == 0)
            File.Unlock();
        _disposed = true;
        File.Dispose();
    }

    /// <summary>A queue has drained and let go of the file.</summary>
    internal void CountClosedQueue() => Interlocked.Decrement(ref _openQueues);

    /// <summary>0, or the errno that the request is answered with.</summary>
    internal int Check(in BlockRequest request)
    {
        int error = RequestGate.Check(Info, request);
        long last = request.Offset + request.Length;
        if (error == 0 && request.Operation is not (BlockOperation.BlockStatus or BlockOperation.Cache) &&
            (request.Operation is BlockOperation.Discard or BlockOperation.WriteZeroes || last > EndBytes))
        {
            // fallocate succeeds behind the end of a file, too.
            LookForEnd();
            if (last > EndBytes)
                return Errno.EIO;
        }

        bool transfers = request.Operation is BlockOperation.Read or BlockOperation.Write;
        return error == 0 && transfers && ((int)request.Data.Address & _memoryAlignmentMask) != 0 ? Errno.EINVAL : error;
    }

    /// <summary>Where the disk was seen to end, short of what is served; <see cref="long.MaxValue"/> if it has all of that.</summary>
    private protected long EndBytes => Volatile.Read(ref _end);

    /// <summary>Looks whether the disk is shorter than what is served, where that costs little. Any thread.</summary>
    private protected abstract void LookForEnd();

    /// <summary>The disk was seen to have a size. What it does not have of that which is served fails, until it has its length again.</summary>
    /// <param name="servedBytes">What was served before the look: a disk grows first, and is served larger then.</param>
    /// <param name="sizeBytes">What it had.</param>
    private protected void NoteSize(long servedBytes, long sizeBytes) =>
        Volatile.Write(ref _end, sizeBytes < servedBytes ? sizeBytes : long.MaxValue);

    /// <summary>What is to be said of a disk that is too short; null if it is not.</summary>
    private protected string? DescribeEnd() => EndBytes is var end && end == long.MaxValue ? null
        : $"disk {Path} became shorter: it has {end} of {Info.SizeBytes} bytes, and what lies behind fails with EIO: bring the data back from a copy, in its full length";

    /// <summary>How fallocate does the request, or null if it takes other calls.</summary>
    internal abstract AllocateMode? GetAllocateMode(in BlockRequest request);

    /// <summary>Does a checked request with blocking calls and stores its end. Worker threads.</summary>
    internal void Execute(PendingRequest pending)
    {
        ref readonly BlockRequest request = ref pending.Request;
        int error;
        switch (request.Operation)
        {
            case BlockOperation.Read:
            case BlockOperation.Write:
                error = Transfer(pending);
                break;
            case BlockOperation.Flush:
                error = Sync();
                break;
            case BlockOperation.Discard:
                error = Discard(request.Offset, request.Length);
                break;
            case BlockOperation.WriteZeroes:
                error = WriteZeroes(request.Offset, request.Length, request.Flags);
                break;
            case BlockOperation.BlockStatus:
                pending.Error = 0;
                pending.Result = Describe(request.Offset, request.Length, request.Data.Span);
                return;
            default:
                if (!IsDirect)
                    File.WillNeed(request.Offset, request.Length);
                error = 0;
                break;
        }
        bool syncs = (request.Flags & BlockFlags.ForceUnitAccess) != 0 &&
            (request.Operation is BlockOperation.Discard or BlockOperation.WriteZeroes ||
            (request.Operation == BlockOperation.Write && IsBuffered));
        if (error == 0 && syncs)
            error = Sync();
        pending.End(error);
    }

    /// <summary>
    /// Makes what was written durable; returns 0 or an errno. Through the page cache the kernel reports the loss of data
    /// once per open file description, to one of those that ask: so they ask one after another, and once it was
    /// reported, all are told.
    /// </summary>
    public override int Sync()
    {
        // Nothing was written, and file systems that cannot be written know no fsync.
        if (Info.ReadOnly)
            return 0;
        if (IsDirect)
            return -File.SyncData();
        lock (_syncLock)
        {
            if (_syncError == 0)
                _syncError = -File.SyncData();
            return _syncError;
        }
    }

    /// <summary>Whether the request has to go through <see cref="Sync"/>.</summary>
    internal bool NeedsSyncInTurn(PendingRequest pending) =>
        (IsBuffered || Info.ReadOnly) &&
        (pending.Syncing || pending.Request.Operation == BlockOperation.Flush ||
        (pending.Request.Operation == BlockOperation.Write && (pending.Request.Flags & BlockFlags.ForceUnitAccess) != 0));

    /// <inheritdoc/>
    public override void ForgetFlushError()
    {
        lock (_syncLock)
            _syncError = 0;
    }

    /// <summary>Frees a range; returns 0 or an errno. Where it cannot be done, it need not be done.</summary>
    private protected abstract int Discard(long offset, long length);

    /// <summary>Makes a range zeroes; returns 0 or an errno.</summary>
    private protected abstract int WriteZeroes(long offset, long length, BlockFlags flags);

    /// <summary>Encodes what the range holds, as many extents as fit; returns the bytes stored.</summary>
    private protected virtual int Describe(long offset, long length, Span<byte> extents)
    {
        new BlockExtent(length, BlockExtentState.Data).Encode(extents);
        return BlockExtent.EncodedSizeBytes;
    }

    /// <summary>Writes zeroes piece by piece; returns 0 or an errno.</summary>
    private protected int WriteZeroPieces(long offset, long length)
    {
        var zeroes = new BufferSlice(s_zeroes.Value, 0, ZeroPieceBytes);
        while (length > 0)
        {
            int result = File.Write(zeroes.Slice(0, (int)Math.Min(length, ZeroPieceBytes)), offset, durable: false);
            if (result == -Errno.EAGAIN)
                continue;
            result = result < 0 ? result : result & -Info.LogicalBlockBytes;
            if (result <= 0)
                return result == 0 ? Errno.EIO : -result;
            offset += result;
            length -= result;
        }
        return 0;
    }

    /// <summary>
    /// Counts what one read or write transferred; returns 0 (perhaps with more to do) or an errno. A transfer that
    /// ends inside a block is repeated from the block's start, since O_DIRECT could not go on from there; one that
    /// gets nowhere is the end of a file that was truncated, or a device that became smaller.
    /// </summary>
    internal int AdvanceTransfer(PendingRequest pending, int result)
    {
        if (result < 0)
            return -result;
        long done = pending.DoneBytes + (long)result;
        if (done < pending.Request.Length)
            done &= -(long)Info.LogicalBlockBytes;
        if (done <= pending.DoneBytes || done > pending.Request.Length)
        {
            LookForEnd();
            return Errno.EIO;
        }

        pending.DoneBytes = (int)done;
        return 0;
    }

    /// <summary>Nothing: transfers can end short here.</summary>
    public override void CheckFaults(IReadOnlyList<FaultSpec> faults)
    {
    }

    /// <summary>The part of a read or write that the kernel is asked for next: the rest, but for faults.</summary>
    internal BufferSlice NextPart(PendingRequest pending)
    {
        ref readonly BlockRequest request = ref pending.Request;
        int length = request.Data.Length - pending.DoneBytes;
        if (Faults is not null)
            length = Faults.Shorten(request.Operation, request.Offset + pending.DoneBytes, length, Info.LogicalBlockBytes, IsDirect);
        return request.Data.Slice(pending.DoneBytes, length);
    }

    /// <summary>The file system or device has no such call.</summary>
    internal static bool IsUnsupported(int errno) => errno is Errno.EOPNOTSUPP or Errno.ENOSYS or Errno.ENODEV;

    private int Transfer(PendingRequest pending)
    {
        ref readonly BlockRequest request = ref pending.Request;
        bool durable = IsDirect && (request.Flags & BlockFlags.ForceUnitAccess) != 0;
        while (pending.DoneBytes < request.Length)
        {
            BufferSlice part = NextPart(pending);
            long offset = request.Offset + pending.DoneBytes;
            int result = request.Operation == BlockOperation.Read
                ? File.Read(part, offset)
                : File.Write(part, offset, durable);
            if (result == -Errno.EAGAIN)
                continue;
            int error = AdvanceTransfer(pending, result);
            if (error != 0)
                return error;
        }
        return 0;
    }

    private string ChooseEngine(DiskOptions options)
    {
        if (options.Engine == DiskEngine.Pread)
            return "pread";
        int error = IoUring.TryCreate(1, out IoUring? ring);
        if (error == 0)
            error = ring!.RegisterFile(File);
        ring?.Dispose();
        if (error == 0)
            return "io_uring";
        if (options.Engine == DiskEngine.Auto)
            return "pread";
        throw new CbdException(
            CbdErrorKind.Unsupported,
            $"disk {options.Path}: io_uring is not usable here (errno {-error}: forbidden by the container or kernel.io_uring_disabled, or too old a kernel); use the engine pread or auto");
    }
}
