using Cbd.Blocks;
using Cbd.Host;
using Cbd.Memory;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>Two hosts of one region in this process, with real threads, disks and memory.</summary>
public sealed class A_host : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly TestNode _disks;
    private readonly TestNode _users;

    public A_host()
    {
        _disks = new TestNode(_directory.PathOf(""), "disks");
        _users = new TestNode(_directory.PathOf(""), "users");
        _disks.Register(Region, format: true);
        _users.Register(Region);
    }

    private string Region => _directory.PathOf("region");

    public void Dispose()
    {
        _users.Dispose();
        _disks.Dispose();
        _directory.Dispose();
    }

    [Fact]
    public void Serves_a_disk_to_another_and_leaves_nothing_behind()
    {
        int backend = _disks.StartBackend("memory:1M");
        StartedDevice device = _users.StartDevice(backend, queues: 2);
        WriteAndRead(_users.Exports.Last.Device!);
        DeviceDescription listed = Assert.Single(_users.Node.ListDevices(0, all: false));
        Assert.Equal(("running", null, backend), (listed.State, listed.Reason, listed.BackendId));
        Assert.InRange(listed.Since!.Value, DateTime.UtcNow.AddMinutes(-5), DateTime.UtcNow);
        Assert.Equal([device.Device], Assert.Single(_disks.Node.ListBackends(0, all: false)).Blkdevs);
        Assert.Equal(2, _disks.Node.ListChannels(0).Count);
        Assert.Equal(4, _users.Node.ReadFlights(0, new FlightFilter { Device = device.Device }).Count + _disks.Node.ReadFlights(0, new FlightFilter { Backend = backend }).Count);
        _users.Node.StopDevice(0, device.Device, force: false);
        Assert.True(_users.Exports.Last is { IsStopped: true, IsDisposed: true });
        _disks.Node.StopBackend(0, backend, force: false);
        Assert.Empty(_disks.Node.ListBackends(0, all: true));
        Assert.Empty(_disks.Node.ListDevices(0, all: true));
        Assert.Empty(_disks.Node.ListChannels(0));
        _users.Node.UnregisterTransport(0);
        Assert.Equal("disks", Assert.Single(_disks.Node.ListHosts(0)).HostName);
    }

    [Fact]
    public void Has_each_backend_name_once_and_other_hosts_may_have_it_too()
    {
        int first = _disks.Node.StartBackend(new StartBackendOptions { Path = "memory:1M", Name = "data" });
        var refused = Assert.Throws<CbdException>(() => _disks.Node.StartBackend(new StartBackendOptions { Path = "memory:2M", Name = "data" }));
        Assert.Equal(CbdErrorKind.Busy, refused.Kind);
        Assert.Contains("backend name 'data' is taken on this host", refused.Message);
        _users.Node.StartBackend(new StartBackendOptions { Path = "memory:3M", Name = "data" });
        Assert.Equal(["data", "data"], _disks.Node.ListBackends(0, all: true).Select(b => b.Name));
        _disks.Node.StopBackend(0, first, force: false);
        _disks.Node.StartBackend(new StartBackendOptions { Path = "memory:2M", Name = "data" });
    }

    [Fact]
    public void That_cannot_have_a_thread_gives_back_its_entry_its_lock_and_its_mapping()
    {
        bool fails = true;
        using var node = new TestNode(_directory.PathOf(""), "third", thread =>
        {
            if (fails)
                throw new InsufficientMemoryException("no thread");
            thread.Start();
        });
        Assert.Throws<InsufficientMemoryException>(() => node.Register(Region));
        Assert.Equal(["disks", "users"], _disks.Node.ListHosts(0).Select(h => h.HostName).Order(StringComparer.Ordinal));
        Assert.Equal(2, File.ReadLines("/proc/self/maps").Count(line => line.EndsWith(Region, StringComparison.Ordinal)));
        fails = false;
        Assert.Equal(0, node.Register(Region));
    }

    [Fact]
    public void That_waits_for_the_lock_of_a_disk_starts_others_meanwhile_and_names_who_has_it()
    {
        string file = _directory.PathOf("disk");
        File.WriteAllBytes(file, new byte[1 << 20]);
        int holder = _disks.StartBackend(file);
        var limit = new StartLimit(null, isGiven: true);
        Task<CbdException> waiting = Task.Run(() => Assert.Throws<CbdException>(() => _disks.StartBackend(file, limit: limit)), TestContext.Current.CancellationToken);
        Eventually.True(() => limit.Waits?.Contains($"backend {holder} of this daemon has it", StringComparison.Ordinal) == true);
        Assert.Contains("(being started)", Assert.Throws<CbdException>(() => _disks.Node.UnregisterTransport(0)).Message, StringComparison.Ordinal);
        int other = _disks.StartBackend("memory:1M");
        Assert.False(waiting.IsCompleted, "the start that waits was over before the other one: they were done in turn");
        _disks.Node.StopBackend(0, other, force: false);
        Assert.True(limit.TryCancel(new CbdException(CbdErrorKind.Failed, "given up")));
        Assert.Equal("given up", Eventually.Result(waiting).Message);
        CbdException refused = Assert.Throws<CbdException>(() => _disks.StartBackend(file));
        Assert.Equal(CbdErrorKind.Busy, refused.Kind);
        Assert.Contains($"backend {holder} of this daemon has it", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Does_not_stop_a_device_that_is_in_use_after_all()
    {
        int backend = _disks.StartBackend("memory:1M");
        StartedDevice device = _users.StartDevice(backend);
        TestNode.HandedOver.Export export = _users.Exports.Last;
        export.OnStop = new CbdException(CbdErrorKind.Busy, "somebody opened it");
        Assert.Equal("somebody opened it", Assert.Throws<CbdException>(() => _users.Node.StopDevice(0, device.Device, force: false)).Message);
        Assert.Equal("running", Assert.Single(_users.Node.ListDevices(0, all: false)).State);
        WriteAndRead(export.Device!);
        export.ClientCount = 1;
        Assert.Contains("1 client", Assert.Throws<CbdException>(() => _users.Node.StopDevice(0, device.Device, force: false)).Message, StringComparison.Ordinal);
        _users.Node.StopDevice(0, device.Device, force: true);
        Assert.Empty(_users.Node.ListDevices(0, all: false));
    }

    [Fact]
    public void Takes_back_a_device_that_its_export_cannot_serve()
    {
        int backend = _disks.StartBackend("memory:1M");
        _users.Exports.OnServe = new CbdException(CbdErrorKind.Exhausted, "no thread for it");
        Assert.Equal("no thread for it", Assert.Throws<CbdException>(() => _users.StartDevice(backend)).Message);
        Assert.Empty(_users.Node.ListDevices(0, all: true));
        Assert.Empty(_users.Node.ListChannels(0));
        Assert.True(_users.Exports.Last.IsDisposed);
        _users.Exports.OnServe = null;
        _users.StartDevice(backend);
    }

    [Fact]
    public void Refuses_what_is_not_there_or_not_its_own()
    {
        int backend = _disks.StartBackend("memory:1M");
        StartedDevice device = _users.StartDevice(backend);
        Assert.Equal(CbdErrorKind.NotFound, Assert.Throws<CbdException>(() => _users.StartDevice(999)).Kind);
        Assert.Equal(CbdErrorKind.NotFound, Assert.Throws<CbdException>(() => _users.StartDevice(backend + 1)).Kind);
        Assert.Equal(CbdErrorKind.Denied, Assert.Throws<CbdException>(() => _disks.Node.StopDevice(0, device.Device, force: false)).Kind);
        Assert.Equal(CbdErrorKind.Denied, Assert.Throws<CbdException>(() => _users.Node.StopBackend(0, backend, force: false)).Kind);
        Assert.Equal(CbdErrorKind.Denied, Assert.Throws<CbdException>(() => _users.Node.ResizeBackend(0, backend, null)).Kind);
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => _disks.Node.StopBackend(0, backend, force: false)).Kind);
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => _disks.Node.ClearBackend(0, backend, force: false, fenced: false)).Kind);
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => _users.Node.ClearBackend(0, backend, force: false, fenced: false)).Kind);
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => _users.Node.ClearDevice(0, device.Device, force: false, fenced: false)).Kind);
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => _disks.Node.ClearDevice(0, device.Device, force: false, fenced: false)).Kind);
        Assert.Equal(CbdErrorKind.NotFound, Assert.Throws<CbdException>(() => _disks.Node.ClearDevice(0, device.Device + 1, force: false, fenced: false)).Kind);
        Assert.Equal(CbdErrorKind.Invalid, Assert.Throws<CbdException>(() => _disks.Node.ClearHost(0, _disks.Node.GetTransport(0).HostId, force: false, fenced: false)).Kind);
        Assert.Equal(CbdErrorKind.NotFound, Assert.Throws<CbdException>(() => _disks.Node.ClearHost(0, 999, force: false, fenced: false)).Kind);
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => _disks.Node.ClearHost(0, _users.Node.GetTransport(0).HostId, force: false, fenced: true)).Kind);
        Assert.Equal(CbdErrorKind.Invalid, Assert.Throws<CbdException>(() => _disks.Node.ClearHost(0, _users.Node.GetTransport(0).HostId, force: true, fenced: false)).Kind);
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => _users.Node.UnregisterTransport(0)).Kind);
        Assert.Equal(CbdErrorKind.NotFound, Assert.Throws<CbdException>(() => _users.Node.UnregisterTransport(7)).Kind);
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => _users.Register(Region)).Kind);
        Assert.Equal(CbdErrorKind.Unsupported, Assert.Throws<CbdException>(() => _disks.Node.SetFaults(0, backend, ["error"])).Kind);
    }

    [Fact]
    public void Makes_a_backend_larger_and_tells_the_users()
    {
        int backend = _disks.StartBackend("memory:1M");
        _users.StartDevice(backend);
        Assert.Equal(2 << 20, _disks.Node.ResizeBackend(0, backend, 2 << 20).SizeBytes);
        Await(() => _users.Exports.Last.ResizeCount == 1 && _users.Node.ListDevices(0, all: false)[0].SizeBytes == 2 << 20);
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => _disks.Node.ResizeBackend(0, backend, 1 << 20)).Kind);
        Assert.Equal(CbdErrorKind.Invalid, Assert.Throws<CbdException>(() => _disks.Node.ResizeBackend(0, backend, (2 << 20) + 1)).Kind);
        Assert.Equal("memory:2097152", _disks.Node.ListBackends(0, all: false)[0].Path);
    }

    [Fact]
    public void Answers_with_errors_while_its_backend_was_stopped_by_force_and_goes_on_when_it_is_back()
    {
        string file = _directory.PathOf("disk");
        File.WriteAllBytes(file, new byte[1 << 20]);
        int backend = _disks.StartBackend(file);
        _users.StartDevice(backend);
        _disks.Node.StopBackend(0, backend, force: true);
        Await(() => _users.Node.ListDevices(0, all: false)[0].State == "failing");
        DeviceDescription failing = _users.Node.ListDevices(0, all: false)[0];
        Assert.Equal(failing.Loss, failing.Reason);
        Assert.Contains("stopped the backend", failing.Reason!, StringComparison.Ordinal);
        Assert.Equal(backend, _disks.StartBackend(file, backend));
        Await(() => _users.Node.ListDevices(0, all: false)[0].State == "running");
        WriteAndRead(_users.Exports.Last.Device!);
    }

    [Fact]
    public void Ends_a_device_whose_backend_was_given_up()
    {
        string file = _directory.PathOf("disk");
        File.WriteAllBytes(file, new byte[1 << 20]);
        int backend = _disks.StartBackend(file);
        StartedDevice device = _users.StartDevice(backend);
        _disks.Node.LeaveBackend(0, backend);
        Await(() => _users.Node.ListDevices(0, all: false)[0].State == "waiting");
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => _disks.Node.ClearBackend(0, backend, force: false, fenced: false)).Kind);
        _disks.Node.ClearBackend(0, backend, force: true, fenced: false);
        Await(() => _users.Node.ListDevices(0, all: false)[0].State.StartsWith("failed: ", StringComparison.Ordinal));
        _users.Node.StopDevice(0, device.Device, force: false);
        Assert.Empty(_users.Node.ListDevices(0, all: false));
    }

    [Fact]
    public void Says_why_a_backend_that_stops_is_not_gone_yet()
    {
        int backend = _disks.StartBackend("memory:1M", faults: ["stuck"]);
        _users.StartDevice(backend);
        using IBlockQueue queue = _users.Exports.Last.Device!.OpenQueue(4);
        using var buffer = new NativeBuffer(4096);
        Assert.True(queue.TrySubmit(new BlockRequest(1, BlockOperation.Write, BlockFlags.None, 0, 4096, new BufferSlice(buffer, 0, 4096))));
        Await(() =>
        {
            queue.Poll(new BlockCompletion[1]);
            return _disks.Node.ListBackends(0, all: false)[0].Faults![0].Struck == 1;
        });
        Task stop = Task.Run(() => _disks.Node.StopBackend(0, backend, force: true), TestContext.Current.CancellationToken);
        Await(() => _disks.Node.ListBackends(0, all: false)[0].Reason is not null);
        Assert.False(stop.IsCompleted);
        _disks.Node.SetFaults(0, backend, []);
        Await(() => stop.IsCompleted && _disks.Node.ListBackends(0, all: false).Count == 0);
        Assert.True(stop.IsCompletedSuccessfully);
        Await(() => queue.Poll(new BlockCompletion[1]) == 1);
    }

    private static void WriteAndRead(IBlockDevice device)
    {
        using var buffer = new NativeBuffer(8192);
        using IBlockQueue queue = device.OpenQueue(4);
        buffer.GetSpan(0, 4096).Fill(0x5A);
        Do(queue, new BlockRequest(1, BlockOperation.Write, BlockFlags.None, 8192, 4096, new BufferSlice(buffer, 0, 4096)));
        Do(queue, new BlockRequest(2, BlockOperation.Flush, BlockFlags.None, 0, 0, default));
        Do(queue, new BlockRequest(3, BlockOperation.Read, BlockFlags.None, 8192, 4096, new BufferSlice(buffer, 4096, 4096)));
        Assert.True(buffer.GetSpan(0, 4096).SequenceEqual(buffer.GetSpan(4096, 4096)));
    }

    private static void Do(IBlockQueue queue, in BlockRequest request)
    {
        var done = new BlockCompletion[1];
        Assert.True(queue.TrySubmit(request));
        while (queue.Poll(done) == 0)
            queue.Wait(10_000);
        Assert.Equal((request.Cookie, 0), (done[0].Cookie, done[0].Error));
    }

    /// <summary>Ends with what is awaited, or with the test run's limit.</summary>
    private static void Await(Func<bool> done)
    {
        while (!done())
            Thread.Sleep(5);
    }
}
