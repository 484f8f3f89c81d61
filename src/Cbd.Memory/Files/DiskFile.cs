using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// One open file description of a file or block device. The calls return a negative errno where they fail, and repeat
/// themselves when interrupted. All I/O is positional, so any thread may use it. It must not be disposed while another
/// thread or a ring uses it.
/// </summary>
public sealed unsafe class DiskFile : IDisposable
{
    private const int UuidBytes = 16;

    private DiskFile(FileDescriptor descriptor) => Descriptor = descriptor;

    internal FileDescriptor Descriptor { get; }

    /// <summary>
    /// Opens a file. <paramref name="exclusive"/> is for block devices: no one else may hold it exclusively, such as a
    /// mount. With the rights of another user it waits for nobody, whatever that user puts there. Returns 0 or a negative errno.
    /// </summary>
    public static int TryOpen(string path, bool readOnly, bool exclusive, out DiskFile? file, PathRights? rights = null)
    {
        OpenFlags flags = (readOnly ? OpenFlags.ReadOnly : OpenFlags.ReadWrite) |
            OpenFlags.NoTerminal | (exclusive ? OpenFlags.Exclusive : 0) | (rights is null ? 0 : OpenFlags.NonBlocking);
        int error = PathRights.TryOpen(rights, path, flags, 0, out FileDescriptor? descriptor);
        file = error == 0 ? new DiskFile(descriptor!) : null;
        // An io_uring would answer EAGAIN.
        if (error == 0 && rights is not null)
            error = file!.ClearNonBlocking();
        if (error != 0)
        {
            file?.Dispose();
            file = null;
        }

        return error;
    }

    private int ClearNonBlocking()
    {
        int flags = LibC.FCntl(Descriptor, FcntlGetFlags, 0);
        return flags < 0 ? -LibC.LastErrno : Check(LibC.FCntl(Descriptor, FcntlSetFlags, flags & ~OpenFlags.NonBlocking.ToNative()));
    }

    /// <summary>
    /// Opens a file for a look at it alone: waits for nobody, whatever it has become. Returns 0 or a negative errno.
    /// </summary>
    public static int TryOpenForLook(string path, out DiskFile? file)
    {
        int error = FileDescriptor.TryOpen(path, OpenFlags.ReadOnly | OpenFlags.NoTerminal | OpenFlags.NonBlocking, 0, out FileDescriptor? descriptor);
        file = error == 0 ? new DiskFile(descriptor!) : null;
        return error;
    }

    /// <summary>What is open now. Returns 0 or a negative errno.</summary>
    public int TryGetStatus(out FileStatus status) => FileStatus.TryGet(Descriptor, out status);

    /// <summary>
    /// Takes an OFD lock on the whole file, however long it becomes: a write lock, or a read lock that others may share.
    /// Fails with EAGAIN or EACCES while another description holds one. It ends with this description and its I/O.
    /// </summary>
    public int TryLock(bool write) => Descriptor.TryLockRange(write ? LockWrite : LockRead, 0, 0);

    /// <summary>
    /// Gives the lock back before the description ends. Only when no I/O is in flight: an io_uring's threads may hold
    /// the description a moment longer than their last completion, and would keep it locked.
    /// </summary>
    public void Unlock() => _ = Descriptor.TryLockRange(LockNone, 0, 0);

    /// <summary>Switches O_DIRECT of this description on or off; fails with EINVAL where the file system has none.</summary>
    public int SetDirect(bool direct)
    {
        int flags = LibC.FCntl(Descriptor, FcntlGetFlags, 0);
        if (flags < 0)
            return -LibC.LastErrno;
        int nativeDirect = OpenFlags.Direct.ToNative();
        flags = direct ? flags | nativeDirect : flags & ~nativeDirect;
        return Check(LibC.FCntl(Descriptor, FcntlSetFlags, flags));
    }

    /// <summary>Reads into the slice; returns the bytes read, 0 at the end of the file.</summary>
    public int Read(BufferSlice data, long offset)
    {
        nint result;
        // SAFETY: the slice lies inside its buffer, which its owner keeps until the request is done.
        do
            result = LibC.PRead(Descriptor.Number, (void*)data.Address, (nuint)data.Length, offset);
        while (result < 0 && LibC.LastErrno == EINTR);
        return result < 0 ? -LibC.LastErrno : (int)result;
    }

