using Cbd.Programs.Daemon.State;
using Xunit;

namespace Cbd.Tests.Control;

/// <summary>Verbs and lines that ask for what the record has already get that.</summary>
public sealed class RepeatedVerbs : LivesOfADaemon
{
    [Fact]
    public void Is_held_without_restore_and_no_verb_overwrites_it()
    {
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        var record = NextRecord(restore: false);
        using var reconciler = PatientDaemon.Reconciler(node, record, Logger);
        Assert.Equal(0, reconciler.Pass(() => false));
        Assert.Empty(node.Calls);
        var daemon = PatientDaemon.Control(node, record);
        Assert.All(daemon.Execute(Operations.ListWanted, new ControlRequest()).Things, thing => Assert.Equal(WantedThing.Held, thing.State));
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/other" });
        Assert.Equal(6, new StateFile(Files.Path).Read().Count);
    }

    [Fact]
    public void Is_what_an_operator_gets_who_repeats_the_verbs_after_a_restart()
    {
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        var record = NextRecord();
        Assert.Equal(0, PatientDaemon.Reconciler(node, record, Logger).Pass(() => false));
        var daemon = PatientDaemon.Control(node, record);
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
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        var record = NextRecord();
        PatientDaemon.Reconciler(node, record, Logger).Pass(() => false);
        var daemon = PatientDaemon.Control(node, record);
        Assert.Equal(0, daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda", Handlers = 4 }).BackendId);
        Assert.Contains("backend on /dev/sda runs with the options of the record", Log.ToString());
        Assert.Equal(4, NextRecord().Entries[1].Backend!.Handlers);
        Assert.Equal("file:/dev/sda", NextRecord().Entries[1].Backend!.DiskIdentity);
    }

    [Fact]
    public void Is_taken_over_under_its_id_when_the_operator_starts_the_same_memory_again()
    {
        var before = PatientDaemon.Control(new ListedNode(), NextRecord());
        before.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        before.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda" });
        before.Execute(Operations.StartBackend, new StartBackendOptions { Path = "memory:64M" });
        var node = new ListedNode();
        node.AddForeignBackend(0, 1, "memory:64M", "dead");
        var daemon = PatientDaemon.Control(node, NextRecord(restore: false));
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        Assert.Equal(1, daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "memory:64M" }).BackendId);
        Assert.Equal(0, daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdz" }).BackendId);
    }

    [Fact]
    public void Is_started_again_by_a_line_when_it_is_not_there_any_more()
    {
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        var record = NextRecord();
        PatientDaemon.Reconciler(node, record, Logger).Pass(() => false);
        node.Execute(Operations.StopDevice, new StopRequest { Id = 1 });
        node.Execute(Operations.StopBackend, new StopRequest { Id = 1 });
        var daemon = PatientDaemon.Control(node, record, isRun: true);
        Assert.Equal(1, daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdb" }).BackendId);
        Assert.Equal("cbd1", daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 1, Name = "cbd1" }).Name);
        Assert.Equal(["cbd0 on 0", "cbd1 on 1"], Names(node));
    }

    [Fact]
    public void Of_a_run_line_is_held_without_the_line_and_joined_with_it()
    {
        var first = PatientDaemon.Control(new ListedNode(), NextRecord(), isRun: true);
        StartTwoDevices(first);
        Assert.All(NextRecord().Entries, entry => Assert.True(entry.FromRun));

        // As a container starts again with all lines but that of the second device.
        var node = new ListedNode();
        var file = new StateFile(Files.Path);
        var record = new StateRecord(file, Logger, [.. file.Read().Select(e => e with { Held = "not a line now" })]);
        using var reconciler = PatientDaemon.Reconciler(node, record, Logger);
        Assert.Equal(0, reconciler.Pass(() => false));
        Assert.Empty(node.Calls);
        var run = PatientDaemon.Control(node, record, isRun: true);
        run.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        Assert.Equal(0, run.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda" }).BackendId);
        Assert.Equal("cbd0", run.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0 }).Name);
        Assert.Equal(["cbd0 on 0"], Names(node));
        Assert.Equal([WantedThing.Running, WantedThing.Running, WantedThing.Held, WantedThing.Running, WantedThing.Held], new WantedList(node, record).Describe().Select(t => t.State));
        Assert.Equal(5, NextRecord().Entries.Count(e => e.FromRun == true));
        // A verb that asks for it makes it its own.
        PatientDaemon.Control(node, record).Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdb" });
        Assert.Equal(4, NextRecord().Entries.Count(e => e.FromRun == true));
    }

    [Fact]
    public void Is_the_same_device_also_while_its_backend_is_away()
    {
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        var run = PatientDaemon.Control(node, NextRecord(), isRun: true);
        run.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        node.Failure = new CbdException(CbdErrorKind.NotFound, "backend 0 does not exist") { MayPass = true };
        Assert.True(Assert.Throws<CbdException>(() => run.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0, Name = "cbd0" })).MayPass);
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => run.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 1, Name = "cbd0" })).Kind);
        Assert.Equal(5, NextRecord().Entries.Count);
    }
}
