using Cbd.Blocks;
using Cbd.Disks;
using Cbd.Host.Backends;
using Cbd.Host.Devices;
using Cbd.Host.Threads;
using Cbd.Memory;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>Stops that meet other stops, growth, a disk that hangs, and a host that leaves; with real threads.</summary>
public sealed class A_stop : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly RecordedLog _log = new();
    private readonly List<IDisposable> _opened = [];

    private string Region => _directory.PathOf("region");

    public void Dispose()
    {
        _opened.Reverse();
        _opened.ForEach(o => o.Dispose());
        _directory.Dispose();
    }

    [Fact]
    public void Of_a_backend_that_is_stopped_already_waits_with_it_and_both_answer()
    {
        (BareTransport disks, int backend) = Disks();
        IBlockQueue queue = HangRequest(disks, backend);
        Task<StopAnswer> first = Run(() => disks.Transport.Backends.Stop(backend, force: true, leaves: false));
        Eventually.True(() => disks.BackendServer(backend).Life.Stage == BackendStage.Draining);
        Task<StopAnswer> second = Run(() => disks.Transport.Backends.Stop(backend, force: false, leaves: false));
        Eventually.True(() => disks.Transport.Verbs.Count == 2);
        disks.Transport.Backends.SetFaults(backend, []);
        Assert.Equal([StopAnswer.Gone, StopAnswer.Gone], [Eventually.Result(first), Eventually.Result(second)]);
        Eventually.True(() => queue.Poll(new BlockCompletion[1]) == 1);
        // What is left is a record, which is nobody's to resize.
        Assert.Equal(CbdErrorKind.Denied, Assert.Throws<CbdException>(() => disks.Transport.Backends.Resize(backend, null)).Kind);
    }

    [Fact]
    public void That_is_not_forced_gives_up_when_its_host_leaves_and_one_that_is_goes_on()
    {
        (BareTransport disks, int backend) = Disks();
        HangRequest(disks, backend);
        BackendServer server = disks.BackendServer(backend);
        Task<StopAnswer> forced = Run(() => disks.Transport.Backends.Stop(backend, force: true, leaves: false));
        Eventually.True(() => server.Life.Stage == BackendStage.Draining);
        Task<StopAnswer> unforced = Run(() => disks.Transport.Backends.Stop(backend, force: false, leaves: false));
        Eventually.True(() => disks.Transport.Verbs.Count == 2);
        Task<int> leaving = Run(() =>
        {
            disks.Transport.Close();
            return 0;
        });
        Eventually.True(() => disks.Transport.Verbs.IsEnding);
        Assert.Equal("stopping", Eventually.Result(unforced).State);
        Assert.False(forced.IsCompleted);
        Assert.False(leaving.IsCompleted);
        server.SetFaults([]);
        Assert.Equal(StopAnswer.Gone, Eventually.Result(forced));
        Eventually.Result(leaving);
        Assert.Throws<CbdException>(() => disks.Transport.Backends.Stop(backend, force: true, leaves: false));
    }

    [Fact]
    public void That_takes_too_long_says_so_and_is_finished_by_the_host_itself()
    {
        (BareTransport disks, int backend) = Disks(diskWaitMs: 50);
        HangRequest(disks, backend);
        BackendServer server = disks.BackendServer(backend);
        lock (disks.Transport.StateLock)
            server.Life.BeginStop(force: true, leaves: false, 0);
        StopAnswer answer = disks.Transport.Backends.Stop(backend, force: false, leaves: false);
        Assert.Equal("stopping", answer.State);
        Assert.Contains("ends by itself when the disk answers", answer.Reason!, StringComparison.Ordinal);
        Assert.Equal("the disk does not finish its requests", Assert.Single(disks.Transport.Lists.ListBackends(all: false)).Reason);
        disks.Transport.Backends.SetFaults(backend, []);
        Eventually.True(() => disks.Transport.Lists.ListBackends(all: false).Count == 0);
        Eventually.True(() => _log.Has($"backend {backend} stopped"));
    }

    [Fact]
    public void By_force_leaves_a_disk_that_hangs_to_the_end_of_the_process_and_so_does_leaving()
    {
        (BareTransport disks, int backend) = Disks(diskWaitMs: 50);
        HangRequest(disks, backend);
        BackendServer server = disks.BackendServer(backend);
        CbdException hangs = Assert.Throws<CbdException>(() => disks.Transport.Backends.Stop(backend, force: true, leaves: false));
        Assert.Equal(CbdErrorKind.TimedOut, hangs.Kind);
        Assert.Equal(BackendStage.Abandoned, server.Life.Stage);
        Assert.False(server.TryEnd(0));
        Assert.False(server.TryTakeFinish());
        CbdException again = Assert.Throws<CbdException>(() => disks.Transport.Backends.Stop(backend, force: true, leaves: false));
        Assert.Contains("restart the daemon", again.Message, StringComparison.Ordinal);
        disks.Transport.Close();
        using var view = new RegionView(Region);
        Assert.True(view.IsLocked);
        Assert.Contains($"backend {backend} Closing", view.Taken);
        Assert.Contains($"host {disks.HostId} Active", view.Taken);
        Assert.True(_log.Has($"backend {backend}: the disk does not finish"));
        // The users need not wait for their channel: the region is gone.
        using var file = new FileStream(Region, FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
        file.SetLength(view.Geometry.ChannelAreaOffset);
    }

    [Fact]
    public void Waits_for_a_growth_that_is_under_way_and_lets_no_other_begin()
    {
        (BareTransport disks, _) = Disks();
        string file = _directory.PathOf("disk");
        File.WriteAllBytes(file, new byte[1 << 20]);
        int backend = disks.StartBackend(file);
        BackendServer server = disks.BackendServer(backend);
        Task<StopAnswer> stop;
        using (server.GrowthLock.EnterScope())
        {
            stop = Run(() => disks.Transport.Backends.Stop(backend, force: false, leaves: false));
            Eventually.True(() => server.Life.Stage == BackendStage.Draining);
            CbdException refused = Assert.Throws<CbdException>(() => disks.Transport.Backends.Resize(backend, 2 << 20));
            Assert.Contains("is stopping", refused.Message, StringComparison.Ordinal);
            Assert.False(stop.IsCompleted);
            Assert.Throws<DiskInUseException>(() => Disk.Open(new DiskOptions { Path = file }));
        }

        Assert.Equal(StopAnswer.Gone, Eventually.Result(stop));
        Disk.Open(new DiskOptions { Path = file }).Dispose();
    }

    [Fact]
    public void That_gave_up_waiting_for_a_growth_finishes_by_itself()
    {
        (BareTransport disks, _) = Disks(diskWaitMs: 50);
        int backend = disks.StartBackend("memory:1M");
        BackendServer server = disks.BackendServer(backend);
        using (server.GrowthLock.EnterScope())
        {
            Task<StopAnswer> stop = Run(() => disks.Transport.Backends.Stop(backend, force: false, leaves: false));
            Assert.Equal("stopping", Eventually.Result(stop).State);
            // Housekeeping tries in vain, and may try again.
            Eventually.True(() => server.FinishesInVain > 0);
        }

        Eventually.True(() => server.Life.Stage == BackendStage.Over);
    }

    [Fact]
    public void Of_a_device_by_force_wins_over_one_that_its_users_refuse()
    {
        (BareTransport disks, int backend) = Disks();
        BareTransport users = Open(new BareTransport(Region, "users", logger: _log));
        int device = users.StartDevice(backend).Device;
        TestNode.HandedOver.Export export = users.Exports.Last;
        using var refusing = new ManualResetEventSlim();
        using var mayRefuse = new ManualResetEventSlim();
        export.WhileStopping = force =>
        {
            if (force)
                return;
            refusing.Set();
            Eventually.True(() => mayRefuse.IsSet);
            throw new CbdException(CbdErrorKind.Busy, "somebody opened it");
        };
        Task<CbdException> refused = Run(() => Assert.Throws<CbdException>(() => users.Transport.Devices.Stop(device, force: false)));
        Eventually.True(() => refusing.IsSet);
        Assert.Equal(DeviceStage.EndingExport, users.DeviceServer(device).Life.Stage);
        Task<StopAnswer> forced = Run(() => users.Transport.Devices.Stop(device, force: true));
        Eventually.True(() => users.DeviceServer(device).Life.IsForced);
        mayRefuse.Set();
        Assert.Equal("somebody opened it", Eventually.Result(refused).Message);
        Assert.Equal(StopAnswer.Gone, Eventually.Result(forced));
        Assert.True(export.IsDisposed);
        Assert.Empty(disks.Transport.Lists.ListDevices(all: true));
    }

    [Fact]
    public void That_waits_for_one_that_was_refused_is_refused_too()
    {
        (_, int backend) = Disks();
        BareTransport users = Open(new BareTransport(Region, "users", logger: _log));
        int device = users.StartDevice(backend).Device;
        DeviceServer server = users.DeviceServer(device);
        lock (users.Transport.StateLock)
        {
            server.Life.BeginStop(force: false, 0);
            server.Life.RefuseStop(0);
        }

        CbdException refused = Assert.Throws<CbdException>(() => users.Transport.Devices.TryFinishStop(server, force: false));
        Assert.Equal(CbdErrorKind.Busy, refused.Kind);
        Assert.Equal("running", Assert.Single(users.Transport.Lists.ListDevices(all: false)).State);
        Assert.Equal(StopAnswer.Gone, users.Transport.Devices.Stop(device, force: false));
        Assert.True(users.Transport.Devices.TryFinishStop(server));
    }

    private (BareTransport Disks, int Backend) Disks(int diskWaitMs = Cbd.Host.NodeOptions.DefaultDiskWaitMs)
    {
        BareTransport disks = Open(new BareTransport(Region, "disks", format: true, _log, diskWaitMs: diskWaitMs));
        return (disks, disks.StartBackend("memory:1M", faults: ["off"]));
    }

    /// <summary>A write that hangs at the disk until the faults are changed.</summary>
    private IBlockQueue HangRequest(BareTransport disks, int backend)
    {
        BareTransport users = Open(new BareTransport(Region, "users", logger: _log));
        users.StartDevice(backend);
        disks.Transport.Backends.SetFaults(backend, ["stuck"]);
        NativeBuffer buffer = Open(new NativeBuffer(4096));
        IBlockQueue queue = Open(users.Exports.Last.Device!.OpenQueue(4));
        Assert.True(queue.TrySubmit(new BlockRequest(1, BlockOperation.Write, BlockFlags.None, 0, 4096, new BufferSlice(buffer, 0, 4096))));
        Eventually.True(() =>
        {
            queue.Poll(new BlockCompletion[1]);
            return disks.BackendServer(backend).Faults![0].Struck == 1;
        });
        return queue;
    }

    private T Open<T>(T thing)
        where T : IDisposable
    {
        _opened.Add(thing);
        return thing;
    }

    private static Task<T> Run<T>(Func<T> verb) => Task.Run(verb, TestContext.Current.CancellationToken);
}
