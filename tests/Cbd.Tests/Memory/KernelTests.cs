using System.Diagnostics;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Memory;

public sealed class KernelTests
{
    [Fact]
    public void Failed_call_names_call_subject_and_reason()
    {
        var e = Assert.Throws<SystemCallException>(() => FileDescriptor.Open("/nonexistent/x", OpenFlags.ReadOnly));
        Assert.Equal("open", e.Call);
        Assert.Equal(KernelConstants.ENOENT, e.Errno);
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
        Assert.Equal(0x180u, status.Mode);
        Assert.Equal(FileStatus.TryGet(path)!.Value, status);
        Assert.NotEqual(0ul, status.Inode);
        Assert.Equal(Run("stat", $"-c %d:%i {path}"), $"{status.Device}:{status.Inode}");
        descriptor.Truncate(100);
        Assert.Equal(100, descriptor.GetStatus().SizeBytes);
        Assert.Null(FileStatus.TryGet(files.PathOf("other")));
    }

    [Fact]
    public void Bytes_written_at_an_offset_are_read_there()
    {
        using var files = new TemporaryDirectory();
        using FileDescriptor descriptor = FileDescriptor.Open(files.PathOf("file"), OpenFlags.ReadWrite | OpenFlags.Create, 0x180);
        Assert.Equal(3, descriptor.WriteAt(10, [1, 2, 3]));
        descriptor.FlushData();
        byte[] read = new byte[8];
        Assert.Equal(4, descriptor.ReadAt(9, read));
        Assert.Equal([0, 1, 2, 3, 0, 0, 0, 0], read);
    }

    [Fact]
    public void Poller_reports_the_descriptor_that_is_ready_with_its_data()
    {
        using var poller = new EventPoller();
        using var quiet = new EventNotifier();
        using var loud = new EventNotifier();
        poller.Add(quiet.Descriptor, PollEvents.Readable, 1);
        poller.Add(loud.Descriptor, PollEvents.Readable, 0xfedcba9876543210);
        var results = new PollResult[4];
        Assert.Equal(0, poller.Wait(results, 0));
        Assert.Equal(0, poller.Wait(results, 10));
        loud.Signal();
        Assert.Equal(1, poller.Wait(results, -1));
        Assert.Equal(new PollResult(PollEvents.Readable, 0xfedcba9876543210), results[0]);
        Assert.True(loud.Reset());
        Assert.False(loud.Reset());
        Assert.Equal(0, poller.Wait(results, 0));
        loud.Signal();
        quiet.Signal();
        Assert.Equal(2, poller.Wait(results, 1_000_000));
        poller.Modify(loud.Descriptor, PollEvents.None, 0);
        poller.Remove(quiet.Descriptor);
        Assert.Equal(0, poller.Wait(results, 0));
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
    public void Thread_settings_are_those_the_kernel_tells()
    {
        int slack = 0;
        IReadOnlyList<int> cpus = [];
        int wanted = CurrentThread.AllowedCpus()[^1];
        var thread = new Thread(() =>
        {
            CurrentThread.SetTimerSlack(1000);
            slack = CurrentThread.GetTimerSlack();
            CurrentThread.PinToCpu(wanted);
            cpus = CurrentThread.AllowedCpus();
        });
        thread.Start();
        thread.Join();
        Assert.Equal(1000, slack);
        Assert.Equal([wanted], cpus);
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
        Assert.Equal(Environment.ProcessId, ProcessDescriptor.CurrentProcessId);
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
