using Cbd.Host.Wanted;
using Cbd.Programs.Daemon.State;
using Xunit;

namespace Cbd.Tests.Control;

/// <summary>The region of a record is the one that was there, or one that a verb or a boot stands for.</summary>
public sealed class RegionsOfARecord : LivesOfADaemon
{
    [Fact]
    public void Does_not_go_on_another_region_until_a_verb_confirms_it()
    {
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        var node = new ListedNode { Uuid = Guid.NewGuid() };
        var record = NextRecord();
        using var reconciler = PatientDaemon.Reconciler(node, record, Logger);
        Assert.Equal(5, reconciler.Pass(() => false));
        WantedThing transport = new WantedList(node, record).Describe()[0];
        Assert.Equal(WantedThing.Failed, transport.State);
        Assert.Contains($"has the uuid {node.Uuid}", transport.Reason);
        Assert.Empty(node.Execute(Operations.ListTransports, new ControlRequest()));

        PatientDaemon.Control(node, record).Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
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
        PatientDaemon.Control(new ListedNode(), NextRecord()).Execute(Operations.RegisterTransport, options);
        // What is missing now is not made anew: it could not be the region that was there.
        var node = new ListedNode();
        PatientDaemon.Reconciler(node, NextRecord(), Logger).Pass(() => false);
        Assert.Equal([$"{new RegisterTransportOptions { Host = "alpha", Path = options.Path, RegionUuid = node.Uuid }}"], node.Calls);

        string file = new StateFile(Files.Path).FilePath;
        File.WriteAllText(file, File.ReadAllText(file).Replace($"{Cbd.Memory.ProcessIdentity.BootId:D}", $"{Guid.NewGuid():D}", StringComparison.Ordinal));
        node = new ListedNode();
        PatientDaemon.Reconciler(node, NextRecord(), Logger).Pass(() => false);
        Assert.Equal([$"{options}"], node.Calls);
    }
}
