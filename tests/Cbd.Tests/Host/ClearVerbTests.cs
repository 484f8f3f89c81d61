using Cbd.Host;
using Cbd.Host.Transports;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>host-clear and dev-clear against hosts of another machine, and dead ones of this.</summary>
public sealed class What_another_host_left : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly RecordedLog _log = new();
    private readonly BareTransport _host;
    private readonly FarHost _far;

    public What_another_host_left()
    {
        _host = new BareTransport(Region, "host", format: true, _log);
        _far = new FarHost(Region, "far");
    }

    private string Region => _directory.PathOf("region");

    private ClearVerbs Clears => _host.Transport.Clears;

    public void Dispose()
    {
        _far.Dispose();
        _host.Dispose();
        _directory.Dispose();
    }

    [Fact]
    public void Is_not_cleared_without_proof_and_quarantined_by_force_until_an_operator_vouches()
    {
        int backend = _far.StartBackend().Backend;
        CbdException unproven = Assert.Throws<CbdException>(() => Clears.ClearHost(_far.Id, force: false, fenced: false));
        Assert.Contains("nothing proves that host", unproven.Message, StringComparison.Ordinal);
        Eventually.True(() => _log.Has("is not heard of, and not proven dead"));
        Assert.Equal("unknown", Listed().Alive);

        Clears.ClearHost(_far.Id, force: true, fenced: false);
        Assert.Equal(("quarantined", 1), (Listed().State, Listed().Quarantined));
        Assert.Equal(new QuarantineCounts(1, 1, 0, 0), _host.Transport.Lists.CountQuarantined());
        CbdException quarantined = Assert.Throws<CbdException>(() => _host.Transport.Backends.Clear(backend, force: true, fenced: false));
        Assert.Contains("--fenced", quarantined.Message, StringComparison.Ordinal);
        _host.Transport.Backends.Clear(backend, force: false, fenced: true);

        Clears.ClearHost(_far.Id, force: false, fenced: true);
        Assert.DoesNotContain(_host.Transport.Lists.ListHosts(), h => h.HostId == _far.Id);
        Assert.Equal(default, _host.Transport.Lists.CountQuarantined());
        CbdException gone = Assert.Throws<CbdException>(() => Clears.ClearHost(_far.Id, force: false, fenced: true));
        Assert.Equal(CbdErrorKind.NotFound, gone.Kind);
        Assert.False(_far.Beat());
    }

    [Fact]
    public void Stays_while_it_is_seen_to_live_whatever_an_operator_says()
    {
        using var far = new FarHost(Region, "lives", deadMs: 60_000);
        Eventually.True(() => far.Beat() && _host.Transport.Lists.ListHosts().Single(h => h.HostId == far.Id).Alive == "alive");
        foreach ((bool force, bool fenced) in new[] { (false, false), (true, false), (false, true) })
        {
            CbdException alive = Assert.Throws<CbdException>(() => Clears.ClearHost(far.Id, force, fenced));
            Assert.Contains("is alive", alive.Message, StringComparison.Ordinal);
        }

        Eventually.True(() => _host.Transport.Condition.HasRemoteHosts);
    }

    [Fact]
    public void Of_a_device_is_cleared_with_its_host_or_on_the_word_of_an_operator()
    {
        int backend = _host.StartBackend("memory:1M");
        int device = _far.StartBlkdev(backend).Blkdev;
        Clears.ClearDevice(device, force: true, fenced: false);
        Assert.Equal("quarantined", Assert.Single(_host.Transport.Lists.ListDevices(all: true)).State);
        CbdException quarantined = Assert.Throws<CbdException>(() => Clears.ClearDevice(device, force: true, fenced: false));
        Assert.Contains("--fenced", quarantined.Message, StringComparison.Ordinal);
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => _host.StartDevice(backend)).Kind);
        Clears.ClearDevice(device, force: false, fenced: true);
        Assert.Empty(_host.Transport.Lists.ListDevices(all: true));
        _host.StartDevice(backend);
    }

    [Fact]
    public void With_its_death_is_cleared_by_any_host_and_a_device_can_start_where_its_was()
    {
        int backend = _host.StartBackend("memory:1M");
        int dead;
        lock (_host.Transport.StateLock)
        {
            // A host of this machine whose process ends, as its lock says.
            OpenedTransport opened = TransportOpening.Open(1, new RegisterTransportOptions { Host = "dead", Path = Region }, TestNode.OptionsOf("/"), (_, _) => false);
            dead = opened.Membership.Session.Claim.Host;
            var blkdev = opened.Membership.Session.Blkdevs.Claim(backend, readOnly: false);
            blkdev.Activate([], "dead");
            opened.Region.Dispose();
            opened.Source.Dispose();
            // A process that another test has just forked holds the lock until it runs its program.
            Eventually.True(() => _host.Transport.Lists.ListHosts().Single(h => h.HostId == dead).Alive == "dead");
            Eventually.True(() => Assert.Single(_host.Transport.Lists.ListDevices(all: true)).Alive == "dead");
            Clears.ClearDevice(blkdev.Blkdev, force: false, fenced: false);
        }

        Assert.DoesNotContain(_host.Transport.Lists.ListHosts(), h => h.HostId == dead);
        _host.StartDevice(backend);
        Eventually.True(() => _log.Has($"host {dead} cleared (Proof)"));
    }

    [Fact]
    public void Cannot_be_of_a_host_a_device_or_a_backend_that_is_not_there()
    {
        Assert.Equal(CbdErrorKind.NotFound, Assert.Throws<CbdException>(() => Clears.ClearHost(-1, force: false, fenced: false)).Kind);
        Assert.Equal(CbdErrorKind.Invalid, Assert.Throws<CbdException>(() => Clears.ClearHost(_host.HostId, force: true, fenced: true)).Kind);
        Assert.Equal(CbdErrorKind.NotFound, Assert.Throws<CbdException>(() => Clears.ClearDevice(0, force: true, fenced: true)).Kind);
        Assert.Equal(CbdErrorKind.NotFound, Assert.Throws<CbdException>(() => _host.Transport.Backends.Clear(3, force: true, fenced: true)).Kind);
    }

    [Fact]
    public void Serves_a_host_that_cannot_wake_this_one()
    {
        // With a host of another kernel on the region both sides look by themselves.
        int backend = _host.StartBackend("memory:1M");
        Eventually.True(() => _host.Transport.Condition.HasRemoteHosts);
        _host.StartDevice(backend);
        using Blocks.IBlockQueue queue = _host.Exports.Last.Device!.OpenQueue(4);
        Assert.False(((Blocks.IWakeCount)queue).CanBeWoken);
        Assert.False(((Blocks.IDescriptorWait)queue).TryWait(0, 1000));
        var done = new Blocks.BlockCompletion[1];
        for (int i = 0; i < 20; i++)
        {
            Assert.True(queue.TrySubmit(new Blocks.BlockRequest(1, Blocks.BlockOperation.Flush, Blocks.BlockFlags.None, 0, 0, default)));
            while (queue.Poll(done) == 0)
                queue.Wait(500);
            Assert.Equal(0, done[0].Error);
        }
    }

    private HostDescription Listed() => _host.Transport.Lists.ListHosts().Single(h => h.HostId == _far.Id);
}
