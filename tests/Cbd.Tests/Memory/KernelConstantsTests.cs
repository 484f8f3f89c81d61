using System.Diagnostics;
using System.Runtime.InteropServices;
using System.Text;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Memory;

/// <summary>Compiles every number and structure offset of the kernel's interface against the installed headers.</summary>
public sealed class KernelConstantsTests
{
    private const string Headers = """
        #define _GNU_SOURCE
        #include <errno.h>
        #include <fcntl.h>
        #include <stddef.h>
        #include <time.h>
        #include <sys/epoll.h>
        #include <sys/eventfd.h>
        #include <sys/mman.h>
        #include <sys/prctl.h>
        #include <sys/syscall.h>
        #include <sys/vfs.h>
        #include <linux/falloc.h>
        #include <linux/futex.h>
        #include <linux/magic.h>
        #include <linux/stat.h>
        #include <signal.h>
        #include <stdint.h>

        """;

    [Fact]
    public void Numbers_and_layouts_are_those_of_the_headers_of_this_machine() =>
        Compile("gcc", RuntimeInformation.ProcessArchitecture);

    [Fact]
    public void Numbers_and_layouts_are_those_of_arm64_headers()
    {
        const string compiler = "/usr/bin/aarch64-linux-gnu-gcc";
        Assert.SkipUnless(File.Exists(compiler), "the arm64 cross compiler (gcc-aarch64-linux-gnu) is not installed");
        Compile(compiler, Architecture.Arm64);
    }

    [Fact]
    public void Every_constant_is_in_the_list()
    {
        HashSet<string> listed = Assertions(Architecture.X64).Select(a => a.Name).ToHashSet();
        IEnumerable<string> fields = typeof(KernelConstants)
            .GetFields(System.Reflection.BindingFlags.NonPublic | System.Reflection.BindingFlags.Static)
            .Select(f => f.Name);
        Assert.All(fields, name => Assert.Contains(name, listed));
    }