    /// <summary>Writes the slice, onto the medium if <paramref name="durable"/>; returns the bytes written.</summary>
    public int Write(BufferSlice data, long offset, bool durable)
    {
        nint result;
        do
        {
            // SAFETY: the slice lies inside its buffer, which its owner keeps until the request is done.
            var vector = new LibC.IoVector { Start = (void*)data.Address, Length = (nuint)data.Length };
            result = durable
                ? LibC.PWriteV2(Descriptor.Number, &vector, 1, offset, WriteDataSync)
                : LibC.PWrite(Descriptor.Number, vector.Start, vector.Length, offset);
        }
        while (result < 0 && LibC.LastErrno == EINTR);
        return result < 0 ? -LibC.LastErrno : (int)result;
    }

    /// <summary>fdatasync(2): what was written is on the medium when it succeeds.</summary>
    public int SyncData() => Check(LibC.FDataSync(Descriptor));

    /// <summary>fallocate(2); EOPNOTSUPP where the file system or device cannot.</summary>
    public int Allocate(AllocateMode mode, long offset, long length)
    {
        int result;
        do
            result = LibC.FAllocate(Descriptor, (int)mode, offset, length);
        while (result < 0 && LibC.LastErrno == EINTR);
        return Check(result);
    }

    /// <summary>ftruncate(2): makes a file shorter, or longer by a hole.</summary>
    public int SetLength(long sizeBytes)
    {
        int result;
        do
            result = LibC.FTruncate(Descriptor, sizeBytes);
        while (result < 0 && LibC.LastErrno == EINTR);
        return Check(result);
    }

    /// <summary>Where the next data at or after the offset begins; ENXIO if there is none.</summary>
    public long SeekData(long offset) => Seek(offset, KernelConstants.SeekData);

    /// <summary>Where the next hole at or after the offset begins; the end of the file counts as one.</summary>
    public long SeekHole(long offset) => Seek(offset, KernelConstants.SeekHole);

    /// <summary>Tells the kernel that the range will be read; a hint, whose failure means nothing.</summary>
    public void WillNeed(long offset, long length) =>
        _ = LibC.FAdvise(Descriptor, offset, length, FileAdviseWillNeed);

    /// <summary>The inode's generation (FS_IOC_GETVERSION), which tells apart files that had the same inode.</summary>
    public int TryGetGeneration(out uint generation)
    {
        // SAFETY: the kernel stores four or eight bytes.
        ulong value = 0;
        int result = Check(LibC.Ioctl(Descriptor, IoctlGeneration, &value));
        generation = (uint)value;
        return result;
    }

    /// <summary>
    /// The UUID of the file system, which its copies have too (FS_IOC_GETFSUUID of Linux 6.9; ext4 and btrfs tell it earlier). Returns 0
    /// or a negative errno: also where it is not 16 bytes long, or is all zeroes.
    /// </summary>
    public int TryGetFileSystemUuid(out Guid uuid)
    {
        uuid = default;
        // SAFETY: the kernel stores at most the 17 bytes of the structure.
        LibC.FileSystemUuid any = default;
        int error = Check(LibC.Ioctl(Descriptor, IoctlFileSystemUuid, &any));
        if (error == 0)
            error = any.Length == UuidBytes ? ToUuid(any.Bytes, out uuid) : -EOPNOTSUPP;
        if (error == 0)
            return 0;
        // SAFETY: the kernel reads the length from the first four bytes, and stores as many behind the first eight.
        byte* ext4 = stackalloc byte[2 * sizeof(uint) + UuidBytes];
        *(ulong*)ext4 = UuidBytes;
        if (LibC.Ioctl(Descriptor, IoctlExt4Uuid, ext4) == 0 && *(uint*)ext4 == UuidBytes)
            return ToUuid(ext4 + 2 * sizeof(uint), out uuid);
        // SAFETY: the kernel stores at most the 1024 bytes of the structure.
        LibC.BtrfsInfo btrfs = default;
        return LibC.Ioctl(Descriptor, IoctlBtrfsInfo, &btrfs) == 0 ? ToUuid(btrfs.Uuid, out uuid) : error;
    }

