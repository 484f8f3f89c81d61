using Microsoft.Win32.SafeHandles;
using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// An open descriptor of ours; closed by Dispose or by the finalizer. Members throw <see cref="SystemCallException"/>,
/// retry on EINTR, and may be called from any thread.
/// </summary>
public sealed unsafe class FileDescriptor : SafeHandleZeroOrMinusOneIsInvalid
{
    private readonly string _subject;

    private FileDescriptor(int descriptor, string subject, bool ownsHandle)
        : base(ownsHandle)
    {
        _subject = subject;
        SetHandle(descriptor);
    }

    /// <summary>The number, for system calls. Valid while this object is kept alive and not disposed.</summary>
    public int Number
    {
        get
        {
            ObjectDisposedException.ThrowIf(IsClosed, this);
            return (int)handle;
        }
    }

    /// <summary>Stands for no file, where a call takes one or none.</summary>
    internal static FileDescriptor None { get; } = new(-1, "none", ownsHandle: false);

    /// <summary>Where relative paths begin, for calls that take a directory.</summary>
    internal static FileDescriptor CurrentDirectory { get; } = new(AtFdCwd, "current directory", ownsHandle: false);

    /// <summary>Opens a path. <paramref name="mode"/>: permission bits of a file that is created.</summary>
    public static FileDescriptor Open(string path, OpenFlags flags, int mode = 0)
    {
        int error = TryOpen(path, flags, mode, out FileDescriptor? descriptor);
        return error == 0 ? descriptor! : throw new SystemCallException("open", -error, path);
    }

    /// <summary>As <see cref="Open"/>, but returns 0 or a negative errno.</summary>
    public static int TryOpen(string path, OpenFlags flags, int mode, out FileDescriptor? descriptor)
    {
        int number;
        do
            number = LibC.Open(path, (flags | OpenFlags.CloseOnExec).ToNative(), (uint)mode);
        while (number < 0 && LibC.LastErrno == EINTR);
        int error = number < 0 ? -LibC.LastErrno : 0;
        descriptor = error == 0 ? Own(number, path) : null;
        return error;
    }

    /// <summary>Opens a path that begins at this directory. Returns 0 or a negative errno.</summary>
    public int TryOpenBelow(string path, OpenFlags flags, out FileDescriptor? descriptor)
    {
        int number;
        do
            number = LibC.OpenAt(this, path, (flags | OpenFlags.CloseOnExec).ToNative(), 0);
        while (number < 0 && LibC.LastErrno == EINTR);
        int error = number < 0 ? -LibC.LastErrno : 0;
        descriptor = error == 0 ? Own(number, path) : null;
        return error;
    }

    /// <summary>Reads on from where the descriptor stands; 0 at the end of the file.</summary>
    public int Read(Span<byte> bytes)
    {
        // SAFETY: the buffer is pinned for the call, which stores at most its length.
        fixed (byte* start = bytes)
        {
            nint count;
            do
                count = LibC.Read(this, start, (nuint)bytes.Length);
            while (count < 0 && LibC.LastErrno == EINTR);
            return count < 0 ? throw SystemCallException.Last("read", _subject) : (int)count;
        }
    }

    /// <summary>Whether programs that this process starts get the descriptor under the same number.</summary>
    public void SetInherited(bool inherited)
    {
        if (LibC.FCntl(this, FcntlSetDescriptorFlags, inherited ? 0 : DescriptorCloseOnExec) < 0)
            throw SystemCallException.Last("fcntl F_SETFD", _subject);
    }

