using Microsoft.Win32.SafeHandles;

namespace Cbd.Memory;

/// <summary>How <see cref="DiskFile.Allocate"/> changes a range; the size of the file stays (linux/falloc.h).</summary>
public enum DiskAllocateMode
{
    /// <summary>FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE: the range reads as zeroes, its space is freed.</summary>
    PunchHole = 0x03,

    /// <summary>FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE: the range reads as zeroes, its space stays.</summary>
    ZeroRange = 0x11,
}

/// <summary>
/// One open file description of a file or block device. The calls return a negative errno where they fail, and repeat
/// themselves when interrupted. All I/O is positional, so any thread may use it. It must not be disposed while another
/// thread or a ring uses it.
/// </summary>
public sealed unsafe class DiskFile : IDisposable
{
    private readonly SafeFileHandle _handle;

    private DiskFile(int descriptor) => _handle = new SafeFileHandle(descriptor, ownsHandle: true);

    /// <summary>The descriptor; valid until <see cref="Dispose"/>.</summary>
    internal int Descriptor
    {
        get
        {
            ObjectDisposedException.ThrowIf(_handle.IsClosed, this);
            return (int)_handle.DangerousGetHandle();
        }
    }

    /// <summary>What is at a path, links followed. Returns 0 or a negative errno.</summary>
    public static int TryGetStatus(string path, out DiskFileStatus status) =>
        TryGetStatus(FileCalls.AtCurrentDirectory, path, 0, out status);

    /// <summary>
    /// Opens a file. <paramref name="exclusive"/> is for block devices: no one else may hold it exclusively, such as a
    /// mount. Returns 0 or a negative errno.
    /// </summary>
    public static int TryOpen(string path, bool readOnly, bool exclusive, out DiskFile? file)
    {
        int flags = (readOnly ? FileCalls.OpenReadOnly : FileCalls.OpenReadWrite) |
            FileCalls.OpenCloseOnExec | FileCalls.OpenNoTerminal | (exclusive ? FileCalls.OpenExclusive : 0);
        while (true)
        {
            int descriptor = FileCalls.open(path, flags, 0);
            if (descriptor >= 0)
            {
                file = new DiskFile(descriptor);
                return 0;
            }
            if (FileCalls.LastErrno != FileCalls.EINTR)
                break;
        }
        file = null;
        return -FileCalls.LastErrno;
    }

    /// <summary>What is open now.</summary>
    public int TryGetStatus(out DiskFileStatus status) => TryGetStatus(Descriptor, "", FileCalls.AtEmptyPath, out status);

    /// <summary>
    /// Takes an OFD lock on the whole file, however long it becomes: a write lock, or a read lock that others may share.
    /// Fails with EAGAIN or EACCES while another description holds one. It ends with this description and its I/O.
    /// </summary>
    public int TryLock(bool write) => SetLock(write ? FileCalls.LockWrite : FileCalls.LockRead);

    /// <summary>
    /// Gives the lock back before the description ends. Only when no I/O is in flight: an io_uring's threads may hold
    /// the description a moment longer than their last completion, and would keep it locked.
    /// </summary>
    public void Unlock() => _ = SetLock(FileCalls.LockNone);

    /// <summary>Switches O_DIRECT of this description on or off; fails with EINVAL where the file system has none.</summary>
    public int SetDirect(bool direct)
    {
        int flags = FileCalls.fcntl(Descriptor, FileCalls.FcntlGetFlags, 0);
        if (flags < 0)
            return -FileCalls.LastErrno;
        flags = direct ? flags | FileCalls.OpenDirect : flags & ~FileCalls.OpenDirect;
        return Check(FileCalls.fcntl(Descriptor, FileCalls.FcntlSetFlags, flags));
    }

    /// <summary>Reads into the slice; returns the bytes read, 0 at the end of the file.</summary>
    public int Read(BufferSlice data, long offset)
    {
        nint result;
        // SAFETY: the slice lies inside its buffer, which its owner keeps until the request is done.
        do
            result = FileCalls.pread(Descriptor, (void*)data.Address, (nuint)data.Length, offset);
        while (result < 0 && FileCalls.LastErrno == FileCalls.EINTR);
        return result < 0 ? -FileCalls.LastErrno : (int)result;
    }

    /// <summary>Writes the slice, onto the medium if <paramref name="durable"/>; returns the bytes written.</summary>
    public int Write(BufferSlice data, long offset, bool durable)
    {
        nint result;
        do
        {
            // SAFETY: the slice lies inside its buffer, which its owner keeps until the request is done.
            var vector = new FileCalls.IoVector { Start = (void*)data.Address, Length = (nuint)data.Length };
            result = durable
                ? FileCalls.pwritev2(Descriptor, &vector, 1, offset, FileCalls.WriteDataSync)
                : FileCalls.pwrite(Descriptor, vector.Start, vector.Length, offset);
        }
        while (result < 0 && FileCalls.LastErrno == FileCalls.EINTR);
        return result < 0 ? -FileCalls.LastErrno : (int)result;
    }