    private static void Compile(string compiler, Architecture architecture)
    {
        var program = new StringBuilder(Headers);
        foreach ((string expression, long value, string name) in Assertions(architecture))
            program.Append($"_Static_assert((long)({expression}) == {value}L, \"{name}\");\n");
        var start = new ProcessStartInfo(compiler, "-x c -fsyntax-only -Werror -")
        {
            RedirectStandardInput = true,
            RedirectStandardError = true,
        };
        using Process process = Process.Start(start)!;
        process.StandardInput.Write(program.ToString());
        process.StandardInput.Close();
        string errors = process.StandardError.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, errors);
    }

    private static List<(string Expression, long Value, string Name)> Assertions(Architecture architecture)
    {
        var list = new List<(string Expression, long Value, string Name)>();
        void Add(string expression, long value, string name = "") => list.Add((expression, value, name.Length == 0 ? expression : name));

        Add("EPERM", KernelConstants.EPERM);
        Add("ENOENT", KernelConstants.ENOENT);
        Add("ESRCH", KernelConstants.ESRCH);
        Add("EINTR", KernelConstants.EINTR);
        Add("EAGAIN", KernelConstants.EAGAIN);
        Add("ENOMEM", KernelConstants.ENOMEM);
        Add("EACCES", KernelConstants.EACCES);
        Add("EFAULT", KernelConstants.EFAULT);
        Add("EBUSY", KernelConstants.EBUSY);
        Add("EEXIST", KernelConstants.EEXIST);
        Add("ENOTDIR", KernelConstants.ENOTDIR);
        Add("EISDIR", KernelConstants.EISDIR);
        Add("EINVAL", KernelConstants.EINVAL);
        Add("ENFILE", KernelConstants.ENFILE);
        Add("EMFILE", KernelConstants.EMFILE);
        Add("ETXTBSY", KernelConstants.ETXTBSY);
        Add("EFBIG", KernelConstants.EFBIG);
        Add("ENOSPC", KernelConstants.ENOSPC);
        Add("EROFS", KernelConstants.EROFS);
        Add("ENOSYS", KernelConstants.ENOSYS);
        Add("ELOOP", KernelConstants.ELOOP);
        Add("EOPNOTSUPP", KernelConstants.EOPNOTSUPP);
        Add("ETIMEDOUT", KernelConstants.ETIMEDOUT);
        Add("EDQUOT", KernelConstants.EDQUOT);

        Add("AT_FDCWD", KernelConstants.AtFdCwd, "AtFdCwd");
        Add("AT_EMPTY_PATH", KernelConstants.AtEmptyPath, "AtEmptyPath");
        Add("PROT_READ", KernelConstants.ProtectionRead, "ProtectionRead");
        Add("PROT_WRITE", KernelConstants.ProtectionWrite, "ProtectionWrite");
        Add("MAP_SHARED", KernelConstants.MapShared, "MapShared");
        Add("MAP_SHARED_VALIDATE", KernelConstants.MapSharedValidate, "MapSharedValidate");
        Add("MAP_SYNC", KernelConstants.MapSync, "MapSync");
        Add("F_DUPFD_CLOEXEC", KernelConstants.FcntlDuplicateCloseOnExec, "FcntlDuplicateCloseOnExec");
        Add("F_OFD_GETLK", KernelConstants.FcntlOfdGetLock, "FcntlOfdGetLock");
        Add("F_OFD_SETLK", KernelConstants.FcntlOfdSetLock, "FcntlOfdSetLock");
        Add("F_WRLCK", KernelConstants.LockWrite, "LockWrite");
        Add("F_UNLCK", KernelConstants.LockNone, "LockNone");
        Add("FUTEX_WAIT", KernelConstants.FutexWaitShared, "FutexWaitShared");
        Add("FUTEX_WAKE", KernelConstants.FutexWakeShared, "FutexWakeShared");
        Add("FUTEX_32", KernelConstants.Futex2Size32, "Futex2Size32");
        Add("FUTEX_WAITV_MAX", KernelConstants.FutexWaitvMaximum, "FutexWaitvMaximum");
        Add("EFD_CLOEXEC", KernelConstants.EventFdCloseOnExec, "EventFdCloseOnExec");
        Add("EFD_NONBLOCK", KernelConstants.EventFdNonBlocking, "EventFdNonBlocking");
        Add("EPOLL_CLOEXEC", KernelConstants.EpollCloseOnExec, "EpollCloseOnExec");
        Add("EPOLL_CTL_ADD", KernelConstants.EpollAdd, "EpollAdd");
        Add("EPOLL_CTL_DEL", KernelConstants.EpollDelete, "EpollDelete");
        Add("EPOLL_CTL_MOD", KernelConstants.EpollModify, "EpollModify");
        Add("PR_SET_TIMERSLACK", KernelConstants.PrctlSetTimerSlack, "PrctlSetTimerSlack");
        Add("PR_GET_TIMERSLACK", KernelConstants.PrctlGetTimerSlack, "PrctlGetTimerSlack");
        Add("CLOCK_MONOTONIC", KernelConstants.ClockMonotonic, "ClockMonotonic");
        Add("CLOCK_BOOTTIME", KernelConstants.ClockBootTime, "ClockBootTime");
        Add("__NR_epoll_pwait2", KernelConstants.SyscallEpollPWait2, "SyscallEpollPWait2");
        Add("__NR_futex_waitv", KernelConstants.SyscallFutexWaitV, "SyscallFutexWaitV");
        Add("__NR_pidfd_open", KernelConstants.SyscallPidfdOpen, "SyscallPidfdOpen");
        Add("__NR_pidfd_send_signal", KernelConstants.SyscallPidfdSendSignal, "SyscallPidfdSendSignal");
        Add("__NR_futex", KernelConstants.SyscallFutexOn(architecture));
        Add("sizeof(struct epoll_event)", KernelConstants.EpollEventBytesOn(architecture));
        Add("offsetof(struct epoll_event, data)", KernelConstants.EpollEventBytesOn(architecture) - 8);

        Add("EPOLLIN", (long)PollEvents.Readable);
        Add("EPOLLOUT", (long)PollEvents.Writable);
        Add("EPOLLERR", (long)PollEvents.Error);
        Add("EPOLLHUP", (long)PollEvents.HangUp);
        Add("EPOLLRDHUP", (long)PollEvents.PeerClosed);
        Add("(int)EPOLLET", (long)PollEvents.EdgeTriggered);
        Add("FALLOC_FL_KEEP_SIZE", (long)AllocateMode.KeepSize);
        Add("FALLOC_FL_PUNCH_HOLE", (long)AllocateMode.PunchHole);
        Add("FALLOC_FL_ZERO_RANGE", (long)AllocateMode.ZeroRange);
        foreach ((string name, OpenFlags flag) in new[]
        {
            ("O_RDONLY", OpenFlags.ReadOnly), ("O_WRONLY", OpenFlags.WriteOnly), ("O_RDWR", OpenFlags.ReadWrite),
            ("O_CREAT", OpenFlags.Create), ("O_EXCL", OpenFlags.Exclusive), ("O_TRUNC", OpenFlags.Truncate),
            ("O_NONBLOCK", OpenFlags.NonBlocking), ("O_DSYNC", OpenFlags.DataSync), ("O_DIRECT", OpenFlags.Direct),
            ("O_DIRECTORY", OpenFlags.Directory), ("O_NOFOLLOW", OpenFlags.NoFollow), ("O_CLOEXEC", OpenFlags.CloseOnExec),
        })
        {
            Add(name, flag.ToNative(architecture));
        }

        Add("sizeof(struct statx)", FileStatus.StatxBytes);
        Add("STATX_BASIC_STATS", FileStatus.StatxBasicStats);
        Add("STATX_ATTR_DAX", (long)FileStatus.StatxAttributeDax);
        Add("offsetof(struct statx, stx_blksize)", FileStatus.BlockSizeOffset);
        Add("offsetof(struct statx, stx_attributes)", FileStatus.AttributesOffset);
        Add("offsetof(struct statx, stx_uid)", FileStatus.UserIdOffset);
        Add("offsetof(struct statx, stx_gid)", FileStatus.GroupIdOffset);
        Add("offsetof(struct statx, stx_mode)", FileStatus.ModeOffset);
        Add("offsetof(struct statx, stx_ino)", FileStatus.InodeOffset);
        Add("offsetof(struct statx, stx_size)", FileStatus.SizeOffset);
        Add("offsetof(struct statx, stx_blocks)", FileStatus.BlocksOffset);
        Add("offsetof(struct statx, stx_rdev_major)", FileStatus.NodeMajorOffset);
        Add("offsetof(struct statx, stx_rdev_minor)", FileStatus.NodeMinorOffset);
        Add("offsetof(struct statx, stx_dev_major)", FileStatus.DeviceMajorOffset);
        Add("offsetof(struct statx, stx_dev_minor)", FileStatus.DeviceMinorOffset);
        Add("S_IFREG >> 12", (long)FileType.Regular);
        Add("S_IFDIR >> 12", (long)FileType.Directory);
        Add("S_IFBLK >> 12", (long)FileType.BlockDevice);
        Add("S_IFCHR >> 12", (long)FileType.CharacterDevice);
        Add("S_IFIFO >> 12", (long)FileType.Fifo);
        Add("S_IFSOCK >> 12", (long)FileType.Socket);
        Add("S_IFLNK >> 12", (long)FileType.SymbolicLink);

        Add("offsetof(struct statfs, f_type)", 0);
        Add("offsetof(struct statfs, f_bsize)", 8);
        Add("sizeof(struct statfs) <= 256", 1);
        Add("TMPFS_MAGIC", RegionSource.TmpFsMagic);
        Add("RAMFS_MAGIC", RegionSource.RamFsMagic);
        Add("HUGETLBFS_MAGIC", RegionSource.HugeTlbFsMagic);
        Add("SYSFS_MAGIC", RegionSource.SysFsMagic);

        Add("sizeof(struct flock)", Marshal.SizeOf<RegionByteLock.FileLock>());
        AddField<RegionByteLock.FileLock>("struct flock, l_type", nameof(RegionByteLock.FileLock.Type));
        AddField<RegionByteLock.FileLock>("struct flock, l_whence", nameof(RegionByteLock.FileLock.Whence));
        AddField<RegionByteLock.FileLock>("struct flock, l_start", nameof(RegionByteLock.FileLock.Start));
        AddField<RegionByteLock.FileLock>("struct flock, l_len", nameof(RegionByteLock.FileLock.Length));
        AddField<RegionByteLock.FileLock>("struct flock, l_pid", nameof(RegionByteLock.FileLock.ProcessId));
        Add("sizeof(struct futex_waitv)", Marshal.SizeOf<Futex.Waiter>());
        AddField<Futex.Waiter>("struct futex_waitv, val", nameof(Futex.Waiter.Value));
        AddField<Futex.Waiter>("struct futex_waitv, uaddr", nameof(Futex.Waiter.Address));
        AddField<Futex.Waiter>("struct futex_waitv, flags", nameof(Futex.Waiter.Flags));
        Add("sizeof(struct timespec)", Marshal.SizeOf<TimeSpec>());
        AddField<TimeSpec>("struct timespec, tv_nsec", nameof(TimeSpec.Nanoseconds));
        return list;

        void AddField<T>(string field, string name) => Add($"offsetof({field})", (long)Marshal.OffsetOf<T>(name));
    }
}