    /// <summary>
    /// Owns an open descriptor number. Number 0, which this type calls invalid, is moved up first: it is what the
    /// kernel hands out in a process that was started with stdin closed.
    /// </summary>
    public static FileDescriptor Own(int descriptor, string subject)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(descriptor);
        if (descriptor > 0)
            return new FileDescriptor(descriptor, subject, ownsHandle: true);
        using var zero = new FileDescriptor(0, subject, ownsHandle: false);
        int moved = LibC.FCntl(zero, FcntlDuplicateCloseOnExec, 3);
        int error = LibC.LastErrno;
        _ = LibC.Close(0);
        return moved < 0 ? throw new SystemCallException("fcntl", error, subject) : new FileDescriptor(moved, subject, ownsHandle: true);
    }

    /// <summary>Writes a short text in one call, as settings of the kernel want it. Returns 0 or a negative errno; EIO if only a part was taken.</summary>
    public int TryWriteText(string text)
    {
        byte[] bytes = System.Text.Encoding.UTF8.GetBytes(text);
        // SAFETY: the kernel reads these bytes during the call alone.
        fixed (byte* start = bytes)
        {
            nint written = LibC.Write(this, start, (nuint)bytes.Length);
            return written == bytes.Length ? 0 : written < 0 ? -LibC.LastErrno : -Errno.EIO;
        }
    }

    /// <summary>Another descriptor of the same file, closed when this process executes a program.</summary>
    /// <param name="subject">What messages call it.</param>
    /// <exception cref="CbdException">Exhausted: this process has no more descriptors.</exception>
    public FileDescriptor Duplicate(string subject)
    {
        int copy = LibC.FCntl(this, FcntlDuplicateCloseOnExec, 3);
        return copy >= 0 ? Own(copy, subject) : throw SystemCallException.Last("fcntl F_DUPFD_CLOEXEC", subject);
    }

    /// <summary>A descriptor that stays somebody else's: Dispose leaves it open.</summary>
    internal static FileDescriptor Borrow(int descriptor, string subject) => new(descriptor, subject, ownsHandle: false);

    /// <summary>What the file is.</summary>
    public FileStatus GetStatus()
    {
        int error = FileStatus.TryGet(this, out FileStatus status);
        return error == 0 ? status : throw new SystemCallException("statx", -error, _subject);
    }

    /// <summary>Magic number of the file system (linux/magic.h), and the size of its blocks or huge pages, bytes.</summary>
    public (long Magic, long BlockBytes) GetFileSystem()
    {
        // struct statfs of 64-bit Linux is 120 bytes and begins with f_type and f_bsize, 8 bytes each.
        long* result = stackalloc long[32];
        while (LibC.FStatFs(this, result) < 0)
            ThrowUnlessInterrupted("fstatfs");
        return (result[0], result[1]);
    }

    /// <summary>Sets the size, bytes.</summary>
    public void Truncate(long sizeBytes)
    {
        while (LibC.FTruncate(this, sizeBytes) < 0)
            ThrowUnlessInterrupted("ftruncate");
    }

    /// <summary>fallocate(2): reserves, punches or zeroes [offset, offset + length).</summary>
    public void Allocate(AllocateMode mode, long offset, long length)
    {
        while (LibC.FAllocate(this, (int)mode, offset, length) < 0)
            ThrowUnlessInterrupted("fallocate");
    }

    /// <summary>
    /// F_OFD_SETLK: takes or gives back a lock of a byte range for this open file description, at once. Returns 0 or a
    /// negative errno; EAGAIN or EACCES while another description holds a lock that is in the way.
    /// </summary>
    /// <param name="type">LockRead, LockWrite or LockNone.</param>
    /// <param name="length">Bytes; 0: all from <paramref name="offset"/> on, however long the file becomes.</param>
    internal int TryLockRange(short type, long offset, long length)
    {
        var range = new LibC.FileLock { Type = type, Start = offset, Length = length };
        // SAFETY: the structure lives on this stack frame for the length of the call.
        while (LibC.FCntl(this, FcntlOfdSetLock, (nint)(&range)) < 0)
        {
            if (LibC.LastErrno != EINTR)
                return -LibC.LastErrno;
        }

        return 0;
    }

    /// <summary>F_OFD_GETLK: another open file description holds a lock in this range; length 0: to the end of all offsets.</summary>
    internal bool IsRangeLocked(long offset, long length)
    {
        var range = new LibC.FileLock { Type = LockWrite, Start = offset, Length = length };
        // SAFETY: the structure lives on this stack frame for the length of the call.
        while (LibC.FCntl(this, FcntlOfdGetLock, (nint)(&range)) < 0)
            ThrowUnlessInterrupted("fcntl F_OFD_GETLK");
        return range.Type != LockNone;
    }

    /// <summary>Waits until there is something to read; false when the time is over, or early.</summary>
    internal bool WaitReadable(long timeoutMicroseconds)
    {
        LibC.TimeSpec timeout = LibC.TimeSpec.FromMicroseconds(timeoutMicroseconds);
        var entry = new LibC.PollEntry { Descriptor = Number, Events = PollIn };
        // SAFETY: both structures live on this stack frame for the length of the call.
        bool isReadable = LibC.PPoll(&entry, 1, &timeout, null) > 0;
        GC.KeepAlive(this);
        return isReadable;
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => LibC.Close((int)handle) == 0;

    private void ThrowUnlessInterrupted(string call)
    {
        if (LibC.LastErrno != EINTR)
            throw SystemCallException.Last(call, _subject);
    }
}
