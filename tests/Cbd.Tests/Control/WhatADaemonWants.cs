using Cbd.Programs.Daemon.Logs;
using Cbd.Programs.Daemon.State;
using Microsoft.Extensions.Logging;
using Xunit;

namespace Cbd.Tests.Control;

/// <summary>The record of a daemon over its next lives: names, what is tried again, what is held, what is wanted no more.</summary>
public sealed class WhatADaemonWants : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly StringWriter _log = new();
    private readonly ILogger _logger;

    public WhatADaemonWants() => _logger = new StderrLogs(_log, asJson: false).CreateLogger("cbdd");

    public void Dispose() => _directory.Dispose();

    /// <summary>The record as the next life of the daemon has it.</summary>
    private StateRecord NextRecord(bool restore = true)
    {
        var file = new StateFile(_directory.Path);
        return new StateRecord(file, _logger, [.. file.Read().Select(entry => entry with { IsHeld = !restore })]);
    }

    private static void StartTwoDevices(IControl daemon)
    {
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda" });
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdb" });
        daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0 });
        daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 1 });
    }

    private static IEnumerable<string> Names(IControl node) =>
        node.Execute(Operations.ListDevices, new ListRequest()).Select(d => $"{d.Name} on {d.BackendId}");

    [Fact]
    public void Comes_back_under_its_names_although_the_order_of_its_starts_was_another()
    {
        var daemon = new RecordingControl(new ListedNode(), NextRecord());
        StartTwoDevices(daemon);
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdc" });
        daemon.Execute(Operations.StopDevice, new StopRequest { Id = 0 });
        // It gets the id that is free, and comes last in the record.
        Assert.Equal("cbd0", daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 2 }).Name);

        var node = new ListedNode();
        Assert.Equal(0, new Reconciler(node, NextRecord(), _logger).Pass(() => false));
        Assert.Equal(["cbd1 on 1", "cbd0 on 2"], Names(node));
    }

    [Fact]
    public void Is_tried_again_and_said_once_while_the_reason_is_the_same()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        var node = new ListedNode { Failure = new CbdException(CbdErrorKind.NotFound, "region '/r' is missing") };
        var record = NextRecord();
        using var reconciler = new Reconciler(node, record, _logger);
        Assert.Equal(5, reconciler.Pass(() => false));
        int lines = _log.ToString().Split('\n').Length;
        node.Failure = new CbdException(CbdErrorKind.NotFound, "region '/r' is missing");
        Assert.Equal(5, reconciler.Pass(() => false));
        Assert.Equal(lines, _log.ToString().Split('\n').Length);
        Assert.Equal(["waiting", "waiting", "waiting", "waiting", "waiting"], new WantedList(node, record).Describe().Select(t => t.State));
        Assert.Equal("region '/r' is missing", new WantedList(node, record).Describe()[0].Reason);
        Assert.Equal(0, reconciler.Pass(() => false));
        Assert.Equal(["running", "running", "running", "running", "running"], new WantedList(node, record).Describe().Select(t => t.State));
    }

    [Fact]
    public void Comes_by_itself_when_the_reason_is_gone()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        var missing = true;
        var node = new ListedNode();
        var record = NextRecord();
        using var reconciler = new Reconciler(
            new InterceptedControl(node, request => missing && request is StartBackendOptions ? throw new CbdException(CbdErrorKind.NotFound, "no disk") : request), record, _logger);
        reconciler.Start();
        Cbd.Tests.Host.Eventually.True(() => record.Entries.Any(e => e.Reason == "no disk"));
        missing = false;
        Cbd.Tests.Host.Eventually.True(() => record.Entries.All(e => !e.IsPending));
        // Backends may have got other ids; devices followed their disks.
        Dictionary<int, string> disks = node.Execute(Operations.ListBackends, new ListRequest()).ToDictionary(b => b.BackendId, b => b.Path);
        Assert.Equal(["cbd0 on /dev/sda", "cbd1 on /dev/sdb"], node.Execute(Operations.ListDevices, new ListRequest()).Select(d => $"{d.Name} on {disks[d.BackendId]}").Order());
    }

    [Fact]
    public void Does_not_come_back_when_it_was_stopped_while_it_was_being_started()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        var record = NextRecord();
        using var reconciler = new Reconciler(
            new InterceptedControl(node, request =>
            {
                if (request is StartDeviceOptions { Name: "cbd1" })
                    Assert.True(record.Forget(e => e.Device?.Name == "cbd1"));
                return request;
            }), record, _logger);
        Assert.Equal(0, reconciler.Pass(() => false));
        Assert.Equal(["cbd0 on 0"], Names(node));
        Assert.Equal(4, new StateFile(_directory.Path).Read().Count);
    }

    [Fact]
    public void Is_held_without_restore_and_no_verb_overwrites_it()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        var record = NextRecord(restore: false);
        using var reconciler = new Reconciler(node, record, _logger);
        Assert.Equal(0, reconciler.Pass(() => false));
        Assert.Empty(node.Calls);
        var daemon = new RecordingControl(node, record);
        Assert.All(daemon.Execute(Operations.ListWanted, new ControlRequest()).Things, thing => Assert.Equal(WantedThing.Held, thing.State));
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/other" });
        Assert.Equal(6, new StateFile(_directory.Path).Read().Count);
    }

    [Fact]
    public void Is_taken_over_under_its_id_when_the_operator_starts_the_same_memory_again()
    {
        var before = new RecordingControl(new ListedNode(), NextRecord());
        before.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        before.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda" });
        before.Execute(Operations.StartBackend, new StartBackendOptions { Path = "memory:64M" });
        var node = new ListedNode();
        node.AddForeignBackend(0, 1, "memory:64M", "dead");
        var daemon = new RecordingControl(node, NextRecord(restore: false));
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        Assert.Equal(1, daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "memory:64M" }).BackendId);
        Assert.Equal(0, daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdz" }).BackendId);
    }

    [Fact]
    public void Keeps_its_name_from_others_while_it_is_away()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        var record = NextRecord();
        Assert.True(record.IsNameReserved("cbd1"));
        Assert.False(record.IsNameReserved("cbd2"));
        var daemon = new RecordingControl(new ListedNode(), record);
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdx" });
        var refused = Assert.Throws<CbdException>(() => daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0, Name = "cbd1" }));
        Assert.Equal(CbdErrorKind.Busy, refused.Kind);
        Assert.Contains("'cbd1' belongs to the device on backend 1 ('/dev/sdb')", refused.Message);
        daemon.Execute(Operations.ForgetDevice, new ForgetRequest { Name = "cbd1" });
        Assert.Equal("cbd1", daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0, Name = "cbd1" }).Name);
        Assert.Equal(CbdErrorKind.NotFound, Assert.Throws<CbdException>(() => daemon.Execute(Operations.ForgetDevice, new ForgetRequest { Name = "cbd7" })).Kind);
    }

    [Fact]
    public void Is_wanted_no_more_when_a_backend_that_is_away_is_stopped()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        var record = NextRecord();
        var daemon = new RecordingControl(new ListedNode(), record);
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        Assert.Equal(StopAnswer.Gone, daemon.Execute(Operations.StopBackend, new StopRequest { Id = 1 }));
        Assert.Equal([0], record.Entries.Where(e => e.Backend is not null).Select(e => e.Backend!.BackendId));
        Assert.Throws<CbdException>(() => daemon.Execute(Operations.StopBackend, new StopRequest { Id = 1 }));
    }

    /// <summary>What a write of the record needs is in its way.</summary>
    private string BlockRecord() => Directory.CreateDirectory(new StateFile(_directory.Path).FilePath + ".new").FullName;

    [Fact]
    public void Starts_nothing_that_it_cannot_record()
    {
        var node = new ListedNode();
        var daemon = new RecordingControl(node, NextRecord());
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        string block = BlockRecord();
        var refused = Assert.Throws<CbdException>(() => daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda" }));
        Assert.Contains("nothing is started, because it cannot be recorded", refused.Message);
        Assert.Single(node.Calls);
        Directory.Delete(block);
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda" });
        Assert.Equal(2, new StateFile(_directory.Path).Read().Count);
    }

    [Fact]
    public void Takes_back_what_was_started_and_cannot_be_confirmed()
    {
        var node = new ListedNode();
        string? block = null;
        var daemon = new RecordingControl(
            new InterceptedControl(node, request =>
            {
                if (request is StartBackendOptions)
                    block = BlockRecord();
                return request;
            }), NextRecord());
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        Assert.Throws<CbdException>(() => daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda" }));
        Assert.Empty(node.Execute(Operations.ListBackends, new ListRequest()));
        Directory.Delete(block!);
        // The file still has the intent, which the next life drops.
        Assert.Single(NextRecord().Entries);
    }

    [Fact]
    public void Stops_what_it_cannot_record_and_says_that_it_may_come_back()
    {
        var node = new ListedNode();
        var daemon = new RecordingControl(node, NextRecord());
        StartTwoDevices(daemon);
        string block = BlockRecord();
        var warned = Assert.Throws<CbdException>(() => daemon.Execute(Operations.StopDevice, new StopRequest { Id = 1 }));
        Assert.StartsWith("it is stopped, but that is not recorded", warned.Message);
        Assert.Equal(["cbd0 on 0"], Names(node));
        Directory.Delete(block);
        // The next change that can be written has it.
        daemon.Execute(Operations.StopDevice, new StopRequest { Id = 0 });
        Assert.Equal(3, NextRecord().Entries.Count);
    }

    [Fact]
    public void Has_a_reserve_for_a_disk_that_is_full()
    {
        var file = new StateFile(_directory.Path);
        file.Reserve();
        string reserve = _directory.File("wanted.reserve");
        Assert.Equal(256 << 10, new FileInfo(reserve).Length);
        string block = BlockRecord();
        Assert.Throws<CbdException>(() => file.Write([]));
        Assert.False(File.Exists(reserve));
        Directory.Delete(block);
        file.Reserve();
        file.Write([]);
        Assert.True(File.Exists(reserve));
    }

    [Theory]
    [InlineData("starting")]
    [InlineData("stopping")]
    public void Drops_what_was_being_started_or_stopped_when_the_daemon_died(string intent)
    {
        File.WriteAllText(
            new StateFile(_directory.Path).FilePath,
            """{"version":2,"entries":[{"transport":{"region":"/r","host":"a"}},{"intent":"INTENT","transport":{"region":"/s","host":"a"}}]}""".Replace("INTENT", intent, StringComparison.Ordinal));
        Assert.Equal(["/r"], NextRecord().Entries.Select(e => e.Region));
    }

    [Fact]
    public void Does_not_start_again_what_has_failed()
    {
        var first = NextRecord();
        StartTwoDevices(new RecordingControl(new ListedNode(), first));
        first.SetFailed("cbd1", "acknowledged writes may be lost");
        var node = new ListedNode();
        var record = NextRecord();
        Assert.Equal(0, new Reconciler(node, record, _logger).Pass(() => false));
        Assert.Equal(["cbd0 on 0"], Names(node));
        WantedThing failed = Assert.Single(new WantedList(node, record).Describe(), thing => thing.State == WantedThing.Failed);
        Assert.Equal(("cbd1", "acknowledged writes may be lost"), (failed.Name, failed.Reason));
        // Not even by a verb that asks for the same: it is stopped first.
        var daemon = new RecordingControl(node, record);
        var refused = Assert.Throws<CbdException>(() => daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 1 }));
        Assert.Contains("device 'cbd1' has failed: acknowledged writes may be lost", refused.Message);
        daemon.Execute(Operations.ForgetDevice, new ForgetRequest { Name = "cbd1" });
        Assert.Equal(4, NextRecord().Entries.Count);
    }

    [Fact]
    public void Does_not_start_again_what_ended_the_daemon_three_times()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        for (int death = 1; death <= StateRecord.MostDeaths; death++)
        {
            var record = NextRecord();
            Assert.DoesNotContain(record.Entries, entry => entry.Failed is not null);
            record.BeginRestore(record.Entries[^1].Number);
        }

        var node = new ListedNode();
        Assert.Equal(0, new Reconciler(node, NextRecord(), _logger).Pass(() => false));
        Assert.Equal(["cbd0 on 0"], Names(node));
        Assert.Contains("died 3 times in a row", Assert.Single(NextRecord().Entries, entry => entry.Failed is not null).Failed);
    }

    [Fact]
    public void Forgets_the_deaths_of_a_thing_once_it_was_started_or_refused()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        var record = NextRecord();
        record.BeginRestore(record.Entries[^1].Number);
        new Reconciler(new ListedNode(), NextRecord(), _logger).Pass(() => false);
        Assert.All(NextRecord().Entries, entry => Assert.Null(entry.Deaths));
        record = NextRecord();
        new Reconciler(new ListedNode { Failure = new CbdException(CbdErrorKind.NotFound, "no region") }, record, _logger).Pass(() => false);
        Assert.All(NextRecord().Entries, entry => Assert.Null(entry.Deaths));
    }

    [Fact]
    public void Reads_the_record_of_the_version_before_and_sets_it_aside()
    {
        string old = _directory.File("state.json");
        File.WriteAllText(old, """{"version":1,"entries":[{"transport":{"region":"/r","host":"a"}},{"device":{"region":"/r","blkdev_id":3,"backend_id":1,"backend_path":"/d","insecure":false,"read_only":false}}]}""");
        var record = NextRecord();
        Assert.Equal(2, record.Entries.Count);
        Assert.True(File.Exists(old));
        var node = new ListedNode();
        node.AddForeignBackend(0, 1, "/d", "alive");
        Assert.Equal(0, new Reconciler(node, record, _logger).Pass(() => false));
        Assert.False(File.Exists(old));
        Assert.Equal(2, NextRecord().Entries.Count);
        // As it was called, whatever its id is now.
        Assert.Equal("cbd3", NextRecord().Entries[1].Device!.Name);
    }

    [Theory]
    [InlineData("a", true)]
    [InlineData("data.db-1_x", true)]
    [InlineData("abcdefghijabcdefghijabcdefghija", true)]
    [InlineData("abcdefghijabcdefghijabcdefghijab", false)]
    [InlineData("", false)]
    [InlineData("0", false)]
    [InlineData("1a", false)]
    [InlineData(".a", false)]
    [InlineData("a/b", false)]
    [InlineData("a b", false)]
    [InlineData("ä", false)]
    public void Has_names_of_a_letter_and_up_to_thirty_more(string name, bool valid)
    {
        Assert.Equal(valid, ThingName.IsValid(name));
        var start = new StartDeviceOptions { Backend = 0, Name = name };
        if (valid)
            Operations.StartDevice.Check(start);
        else
            Assert.Contains($"'{name}'", Assert.Throws<CbdException>(() => Operations.StartDevice.Check(start)).Message);
    }
}
