using Cbd.Programs.Daemon.State;
using Xunit;

namespace Cbd.Tests.Control;

/// <summary>What is wanted and not there is in the lists.</summary>
public sealed class WhatIsAwayInLists : LivesOfADaemon
{
    [Fact]
    public void Is_last_in_the_lists_without_an_id_while_it_is_away()
    {
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        DateTime before = DateTime.UtcNow;
        var node = new ListedNode { Failure = new CbdException(CbdErrorKind.NotFound, "no region") };
        var record = NextRecord();
        var daemon = PatientDaemon.Control(node, record);
        using var reconciler = PatientDaemon.Reconciler(node, record, Logger);
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
        daemon = PatientDaemon.Control(new ListedNode(), NextRecord(restore: false));
        Assert.Equal((-1, "held", "not now"), (daemon.Execute(Operations.ListTransports, new ControlRequest()) is [var held] ? (held.TransportId, held.State, held.Reason) : default));
    }

    [Theory]
    [InlineData("null", -1)]
    [InlineData("7", 7)]
    public void Has_null_for_an_id_in_JSON(string id, int expected)
    {
        var node = new ListedNode();
        StartTwoDevices(PatientDaemon.Control(node, NextRecord()));
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
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        node.Identities["/dev/sdb"] = "file:another";
        var record = NextRecord();
        PatientDaemon.Reconciler(node, record, Logger).Pass(() => false);
        int count = record.Entries.Count;
        Cbd.Control.Verbs.VerbSet.ForDaemon().ParseLine(line).Execute(PatientDaemon.Control(node, record), new Cbd.Control.Verbs.VerbOutput(TextWriter.Null, toTerminal: false));
        Assert.Equal(count - 1, record.Entries.Count);
    }
}
