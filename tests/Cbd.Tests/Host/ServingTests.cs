using Cbd.Blocks;
using Cbd.Disks;
using Cbd.Host;
using Cbd.Host.Sessions;
using Cbd.Host.Threads;
using Cbd.Host.Transports;
using Cbd.Memory;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>A backend and a device on it, of one host: what is listed, told, latched and refused.</summary>
public sealed class A_host_that_serves_itself : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly RecordedLog _log = new();
    private readonly NativeBuffer _buffer = new(4096);
    private readonly BareTransport _host;

    public A_host_that_serves_itself() => _host = new BareTransport(Region, "host", format: true, _log, fenceMs: 60_000);

    private string Region => _directory.PathOf("region");

    public void Dispose()
    {
        _host.Dispose();
        _buffer.Dispose();
        _directory.Dispose();
    }

    [Fact]
    public void Latches_a_failed_flush_until_an_operator_forgives_it()
    {
        int backend = _host.StartBackend("memory:1M", faults: ["error,op=flush,count=1"]);
        _host.StartDevice(backend);
        using IBlockQueue queue = _host.Exports.Last.Device!.OpenQueue(4);
        Assert.Contains("nothing to clear", Assert.Throws<CbdException>(() => _host.Transport.Backends.Clear(backend, false, false)).Message, StringComparison.Ordinal);
        Assert.Equal(Errno.EIO, Do(queue, BlockOperation.Flush));
        Assert.Equal(Errno.EIO, Do(queue, BlockOperation.Flush));
        Assert.Equal(Errno.EIO, Assert.Single(_host.Transport.Lists.ListBackends(all: false)).FlushError);
        _host.Transport.Backends.Clear(backend, force: false, fenced: false);
        Assert.Equal(0, Assert.Single(_host.Transport.Lists.ListBackends(all: false)).FlushError);
        Assert.Equal(0, Do(queue, BlockOperation.Flush));
        Eventually.True(() => _log.Has($"backend {backend}: the latched flush failure was cleared by the operator"));
    }

    [Fact]
    public void Tells_its_users_of_a_size_and_says_so_again_where_they_could_not_be_told()
    {
        int backend = _host.StartBackend("memory:1M");
        int device = _host.StartDevice(backend).Device;
        TestNode.HandedOver.Export export = _host.Exports.Last;
        export.OnResize = new CbdException(CbdErrorKind.Unsupported, "its clients must reconnect");
        ResizedBackend resized = _host.Transport.Backends.Resize(backend, 2 << 20);
        Assert.Equal((2 << 20, $"device {device}: its clients must reconnect"), (resized.SizeBytes, resized.Note));
        Assert.Equal("its clients must reconnect", Assert.Single(_host.Transport.Lists.ListDevices(all: false)).Note);
        Assert.Equal(1, export.ResizeCount);
        // The backend says its size again: the users are told again, and can be now.
        export.OnResize = null;
        Assert.Null(_host.Transport.Backends.Resize(backend, 2 << 20).Note);
        Eventually.True(() => export.ResizeCount == 2);
        Assert.False(_host.DeviceServer(device).HasNewSize);
        _host.DeviceServer(device).ShowSize();
        Assert.Equal(2, export.ResizeCount);
    }

    [Fact]
    public void Lists_no_time_that_is_still_to_come()
    {
        // Some turns of the coarse clock, with looks right after each.
        for (long end = MonotonicClock.Milliseconds + 50; MonotonicClock.Milliseconds < end;)
            Assert.InRange(TransportLists.SinceOf(new LifeStatus(LifeState.Running, "", MonotonicClock.Milliseconds))!.Value, DateTime.MinValue, DateTime.UtcNow);
    }

    [Fact]
    public void Goes_on_if_an_export_breaks_when_it_is_told_of_a_size()
    {
        int backend = _host.StartBackend("memory:1M");
        int device = _host.StartDevice(backend).Device;
        _host.Exports.Last.OnResize = new NotSupportedException("a bug");
        lock (_host.Transport.StateLock)
            Assert.True(_host.BackendServer(backend).Life.Claim!.Update(body => body with { SizeBytes = 2 << 20 }));
        Eventually.True(() => _log.Has($"device {device}: its size cannot be shown"));
        Assert.Equal(StopAnswer.Gone, _host.Transport.Devices.Stop(device, force: false));
    }

    [Fact]
    public void Finds_its_backend_on_a_file_and_lists_faults_and_engines()
    {
        string file = _directory.PathOf("disk");
        File.WriteAllBytes(file, new byte[1 << 20]);
        int backend = _host.StartBackend(file, faults: ["delay,ms=1", "error,rate=0.5"]);
        Assert.Equal(0, FileStatus.TryGet(file, out FileStatus status));
        Assert.Equal(backend, _host.Transport.Backends.FindOn(status));
        Assert.Equal(0, FileStatus.TryGet(Region, out FileStatus other));
        Assert.Null(_host.Transport.Backends.FindOn(other));
        BackendDescription listed = Assert.Single(_host.Transport.Lists.ListBackends(all: true));
        Assert.Equal(["delay,ms=1", "error,errno=EIO,rate=0.5"], listed.Faults!.Select(f => f.Spec.Replace(",seed=1", "", StringComparison.Ordinal)));
        Assert.Contains(listed.Engine, new[] { "io_uring", "pread" });
        Assert.NotNull(listed.CpuUs);
        _host.Transport.Backends.SetFaults(backend, ["off"]);
        Assert.Empty(Assert.Single(_host.Transport.Lists.ListBackends(all: true)).Faults!);
        Eventually.True(() => _log.Has($"backend {backend}: no fault is in force"));
        int plain = _host.StartBackend("memory:1M");
        Assert.Equal(CbdErrorKind.Unsupported, Assert.Throws<CbdException>(() => _host.Transport.Backends.SetFaults(plain, ["error"])).Kind);
        Assert.Throws<CbdException>(() => _host.StartBackend(file, regions: [new FileIdentity(status.Device, status.Inode)]));
    }

    [Fact]
    public void Reads_the_flight_recorders_of_what_it_has()
    {
        int backend = _host.StartBackend("memory:1M");
        int device = _host.StartDevice(backend, queues: 2).Device;
        Assert.Equal(["queue", "handler", "queue", "handler"], Read(new FlightFilter()).Select(f => f.Side));
        Assert.Equal([1, 1], Read(new FlightFilter { Channel = 1, Device = device, Backend = backend }).Select(f => f.ChannelId));
        Assert.Contains("is not one of this host", Assert.Throws<CbdException>(() => Read(new FlightFilter { Device = device + 1 })).Message, StringComparison.Ordinal);
        Assert.Contains("neither backend", Assert.Throws<CbdException>(() => Read(new FlightFilter { Backend = backend + 1 })).Message, StringComparison.Ordinal);

        IReadOnlyList<FlightDescription> Read(FlightFilter filter) => _host.Transport.Lists.ReadFlights(filter);
    }

    [Fact]
    public void Counts_what_is_outstanding_on_its_own_channels_and_on_those_of_others()
    {
        int backend = _host.StartBackend("memory:1M", faults: ["off"]);
        using var users = new BareTransport(Region, "users");
        users.StartDevice(backend);
        int own = _host.StartBackend("memory:2M", faults: ["stuck"]);
        _host.StartDevice(own);
        _host.Transport.Backends.SetFaults(backend, ["stuck"]);
        using IBlockQueue theirs = users.Exports.Last.Device!.OpenQueue(4);
        using IBlockQueue ours = _host.Exports.Last.Device!.OpenQueue(4);
        Submit(theirs, BlockOperation.Write);
        Submit(ours, BlockOperation.Write);
        Eventually.True(() =>
        {
            theirs.Poll(new BlockCompletion[1]);
            ours.Poll(new BlockCompletion[1]);
            return _host.Transport.Lists.ListChannels().Select(c => c.Outstanding).SequenceEqual([1, 1]);
        });
        Assert.Equal([backend, own], _host.Transport.Lists.ListChannels().Select(c => c.BackendId));
        _host.Transport.Backends.SetFaults(backend, []);
        _host.Transport.Backends.SetFaults(own, []);
        Eventually.True(() => theirs.Poll(new BlockCompletion[1]) == 1);
        Eventually.True(() => ours.Poll(new BlockCompletion[1]) == 1);
    }

    [Fact]
    public void Gives_each_queue_of_a_device_out_once_and_takes_it_back()
    {
        int backend = _host.StartBackend("memory:1M");
        _host.StartDevice(backend, queues: 2);
        IBlockDevice device = _host.Exports.Last.Device!;
        Assert.Equal(2, device.MaxQueues);
        Assert.Throws<ArgumentOutOfRangeException>(() => device.OpenQueue(0));
        using IBlockQueue first = device.OpenQueue(1);
        IBlockQueue second = device.OpenQueue(1);
        Assert.Equal(CbdErrorKind.Exhausted, Assert.Throws<CbdException>(() => device.OpenQueue(1)).Kind);
        Submit(second, BlockOperation.Write);
        // No more than was asked for.
        Assert.False(second.TrySubmit(new BlockRequest(2, BlockOperation.Flush, BlockFlags.None, 0, 0, default)));
        Assert.Equal(1, second.Outstanding);
        BlockCompletion ended = Assert.Single(((BlkdevQueue)second).End(isPolledOn: false));
        Assert.Equal((1UL, Errno.ESHUTDOWN), (ended.Cookie, ended.Error));
        Assert.Empty(((BlkdevQueue)second).End(isPolledOn: false));
        Assert.Equal(0, second.Outstanding);
        Assert.Throws<ObjectDisposedException>(() => second.Poll([]));
        Assert.Throws<ObjectDisposedException>(() => second.Wait(1));
        device.OpenQueue(1).Dispose();
        device.Dispose();
    }

    [Fact]
    public void Answers_a_queue_that_sleeps_beside_a_descriptor()
    {
        int backend = _host.StartBackend("memory:1M");
        _host.StartDevice(backend);
        using IBlockQueue queue = _host.Exports.Last.Device!.OpenQueue(4);
        using var quiet = new PollWake();
        var done = new BlockCompletion[1];
        Assert.True(((IWakeCount)queue).CanBeWoken);
        Assert.False(((BlkdevQueue)queue).IsBackendAway);
        for (int i = 0; i < 20; i++)
        {
            Submit(queue, BlockOperation.Write);
            while (queue.Poll(done) == 0)
            {
                if (!((IDescriptorWait)queue).TryWait(quiet.Descriptor.Number, 1_000_000))
                    Assert.Skip("this kernel has no futex wait in io_uring");
            }

            Assert.Equal(0, done[0].Error);
        }

        queue.Interrupt();
    }

    [Fact]
    public void Answers_a_queue_that_sleeps_in_a_ring()
    {
        int backend = _host.StartBackend("memory:1M");
        _host.StartDevice(backend);
        using IBlockQueue queue = _host.Exports.Last.Device!.OpenQueue(4);
        Assert.SkipUnless(IoUring.TryCreate(8, out IoUring? made) == 0, "this kernel has no io_uring");
        using IoUring ring = made!;
        var doorbell = new RingDoorbell(ring);
        var done = new BlockCompletion[1];
        for (int i = 0; i < 20; i++)
        {
            Submit(queue, BlockOperation.Write);
            while (queue.Poll(done) == 0)
            {
                if (!((IRingWait)queue).TryWait(doorbell, 1_000_000))
                    Assert.Skip("this kernel has no futex wait in io_uring");
                while (ring.TryReap(out ulong cookie, out int result))
                    doorbell.TryTake(cookie, result);
            }

            Assert.Equal(0, done[0].Error);
        }
    }

    private int Do(IBlockQueue queue, BlockOperation operation)
    {
        var done = new BlockCompletion[1];
        Submit(queue, operation);
        while (queue.Poll(done) == 0)
            queue.Wait(10_000);
        return done[0].Error;
    }

    private void Submit(IBlockQueue queue, BlockOperation operation) => Assert.True(queue.TrySubmit(operation == BlockOperation.Flush
        ? new BlockRequest(1, operation, BlockFlags.None, 0, 0, default)
        : new BlockRequest(1, operation, BlockFlags.None, 0, 4096, new BufferSlice(_buffer, 0, 4096))));
}
