using Cbd.Programs.Daemon.State;
using Xunit;

namespace Cbd.Tests.Control;

/// <summary>What is stopped is wanted no more, whatever it was doing, and whoever died meanwhile.</summary>
public sealed class StopsOfWhatIsWanted : LivesOfADaemon
{
    [Fact]
    public void Does_not_come_back_when_it_was_stopped_while_it_was_being_started()
    {
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        var record = NextRecord();
        using var reconciler = PatientDaemon.Reconciler(
            new InterceptedControl(node, request =>
            {
                if (request is StartDeviceOptions { Name: "cbd1" })
                    Assert.True(record.Forget(e => e.Device?.Name == "cbd1"));
                return request;
            }), record, Logger);
        Assert.Equal(0, reconciler.Pass(() => false));
        Assert.Equal(["cbd0 on 0"], Names(node));
        Assert.Equal(4, new StateFile(Files.Path).Read().Count);
    }

    [Fact]
    public void Stays_stopped_when_a_verb_stops_by_its_id_what_is_just_being_started()
    {
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        var record = NextRecord();
        RecordingControl? daemon = null;
        using var reconciler = PatientDaemon.Reconciler(
            new InterceptedControl(node, request => request, after: request =>
            {
                // It is there, and the record does not know yet.
                if (request is StartDeviceOptions { Name: "cbd1" })
                    Assert.Equal(StopAnswer.Gone, daemon!.Execute(Operations.StopDevice, new StopRequest { Id = 1 }));
                if (request is StartBackendOptions { Path: "/dev/sdb" })
                    Assert.Equal(StopAnswer.Gone, daemon!.Execute(Operations.StopBackend, new StopRequest { Id = 1 }));
            }), record, Logger);
        daemon = PatientDaemon.Control(node, record);
        reconciler.Pass(() => false);
        Assert.DoesNotContain(record.Entries, e => e.Backend?.Path == "/dev/sdb");
        Assert.Equal(["/dev/sda"], NextRecord().Entries.Where(e => e.Backend is not null).Select(e => e.Backend!.Path));
        Assert.Equal(["/dev/sda"], node.Execute(Operations.ListBackends, new ListRequest()).Select(b => b.Path));
    }

    [Fact]
    public void Is_wanted_no_more_when_a_backend_that_is_away_is_stopped()
    {
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        var record = NextRecord();
        var daemon = PatientDaemon.Control(new ListedNode(), record);
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        Assert.Equal(StopAnswer.Gone, daemon.Execute(Operations.StopBackend, new StopRequest { Id = 1 }));
        Assert.Equal([0], record.Entries.Where(e => e.Backend is not null).Select(e => e.Backend!.BackendId));
        Assert.Throws<CbdException>(() => daemon.Execute(Operations.StopBackend, new StopRequest { Id = 1 }));
    }

    [Fact]
    public void Is_not_left_with_its_transport_while_it_is_away()
    {
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        var record = NextRecord();
        var daemon = PatientDaemon.Control(node, record);
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
        PatientDaemon.Control(new ListedNode(), NextRecord()).Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        var daemon = PatientDaemon.Control(new ListedNode(), NextRecord());
        Assert.Equal(CbdErrorKind.NotFound, Assert.Throws<CbdException>(() => daemon.Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Transport, Name = "/other" })).Kind);
        daemon.Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Transport, Name = "/r" });
        Assert.Empty(NextRecord().Entries);
    }

    [Theory]
    [InlineData("starting")]
    [InlineData("stopping")]
    public void Drops_what_was_being_started_or_stopped_when_the_daemon_died(string intent)
    {
        File.WriteAllText(
            new StateFile(Files.Path).FilePath,
            """{"version":2,"entries":[{"transport":{"region":"/r","host":"a"}},{"intent":"INTENT","transport":{"region":"/s","host":"a"}}]}""".Replace("INTENT", intent, StringComparison.Ordinal));
        Assert.Equal(["/r"], NextRecord().Entries.Select(e => e.Region));
    }

    /// <summary>A record whose daemon died while it stopped a backend.</summary>
    private void DieWhileStopping(bool force)
    {
        string file = new StateFile(Files.Path).FilePath;
        string? cut = null;
        var node = new ListedNode();
        var daemon = PatientDaemon.Control(new InterceptedControl(node, request =>
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
        Assert.Equal(0, PatientDaemon.Reconciler(node, record, Logger).Pass(() => false));
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
        using var reconciler = PatientDaemon.Reconciler(node, record, Logger);
        Assert.Equal(2, reconciler.Pass(() => false));
        // Nobody wants it, and a verb cannot undo what has not happened yet.
        Assert.DoesNotContain(new WantedList(node, record).Describe(), t => t.Kind == WantedThing.Backend);
        PatientDaemon.Control(node, record).Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Backend, Name = "data" });
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
        using var reconciler = PatientDaemon.Reconciler(node, record, Logger);
        reconciler.Pass(() => false);
        Assert.Equal(0, reconciler.Pass(() => false));
        Assert.Equal("data", Assert.Single(node.Execute(Operations.ListBackends, new ListRequest())).Name);
        Assert.Null(NextRecord().Entries[1].Intent);
    }
}
