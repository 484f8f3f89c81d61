using System.Runtime.InteropServices;

namespace Cbd.Memory;

/// <summary>
/// The C library's calls that disks need. Numbers are those of the Linux headers for x86-64 and arm64; a test compiles
/// them against the installed headers.
/// </summary>
internal static unsafe partial class FileCalls
{
    public const int ProtRead = 1;
    public const int ProtWrite = 2;
    public const int MapShared = 1;
    public const int MapPrivate = 2;
    public const int MapAnonymous = 0x20;
    public const int MapNoReserve = 0x4000;
    public const int MapPopulate = 0x8000;
    public const int AdviseDontNeed = 4;

    public const int EventNonBlocking = 0x800;
    public const int EventCloseOnExec = 0x80000;
    public const short PollIn = 1;

    public const int EINTR = 4;
    public const int EAGAIN = 11;
    public const int ENOMEM = 12;
    public const int EBUSY = 16;
    public const int EINVAL = 22;
    public const int ETIME = 62;
    public const int EOVERFLOW = 75;
    public const int EOPNOTSUPP = 95;

    public const int OpenReadOnly = 0;
    public const int OpenReadWrite = 2;
    public const int OpenExclusive = 0x80;
    public const int OpenNoTerminal = 0x100;
    public const int OpenCloseOnExec = 0x80000;

    public const int FcntlGetFlags = 3;
    public const int FcntlSetFlags = 4;
    public const int FcntlSetOpenFileLock = 37;
    public const short LockRead = 0;
    public const short LockWrite = 1;
    public const short LockNone = 2;

    public const int AtCurrentDirectory = -100;
    public const int AtEmptyPath = 0x1000;
    public const uint StatBasic = 0x7ff;
    public const uint StatDirectAlignment = 0x2000;

    public const int SeekToData = 3;
    public const int SeekToHole = 4;
    public const int WriteDataSync = 2;
    public const int AdviseWillNeed = 3;

    public const nuint IoctlBlockReadOnly = 0x125e;
    public const nuint IoctlLogicalBlock = 0x1268;
    public const nuint IoctlPhysicalBlock = 0x127b;
    public const nuint IoctlDiscard = 0x1277;
    public const nuint IoctlZeroOut = 0x127f;
    public const nuint IoctlSizeBytes = 0x80081272;
    public const nuint IoctlDiskSequence = 0x80081280;
    public const nuint IoctlGeneration = 0x80087601;

    /// <summary>O_DIRECT, the one flag here that differs between the architectures.</summary>
    public static int OpenDirect =>
        RuntimeInformation.ProcessArchitecture == Architecture.Arm64 ? 0x10000 : 0x4000;

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint mmap(nint address, nuint length, int protection, int flags, int fd, long offset);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int munmap(nint address, nuint length);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int madvise(nint address, nuint length, int advice);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int eventfd(uint initialValue, int flags);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int ppoll(PollDescriptor* descriptors, nuint count, TimeSpec* timeout, void* signalMask);

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint read(int fd, void* buffer, nuint count);

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint write(int fd, void* buffer, nuint count);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    public static partial int open(string path, int flags, int mode);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    public static partial int statx(int directory, string path, int flags, uint mask, FileStatusRaw* status);

    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    public static partial int fcntl(int fd, int command, nint argument);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int ioctl(int fd, nuint request, void* argument);

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint pread(int fd, void* buffer, nuint count, long offset);

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint pwrite(int fd, void* buffer, nuint count, long offset);

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint pwritev2(int fd, IoVector* vectors, int count, long offset, int flags);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int fdatasync(int fd);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int fallocate(int fd, int mode, long offset, long length);

    [LibraryImport("libc", SetLastError = true)]
    public static partial long lseek(int fd, long offset, int whence);

    [LibraryImport("libc")]
    public static partial int posix_fadvise(int fd, long offset, long length, int advice);

    /// <summary>The errno of the call that just failed on this thread.</summary>
    public static int LastErrno => Marshal.GetLastPInvokeError();

    /// <summary>struct pollfd.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct PollDescriptor
    {
        public int Descriptor;
        public short Events;
        public short Returned;
    }

    /// <summary>struct timespec with 64-bit fields, which is also struct __kernel_timespec.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct TimeSpec
    {
        public long Seconds;
        public long Nanoseconds;

        public static TimeSpec FromMicroseconds(int microseconds) => new()
        {
            Seconds = microseconds / 1_000_000,
            Nanoseconds = microseconds % 1_000_000 * 1000L,
        };
    }

    /// <summary>struct iovec.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct IoVector
    {
        public void* Start;
        public nuint Length;
    }

    /// <summary>struct flock with 64-bit offsets.</summary>
    [StructLayout(LayoutKind.Sequential)]
    public struct FileLock
    {
        public short Type;
        public short Whence;
        public long Start;
        public long Length;
        public int Process;
    }

    /// <summary>The fields of struct statx that are used, at their offsets.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 256)]
    public struct FileStatusRaw
    {
        [FieldOffset(0x00)] public uint Mask;
        [FieldOffset(0x04)] public uint BlockSize;
        [FieldOffset(0x1c)] public ushort Mode;
        [FieldOffset(0x20)] public ulong Inode;
        [FieldOffset(0x28)] public ulong Size;
        [FieldOffset(0x30)] public ulong Blocks;
        [FieldOffset(0x80)] public uint NodeMajor;
        [FieldOffset(0x84)] public uint NodeMinor;
        [FieldOffset(0x88)] public uint DeviceMajor;
        [FieldOffset(0x8c)] public uint DeviceMinor;
        [FieldOffset(0x98)] public uint DirectMemoryAlignment;
        [FieldOffset(0x9c)] public uint DirectOffsetAlignment;
    }
}
