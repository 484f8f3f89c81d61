using Cbd.Host.Wanted;
using Cbd.Programs.Daemon.State;
using Xunit;

namespace Cbd.Tests.Control;

/// <summary>What is wanted is tried until it is there, unless it failed.</summary>
public sealed class TriesOfWhatIsWanted : LivesOfADaemon
{
    [Fact]
    public void Is_tried_again_and_said_once_while_the_reason_is_the_same()
    {
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        var node = new ListedNode { Failure = new CbdException(CbdErrorKind.NotFound, "region '/r' is missing") };
        var record = NextRecord();
        using var reconciler = PatientDaemon.Reconciler(node, record, Logger);
        Assert.Equal(5, reconciler.Pass(() => false));
        int lines = Log.ToString().Split('\n').Length;
        node.Failure = new CbdException(CbdErrorKind.NotFound, "region '/r' is missing");
        Assert.Equal(5, reconciler.Pass(() => false));
        Assert.Equal(lines, Log.ToString().Split('\n').Length);
        Assert.Equal(["waiting", "waiting", "waiting", "waiting", "waiting"], new WantedList(node, record).Describe().Select(t => t.State));
        Assert.Equal("region '/r' is missing", new WantedList(node, record).Describe()[0].Reason);
        Assert.Equal(0, reconciler.Pass(() => false));
        Assert.Equal(["running", "running", "running", "running", "running"], new WantedList(node, record).Describe().Select(t => t.State));
    }

    [Fact]
    public void Comes_by_itself_when_the_reason_is_gone()
    {
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        var missing = true;
        var node = new ListedNode();
        var record = NextRecord();
        using var reconciler = PatientDaemon.Reconciler(
            new InterceptedControl(node, request => missing && request is StartBackendOptions ? throw new CbdException(CbdErrorKind.NotFound, "no disk") : request), record, Logger);
        reconciler.Start();
        Cbd.Tests.Host.Eventually.True(() => record.Entries.Any(e => e.Reason == "no disk"));
        missing = false;
        Cbd.Tests.Host.Eventually.True(() => record.Entries.All(e => !e.IsPending));
        // Backends may have got other ids; devices followed their disks.
        Dictionary<int, string> disks = node.Execute(Operations.ListBackends, new ListRequest()).ToDictionary(b => b.BackendId, b => b.Path);
        Assert.Equal(["cbd0 on /dev/sda", "cbd1 on /dev/sdb"], node.Execute(Operations.ListDevices, new ListRequest()).Select(d => $"{d.Name} on {disks[d.BackendId]}").Order());
    }

    [Fact]
    public void Waits_while_another_file_is_in_its_disks_place_and_names_the_verb_that_confirms_it()
    {
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        node.Identities["/dev/sda"] = "file:another";
        var record = NextRecord();
        using var reconciler = PatientDaemon.Reconciler(node, record, Logger);
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
    public async Task Is_started_once_when_a_verb_asks_for_what_is_being_started()
    {
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        var record = NextRecord();
        using var begun = new ManualResetEventSlim();
        using var goOn = new ManualResetEventSlim();
        using var reconciler = PatientDaemon.Reconciler(
            new InterceptedControl(node, request =>
            {
                if (request is StartBackendOptions { Path: "/dev/sda" })
                {
                    begun.Set();
                    goOn.Wait();
                }

                return request;
            }), record, Logger);
        reconciler.Start();
        begun.Wait(TestContext.Current.CancellationToken);
        var daemon = PatientDaemon.Control(node, record);
        var verb = Task.Run(() => daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda" }).BackendId, TestContext.Current.CancellationToken);
        CbdException late = Assert.Throws<CbdException>(() => daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda", TimeoutSeconds = 1 }));
        Assert.StartsWith("backend on /dev/sda is being started: ", late.Message, StringComparison.Ordinal);
        Cbd.Tests.Host.Eventually.True(() => record.WaiterCount == 1);
        Assert.False(verb.IsCompleted);
        goOn.Set();
        int id = await verb;
        Assert.Equal("/dev/sda", Assert.Single(node.Execute(Operations.ListBackends, new ListRequest()), b => b.BackendId == id).Path);
        Assert.Single(node.Execute(Operations.ListBackends, new ListRequest()), b => b.Path == "/dev/sda");
    }

    [Fact]
    public void Does_not_keep_the_rest_waiting_while_it_hangs()
    {
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        var record = NextRecord();
        using var goOn = new ManualResetEventSlim();
        using var reconciler = new Reconciler(
            new InterceptedControl(node, request =>
            {
                if (request is StartBackendOptions { Path: "/dev/sda" })
                    goOn.Wait();
                return request;
            }), record, Logger)
        {
            PatienceMs = 100,
        };
        reconciler.Start();
        try
        {
            Cbd.Tests.Host.Eventually.True(() => record.Entries.Count(e => !e.IsPending) == 3);
            Assert.Equal(["cbd1 on 0"], Names(node));
        }
        finally
        {
            goOn.Set();
        }
    }

    [Fact]
    public void Does_not_start_again_what_has_failed()
    {
        var first = NextRecord();
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), first));
        first.SetFailed("cbd1", "acknowledged writes may be lost");
        var node = new ListedNode();
        var record = NextRecord();
        Assert.Equal(0, PatientDaemon.Reconciler(node, record, Logger).Pass(() => false));
        Assert.Equal(["cbd0 on 0"], Names(node));
        WantedThing failed = Assert.Single(new WantedList(node, record).Describe(), thing => thing.State == WantedThing.Failed);
        Assert.Equal(("cbd1", "acknowledged writes may be lost"), (failed.Name, failed.Reason));
        // Not even by a verb that asks for the same: it is stopped first.
        var daemon = PatientDaemon.Control(node, record);
        var refused = Assert.Throws<FailedThingException>(() => daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 1 }));
        Assert.Contains("device cbd1 has failed: acknowledged writes may be lost", refused.Message);
        daemon.Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Device, Name = "cbd1" });
        Assert.Equal(4, NextRecord().Entries.Count);
    }

    [Fact]
    public void Does_not_start_again_what_ended_the_daemon_three_times()
    {
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        for (int death = 1; death <= WantedRecord<Cbd.Protocol.SafePolicy>.MostDeaths; death++)
        {
            var record = NextRecord();
            Assert.DoesNotContain(record.Entries, entry => entry.Failed is not null);
            record.BeginRestore(record.Entries[^1].Number);
        }

        var node = new ListedNode();
        Assert.Equal(0, PatientDaemon.Reconciler(node, NextRecord(), Logger).Pass(() => false));
        Assert.Equal(["cbd0 on 0"], Names(node));
        Assert.Contains("died 3 times in a row", Assert.Single(NextRecord().Entries, entry => entry.Failed is not null).Failed);
    }

    [Fact]
    public void Forgets_the_deaths_of_a_thing_once_it_was_started_or_refused()
    {
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        var record = NextRecord();
        record.BeginRestore(record.Entries[^1].Number);
        PatientDaemon.Reconciler(new ListedNode(), NextRecord(), Logger).Pass(() => false);
        Assert.All(NextRecord().Entries, entry => Assert.Null(entry.Deaths));
        record = NextRecord();
        PatientDaemon.Reconciler(new ListedNode { Failure = new CbdException(CbdErrorKind.NotFound, "no region") }, record, Logger).Pass(() => false);
        Assert.All(NextRecord().Entries, entry => Assert.Null(entry.Deaths));
    }
}