    /// <summary>fdatasync(2): what was written is on the medium when it succeeds.</summary>
    public int SyncData() => Check(FileCalls.fdatasync(Descriptor));

    /// <summary>fallocate(2); EOPNOTSUPP where the file system or device cannot.</summary>
    public int Allocate(DiskAllocateMode mode, long offset, long length)
    {
        int result;
        do
            result = FileCalls.fallocate(Descriptor, (int)mode, offset, length);
        while (result < 0 && FileCalls.LastErrno == FileCalls.EINTR);
        return Check(result);
    }

    /// <summary>Where the next data at or after the offset begins; ENXIO if there is none.</summary>
    public long SeekData(long offset) => Seek(offset, FileCalls.SeekToData);

    /// <summary>Where the next hole at or after the offset begins; the end of the file counts as one.</summary>
    public long SeekHole(long offset) => Seek(offset, FileCalls.SeekToHole);

    /// <summary>Tells the kernel that the range will be read; a hint, whose failure means nothing.</summary>
    public void WillNeed(long offset, long length) =>
        _ = FileCalls.posix_fadvise(Descriptor, offset, length, FileCalls.AdviseWillNeed);

    /// <summary>The inode's generation (FS_IOC_GETVERSION), which tells apart files that had the same inode.</summary>
    public int TryGetGeneration(out uint generation)
    {
        // SAFETY: the kernel stores four or eight bytes.
        ulong value = 0;
        int result = Check(FileCalls.ioctl(Descriptor, FileCalls.IoctlGeneration, &value));
        generation = (uint)value;
        return result;
    }

    /// <summary>Size and block sizes of a block device, bytes.</summary>
    public int TryGetBlockSizes(out long sizeBytes, out int logicalBytes, out int physicalBytes)
    {
        // SAFETY: the kernel stores a u64, an int and an unsigned int.
        long size = 0;
        int logical = 0;
        int physical = 0;
        int result = Check(FileCalls.ioctl(Descriptor, FileCalls.IoctlSizeBytes, &size));
        if (result == 0)
            result = Check(FileCalls.ioctl(Descriptor, FileCalls.IoctlLogicalBlock, &logical));
        if (result == 0)
            result = Check(FileCalls.ioctl(Descriptor, FileCalls.IoctlPhysicalBlock, &physical));
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
        int result = Check(FileCalls.ioctl(Descriptor, FileCalls.IoctlBlockReadOnly, &value));
        readOnly = value != 0;
        return result;
    }

    /// <summary>The number of this life of the block device, never used twice while the system runs (Linux 5.15).</summary>
    public int TryGetDiskSequence(out ulong sequence)
    {
        // SAFETY: the kernel stores a u64.
        ulong value = 0;
        int result = Check(FileCalls.ioctl(Descriptor, FileCalls.IoctlDiskSequence, &value));
        sequence = value;
        return result;
    }

    /// <summary>BLKDISCARD of a range of a block device. Takes as long as the device does.</summary>
    public int DiscardBlocks(long offset, long length) => RangeIoctl(FileCalls.IoctlDiscard, offset, length);

    /// <summary>BLKZEROOUT of a range of a block device: zeroes, space kept. Takes as long as the device does.</summary>
    public int ZeroBlocks(long offset, long length) => RangeIoctl(FileCalls.IoctlZeroOut, offset, length);

    public void Dispose() => _handle.Dispose();

    private int SetLock(short type)
    {
        var range = new FileCalls.FileLock { Type = type };
        // SAFETY: the structure lives on this stack frame for the length of the call.
        return Check(FileCalls.fcntl(Descriptor, FileCalls.FcntlSetOpenFileLock, (nint)(&range)));
    }

    private int RangeIoctl(nuint request, long offset, long length)
    {
        // SAFETY: the kernel reads two u64.
        ulong* range = stackalloc ulong[2] { (ulong)offset, (ulong)length };
        int result;
        do
            result = FileCalls.ioctl(Descriptor, request, range);
        while (result < 0 && FileCalls.LastErrno == FileCalls.EINTR);
        return Check(result);
    }

    private long Seek(long offset, int whence)
    {
        long result = FileCalls.lseek(Descriptor, offset, whence);
        return result < 0 ? -FileCalls.LastErrno : result;
    }

    private static int TryGetStatus(int directory, string path, int flags, out DiskFileStatus status)
    {
        // SAFETY: the kernel stores at most the 256 bytes of the structure.
        FileCalls.FileStatusRaw raw = default;
        int result = Check(FileCalls.statx(
            directory, path, flags, FileCalls.StatBasic | FileCalls.StatDirectAlignment, &raw));
        status = result == 0 ? new DiskFileStatus(raw) : default;
        return result;
    }

    private static int Check(int result) => result < 0 ? -FileCalls.LastErrno : 0;
}
