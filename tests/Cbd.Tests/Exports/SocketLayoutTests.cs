using System.Diagnostics;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>The numbers of SocketCalls, EventPoll and SocketFile against the headers that are installed here.</summary>
public sealed class SocketLayoutTests
{
    private const string Source = """
        #define _GNU_SOURCE
        #include <stddef.h>
        #include <errno.h>
        #include <fcntl.h>
        #include <poll.h>
        #include <sys/epoll.h>
        #include <sys/eventfd.h>
        #include <sys/prctl.h>
        #include <sys/socket.h>
        #include <sys/stat.h>
        #include <sys/uio.h>
        #include <netinet/in.h>
        #include <netinet/tcp.h>
        #define IS(a, b) _Static_assert((a) == (b), #a)
        IS(AF_UNIX, 1); IS(AF_INET, 2); IS(AF_INET6, 10); IS(SOCK_STREAM, 1); IS(SOCK_NONBLOCK, 0x800); IS(SOCK_CLOEXEC, 0x80000);
        IS(SOL_SOCKET, 1); IS(SO_REUSEADDR, 2); IS(SO_KEEPALIVE, 9); IS(IPPROTO_TCP, 6); IS(TCP_NODELAY, 1);
        IS(TCP_KEEPIDLE, 4); IS(TCP_KEEPINTVL, 5); IS(TCP_KEEPCNT, 6); IS(IPPROTO_IPV6, 41); IS(IPV6_V6ONLY, 26);
        IS(MSG_DONTWAIT, 0x40); IS(MSG_NOSIGNAL, 0x4000); IS(EPOLL_CLOEXEC, 0x80000); IS(EFD_CLOEXEC, 0x80000); IS(EFD_NONBLOCK, 0x800);
        IS(PR_SET_TIMERSLACK, 29); IS(AT_FDCWD, -100); IS(AT_SYMLINK_NOFOLLOW, 0x100); IS(STATX_TYPE, 1); IS(STATX_INO, 0x100);
        IS(EPOLLIN, 1); IS(EPOLLOUT, 4); IS(EPOLLERR, 8); IS(EPOLLHUP, 0x10); IS(EPOLLRDHUP, 0x2000); IS((unsigned)EPOLLET, 0x80000000u);
        IS(EPOLL_CTL_ADD, 1); IS(EPOLL_CTL_DEL, 2); IS(EPOLL_CTL_MOD, 3); IS(POLLIN, 1);
        #ifdef __x86_64__
        IS(offsetof(struct epoll_event, data), 4); IS(sizeof(struct epoll_event), 12);
        #else
        IS(offsetof(struct epoll_event, data), 8); IS(sizeof(struct epoll_event), 16);
        #endif
        IS(sizeof(struct iovec), 16); IS(offsetof(struct iovec, iov_len), 8); IS(sizeof(struct msghdr), 56);
        IS(offsetof(struct msghdr, msg_iov), 16); IS(offsetof(struct msghdr, msg_iovlen), 24); IS(offsetof(struct msghdr, msg_flags), 48);
        IS(sizeof(struct pollfd), 8); IS(sizeof(struct timespec), 16); IS(sizeof(struct statx), 256);
        IS(offsetof(struct statx, stx_mode), 28); IS(offsetof(struct statx, stx_ino), 32);
        IS(offsetof(struct statx, stx_dev_major), 136); IS(offsetof(struct statx, stx_dev_minor), 140);
        IS(ENOENT, 2); IS(EINTR, 4); IS(EAGAIN, 11); IS(ENOMEM, 12); IS(EACCES, 13); IS(ENFILE, 23); IS(EMFILE, 24); IS(EPIPE, 32);
        IS(ENAMETOOLONG, 36); IS(EADDRINUSE, 98); IS(EADDRNOTAVAIL, 99); IS(ECONNABORTED, 103); IS(ECONNRESET, 104); IS(ENOBUFS, 105);
        IS(ECONNREFUSED, 111);
        """;

    [Fact]
    public void Numbers_and_layouts_are_those_of_the_installed_headers()
    {
        if (!File.Exists("/usr/bin/gcc"))
            Assert.Skip("gcc is not installed");
        var start = new ProcessStartInfo("/usr/bin/gcc", ["-x", "c", "-fsyntax-only", "-"])
        {
            RedirectStandardInput = true, RedirectStandardError = true,
        };
        using Process gcc = Process.Start(start)!;
        gcc.StandardInput.Write(Source);
        gcc.StandardInput.Close();
        string errors = gcc.StandardError.ReadToEnd();
        gcc.WaitForExit();
        Assert.True(gcc.ExitCode == 0, errors);
    }
}
