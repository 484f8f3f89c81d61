using System.Runtime.InteropServices;

namespace Cbd.Memory;

/// <summary>
/// Numbers of the kernel's interface (linux/*.h, asm-generic/*.h). A test compiles every one of them as a static
/// assertion against the installed headers; add to its list what is added here.
/// </summary>
internal static class KernelConstants
{
    internal const int EINTR = 4;
    internal const int EAGAIN = 11;
    internal const int ENOMEM = 12;
    internal const int EACCES = 13;
    internal const int EPERM = 1;
    internal const int ENOENT = 2;
    internal const int ESRCH = 3;
    internal const int EFAULT = 14;
    internal const int EBUSY = 16;
    internal const int EEXIST = 17;
    internal const int ENOTDIR = 20;
    internal const int EISDIR = 21;
    internal const int EINVAL = 22;
    internal const int ENFILE = 23;
    internal const int EMFILE = 24;
    internal const int ETXTBSY = 26;
    internal const int EFBIG = 27;
    internal const int ENOSPC = 28;
    internal const int EROFS = 30;
    internal const int ENOSYS = 38;
    internal const int ELOOP = 40;
    internal const int EOPNOTSUPP = 95;
    internal const int ETIMEDOUT = 110;
    internal const int EDQUOT = 122;

    internal const int AtFdCwd = -100;
    internal const int AtEmptyPath = 0x1000;

    internal const int ProtectionRead = 1;
    internal const int ProtectionWrite = 2;
    internal const int MapShared = 1;
    internal const int MapSharedValidate = 3;
    internal const int MapSync = 0x80000;

    internal const int FcntlDuplicateCloseOnExec = 1030;
    internal const int FcntlOfdGetLock = 36;
    internal const int FcntlOfdSetLock = 37;
    internal const short LockWrite = 1;
    internal const short LockNone = 2;

    internal const int FutexWaitShared = 0;
    internal const int FutexWakeShared = 1;
    internal const uint Futex2Size32 = 2;
    internal const int FutexWaitvMaximum = 128;

    internal const int EventFdCloseOnExec = 0x80000;
    internal const int EventFdNonBlocking = 0x800;
    internal const int EpollCloseOnExec = 0x80000;
    internal const int EpollAdd = 1;
    internal const int EpollDelete = 2;
    internal const int EpollModify = 3;

    internal const int PrctlSetTimerSlack = 29;
    internal const int PrctlGetTimerSlack = 30;
    internal const int ClockMonotonic = 1;
    internal const int ClockBootTime = 7;

    internal const nint SyscallEpollPWait2 = 441;
    internal const nint SyscallFutexWaitV = 449;
    internal const nint SyscallPidfdOpen = 434;
    internal const nint SyscallPidfdSendSignal = 424;

    /// <summary><c>futex</c> is older than the numbering that all architectures share.</summary>
    internal static nint SyscallFutex => SyscallFutexOn(RuntimeInformation.ProcessArchitecture);

    /// <summary>Bytes of <c>struct epoll_event</c>: packed on x86-64 alone.</summary>
    internal static int EpollEventBytes => EpollEventBytesOn(RuntimeInformation.ProcessArchitecture);

    internal static nint SyscallFutexOn(Architecture architecture) => architecture == Architecture.X64 ? 202 : 98;

    internal static int EpollEventBytesOn(Architecture architecture) => architecture == Architecture.X64 ? 12 : 16;
}
