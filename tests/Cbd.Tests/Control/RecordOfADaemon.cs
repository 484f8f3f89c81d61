using Cbd.Host.Wanted;
using Cbd.Memory;
using Cbd.Programs.Daemon;
using Cbd.Programs.Daemon.State;
using Cbd.Host;
using Microsoft.Extensions.Logging;
using Xunit;

namespace Cbd.Tests.Control;

public sealed class RecordOfADaemon : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly WrittenLog _log = new();
    private readonly ILogger _logger;

    public RecordOfADaemon() => _logger = _log.CreateLogger("cbdd");

    private StateFile File => new(_directory.Path);

    public void Dispose() => _directory.Dispose();

    private static readonly TlsOptions s_tls = new() { Require = false, Certificates = "/pki", VerifyPeer = true, Allow = ["alice", "bob"] };

    private static RecordingControl Recorded(IControl node, StateRecord record) => PatientDaemon.Control(node, record);

    private StateRecord NewRecord(bool restore = false) => new(File, _logger, restore ? File.Read() : []);

    private static void StartAll(RecordingControl node)
    {
        node.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r", Format = true, Force = true, Coherence = "hardware" });
        node.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdb", Handlers = 3, ReadOnly = true, Engine = "pread", BlockBytes = 4096 });
        node.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdc" });
        node.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 1, Queues = 2, Nbd = "tcp:0.0.0.0:10809", Insecure = true, LossTimeoutSeconds = 30 });
        node.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0, ReadOnly = true, OnBackendLoss = OnBackendLoss.Fail, Tls = s_tls, NbdConnections = 7, NbdHandshakeSeconds = 30 });
    }

    [Fact]
    public void A_restore_starts_the_same_things_in_the_same_order_and_never_formats()
    {
        StartAll(Recorded(new ListedNode(), NewRecord()));
        var node = new ListedNode();
        var record = NewRecord(restore: true);
        Assert.Equal(0, PatientDaemon.Reconciler(node, record, _logger).Pass(() => false));
        Assert.Equal(
            [
                $"{new RegisterTransportOptions { Host = "alpha", Path = "/r", Coherence = "hardware", RegionUuid = node.Uuid }}",
                $"{new StartBackendOptions { Path = "/dev/sdb", DiskIdentity = "file:/dev/sdb", IsUnattended = true, Handlers = 3, ReadOnly = true, Engine = "pread", BlockBytes = 4096 }}",
                $"{new StartBackendOptions { Path = "/dev/sdc", DiskIdentity = "file:/dev/sdc", IsUnattended = true }}",
                $"{new StartDeviceOptions { Backend = 1, DiskIdentity = "file:/dev/sdc", Name = "cbd0", Queues = 2, Nbd = "tcp:0.0.0.0:10809", Insecure = true, LossTimeoutSeconds = 30 }}",
                $"{new StartDeviceOptions { Backend = 0, DiskIdentity = "file:/dev/sdb", Name = "cbd1", ReadOnly = true, OnBackendLoss = OnBackendLoss.Fail, Tls = s_tls, NbdConnections = 7, NbdHandshakeSeconds = 30 }}",
            ],
            node.Calls);
        Assert.DoesNotContain(record.Entries, entry => entry.IsPending);
    }

    [Fact]
    public void What_was_stopped_is_not_restored()
    {
        var node = Recorded(new ListedNode(), NewRecord());
        StartAll(node);
        node.Execute(Operations.StopDevice, new StopRequest { Id = 0 });
        node.Execute(Operations.StopBackend, new StopRequest { Id = 1 });
        Assert.Equal(3, File.Read().Count);
        node.Execute(Operations.UnregisterTransport, new TransportTarget());
        Assert.Empty(File.Read());
    }

    [Fact]
    public void What_is_still_stopping_is_not_restored()
    {
        var inner = new ListedNode { StopAnswer = StopAnswer.Stopping("device 0 is stopping") };
        var node = Recorded(inner, NewRecord());
        StartAll(node);
        Assert.Equal("stopping", node.Execute(Operations.StopDevice, new StopRequest()).State);
        Assert.Equal(4, File.Read().Count);
    }

    [Fact]
    public void What_failed_to_start_or_stop_changes_nothing_in_the_record()
    {
        var inner = new ListedNode();
        var node = Recorded(inner, NewRecord());
        StartAll(node);
        var before = System.IO.File.ReadAllText(File.FilePath);
        inner.Failure = new CbdException(CbdErrorKind.Busy, "in use");
        Assert.Throws<CbdException>(() => node.Execute(Operations.StopBackend, new StopRequest { Id = 0 }));
        inner.Failure = new CbdException(CbdErrorKind.NotFound, "no disk");
        Assert.Throws<CbdException>(() => node.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdx" }));
        Assert.Equal(before, System.IO.File.ReadAllText(File.FilePath));
    }

    [Fact]
    public void What_cannot_be_restored_is_reported_in_one_line_each_and_kept_for_the_next_time()
    {
        StartAll(Recorded(new ListedNode(), NewRecord()));
        var record = NewRecord(restore: true);
        var node = new ListedNode { Failure = new CbdException(CbdErrorKind.NotFound, "region '/r' is missing") };
        Assert.Equal(5, PatientDaemon.Reconciler(node, record, _logger).Pass(() => false));
        var lines = _log.ToString().TrimEnd('\n').Split('\n');
        Assert.Equal(5, lines.Length);
        Assert.EndsWith("error cbdd: not restored: transport on /r: region '/r' is missing", lines[0]);
        Assert.EndsWith("error cbdd: not restored: backend on /dev/sdb: the transport on '/r' is not registered yet: see its reason in cbdctrl wait, or register it with tp-reg -H alpha -p /r", lines[1]);
        Assert.Equal(5, File.Read().Count);
    }

    [Fact]
    public void A_thing_started_by_hand_takes_the_place_of_its_failed_restore()
    {
        StartAll(Recorded(new ListedNode(), NewRecord()));
        var record = NewRecord(restore: true);
        var inner = new ListedNode { Failure = new CbdException(CbdErrorKind.NotFound, "region '/r' is missing") };
        var node = Recorded(inner, record);
        PatientDaemon.Reconciler(inner, record, _logger).Pass(() => false);
        node.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "beta", Path = "/r" });
        node.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdb", ReadOnly = true, BlockBytes = 4096 });
        Assert.Equal(5, record.Entries.Count);
        Assert.Equal("beta", record.Entries[0].Transport!.Host);
        Assert.Equal(1, record.Entries[1].Backend!.Handlers);
        Assert.Equal([false, false, true, true, true], record.Entries.Select(e => e.IsPending));
    }

    [Fact]
    public void Devices_follow_their_backend_to_its_new_id()
    {
        StartAll(Recorded(new ListedNode(), NewRecord()));
        var record = NewRecord(restore: true);
        var next = 10;
        var node = new InterceptedControl(new ListedNode(), request => request is StartBackendOptions options ? options with { Backend = next++ } : request);
        PatientDaemon.Reconciler(node, record, _logger).Pass(() => false);
        Assert.DoesNotContain(record.Entries, entry => entry.IsPending);
        Assert.Equal([11, 10], record.Entries.Where(e => e.Device is not null).Select(e => e.Device!.BackendId));
    }

    [Fact]
    public void A_device_is_not_started_on_another_disk_that_has_its_backends_id_now()
    {
        var first = new ListedNode();
        var recorded = Recorded(first, NewRecord());
        recorded.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        first.AddForeignBackend(0, 5, "/dev/sdq", "alive");
        recorded.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 5 });

        var node = new ListedNode();
        node.AddForeignBackend(0, 5, "/dev/other", "alive");
        var record = NewRecord(restore: true);
        Assert.Equal(1, PatientDaemon.Reconciler(node, record, _logger).Pass(() => false));
        Assert.Contains("backend 5 is '/dev/other' (file:/dev/other) now and was '/dev/sdq' (file:/dev/sdq): start that disk", _log.ToString());
        Assert.Empty(node.Execute(Operations.ListDevices, new ListRequest { All = true }));
    }

    [Theory]
    [InlineData("dead", 0)]
    [InlineData("alive", null)]
    public void A_backend_that_a_killed_self_left_is_taken_over_and_a_live_one_is_not(string alive, int? taken)
    {
        var recorded = Recorded(new ListedNode(), NewRecord());
        recorded.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        recorded.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdb" });

        var node = new ListedNode();
        node.AddForeignBackend(0, 0, "/dev/sdb", alive);
        var record = NewRecord(restore: true);
        PatientDaemon.Reconciler(node, record, _logger).Pass(() => false);
        Assert.Contains($"{new StartBackendOptions { Path = "/dev/sdb", DiskIdentity = "file:/dev/sdb", IsUnattended = true, Backend = taken }}", node.Calls);
    }

    [Fact]
    public void A_disk_without_a_file_is_restored_with_its_last_size_and_its_devices_fail_because_its_data_is_gone()
    {
        var recorded = Recorded(new ListedNode(), NewRecord());
        recorded.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        recorded.Execute(Operations.StartBackend, new StartBackendOptions { Path = "memory:64M" });
        recorded.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdb" });
        recorded.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0 });
        Assert.Equal(128 << 20, recorded.Execute(Operations.ResizeBackend, new ResizeRequest { Id = 0, SizeBytes = 128 << 20 }).SizeBytes);
        recorded.Execute(Operations.ResizeBackend, new ResizeRequest { Id = 1, SizeBytes = 128 << 20 });

        var node = new ListedNode();
        var record = NewRecord(restore: true);
        Assert.Equal(0, PatientDaemon.Reconciler(node, record, _logger).Pass(() => false));
        Assert.Equal(["memory:134217728", "/dev/sdb"], node.Execute(Operations.ListBackends, new ListRequest { All = true }).Select(b => b.Path));
        StateEntry device = Assert.Single(record.Entries, e => e.Device is not null);
        Assert.Equal("memory:134217728", device.Device!.BackendPath);
        Assert.Contains("backend 0 ('memory:134217728'), was in memory and began anew", device.Failed);
        Assert.Contains("was in memory and began anew", NewRecord(restore: true).Entries.Single(e => e.Device is not null).Failed);
        Assert.Single(record.Entries, entry => entry.IsPending);
    }

    [Fact]
    public void What_the_region_knows_of_a_disk_without_a_file_wins_over_an_older_record()
    {
        var recorded = Recorded(new ListedNode(), NewRecord());
        recorded.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        recorded.Execute(Operations.StartBackend, new StartBackendOptions { Path = "memory:64M" });

        // Killed after the region had the new size and before the record had it.
        var node = new ListedNode();
        node.AddForeignBackend(0, 0, "memory:134217728", "dead");
        var record = NewRecord(restore: true);
        PatientDaemon.Reconciler(node, record, _logger).Pass(() => false);
        Assert.Contains($"{new StartBackendOptions { Path = "memory:134217728", IsUnattended = true, Backend = 0 }}", node.Calls);
        Assert.Equal([false, false], record.Entries.Select(e => e.IsPending));
    }

    [Fact]
    public void A_restore_ends_between_two_things_when_the_daemon_is_to_stop()
    {
        StartAll(Recorded(new ListedNode(), NewRecord()));
        var node = new ListedNode();
        var record = NewRecord(restore: true);
        PatientDaemon.Reconciler(node, record, _logger).Pass(() => node.Calls.Count == 2);
        Assert.Equal(2, node.Calls.Count);
        Assert.Equal(5, File.Read().Count);
    }

    [Theory]
    [InlineData("", "is not right")]
    [InlineData("null", "it is null")]
    [InlineData("[]", "is not right")]
    [InlineData("""{"version":2,"entries":[""", "is not right")]
    [InlineData("""{"version":3,"entries":[]}""", "its version is 3")]
    [InlineData("""{"version":2,"entries":[{}]}""", "entry 0 is 0 things")]
    [InlineData("""{"version":2,"entries":[null]}""", "entry 0 is null")]
    [InlineData("""{"version":2,"entries":[{"transport":{"region":"/r"}}]}""", "host")]
    [InlineData("""{"version":2,"entries":[{"transport":{"region":"/r","host":"a"},"backend":{"region":"/r","backend_id":0,"path":"/d","handlers":1,"read_only":false,"engine":"auto"}}]}""", "entry 0 is 2 things")]
    [InlineData("""{"version":2,"entries":[],"more":1}""", "more")]
    [InlineData("""{"version":2,"entries":[{"deaths":-1,"transport":{"region":"/r","host":"a"}}]}""", "entry 0 has -1 deaths")]
    [InlineData("""{"version":2,"version":2,"entries":[]}""", "is not right")]
    public void A_state_file_that_is_not_right_is_refused_by_name(string text, string reason)
    {
        System.IO.File.WriteAllText(File.FilePath, text);
        var error = Assert.Throws<CbdException>(() => File.Read());
        Assert.Equal(CbdErrorKind.Corrupt, error.Kind);
        Assert.Contains(File.FilePath, error.Message);
        Assert.Contains(reason, error.Message);
        Assert.EndsWith("repair it, or move it away", error.Message);
    }

    [Fact]
    public void A_state_file_cut_off_anywhere_is_refused()
    {
        StartAll(Recorded(new ListedNode(), NewRecord()));
        var whole = System.IO.File.ReadAllBytes(File.FilePath);
        for (var length = 0; length < whole.Length - 2; length++)
        {
            System.IO.File.WriteAllBytes(File.FilePath, whole[..length]);
            Assert.Throws<CbdException>(() => File.Read());
        }
    }

    [Fact]
    public void No_state_file_is_an_empty_record() => Assert.Empty(File.Read());

    [Fact]
    public void The_file_is_replaced_as_a_whole_and_readable_by_its_owner_only()
    {
        StartAll(Recorded(new ListedNode(), NewRecord()));
        Assert.Equal([File.FilePath], Directory.GetFiles(_directory.Path));
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, System.IO.File.GetUnixFileMode(File.FilePath));
    }

    [Fact]
    public void A_host_uuid_is_made_once_and_kept()
    {
        var made = HostIdentity.LoadOrCreate(_directory.Path);
        Assert.NotEqual(Guid.Empty, made);
        Assert.Equal(made, HostIdentity.LoadOrCreate(_directory.Path));
    }

    [Theory]
    [InlineData("")]
    [InlineData("not a uuid\n")]
    [InlineData("00000000-0000-0000-0000-000000000000\n")]
    public void A_host_uuid_that_is_none_is_refused_by_name(string text)
    {
        System.IO.File.WriteAllText(_directory.File("host-uuid"), text);
        var error = Assert.Throws<CbdException>(() => HostIdentity.LoadOrCreate(_directory.Path));
        Assert.Equal(CbdErrorKind.Corrupt, error.Kind);
        Assert.Contains(_directory.File("host-uuid"), error.Message);
    }

    [Fact]
    public void A_directory_belongs_to_one_daemon_and_the_second_learns_its_pid()
    {
        var path = _directory.File("run");
        using (OwnedDirectory.Take(path, "run directory", "--run-dir"))
        {
            var error = Assert.Throws<CbdException>(() => OwnedDirectory.Take(path, "run directory", "--run-dir"));
            Assert.Equal(CbdErrorKind.Busy, error.Kind);
            Assert.Contains($"belongs to a running cbdd, pid {Environment.ProcessId};", error.Message);
        }

        using var again = OwnedDirectory.Take(path, "run directory", "--run-dir");
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute, System.IO.File.GetUnixFileMode(path));
    }

    [Fact]
    public void A_directory_that_was_given_back_is_free_whoever_has_a_descriptor_of_its_lock()
    {
        var path = _directory.File("run");
        var first = OwnedDirectory.Take(path, "run directory", "--run-dir");
        var descriptor = Directory.GetFileSystemEntries("/proc/self/fd").Single(fd => new FileInfo(fd).LinkTarget == System.IO.Path.Combine(path, "lock"));
        using var own = FileDescriptor.Borrow(int.Parse(System.IO.Path.GetFileName(descriptor), System.Globalization.CultureInfo.InvariantCulture), path);
        // As a process has it that another thread is just starting.
        using var others = FileDescriptor.Own(LibC.FCntl(own, KernelConstants.FcntlDuplicateCloseOnExec, 3), path);
        Assert.False(others.IsInvalid);
        first.Dispose();
        first.Dispose();
        OwnedDirectory.Take(path, "run directory", "--run-dir").Dispose();
    }

    [Fact]
    public void What_is_no_file_is_no_lock_and_no_link_is_followed()
    {
        var target = _directory.File("target");
        System.IO.File.WriteAllText(target, "not ours");
        Action<string>[] others =
        [
            path => System.IO.File.CreateSymbolicLink(path, target),
            path => Directory.CreateDirectory(path),
            path => System.Diagnostics.Process.Start("mkfifo", [path]).WaitForExit(),
        ];
        for (var i = 0; i < others.Length; i++)
        {
            var path = _directory.File($"run{i}");
            Directory.CreateDirectory(path);
            others[i](System.IO.Path.Combine(path, "lock"));
            var error = Assert.Throws<CbdException>(() => OwnedDirectory.Take(path, "run directory", "--run-dir"));
            Assert.Equal(CbdErrorKind.Busy, error.Kind);
            Assert.Contains($"'{path}/lock' is where a lock file belongs, and it is no regular file: move it away, or give another run directory with --run-dir", error.Message);
        }

        Assert.Equal("not ours", System.IO.File.ReadAllText(target));
    }

    [Fact]
    public void A_directory_that_cannot_be_made_is_named_with_the_option()
    {
        System.IO.File.WriteAllText(_directory.File("file"), "");
        var error = Assert.Throws<CbdException>(() => OwnedDirectory.Take(_directory.File("file/run"), "run directory", "--run-dir"));
        Assert.Contains($"'{_directory.File("file/run")}'", error.Message);
        Assert.Contains("--run-dir", error.Message);
    }
}
