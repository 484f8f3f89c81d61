namespace Cbd.Tests.Memory;

/// <summary>What the constants and structures of futexes, event descriptors, polls and clocks are called in the headers of Linux and its C library.</summary>
internal static class WaitingInterfaceInC
{
    internal static readonly Dictionary<string, string> Constants = new()
    {
        ["KernelConstants.FutexWakeShared"] = "FUTEX_WAKE",
        ["KernelConstants.Futex2Size32"] = "FUTEX_32",
        ["KernelConstants.FutexWaitvMaximum"] = "FUTEX_WAITV_MAX",
        ["KernelConstants.EventFdCloseOnExec"] = "EFD_CLOEXEC",
        ["KernelConstants.EventFdNonBlocking"] = "EFD_NONBLOCK",
        ["KernelConstants.EpollCloseOnExec"] = "EPOLL_CLOEXEC",
        ["KernelConstants.EpollAdd"] = "EPOLL_CTL_ADD",
        ["KernelConstants.EpollDelete"] = "EPOLL_CTL_DEL",
        ["KernelConstants.EpollModify"] = "EPOLL_CTL_MOD",
        ["KernelConstants.PollIn"] = "POLLIN",
        ["KernelConstants.PollOut"] = "POLLOUT",
        ["KernelConstants.PollError"] = "POLLERR",
        ["KernelConstants.PollHangUp"] = "POLLHUP",
        ["KernelConstants.ClockMonotonic"] = "CLOCK_MONOTONIC",
        ["KernelConstants.ClockBootTime"] = "CLOCK_BOOTTIME",
        ["KernelConstants.SyscallFutexWaitV"] = "SYS_futex_waitv",
        ["SocketEvents.Readable"] = "EPOLLIN",
        ["SocketEvents.Writable"] = "EPOLLOUT",
        ["SocketEvents.Error"] = "EPOLLERR",
        ["SocketEvents.HangUp"] = "EPOLLHUP",
        ["SocketEvents.PeerClosed"] = "EPOLLRDHUP",
        ["SocketEvents.EdgeTriggered"] = "(unsigned)EPOLLET",
    };

    internal static readonly Dictionary<string, (string Structure, Dictionary<string, string> Fields)> Structures = new()
    {
        ["PollEntry"] = ("struct pollfd", new()
        {
            ["Descriptor"] = "fd",
            ["Events"] = "events",
            ["Returned"] = "revents",
        }),
        ["TimeSpec"] = ("struct timespec", new()
        {
            ["Seconds"] = "tv_sec",
            ["Nanoseconds"] = "tv_nsec",
        }),
        ["FutexWaiter"] = ("struct futex_waitv", new()
        {
            ["Value"] = "val",
            ["Address"] = "uaddr",
            ["Flags"] = "flags",
            ["Reserved"] = "__reserved",
        }),
    };
}
