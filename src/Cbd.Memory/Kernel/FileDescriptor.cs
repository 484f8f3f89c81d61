using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// An open file description of ours; closed by Dispose or by the finalizer. Members throw
/// <see cref="SystemCallException"/>, retry on EINTR, and may be called from any thread.
/// </summary>
public sealed unsafe class FileDescriptor : SafeHandleZeroOrMinusOneIsInvalid
{
    private readonly string _subject;

    private FileDescriptor(int descriptor, string subject)
        : base(ownsHandle: true)
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

    /// <summary>Opens a path. <paramref name="mode"/>: permission bits of a file that is created.</summary>
    public static FileDescriptor Open(string path, OpenFlags flags, int mode = 0)
    {
        int descriptor;
        do
            descriptor = LibC.Open(path, (flags | OpenFlags.CloseOnExec).ToNative(), (uint)mode);
        while (descriptor < 0 && Marshal.GetLastPInvokeError() == EINTR);
        return descriptor < 0 ? throw SystemCallException.Last("open", path) : Own(descriptor, path);
    }

    /// <summary>
    /// Owns an open descriptor number. Number 0, which this type calls invalid, is moved up first: it is what the
    /// kernel hands out in a process that was started with stdin closed.
    /// </summary>
    public static FileDescriptor Own(int descriptor, string subject)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(descriptor);
        if (descriptor > 0)
            return new FileDescriptor(descriptor, subject);
        int moved = LibC.FCntl(0, FcntlDuplicateCloseOnExec, 3);
        if (moved < 0)
            throw SystemCallException.Last("fcntl", subject);
        _ = LibC.Close(0);
        return new FileDescriptor(moved, subject);
    }

    /// <summary>What the file is.</summary>
    public FileStatus GetStatus()
    {
        byte* result = stackalloc byte[FileStatus.StatxBytes];
        if (LibC.Statx(this, "", AtEmptyPath, FileStatus.StatxBasicStats, result) < 0)
            throw SystemCallException.Last("statx", _subject);
        // SAFETY: the kernel filled the 256 bytes that were reserved above.
        return FileStatus.Parse(new ReadOnlySpan<byte>(result, FileStatus.StatxBytes));
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

    /// <summary>Brings data, and what is needed to find it again, onto the medium.</summary>
    public void FlushData()
    {
        while (LibC.FDataSync(this) < 0)
            ThrowUnlessInterrupted("fdatasync");
    }

    /// <summary>One pread(2): how many bytes were read; 0 at the end of the file.</summary>
    public int ReadAt(long offset, Span<byte> destination)
    {
        fixed (byte* bytes = destination)
        {
            nint count;
            while ((count = LibC.PRead(this, bytes, (nuint)destination.Length, offset)) < 0)
                ThrowUnlessInterrupted("pread");
            return (int)count;
        }
    }

    /// <summary>One pwrite(2): how many bytes were written.</summary>
    public int WriteAt(long offset, ReadOnlySpan<byte> source)
    {
        fixed (byte* bytes = source)
        {
            nint count;
            while ((count = LibC.PWrite(this, bytes, (nuint)source.Length, offset)) < 0)
                ThrowUnlessInterrupted("pwrite");
            return (int)count;
        }
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => LibC.Close((int)handle) == 0;

    internal void ThrowUnlessInterrupted(string call)
    {
        if (Marshal.GetLastPInvokeError() != EINTR)
            throw SystemCallException.Last(call, _subject);
    }
}

/// <summary>Modes of fallocate(2) (linux/falloc.h).</summary>
[Flags]
public enum AllocateMode
{
    /// <summary>Reserve space; grow the file if it ends earlier.</summary>
    Reserve = 0,
    KeepSize = 1,

    /// <summary>Give the space back; needs <see cref="KeepSize"/>.</summary>
    PunchHole = 2,
    ZeroRange = 0x10,
}
