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
}
