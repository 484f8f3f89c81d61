using Cbd.Host.Wanted;
using Cbd.Programs.Daemon.Logs;
using Cbd.Programs.Daemon.State;
using Microsoft.Extensions.Logging;
using Xunit;

namespace Cbd.Tests.Control;

/// <summary>The record of a daemon over its next lives: names, what is tried again, what is held, what is wanted no more.</summary>
public sealed class WhatADaemonWants : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly WrittenLog _log = new();
    private readonly ILogger _logger;

    public WhatADaemonWants() => _logger = _log.CreateLogger("cbdd");

    public void Dispose() => _directory.Dispose();

    /// <summary>The record as the next life of the daemon has it.</summary>
    private StateRecord NextRecord(bool restore = true)
    {
        var file = new StateFile(_directory.Path);
        return new StateRecord(file, _logger, [.. file.Read().Select(entry => entry with { Held = restore ? null : "not now" })]);
    }

    private static void StartTwoDevices(RecordingControl daemon)
    {
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda" });
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdb" });
        daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0 });
        daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 1 });
    }

    private static IEnumerable<string> Names(ListedNode node) =>
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
    public void Stays_stopped_when_a_verb_stops_by_its_id_what_is_just_being_started()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        var record = NextRecord();
        RecordingControl? daemon = null;
        using var reconciler = new Reconciler(
            new InterceptedControl(node, request => request, after: request =>
            {
                // It is there, and the record does not know yet.
                if (request is StartDeviceOptions { Name: "cbd1" })
                    Assert.Equal(StopAnswer.Gone, daemon!.Execute(Operations.StopDevice, new StopRequest { Id = 1 }));
                if (request is StartBackendOptions { Path: "/dev/sdb" })
                    Assert.Equal(StopAnswer.Gone, daemon!.Execute(Operations.StopBackend, new StopRequest { Id = 1 }));
            }), record, _logger);
        daemon = new RecordingControl(node, record);
        reconciler.Pass(() => false);
        Assert.DoesNotContain(record.Entries, e => e.Backend?.Path == "/dev/sdb");
        Assert.Equal(["/dev/sda"], NextRecord().Entries.Where(e => e.Backend is not null).Select(e => e.Backend!.Path));
        Assert.Equal(["/dev/sda"], node.Execute(Operations.ListBackends, new ListRequest()).Select(b => b.Path));
    }

    [Fact]
    public void Is_started_again_by_a_line_when_it_is_not_there_any_more()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        var record = NextRecord();
        new Reconciler(node, record, _logger).Pass(() => false);
        node.Execute(Operations.StopDevice, new StopRequest { Id = 1 });
        node.Execute(Operations.StopBackend, new StopRequest { Id = 1 });
        var daemon = new RecordingControl(node, record, isRun: true);
        Assert.Equal(1, daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdb" }).BackendId);
        Assert.Equal("cbd1", daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 1, Name = "cbd1" }).Name);
        Assert.Equal(["cbd0 on 0", "cbd1 on 1"], Names(node));
    }

    [Fact]
    public void Is_one_backend_although_its_disk_was_started_under_another_path()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        node.Identities["/dev/disk/by-id/b"] = "file:/dev/sdb";
        var record = NextRecord();
        var daemon = new RecordingControl(node, record);
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/disk/by-id/b" });
        Assert.Equal(["/dev/sda", "/dev/disk/by-id/b"], NextRecord().Entries.Where(e => e.Backend is not null).Select(e => e.Backend!.Path));
    }

    [Fact]
    public void Is_written_again_when_there_is_room()
    {
        var record = NextRecord();
        StartTwoDevices(new RecordingControl(new ListedNode(), record));
        string block = BlockRecord();
        record.SetFailed("cbd1", "acknowledged writes may be lost");
        Assert.True(record.IsDirty);
        Assert.DoesNotContain(NextRecord().Entries, e => e.Failed is not null);
        Directory.Delete(block);
        using var reconciler = new Reconciler(new ListedNode(), record, _logger);
        reconciler.Pass(() => false);
        Assert.False(record.IsDirty);
        Assert.Contains(NextRecord().Entries, e => e.Failed is not null);
    }

    [Fact]
    public void Is_not_guessed_when_an_older_cbdd_ran_meanwhile()
    {
        var file = new StateFile(_directory.Path);
        file.Write([]);
        File.WriteAllText(_directory.File("state.json"), """{"version":1,"entries":[]}""");
        File.SetLastWriteTimeUtc(_directory.File("state.json"), DateTime.UtcNow.AddMinutes(1));
        var refused = Assert.Throws<CbdException>(() => file.Read());
        Assert.Equal(CbdErrorKind.Corrupt, refused.Kind);
        Assert.Contains("state.json' of an older cbdd is newer than", refused.Message);
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
        Assert.Contains("device cbd1 is wanted already, and not the same: it is on backend 1 ('/dev/sdb'), and backend 0 ('/dev/sdx') is asked for", refused.Message);
        daemon.Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Device, Name = "cbd1" });
        Assert.Equal("cbd1", daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0, Name = "cbd1" }).Name);
        Assert.Equal(CbdErrorKind.NotFound, Assert.Throws<CbdException>(() => daemon.Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Device, Name = "cbd7" })).Kind);
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
        // The next change that can be written takes it again.
        file.Write([]);
        Assert.Equal(256 << 10, new FileInfo(reserve).Length);
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
        var refused = Assert.Throws<FailedThingException>(() => daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 1 }));
        Assert.Contains("device cbd1 has failed: acknowledged writes may be lost", refused.Message);
        daemon.Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Device, Name = "cbd1" });
        Assert.Equal(4, NextRecord().Entries.Count);
    }

    [Fact]
    public void Does_not_start_again_what_ended_the_daemon_three_times()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        for (int death = 1; death <= WantedRecord<Cbd.Protocol.SafePolicy>.MostDeaths; death++)
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

    [Fact]
    public void Is_found_by_its_disk_under_whichever_id_and_path_that_is_served_now()
    {
        var first = new ListedNode();
        first.AddForeignBackend(0, 5, "/dev/sdq", "alive");
        var recorded = new RecordingControl(first, NextRecord());
        recorded.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        recorded.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 5 });

        var node = new ListedNode();
        node.Identities["/dev/disk/by-id/q"] = "file:/dev/sdq";
        node.AddForeignBackend(0, 5, "/dev/other", "alive");
        node.AddForeignBackend(0, 7, "/dev/disk/by-id/q", "alive");
        var record = NextRecord();
        Assert.Equal(0, new Reconciler(node, record, _logger).Pass(() => false));
        Assert.Equal(["cbd0 on 7"], Names(node));
        Assert.Equal((7, "/dev/disk/by-id/q"), (record.Entries[1].Device!.BackendId, record.Entries[1].Device!.BackendPath));
    }

    [Fact]
    public void Waits_while_another_file_is_in_its_disks_place_and_names_the_verb_that_confirms_it()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        node.Identities["/dev/sda"] = "file:another";
        var record = NextRecord();
        using var reconciler = new Reconciler(node, record, _logger);
        Assert.Equal(2, reconciler.Pass(() => false));
        Assert.Equal(["cbd1 on 0"], Names(node));
        WantedThing waiting = new WantedList(node, record).Describe().Single(t => t.Kind == WantedThing.Backend && t.Name == "/dev/sda");
        Assert.Equal(WantedThing.Waiting, waiting.State);
        Assert.Contains("'/dev/sda' is another disk (file:another) than the one that is wanted (file:/dev/sda)", waiting.Reason);
        // The disk is back: so is the device.
        node.Identities.Clear();
        Assert.Equal(0, reconciler.Pass(() => false));
        Assert.Equal(["cbd0 on 1", "cbd1 on 0"], Names(node).Order());
    }

    [Fact]
    public void Does_not_go_on_another_region_until_a_verb_confirms_it()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        var node = new ListedNode { Uuid = Guid.NewGuid() };
        var record = NextRecord();
        using var reconciler = new Reconciler(node, record, _logger);
        Assert.Equal(5, reconciler.Pass(() => false));
        WantedThing transport = new WantedList(node, record).Describe()[0];
        Assert.Equal(WantedThing.Failed, transport.State);
        Assert.Contains($"has the uuid {node.Uuid}", transport.Reason);
        Assert.Empty(node.Execute(Operations.ListTransports, new ControlRequest()));

        new RecordingControl(node, record).Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        Assert.Equal(node.Uuid, record.Entries[0].Transport!.Uuid);
        Assert.Equal(0, reconciler.Pass(() => false));
        Assert.Equal(node.Uuid, NextRecord().Entries[0].Transport!.Uuid);
    }

    [Theory]
    [InlineData("/r", false)]
    [InlineData("/dev/shm/cbd-no-such-region", true)]
    public void Takes_another_region_after_a_boot_where_memory_cannot_survive_one(string region, bool mayDiffer)
    {
        var recorded = new TransportEntry { Region = region, Host = "alpha", Uuid = Guid.NewGuid(), BootId = Guid.NewGuid() };
        var options = new RegisterTransportOptions { Host = "alpha", Path = region };
        Assert.Equal(mayDiffer ? null : recorded.Uuid, Reconciler.Expecting(options, recorded).RegionUuid);
        // In the same boot nothing can have taken its place.
        Assert.Equal(recorded.Uuid, Reconciler.Expecting(options, recorded with { BootId = Cbd.Memory.ProcessIdentity.BootId }).RegionUuid);
    }

    [Fact]
    public void Formats_an_empty_region_again_only_if_it_was_told_to_and_a_boot_took_it_and_with_the_same_geometry()
    {
        var options = new RegisterTransportOptions { Host = "alpha", Path = "/dev/shm/cbd-no-such-region", FormatIfEmpty = true, SizeBytes = 64 << 20, Hosts = 4, PayloadCrc = false };
        new RecordingControl(new ListedNode(), NextRecord()).Execute(Operations.RegisterTransport, options);
        // What is missing now is not made anew: it could not be the region that was there.
        var node = new ListedNode();
        new Reconciler(node, NextRecord(), _logger).Pass(() => false);
        Assert.Equal([$"{new RegisterTransportOptions { Host = "alpha", Path = options.Path, RegionUuid = node.Uuid }}"], node.Calls);

        string file = new StateFile(_directory.Path).FilePath;
        File.WriteAllText(file, File.ReadAllText(file).Replace($"{Cbd.Memory.ProcessIdentity.BootId:D}", $"{Guid.NewGuid():D}", StringComparison.Ordinal));
        node = new ListedNode();
        new Reconciler(node, NextRecord(), _logger).Pass(() => false);
        Assert.Equal([$"{options}"], node.Calls);
    }

    [Fact]
    public void Keeps_names_of_the_machine_for_what_its_kernel_may_get_alone()
    {
        var daemon = new RecordingControl(new ListedNode(), NextRecord());
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda" });
        StartDeviceOptions any = new() { Backend = 0 };
        foreach (var options in (StartDeviceOptions[])[any, any with { Attach = "ublk" }, any with { Attach = "auto", Nbd = "tcp:127.0.0.1:9" }, any with { Attach = "none" },
            any with { Nbd = "unix:/s" }, any with { Insecure = true }, any with { NbdConnections = 3 }, any with { NbdHandshakeSeconds = 3 }, any with { Tls = new TlsOptions { Certificates = "/pki" } }])
            daemon.Execute(Operations.StartDevice, options);
        Assert.Equal(["cbd0", "cbd1", "cbd2"], NextRecord().KernelNames().Order());
    }

    [Fact]
    public void Is_last_in_the_lists_without_an_id_while_it_is_away()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        DateTime before = DateTime.UtcNow;
        var node = new ListedNode { Failure = new CbdException(CbdErrorKind.NotFound, "no region") };
        var record = NextRecord();
        var daemon = new RecordingControl(node, record);
        using var reconciler = new Reconciler(node, record, _logger);
        reconciler.Pass(() => false);
        TransportDescription away = Assert.Single(daemon.Execute(Operations.ListTransports, new ControlRequest()));
        Assert.Equal((-1, -1, "/r", "alpha", "waiting", "no region", "no region"), (away.TransportId, away.MyHostId, away.Path, away.HostName, away.State, away.Reason, away.Failure));
        Assert.InRange(away.Since!.Value, before, DateTime.UtcNow);

        // The region is back, one disk is away, and one device is being tried no more.
        node.Identities["/dev/sdb"] = "file:another";
        record.SetFailed("cbd1", "its writes may be lost");
        reconciler.Pass(() => false);
        Assert.Equal(0, Assert.Single(daemon.Execute(Operations.ListTransports, new ControlRequest())).TransportId);
        IReadOnlyList<BackendDescription> backends = daemon.Execute(Operations.ListBackends, new ListRequest());
        Assert.Equal([(0, "/dev/sda", "ACTIVE"), (-1, "/dev/sdb", "waiting")], backends.Select(b => (b.BackendId, b.Path, b.State)));
        Assert.Contains("is another disk", backends[1].Reason, StringComparison.Ordinal);
        IReadOnlyList<DeviceDescription> devices = daemon.Execute(Operations.ListDevices, new ListRequest { All = true });
        Assert.Equal([(0, "cbd0", "running", null), (-1, "cbd1", "failed", "its writes may be lost")], devices.Select(d => (d.BlkdevId, d.Name!, d.State, d.Reason)));
        DateTime since = devices[1].Since!.Value;
        reconciler.Pass(() => false);
        Assert.Equal(since, daemon.Execute(Operations.ListDevices, new ListRequest())[1].Since);

        // What is held says so.
        daemon = new RecordingControl(new ListedNode(), NextRecord(restore: false));
        Assert.Equal((-1, "held", "not now"), (daemon.Execute(Operations.ListTransports, new ControlRequest()) is [var held] ? (held.TransportId, held.State, held.Reason) : default));
    }

    [Theory]
    [InlineData("null", -1)]
    [InlineData("7", 7)]
    public void Has_null_for_an_id_in_JSON(string id, int expected)
    {
        var node = new ListedNode();
        StartTwoDevices(new RecordingControl(node, NextRecord()));
        DeviceDescription device = node.Execute(Operations.ListDevices, new ListRequest())[0] with { BlkdevId = expected, BackendId = expected };
        string json = System.Text.Json.JsonSerializer.Serialize(device, ControlJson.Plain.Of<DeviceDescription>());
        Assert.Contains($"\"blkdev_id\":{id},", json, StringComparison.Ordinal);
        Assert.Contains($"\"backend_id\":{id},", json, StringComparison.Ordinal);
        Assert.Equal(device, System.Text.Json.JsonSerializer.Deserialize(json, ControlJson.Plain.Of<DeviceDescription>()));
    }

    [Theory]
    [InlineData("dev-stop -d cbd1")]
    [InlineData("backend-stop -b /dev/sdb")]
    [InlineData("backend-stop -t 0 -b /dev/sdb")]
    public void Is_given_up_by_a_verb_that_finds_it_in_a_list_without_an_id(string line)
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        node.Identities["/dev/sdb"] = "file:another";
        var record = NextRecord();
        new Reconciler(node, record, _logger).Pass(() => false);
        int count = record.Entries.Count;
        Cbd.Control.Verbs.VerbSet.ForDaemon().ParseLine(line).Execute(new RecordingControl(node, record), new Cbd.Control.Verbs.VerbOutput(TextWriter.Null, toTerminal: false));
        Assert.Equal(count - 1, record.Entries.Count);
    }

    [Fact]
    public void Is_what_an_operator_gets_who_repeats_the_verbs_after_a_restart()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        var record = NextRecord();
        Assert.Equal(0, new Reconciler(node, record, _logger).Pass(() => false));
        var daemon = new RecordingControl(node, record);
        var calls = node.Calls.Count;
        StartTwoDevices(daemon);
        Assert.Equal(calls, node.Calls.Count);
        Assert.Equal(5, record.Entries.Count);
        // Once: another start is another device.
        Assert.Equal("cbd2", daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0 }).Name);
    }

    [Fact]
    public void Keeps_its_options_until_its_next_start_when_a_verb_asks_for_others()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        var record = NextRecord();
        new Reconciler(node, record, _logger).Pass(() => false);
        var daemon = new RecordingControl(node, record);
        Assert.Equal(0, daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda", Handlers = 4 }).BackendId);
        Assert.Contains("backend on /dev/sda runs with the options of the record", _log.ToString());
        Assert.Equal(4, NextRecord().Entries[1].Backend!.Handlers);
        Assert.Equal("file:/dev/sda", NextRecord().Entries[1].Backend!.DiskIdentity);
    }

    public static TheoryData<string> Others => ["read-only", "address", "backend"];

    [Theory]
    [MemberData(nameof(Others))]
    public void Is_not_another_thing_of_the_same_name(string what)
    {
        var before = new RecordingControl(new ListedNode(), NextRecord());
        StartTwoDevices(before);
        before.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0, Name = "data" });
        var node = new ListedNode();
        var record = NextRecord();
        new Reconciler(node, record, _logger).Pass(() => false);
        var daemon = new RecordingControl(node, record);
        var start = new StartDeviceOptions { Backend = what == "backend" ? 1 : 0, Name = "data", ReadOnly = what == "read-only", Nbd = what == "address" ? "tcp:127.0.0.1:9" : null };
        var refused = Assert.Throws<CbdException>(() => daemon.Execute(Operations.StartDevice, start));
        Assert.Equal(CbdErrorKind.Busy, refused.Kind);
        Assert.StartsWith($"device data is wanted already, and not the same: {(what == "backend" ? "it is on backend 0" : what == "address" ? "the address" : what)}", refused.Message);
        Assert.Equal(3, node.Execute(Operations.ListDevices, new ListRequest()).Count);
    }

    [Fact]
    public void Of_a_run_line_is_held_without_the_line_and_joined_with_it()
    {
        var first = new RecordingControl(new ListedNode(), NextRecord(), isRun: true);
        StartTwoDevices(first);
        Assert.All(NextRecord().Entries, entry => Assert.True(entry.FromRun));

        // As a container starts again with all lines but that of the second device.
        var node = new ListedNode();
        var file = new StateFile(_directory.Path);
        var record = new StateRecord(file, _logger, [.. file.Read().Select(e => e with { Held = "not a line now" })]);
        using var reconciler = new Reconciler(node, record, _logger);
        Assert.Equal(0, reconciler.Pass(() => false));
        Assert.Empty(node.Calls);
        var run = new RecordingControl(node, record, isRun: true);
        run.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        Assert.Equal(0, run.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda" }).BackendId);
        Assert.Equal("cbd0", run.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0 }).Name);
        Assert.Equal(["cbd0 on 0"], Names(node));
        Assert.Equal([WantedThing.Running, WantedThing.Running, WantedThing.Held, WantedThing.Running, WantedThing.Held], new WantedList(node, record).Describe().Select(t => t.State));
        Assert.Equal(5, NextRecord().Entries.Count(e => e.FromRun == true));
        // A verb that asks for it makes it its own.
        new RecordingControl(node, record).Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdb" });
        Assert.Equal(4, NextRecord().Entries.Count(e => e.FromRun == true));
    }

    [Fact]
    public void Is_the_same_device_also_while_its_backend_is_away()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        var run = new RecordingControl(node, NextRecord(), isRun: true);
        run.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        node.Failure = new CbdException(CbdErrorKind.NotFound, "backend 0 does not exist") { MayPass = true };
        Assert.True(Assert.Throws<CbdException>(() => run.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0, Name = "cbd0" })).MayPass);
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => run.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 1, Name = "cbd0" })).Kind);
        Assert.Equal(5, NextRecord().Entries.Count);
    }

    [Fact]
    public void Has_its_backends_under_their_names_again()
    {
        var before = new RecordingControl(new ListedNode(), NextRecord());
        before.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        before.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda", Name = "data" });
        var node = new ListedNode();
        var record = NextRecord();
        var daemon = new RecordingControl(node, record);
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        // Not another disk under the name while it is away; the same one without the name is it.
        var refused = Assert.Throws<CbdException>(() => daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdb", Name = "data" }));
        Assert.StartsWith("'/dev/sdb' is another disk (file:/dev/sdb) than the one that is wanted (file:/dev/sda)", refused.Message);
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda" });
        Assert.Equal("data", Assert.Single(node.Execute(Operations.ListBackends, new ListRequest())).Name);
        Assert.Equal("data", NextRecord().Entries[1].Backend!.Name);
        node = new ListedNode();
        new Reconciler(node, NextRecord(), _logger).Pass(() => false);
        Assert.Equal("data", Assert.Single(node.Execute(Operations.ListBackends, new ListRequest())).Name);
    }

    [Fact]
    public void Is_its_disk_under_its_name_by_whatever_path()
    {
        var before = new RecordingControl(new ListedNode(), NextRecord());
        before.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        before.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda", Name = "data" });
        before.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0 });
        var node = new ListedNode();
        node.Identities["/dev/sdz"] = "file:/dev/sda";
        var record = NextRecord();
        var daemon = new RecordingControl(node, record);
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdz", Name = "data" });
        Assert.Equal("/dev/sdz", Assert.Single(node.Execute(Operations.ListBackends, new ListRequest())).Path);
        // Only if it is proven, because nobody has said so.
        Assert.Contains($"{new StartBackendOptions { Path = "/dev/sdz", Name = "data", DiskIdentity = "file:/dev/sda", IsUnattended = true }}", node.Calls);
        Assert.Equal(("/dev/sdz", "/dev/sdz"), (NextRecord().Entries[1].Backend!.Path, NextRecord().Entries[2].Device!.BackendPath));
    }

    [Fact]
    public void Is_the_backend_that_runs_under_the_name_if_the_path_is_one_more_of_its_file()
    {
        string path = _directory.File("disk"), link = _directory.File("link"), other = _directory.File("other");
        File.WriteAllText(path, "");
        File.WriteAllText(other, "");
        File.CreateSymbolicLink(link, path);
        var before = new RecordingControl(new ListedNode(), NextRecord());
        before.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        before.Execute(Operations.StartBackend, new StartBackendOptions { Path = path, Name = "data" });
        var node = new ListedNode();
        var record = NextRecord();
        new Reconciler(node, record, _logger).Pass(() => false);
        var daemon = new RecordingControl(node, record);
        var refused = Assert.Throws<CbdException>(() => daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = other, Name = "data" }));
        Assert.StartsWith($"backend data on {path} is wanted already, and not the same: its disk is '{path}', and '{other}' is asked for", refused.Message);
        Assert.Equal(0, daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = link, Name = "data" }).BackendId);
        Assert.Single(node.Execute(Operations.ListBackends, new ListRequest()));
    }

    /// <summary>A record whose daemon died while it stopped a backend.</summary>
    private void DieWhileStopping(bool force)
    {
        string file = new StateFile(_directory.Path).FilePath;
        string? cut = null;
        var node = new ListedNode();
        var daemon = new RecordingControl(new InterceptedControl(node, request =>
        {
            if (request is StopRequest)
                cut = File.ReadAllText(file);
            return request;
        }), NextRecord());
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda", Name = "data" });
        daemon.Execute(Operations.StopBackend, new StopRequest { Id = 0, Force = force });
        File.WriteAllText(file, cut!);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Is_over_if_its_daemon_died_while_it_stopped_and_nobody_waits_for_it(bool isStopped)
    {
        DieWhileStopping(force: isStopped);
        var node = new ListedNode();
        node.AddForeignBackend(0, 0, "/dev/sda", "dead", isUsed: isStopped, isStopped: isStopped);
        var record = NextRecord();
        Assert.Equal(0, new Reconciler(node, record, _logger).Pass(() => false));
        Assert.Null(Assert.Single(record.Entries).Backend);
        Assert.DoesNotContain(node.Calls, call => call.StartsWith("StartBackend", StringComparison.Ordinal));
        Assert.Null(Assert.Single(NextRecord().Entries).Backend);
    }

    [Fact]
    public void Is_stopped_by_force_by_the_next_life_if_its_daemon_died_before_its_devices_knew()
    {
        DieWhileStopping(force: true);
        var node = new ListedNode();
        node.AddForeignBackend(0, 0, "/dev/sda", "dead", isUsed: true);
        node.Failure = new CbdException(CbdErrorKind.NotFound, "no region");
        var record = NextRecord();
        using var reconciler = new Reconciler(node, record, _logger);
        Assert.Equal(2, reconciler.Pass(() => false));
        // Nobody wants it, and a verb cannot undo what has not happened yet.
        Assert.DoesNotContain(new WantedList(node, record).Describe(), t => t.Kind == WantedThing.Backend);
        new RecordingControl(node, record).Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Backend, Name = "data" });
        Assert.Equal(0, reconciler.Pass(() => false));
        Assert.Equal([$"{new StartBackendOptions { Path = "/dev/sda", DiskIdentity = "file:/dev/sda", IsUnattended = true, Backend = 0 }}", "stop backend 0 0 True"], node.Calls.Skip(2));
        Assert.Null(Assert.Single(NextRecord().Entries).Backend);
    }

    [Fact]
    public void Is_wanted_still_if_its_daemon_died_in_a_stop_that_was_to_be_refused()
    {
        DieWhileStopping(force: false);
        var node = new ListedNode();
        node.AddForeignBackend(0, 0, "/dev/sda", "dead", isUsed: true);
        var record = NextRecord();
        using var reconciler = new Reconciler(node, record, _logger);
        reconciler.Pass(() => false);
        Assert.Equal(0, reconciler.Pass(() => false));
        Assert.Equal("data", Assert.Single(node.Execute(Operations.ListBackends, new ListRequest())).Name);
        Assert.Null(NextRecord().Entries[1].Intent);
    }

    [Fact]
    public void Is_not_left_with_its_transport_while_it_is_away()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        var record = NextRecord();
        var daemon = new RecordingControl(node, record);
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        var refused = Assert.Throws<CbdException>(() => daemon.Execute(Operations.UnregisterTransport, new TransportTarget()));
        Assert.Equal(CbdErrorKind.Busy, refused.Kind);
        Assert.StartsWith("backend on /dev/sda, backend on /dev/sdb, device cbd0, device cbd1 are wanted on '/r'", refused.Message);
        foreach (string name in (string[])["cbd0", "cbd1"])
            daemon.Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Device, Name = name });
        foreach (string disk in (string[])["/dev/sda", "/dev/sdb"])
            daemon.Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Backend, Name = disk });
        daemon.Execute(Operations.UnregisterTransport, new TransportTarget());
        Assert.Empty(NextRecord().Entries);
    }

    [Fact]
    public void Can_be_given_up_when_its_region_is_missing()
    {
        new RecordingControl(new ListedNode(), NextRecord()).Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        var daemon = new RecordingControl(new ListedNode(), NextRecord());
        Assert.Equal(CbdErrorKind.NotFound, Assert.Throws<CbdException>(() => daemon.Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Transport, Name = "/other" })).Kind);
        daemon.Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Transport, Name = "/r" });
        Assert.Empty(NextRecord().Entries);
    }

    [Fact]
    public async Task Is_started_once_when_a_verb_asks_for_what_is_being_started()
    {
        StartTwoDevices(new RecordingControl(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        var record = NextRecord();
        using var begun = new ManualResetEventSlim();
        using var goOn = new ManualResetEventSlim();
        using var reconciler = new Reconciler(
            new InterceptedControl(node, request =>
            {
                if (request is StartBackendOptions { Path: "/dev/sda" })
                {
                    begun.Set();
                    goOn.Wait();
                }

                return request;
            }), record, _logger);
        reconciler.Start();
        begun.Wait(TestContext.Current.CancellationToken);
        var verb = Task.Run(() => new RecordingControl(node, record).Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda" }).BackendId, TestContext.Current.CancellationToken);
        await Task.Delay(50, TestContext.Current.CancellationToken);
        Assert.False(verb.IsCompleted);
        goOn.Set();
        int id = await verb;
        Assert.Equal("/dev/sda", Assert.Single(node.Execute(Operations.ListBackends, new ListRequest()), b => b.BackendId == id).Path);
        Assert.Single(node.Execute(Operations.ListBackends, new ListRequest()), b => b.Path == "/dev/sda");
    }

    [Theory]
    [InlineData("same", "same", null)]
    [InlineData("id", "same", "its machine id is ")]
    [InlineData("same", "uuid", "its hardware has the uuid ")]
    [InlineData("none", "same", null)]
    [InlineData("uninitialized", "none", null)]
    public void Is_another_machines_if_a_value_that_is_known_of_both_differs(string id, string uuid, string? difference)
    {
        const string Same = "0123456789abcdef0123456789abcdef", Other = "ffffffff89abcdef0123456789abcdef";
        Write("here/etc/machine-id", Same + "\n");
        Write("here/sys/class/dmi/id/product_uuid", "01234567-89ab-cdef-0123-456789abcdef\n");
        if (id != "none")
            Write("there/etc/machine-id", id == "same" ? Same : id == "id" ? Other : "uninitialized\n");
        if (uuid != "none")
            Write("there/sys/class/dmi/id/product_uuid", uuid == "same" ? "01234567-89AB-CDEF-0123-456789ABCDEF\n" : "ffffffff-89ab-cdef-0123-456789abcdef\n");
        string? found = MachineFiles.Read(_directory.File("here")).FindDifference(MachineFiles.Read(_directory.File("there")));
        if (difference is null)
            Assert.Null(found);
        else
            Assert.StartsWith(difference, found);

        void Write(string path, string text)
        {
            Directory.CreateDirectory(Path.GetDirectoryName(_directory.File(path))!);
            File.WriteAllText(_directory.File(path), text);
        }
    }

    [Fact]
    public void Says_which_machine_wrote_it()
    {
        var machine = new MachineIdentity { MachineId = "0123456789abcdef0123456789abcdef" };
        new StateFile(_directory.Path, machine).Write([]);
        var file = new StateFile(_directory.Path);
        Assert.Empty(file.Read());
        Assert.Equal(machine, file.Writer);
    }
}
