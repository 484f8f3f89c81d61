using System.Collections.Concurrent;
using Cbd.Blocks;
using Cbd.Disks;
using Cbd.Host.Backends;
using Cbd.Host.Sessions;
using Cbd.Host.Threads;
using Cbd.Memory;
using Cbd.Protocol.Format;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>A host with its threads that others cleared, because they took it for dead: it registers anew by itself.</summary>
public sealed class A_host_that_registers_anew : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly RecordedLog _log = new();
    private readonly NativeBuffer _buffer = new(4096);
    private readonly List<IDisposable> _opened = [];
    private readonly RegionView _view;
    private readonly BareTransport _disks, _users;

    public A_host_that_registers_anew()
    {
        _disks = new BareTransport(Region, "disks", format: true, _log);
        _users = new BareTransport(Region, "users", logger: _log);
        _view = new RegionView(Region);
    }

    private string Region => _directory.PathOf("region");

    public void Dispose()
    {
        _opened.Reverse();
        _opened.ForEach(o => o.Dispose());
        _users.Dispose();
        _disks.Dispose();
        _view.Dispose();
        _buffer.Dispose();
        _directory.Dispose();
    }

    [Fact]
    public void Offers_its_backends_again_under_their_ids_and_their_users_go_on()
    {
        int backend = _disks.StartBackend("memory:1M");
        _users.StartDevice(backend);
        IBlockQueue queue = Open(_users.Exports.Last.Device!.OpenQueue(4));
        Assert.Equal(0, Do(queue, 1));
        BackendServer before = _disks.BackendServer(backend);
        ulong session = _view.BackendWord(backend).Epoch;
        _view.TakeForDead(_disks.HostId);
        Assert.Equal(0, Do(queue, 2));
        Eventually.True(() => _disks.BackendServer(backend) is { } server && server != before);
        Assert.Equal(session + 1, _view.BackendWord(backend).Epoch);
        Assert.Equal(0, Do(queue, 3));
        // Not Failure, which also says that housekeeping had no turn for a moment.
        Assert.Equal((false, LifeState.Running), (_disks.Transport.Session.Condition.IsFenced, _disks.Transport.Membership.Status.State));
        Eventually.True(() => _log.Has($"backend {backend}: offered again"));
        Eventually.True(() => _users.Transport.Lists.ListDevices(all: false)[0].State == "running");
    }

    [Fact]
    public void Tells_of_a_backend_that_it_cannot_offer_again()
    {
        string file = _directory.PathOf("disk");
        File.WriteAllBytes(file, new byte[1 << 20]);
        var lost = new ConcurrentQueue<(string, int, string)>();
        BareTransport loser = Open(new BareTransport(Region, "loser", logger: _log, backendLost: (region, id, why) => lost.Enqueue((region, id, why))));
        int backend = loser.StartBackend(file);
        using var far = new FarHost(Region, "far", deadMs: 600_000);
        int other = far.StartBackend(loser.BackendServer(backend).Disk.Identity).Backend;
        _view.TakeForDead(loser.HostId);
        Eventually.True(() => !lost.IsEmpty);
        Assert.Equal((Region, backend, $"it was not offered again: the disk of backend {backend} is backend {other} by now: another host has taken it up"), Assert.Single(lost));
    }

    [Fact]
    public void Answers_with_errors_for_its_lost_device_until_that_is_stopped()
    {
        int backend = _disks.StartBackend("memory:1M");
        int device = _users.StartDevice(backend).Device;
        IBlockQueue queue = Open(_users.Exports.Last.Device!.OpenQueue(4));
        Assert.Equal(0, Do(queue, 1));
        // It may have registered anew before this looks.
        HostSession<MappedMemory, SafePolicy> before = _users.Transport.Session;
        _view.TakeForDead(_users.HostId);
        Eventually.True(() => before.IsCleared);
        Assert.Equal(Errno.EIO, Do(queue, 2));
        Eventually.True(() => _users.Transport.Failure is null);
        DeviceDescription lost = Assert.Single(_users.Transport.Lists.ListDevices(all: false));
        Assert.Equal((device, "dead"), (lost.BlkdevId, lost.Alive));
        Assert.StartsWith("failed: ", lost.State, StringComparison.Ordinal);
        Assert.Empty(_disks.Transport.Lists.ListDevices(all: true));
        Assert.Contains("device", Assert.Throws<CbdException>(_users.Transport.Unregister).Message, StringComparison.Ordinal);
        int next = _users.StartDevice(backend).Device;
        Assert.NotEqual(device, next);
        Assert.Equal(2, _users.Transport.Lists.ListDevices(all: false).Count);
        Assert.Equal(StopAnswer.Gone, _users.Transport.Devices.Stop(device, force: false));
        Assert.Equal(next, Assert.Single(_users.Transport.Lists.ListDevices(all: false)).BlkdevId);
        Eventually.True(() => _log.Has($"device {device} stopped; its claim had been cleared"));
    }

    [Fact]
    public void Ends_the_export_of_a_device_whose_threads_do_not_stop_storing_by_themselves()
    {
        int backend = _disks.StartBackend("memory:1M");
        int device = _users.StartDevice(backend).Device;
        _view.TakeForDead(_users.HostId);
        Eventually.True(() => _users.Exports.Last.IsStopped);
        Eventually.True(() => _users.Transport.Failure is null);
        Assert.Equal(StopAnswer.Gone, _users.Transport.Devices.Stop(device, force: false));
    }

    [Fact]
    public void Waits_for_a_stop_that_is_under_way_and_does_not_offer_what_was_stopped()
    {
        int backend = HangRequest(_disks);
        int kept = _disks.StartBackend("memory:1M");
        BackendServer server = _disks.BackendServer(backend);
        Begin(server);
        int id = _disks.HostId;
        ulong epoch = _disks.Transport.Session.Claim.Epoch;
        _view.TakeForDead(id);
        Eventually.True(() => _log.Has("transport 0 failed: this host was cleared by another"));
        Assert.Contains("it registers anew", _disks.Transport.Failure!, StringComparison.Ordinal);
        Assert.Equal(epoch, _disks.Transport.Session.Claim.Epoch);
        Assert.Contains("try again in a moment", Assert.Throws<CbdException>(() => _disks.StartBackend("memory:1M")).Message, StringComparison.Ordinal);
        server.SetFaults([]);
        Eventually.True(() => _disks.Transport.Failure is null);
        Eventually.True(() => _disks.Transport.Lists.ListBackends(all: false) is [var only] && only.BackendId == kept);
        Assert.Equal(BackendStage.Over, server.Life.Stage);
    }

    [Fact]
    public void Says_why_it_cannot_and_can_be_left_meanwhile()
    {
        int backend = HangRequest(_disks);
        string file = _directory.PathOf("disk");
        File.WriteAllBytes(file, new byte[1 << 20]);
        _disks.StartBackend(file);
        BackendServer server = _disks.BackendServer(backend);
        Begin(server);
        _view.TakeForDead(_disks.HostId);
        Eventually.True(() => _disks.Transport.Session.IsCleared);
        // Its name is taken before it can register anew.
        Open(new BareTransport(Region, "disks", logger: _log));
        server.SetFaults([]);
        Eventually.True(() => _disks.Transport.Failure is { } why && why.Contains("it is not registered anew yet: host name 'disks' is taken", StringComparison.Ordinal));
        Assert.Throws<DiskInUseException>(() => Disk.Open(new DiskOptions { Path = file }));
        _disks.Transport.Unregister();
        Disk.Open(new DiskOptions { Path = file }).Dispose();
        Assert.Throws<CbdException>(_disks.Transport.Unregister);
    }

    [Fact]
    public void Stays_failed_if_a_disk_does_not_finish()
    {
        BareTransport hangs = Open(new BareTransport(Region, "hangs", logger: _log, diskWaitMs: 50));
        int backend = HangRequest(hangs);
        _view.TakeForDead(hangs.HostId);
        Eventually.True(() => _log.Has("not registered anew: a disk does not finish its requests"));
        Assert.Equal(BackendStage.Abandoned, hangs.BackendServer(backend).Life.Stage);
        Assert.DoesNotContain("registers anew", hangs.Transport.Failure!, StringComparison.Ordinal);
        Assert.Contains("restart the daemon", hangs.Transport.Membership.Status.Reason, StringComparison.Ordinal);
    }

    [Fact]
    public void Is_one_whose_region_was_cut_off_only_when_its_operator_registers_it()
    {
        int backend = _disks.StartBackend("memory:1M");
        using (var file = new FileStream(Region, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
            file.SetLength(_view.Geometry.ChannelAreaOffset);
        Eventually.True(() => _disks.Transport.Failure is { } why && why.Contains("was truncated", StringComparison.Ordinal));
        Assert.False(_disks.Transport.Session.IsCleared);
        Assert.Contains("tp-unreg", Assert.Throws<CbdException>(() => _disks.Transport.Backends.Stop(backend, force: true, leaves: false)).Message, StringComparison.Ordinal);
        _disks.Transport.Unregister();
        Assert.Throws<CbdException>(() => _disks.Transport.Lists.ListHosts());
        Assert.Equal(default, _disks.Transport.Lists.CountQuarantined());
    }

    private void Begin(BackendServer server)
    {
        // As a verb does, which then waits as long as the disk takes.
        lock (_disks.Transport.StateLock)
            server.Life.BeginStop(force: true, leaves: false, 0);
        server.BeginEnd();
    }

    /// <summary>A backend at whose disk a write hangs until the faults are changed.</summary>
    private int HangRequest(BareTransport disks)
    {
        int backend = disks.StartBackend("memory:1M", faults: ["off"]);
        _users.StartDevice(backend);
        disks.Transport.Backends.SetFaults(backend, ["stuck"]);
        IBlockQueue queue = Open(_users.Exports.Last.Device!.OpenQueue(4));
        Submit(queue, 1);
        Eventually.True(() =>
        {
            queue.Poll(new BlockCompletion[1]);
            return disks.BackendServer(backend).Faults![0].Struck == 1;
        });
        return backend;
    }

    private int Do(IBlockQueue queue, ulong cookie)
    {
        var done = new BlockCompletion[1];
        Submit(queue, cookie);
        Eventually.True(() => queue.Poll(done) == 1);
        Assert.Equal(cookie, done[0].Cookie);
        return done[0].Error;
    }

    private void Submit(IBlockQueue queue, ulong cookie) =>
        Assert.True(queue.TrySubmit(new BlockRequest(cookie, BlockOperation.Write, BlockFlags.None, 0, 4096, new BufferSlice(_buffer, 0, 4096))));

    private T Open<T>(T thing)
        where T : IDisposable
    {
        _opened.Add(thing);
        return thing;
    }
}
