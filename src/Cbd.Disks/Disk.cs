using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>
/// A disk of this host. Thread-safe; each queue is used by one thread at a time. Dispose the queues before the disk.
/// </summary>
/// <remarks>
/// Payload that starts on a multiple of <see cref="NativeBuffer.AlignmentBytes"/> suits every disk; what is aligned
/// less than O_DIRECT needs (see <see cref="IsBuffered"/>) is answered with EINVAL. Closing a queue waits for what it
/// has outstanding.
/// </remarks>
public abstract class Disk : IBlockDevice
{
    private BlockDeviceInfo? _info;

    private protected Disk(DiskOptions options)
    {
        Path = options.Path;
        Faults = options.Faults;
    }

    /// <summary>The path as it was given.</summary>
    public string Path { get; }

    /// <summary>
    /// Kind and identity of what is behind the path, the same over restarts of the daemon and, if anything names the disk, over boots;
    /// starting a backend compares it with the records that there are. Printable ASCII without spaces, at most 128 bytes.
    /// </summary>
    public abstract string Identity { get; }

    /// <summary>What the version before called the disk, for comparing it with that version's records; empty if it called it nothing of its own.</summary>
    public virtual string OldIdentity => "";

    /// <summary>What is open; null for a disk without a file, or while that cannot be told. Any thread.</summary>
    public virtual FileIdentity? OpenFile => null;

    /// <summary>How I/O is done: "io_uring", "pread", "memory" or "null".</summary>
    public abstract string Engine { get; }

    /// <summary>Acknowledged writes may lie in this host's page cache until a flush, for want of O_DIRECT.</summary>
    public virtual bool IsBuffered => false;

    /// <summary>The faults that the disk is opened with, to be changed; null for one that nothing can be done to.</summary>
    public FaultSet? Faults { get; }

    /// <summary>The disk behind its faults; without any, the disk itself.</summary>
    public IBlockDevice Faulty => Faults is null ? this : new FaultyDevice(this, Faults);

    /// <summary>Throws for faults that this kind of disk cannot have.</summary>
    public virtual void CheckFaults(IReadOnlyList<FaultSpec> faults)
    {
        if (faults.FirstOrDefault(f => f.Kind == FaultKind.Short) is { } spec)
            throw new CbdException(CbdErrorKind.Invalid, $"fault '{spec}': disk {Path} copies in memory and asks no kernel, so nothing can end short; use a file or block device");
    }

    /// <summary>An operator has seen that a flush failed, and says that it may be tried again. Any thread.</summary>
    public virtual void ForgetFlushError()
    {
    }

    /// <summary>What is served: its size is that of <see cref="Serve"/>, else what the disk had when it was opened.</summary>
    public BlockDeviceInfo Info
    {
        get => Volatile.Read(ref _info)!;
        private protected set => Volatile.Write(ref _info, value);
    }

    public int MaxQueues => int.MaxValue;

    /// <summary>Bytes that the disk has now; it may have been grown outside since it was opened.</summary>
    /// <exception cref="CbdException">The size cannot be read.</exception>
    public abstract long MeasureBytes();

    /// <summary>
    /// What became of that which the disk stands on, with the remedy; null if nothing did. A system call, which may take long. Any thread.
    /// </summary>
    public virtual string? FindTrouble() => null;

    /// <summary>
    /// Makes the disk at least <paramref name="sizeBytes"/> large, where this is a disk that can be made larger from
    /// here; what it holds stays, and what is new reads as zeroes. Not served yet: see <see cref="Serve"/>.
    /// </summary>
    /// <exception cref="CbdException">It cannot be, with the remedy; its size is as it was.</exception>
    public abstract void Grow(long sizeBytes);

    /// <summary>Everything that was written, and the disk's size, are on the medium when it returns 0; else an errno.</summary>
    public virtual int Sync() => 0;

    /// <summary>
    /// From now on requests may use the first <paramref name="sizeBytes"/> bytes, all queues included; the disk must have
    /// them. What is in flight is not touched. One thread at a time.
    /// </summary>
    public void Serve(long sizeBytes) => Info = Info with { SizeBytes = sizeBytes };

    /// <summary>The path of the disk when it has that size: the text of a disk without a file says it.</summary>
    public virtual string PathAt(long sizeBytes) => Path;

    public abstract IBlockQueue OpenQueue(int depth, NativeBuffer? buffers = null);

    public abstract void Dispose();

    /// <summary>
    /// Opens a disk and, for files and block devices, takes its lock: on the open file description that does the I/O,
    /// so that the lock ends no earlier than the I/O.
    /// </summary>
    /// <exception cref="CbdException">The path, the disk or an option is not usable; one line for the operator.</exception>
    public static Disk Open(DiskOptions options)
    {
        Disk disk = OpenByPath(options);
        if (options.Faults is not { } faults)
            return disk;
        try
        {
            disk.CheckFaults([.. faults.List().Select(f => f.Spec)]);
            return disk;
        }
        catch
        {
            disk.Dispose();
            throw;
        }
    }

    private static Disk OpenByPath(DiskOptions options)
    {
        if (options.Path.Any(char.IsControl))
        {
            string shown = string.Concat(options.Path.Select(c => char.IsControl(c) ? '?' : c));
            throw new CbdException(
                CbdErrorKind.Invalid, $"the path of disk {shown} has a control character in it, shown as '?'; correct the path");
        }
        if (options.LogicalBlockBytes is not (null or 512 or 4096))
        {
            throw new CbdException(
                CbdErrorKind.Invalid, $"block size {options.LogicalBlockBytes} of disk {options.Path} is not offered; use 512 or 4096");
        }
        if (options.Path.StartsWith("memory:", StringComparison.Ordinal))
            return new MemoryDisk(options);
        if (options.Path.StartsWith("null:", StringComparison.Ordinal))
            return new NullDisk(options);
        OpenedDisk opened = DiskOpening.Open(options);
        try
        {
            return opened.IsBlockDevice ? new BlockDisk(options, opened) : new FileDisk(options, opened);
        }
        catch
        {
            opened.File.Dispose();
            throw;
        }
    }

    /// <summary>The bytes of <c>kind:SIZE</c>, a multiple of the logical block.</summary>
    private protected static long ParseSize(DiskOptions options, int logicalBlockBytes)
    {
        long sizeBytes = SizeText.Parse(options.Path[(options.Path.IndexOf(':') + 1)..], $"disk {options.Path}");
        if (sizeBytes % logicalBlockBytes == 0)
            return sizeBytes;
        throw new CbdException(
            CbdErrorKind.Invalid,
            $"disk {options.Path}: {sizeBytes} bytes is not a multiple of the block size {logicalBlockBytes}; round the size");
    }

    private protected static void CheckDepth(int depth)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(depth, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(depth, MaxDepth);
    }

    /// <summary>Most requests of one queue in flight; what the kernel allows for one io_uring, less one for waking.</summary>
    public const int MaxDepth = 32767;
}
