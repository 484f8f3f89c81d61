using System.Runtime.InteropServices;

namespace Cbd.Memory;

/// <summary>
/// The C library's functions as they are: raw, errno kept, no retry; each is imported here and nowhere else. What calls
/// them loops over EINTR and turns errno into a result or an exception. Calls younger than glibc 2.28 go through
/// <c>syscall</c>, so that the programs start on older systems. <c>open</c>, <c>fcntl</c>, <c>ioctl</c> and
/// <c>syscall</c> are variadic in C; the Linux calling conventions of x86-64 and arm64 pass such integer arguments as if
/// they were not.
/// </summary>
/// <remarks>
/// A <see cref="FileDescriptor"/> as argument stays open until the call returns, whoever disposes it meanwhile. The
/// calls of every I/O take the bare number instead: their callers own it alone.
/// </remarks>
internal static unsafe partial class LibC
{
    private const string Library = "libc";

    /// <summary>The errno of the call that this thread made last.</summary>
    internal static int LastErrno => Marshal.GetLastPInvokeError();

    [LibraryImport(Library, EntryPoint = "syscall", SetLastError = true)]
    internal static partial nint SystemCall(nint number, nint a, nint b, nint c, nint d, nint e, nint f);

    [LibraryImport(Library, EntryPoint = "prctl", SetLastError = true)]
    internal static partial int PrCtl(int option, nuint a, nuint b, nuint c, nuint d);

    [LibraryImport(Library, EntryPoint = "sched_yield")]
    internal static partial int SchedYield();

    [LibraryImport(Library, EntryPoint = "pthread_self")]
    internal static partial nint ThreadSelf();

    /// <summary>Returns the error itself, not −1 and errno.</summary>
    [LibraryImport(Library, EntryPoint = "pthread_getcpuclockid")]
    internal static partial int GetThreadCpuClock(nint thread, int* clock);

    [LibraryImport(Library, EntryPoint = "clock_gettime", SetLastError = true)]
    internal static partial int ClockGetTime(int clock, TimeSpec* result);

    /// <summary>Returns the error itself, not −1 and errno.</summary>
    [LibraryImport(Library, EntryPoint = "clock_nanosleep")]
    internal static partial int ClockNanoSleep(int clock, int flags, TimeSpec* time, TimeSpec* remainder);

    [LibraryImport(Library, EntryPoint = "mmap", SetLastError = true)]
    internal static partial void* MMap(void* address, nuint length, int protection, int flags, FileDescriptor descriptor, long offset);

    [LibraryImport(Library, EntryPoint = "munmap", SetLastError = true)]
    internal static partial int MUnmap(void* address, nuint length);

    [LibraryImport(Library, EntryPoint = "mprotect", SetLastError = true)]
    internal static partial int MProtect(void* address, nuint length, int protection);

    [LibraryImport(Library, EntryPoint = "madvise", SetLastError = true)]
    internal static partial int MAdvise(void* address, nuint length, int advice);

    [LibraryImport(Library, EntryPoint = "geteuid")]
    internal static partial uint GetEffectiveUserId();

    [LibraryImport(Library, EntryPoint = "getegid")]
    internal static partial uint GetEffectiveGroupId();

    [LibraryImport(Library, EntryPoint = "getrlimit", SetLastError = true)]
    internal static partial int GetLimit(int resource, ulong* limit);

    [LibraryImport(Library, EntryPoint = "mlockall", SetLastError = true)]
    internal static partial int MLockAll(int flags);

    [LibraryImport(Library, EntryPoint = "mlock", SetLastError = true)]
    internal static partial int MLock(void* address, nuint length);

    [LibraryImport(Library, EntryPoint = "munlock", SetLastError = true)]
    internal static partial int MUnlock(void* address, nuint length);

    [LibraryImport(Library, EntryPoint = "execv", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int Execute(string path, byte** arguments);

    /// <summary>Returns the error itself, not −1 and errno.</summary>
    [LibraryImport(Library, EntryPoint = "getgrnam_r", StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int GetGroupByName(string name, Group* group, byte* buffer, nuint bufferBytes, Group** found);

    /// <summary>Returns the error itself, not −1 and errno.</summary>
    [LibraryImport(Library, EntryPoint = "getpwnam_r", StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int GetUserByName(string name, User* user, byte* buffer, nuint bufferBytes, User** found);

    /// <summary>Returns the error itself, not −1 and errno.</summary>
    [LibraryImport(Library, EntryPoint = "getpwuid_r")]
    internal static partial int GetUserById(uint id, User* user, byte* buffer, nuint bufferBytes, User** found);
}
