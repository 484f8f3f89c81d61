using Cbd.Disks;
using Cbd.Host;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>Starts that wait while their host is stopped, left, cleared, or cannot be had; with real threads.</summary>
public sealed class A_start : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly RecordedLog _log = new();
    private readonly TestNode _node;

    public A_start()
    {
        _node = new TestNode(Path.GetDirectoryName(Region)!, "node", logger: _log);
        _node.Register(Region, format: true);
        File.WriteAllBytes(FilePath, new byte[1 << 20]);
    }

    private string Region => _directory.PathOf("region");

    private string FilePath => _directory.PathOf("disk");

    /// <summary>A start waits as long as it takes.</summary>
    private static StartLimit NoLimit => new(null, isGiven: true);

    public void Dispose()
    {
        _node.Dispose();
        _directory.Dispose();
    }

    [Fact]
    public void That_waits_for_the_lock_of_a_disk_keeps_its_host_and_gives_up_when_the_process_leaves()
    {
        int backend = LeaveARecord();
        using Disk held = Disk.Open(new DiskOptions { Path = FilePath });
        Task<CbdException> start = Run(() => Assert.Throws<CbdException>(() => _node.StartBackend(FilePath, backend, limit: NoLimit)));
        Eventually.True(() => StopOf(backend).Contains("is being started", StringComparison.Ordinal));
        Assert.Contains($"backend {backend} and device", WhyNotUnregistered(), StringComparison.Ordinal);
        Assert.False(start.IsCompleted);
        _node.Dispose();
        Assert.Contains("was unregistered meanwhile", Eventually.Result(start).Message, StringComparison.Ordinal);
        using var view = new RegionView(Region);
        Assert.Empty(view.Taken);
        Assert.False(view.IsLocked);
        Assert.Equal(1, RegionView.MappingsOf(Region));
    }

    [Fact]
    public void Of_a_new_backend_that_waits_has_no_id_yet_and_goes_on_when_the_disk_is_free()
    {
        int other = _node.StartBackend("memory:1M");
        Task<int> start;
        using (Disk.Open(new DiskOptions { Path = FilePath }))
        {
            start = Run(() => _node.StartBackend(FilePath, limit: NoLimit));
            Eventually.True(() => WhyNotUnregistered().Contains($"backend (being started), {other} of this host", StringComparison.Ordinal));
        }

        Assert.Equal(other + 1, Eventually.Result(start));
    }

    [Fact]
    public void That_waits_while_its_host_is_cleared_is_to_be_tried_again()
    {
        int backend = LeaveARecord();
        using Disk held = Disk.Open(new DiskOptions { Path = FilePath });
        Task<CbdException> start = Run(() => Assert.Throws<CbdException>(() => _node.StartBackend(FilePath, backend, limit: NoLimit)));
        Eventually.True(() => StopOf(backend).Contains("is being started", StringComparison.Ordinal));
        using (var view = new RegionView(Region))
            view.TakeForDead(_node.Node.GetTransport(0).HostId);
        Assert.Contains("try again in a moment", Eventually.Result(start).Message, StringComparison.Ordinal);
        // Its device fences its queue, and the host registers anew.
        using Blocks.IBlockQueue queue = _node.Exports.Last.Device!.OpenQueue(1);
        Eventually.True(() =>
        {
            queue.Poll([]);
            return _log.Has("registered anew as host");
        });
        Eventually.True(() => _node.Node.GetTransport(0).Failure.Length == 0);
    }

    [Fact]
    public void Of_a_device_whose_backend_answers_nobody_gives_everything_back_when_the_process_leaves()
    {
        using var far = new FarHost(Region, "far");
        int backend = far.StartBackend().Backend;
        Task<CbdException> start = Run(() => Assert.Throws<CbdException>(() => _node.StartDevice(backend, queues: 2)));
        using var view = new RegionView(Region);
        Eventually.True(() => view.Taken.Contains("channel 1 Offered"));
        _node.Dispose();
        Assert.Contains("was unregistered meanwhile", Eventually.Result(start).Message, StringComparison.Ordinal);
        Assert.Equal([$"host {far.Id} Active", $"backend {backend} Active"], view.Taken);
        Assert.True(_node.Exports.Last.IsDisposed);
    }

    [Fact]
    public void Of_a_device_whose_backend_answers_nobody_can_be_stopped()
    {
        using var far = new FarHost(Region, "far");
        int backend = far.StartBackend().Backend;
        Task<CbdException> start = Run(() => Assert.Throws<CbdException>(() => _node.StartDevice(backend)));
        Eventually.True(() => _node.Node.ListDevices(0, all: false).Count == 1);
        Assert.Equal(StopAnswer.Gone, _node.Node.StopDevice(0, 0, force: false));
        Assert.Contains("was stopped before it had started", Eventually.Result(start).Message, StringComparison.Ordinal);
        Assert.Empty(_node.Node.ListDevices(0, all: true));
        Assert.Empty(_node.Node.ListChannels(0));
    }

    [Fact]
    public void Of_a_device_whose_address_is_taken_gives_its_claim_back()
    {
        int backend = _node.StartBackend("memory:1M");
        var addresses = new List<string>();
        string stop = "";
        _node.Exports.WhileOpening = address =>
        {
            addresses.Add(address);
            if (address != "handed-over")
                stop = Assert.Throws<CbdException>(() => _node.Node.StopDevice(0, 0, force: false)).Message;
            throw new CbdException(CbdErrorKind.Busy, "the address is taken");
        };
        Assert.Equal("the address is taken", Assert.Throws<CbdException>(() => _node.StartDevice(backend)).Message);
        Assert.Equal("the address is taken", Assert.Throws<CbdException>(() => _node.Node.StartDevice(new StartDeviceOptions { Backend = backend })).Message);
        Assert.Equal(["handed-over", $"unix:{_directory.PathOf("cbd0.nbd")}"], addresses);
        // The default address has the id of a claim in it, which another verb sees meanwhile.
        Assert.Contains("device 0 is being started", stop, StringComparison.Ordinal);
        using var view = new RegionView(Region);
        Assert.Equal([$"host {_node.Node.GetTransport(0).HostId} Active", $"backend {backend} Active"], view.Taken);
    }

    [Fact]
    public void With_numbers_that_cannot_be_is_refused()
    {
        int backend = _node.StartBackend("memory:1M");
        Assert.Equal(CbdErrorKind.Invalid, Assert.Throws<CbdException>(() => _node.StartDevice(backend, queues: 0)).Kind);
        Assert.Equal(CbdErrorKind.Invalid, Assert.Throws<CbdException>(() => _node.Node.StartBackend(new StartBackendOptions { Path = "memory:1M", Handlers = 0 })).Kind);
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => _node.StartBackend("memory:1M", backend)).Kind);
        Assert.Equal(CbdErrorKind.NotFound, Assert.Throws<CbdException>(() => _node.StartBackend("memory:1M", backend + 1)).Kind);
        Assert.Equal(CbdErrorKind.Invalid, Assert.Throws<CbdException>(() => _node.StartBackend(Region)).Kind);
    }

    [Fact]
    public void Of_a_backend_whose_host_lives_is_refused_before_its_disk_is_opened()
    {
        using var far = new FarHost(Region, "far", deadMs: 60_000);
        int backend = far.StartBackend().Backend;
        Eventually.True(() => far.Beat() && _node.Node.ListHosts(0).Single(h => h.HostId == far.Id).Alive == "alive");
        CbdException served = Assert.Throws<CbdException>(() => _node.StartBackend(_directory.PathOf("not there"), backend));
        Assert.Contains("which is alive", served.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Of_a_transport_while_the_process_ends_is_undone()
    {
        TestNode? node = null;
        node = new TestNode(Path.GetDirectoryName(Region)!, "late", thread =>
        {
            node!.Node.Dispose();
            thread.Start();
        });
        CbdException late = Assert.Throws<CbdException>(() => node.Register(Region));
        Assert.Contains("this daemon is stopping", late.Message, StringComparison.Ordinal);
        Assert.Throws<ObjectDisposedException>(() => node.Register(Region));
        Assert.Equal("node", Assert.Single(_node.Node.ListHosts(0)).HostName);
    }

    [Fact]
    public void Of_more_transports_than_a_node_may_have_is_refused()
    {
        using var node = new Node(TestNode.OptionsOf("/") with { MaxTransports = 1 }, new TestNode.HandedOver());
        node.RegisterTransport(new RegisterTransportOptions { Host = "other", Path = Region });
        CbdException full = Assert.Throws<CbdException>(() => node.RegisterTransport(new RegisterTransportOptions { Host = "other", Path = _directory.PathOf("next") }));
        Assert.Equal(CbdErrorKind.Exhausted, full.Kind);
        Assert.Single(node.ListTransports());
    }

    /// <summary>A backend on the file without a session, with a device that waits for it.</summary>
    private int LeaveARecord()
    {
        int backend = _node.StartBackend(FilePath);
        _node.StartDevice(backend);
        _node.Node.LeaveBackend(0, backend);
        return backend;
    }

    private string StopOf(int backend) => Assert.Throws<CbdException>(() => _node.Node.StopBackend(0, backend, force: true)).Message;

    private string WhyNotUnregistered() => Record.Exception(() => _node.Node.UnregisterTransport(0))?.Message ?? "";

    private static Task<T> Run<T>(Func<T> verb) => Task.Run(verb, TestContext.Current.CancellationToken);
}