    /// <summary>The btrfs subvolume that the file is in: its snapshots have the same inodes. Returns 0 or a negative errno.</summary>
    public int TryGetBtrfsSubvolume(out ulong subvolume)
    {
        // SAFETY: the kernel reads and stores at most the 4096 bytes of the structure.
        var found = new LibC.BtrfsLookUp { Object = BtrfsFirstFreeObject };
        int result = Check(LibC.Ioctl(Descriptor, IoctlBtrfsLookUp, &found));
        subvolume = found.Tree;
        return result;
    }

    /// <summary>What is below a loop device: its file, and which part of it. Returns 0 or a negative errno.</summary>
    public int TryGetLoopStatus(out LoopStatus status)
    {
        // SAFETY: the kernel stores the 232 bytes of the structure.
        LibC.LoopStatus raw = default;
        int result = Check(LibC.Ioctl(Descriptor, IoctlLoopGetStatus, &raw));
        status = new LoopStatus(raw.Device, raw.Inode, raw.Offset, raw.SizeLimit);
        return result;
    }

    /// <summary>Size and block sizes of a block device, bytes.</summary>
    public int TryGetBlockSizes(out long sizeBytes, out int logicalBytes, out int physicalBytes)
    {
        // SAFETY: the kernel stores a u64, an int and an unsigned int.
        long size = 0;
        int logical = 0;
        int physical = 0;
        int result = Check(LibC.Ioctl(Descriptor, IoctlSizeBytes, &size));
        if (result == 0)
            result = Check(LibC.Ioctl(Descriptor, IoctlLogicalBlock, &logical));
        if (result == 0)
            result = Check(LibC.Ioctl(Descriptor, IoctlPhysicalBlock, &physical));
        sizeBytes = size;
        logicalBytes = logical;
        physicalBytes = physical;
        return result;
    }

    /// <summary>The block device is switched read-only.</summary>
    public int TryGetBlockReadOnly(out bool readOnly)
    {
        // SAFETY: the kernel stores an int.
        int value = 0;
        int result = Check(LibC.Ioctl(Descriptor, IoctlBlockReadOnly, &value));
        readOnly = value != 0;
        return result;
    }

    /// <summary>The number of this life of the block device, never used twice while the system runs (Linux 5.15).</summary>
    public int TryGetDiskSequence(out ulong sequence)
    {
        // SAFETY: the kernel stores a u64.
        ulong value = 0;
        int result = Check(LibC.Ioctl(Descriptor, IoctlDiskSequence, &value));
        sequence = value;
        return result;
    }

    /// <summary>BLKDISCARD of a range of a block device. Takes as long as the device does.</summary>
    public int DiscardBlocks(long offset, long length) => RangeIoctl(IoctlDiscard, offset, length);

    /// <summary>BLKZEROOUT of a range of a block device: zeroes, space kept. Takes as long as the device does.</summary>
    public int ZeroBlocks(long offset, long length) => RangeIoctl(IoctlZeroOut, offset, length);

    public void Dispose() => Descriptor.Dispose();

    private static int ToUuid(byte* bytes, out Guid uuid)
    {
        // SAFETY: all callers have 16 bytes there.
        uuid = new Guid(new ReadOnlySpan<byte>(bytes, UuidBytes), bigEndian: true);
        return uuid == default ? -EOPNOTSUPP : 0;
    }

    private int RangeIoctl(nuint request, long offset, long length)
    {
        // SAFETY: the kernel reads two u64.
        ulong* range = stackalloc ulong[2] { (ulong)offset, (ulong)length };
        int result;
        do
            result = LibC.Ioctl(Descriptor, request, range);
        while (result < 0 && LibC.LastErrno == EINTR);
        return Check(result);
    }

    private long Seek(long offset, int whence)
    {
        long result = LibC.LSeek(Descriptor, offset, whence);
        return result < 0 ? -LibC.LastErrno : result;
    }

    private static int Check(int result) => result < 0 ? -LibC.LastErrno : 0;
}
