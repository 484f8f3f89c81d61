using System.Diagnostics;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Xunit;

namespace Cbd.Tests.Memory;

public sealed class KernelTests
{
    [Fact]
    public void Failed_call_names_call_subject_and_reason()
    {
        var e = Assert.Throws<SystemCallException>(() => FileDescriptor.Open("/nonexistent/x", OpenFlags.ReadOnly));
        Assert.Equal("open", e.Call);
        Assert.Equal(Errno.ENOENT, e.Errno);
        Assert.Equal(CbdErrorKind.NotFound, e.Kind);
        Assert.Equal("open '/nonexistent/x': No such file or directory (errno 2)", e.Message);
    }

    [Fact]
    public void Status_tells_size_type_and_identity()
    {
        using var files = new TemporaryDirectory();
        string path = files.PathOf("file");
        using FileDescriptor descriptor = FileDescriptor.Open(path, OpenFlags.ReadWrite | OpenFlags.Create | OpenFlags.Exclusive, 0x180);
        descriptor.Allocate(AllocateMode.Reserve, 0, 8192);
        FileStatus status = descriptor.GetStatus();
        Assert.Equal(FileType.Regular, status.Type);
        Assert.Equal(8192, status.SizeBytes);
        Assert.True(status.AllocatedBytes >= 8192);
        Assert.Equal(0x180u, status.Permissions);
        Assert.Equal(0, FileStatus.TryGet(path, out FileStatus named));
        Assert.Equal(named, status);
        Assert.NotEqual(0ul, status.Inode);
        Assert.Equal(Run("stat", $"-c %d:%i {path}"), $"{status.Device}:{status.Inode}");
        descriptor.Truncate(100);
        Assert.Equal(100, descriptor.GetStatus().SizeBytes);
        Assert.Equal(-Errno.ENOENT, FileStatus.TryGet(files.PathOf("other"), out _));
    }

    [Fact]
    public void Status_of_a_link_is_its_own_if_it_is_not_followed()
    {
        using var files = new TemporaryDirectory();
        string link = files.PathOf("link");
        File.CreateSymbolicLink(link, files.PathOf("nothing"));
        Assert.Equal(-Errno.ENOENT, FileStatus.TryGet(link, out _));
        Assert.Equal(0, FileStatus.TryGet(link, out FileStatus status, followLinks: false));
        Assert.Equal(FileType.SymbolicLink, status.Type);
    }

    [Fact]
    public void Poll_reports_the_wake_that_is_signalled_with_its_token()
    {
        using var poll = new EventPoll(4);
        using var quiet = new PollWake();
        using var loud = new PollWake();
        poll.Add(quiet, 1);
        poll.Add(loud, 0xfedcba9876543210);
        Assert.Equal(0, poll.Wait(0));
        Assert.Equal(0, poll.Wait(10_000));
        loud.Signal();
        Assert.Equal(1, poll.Wait(-1));
        Assert.Equal(SocketEvents.Readable, poll.GetEvent(0, out ulong token));
        Assert.Equal(0xfedcba9876543210, token);
        loud.Clear();
        loud.Clear();
        Assert.Equal(0, poll.Wait(0));
        loud.Signal();
        quiet.Signal();
        Assert.Equal(2, poll.Wait(1_000_000_001));
        quiet.Dispose();
        quiet.Signal();
        Assert.Equal(1, poll.Wait(0));
    }

    [Fact]
    public void Clocks_advance_and_boot_time_includes_suspend()
    {
        long before = KernelClock.MonotonicNs;
        long boot = KernelClock.BootTimeNs;
        Assert.True(KernelClock.MonotonicNs >= before);
        Assert.True(boot >= before);
    }

    [Fact]
    public void Process_descriptor_kills_and_sees_the_end()
    {
        using Process child = Process.Start("sleep", "1000");
        using ProcessDescriptor descriptor = ProcessDescriptor.TryOpen(child.Id)!;
        Assert.False(descriptor.WaitForExit(0));
        descriptor.Kill();
        Assert.True(descriptor.WaitForExit(60_000));
        child.WaitForExit();
        descriptor.Kill();
        Assert.Null(ProcessDescriptor.TryOpen(child.Id));
    }

    [Fact]
    public void Boot_id_is_the_kernels() =>
        Assert.Equal(File.ReadAllText("/proc/sys/kernel/random/boot_id").Trim(), ProcessIdentity.BootId.ToString());

    internal static string Run(string program, string arguments)
    {
        using Process process = Process.Start(new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true })!;
        string output = process.StandardOutput.ReadToEnd().Trim();
        process.WaitForExit();
        Assert.Equal(0, process.ExitCode);
        return output;
    }
}
