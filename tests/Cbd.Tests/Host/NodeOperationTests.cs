using Cbd.Host;
using Cbd.Host.Attachments;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>A node as its callers see it: by operations, and with devices for the kernel.</summary>
public sealed class A_node : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly RecordedLog _log = new();
    private readonly TestNode.HandedOver _exports = new();
    private readonly Kernel _kernel = new();
    private readonly Node _node;

    public A_node()
    {
        _kernel.Exports = _exports;
        _node = new Node(TestNode.OptionsOf(_directory.PathOf(""), _log), _exports, _kernel);
    }

    public void Dispose()
    {
        _node.Dispose();
        _directory.Dispose();
    }

    [Fact]
    public void Does_every_operation_of_the_control_api()
    {
        int transport = _node.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "host", Path = _directory.PathOf("region"), Format = true, SizeBytes = 16 << 20 }).TransportId;
        Assert.Equal(transport, Assert.Single(_node.Execute(Operations.ListTransports, new ControlRequest())).TransportId);
        var target = new TransportTarget { Transport = transport };
        Assert.Equal("host", _node.Execute(Operations.GetTransport, target).HostName);
        int backend = _node.Execute(Operations.StartBackend, new StartBackendOptions { Path = "memory:1M", Faults = ["off"] }).BackendId;
        _node.Execute(Operations.SetFaults, new FaultsRequest { Id = backend, Faults = ["off"] });
        int device = _node.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = backend, Nbd = "handed-over", Queues = 1 }).Device;
        Assert.Equal(2 << 20, _node.Execute(Operations.ResizeBackend, new ResizeRequest { Id = backend, SizeBytes = 2 << 20 }).SizeBytes);
        Assert.Single(_node.Execute(Operations.ListHosts, target));
        Assert.Single(_node.Execute(Operations.ListBackends, new ListRequest()));
        Assert.Single(_node.Execute(Operations.ListDevices, new ListRequest { All = true }));
        Assert.Single(_node.Execute(Operations.ListChannels, target));
        Assert.Equal(2, _node.Execute(Operations.ReadFlights, new FlightFilter()).Count);
        Assert.Throws<CbdException>(() => _node.Execute(Operations.ClearHost, new ClearRequest { Id = 3 }));
        Assert.Throws<CbdException>(() => _node.Execute(Operations.ClearBackend, new ClearRequest { Id = backend }));
        Assert.Throws<CbdException>(() => _node.Execute(Operations.ClearDevice, new ClearRequest { Id = device }));
        Assert.Equal(StopAnswer.Gone, _node.Execute(Operations.StopDevice, new StopRequest { Id = device }));
        Assert.Equal(StopAnswer.Gone, _node.Execute(Operations.StopBackend, new StopRequest { Id = backend }));
        _node.Execute(Operations.UnregisterTransport, target);
        Assert.Empty(_node.Execute(Operations.ListTransports, new ControlRequest()));
    }

    [Fact]
    public void Attaches_a_device_to_the_kernel_where_a_kind_can_be_had_and_says_why_not_else()
    {
        _node.RegisterTransport(new RegisterTransportOptions { Host = "host", Path = _directory.PathOf("region"), Format = true, SizeBytes = 16 << 20 });
        int backend = _node.StartBackend(new StartBackendOptions { Path = "memory:1M" });
        StartedDevice socket = _node.StartDevice(new StartDeviceOptions { Backend = backend, Queues = 1 });
        Assert.Equal("this machine has no kind", socket.Note);
        _node.StopDevice(0, socket.Device, force: false);
        _kernel.Kind = "test";
        StartedDevice attached = _node.StartDevice(new StartDeviceOptions { Backend = backend, Queues = 1 });
        Assert.Equal("test cbd0", _kernel.Opened);
        Assert.Equal("auto", _kernel.Asked);
        // When it started, and before the device.
        Assert.Equal(2, _kernel.CleanUps);
        Eventually.True(() => _log.Has("something was left"));
        _node.StopDevice(0, attached.Device, force: false);
        // A name that another daemon wants is no device of this kernel; a socket is in this daemon's own directory.
        _kernel.Wanted.Add("cbd0");
        StartedDevice other = _node.StartDevice(new StartDeviceOptions { Backend = backend, Queues = 1 });
        Assert.Equal(("test cbd1", "cbd1"), (_kernel.Opened, other.Name));
        _node.StopDevice(0, other.Device, force: false);
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => _node.StartDevice(new StartDeviceOptions { Backend = backend, Queues = 1, Name = "cbd0" })).Kind);
        Assert.Empty(_node.ListDevices(0, all: true));
        StartedDevice served = _node.StartDevice(new StartDeviceOptions { Backend = backend, Queues = 1, Nbd = "handed-over" });
        Assert.Equal($"cbd{served.Device}", served.Name);
        Assert.Equal("none", _kernel.Asked);
        _kernel.Stacked = new CbdException(CbdErrorKind.Invalid, "on itself");
        Assert.Equal("on itself", Assert.Throws<CbdException>(() => _node.StartBackend(new StartBackendOptions { Path = "/dev/cbd0" })).Message);
    }

    [Fact]
    public void Leaves_all_its_regions_when_it_ends()
    {
        for (int i = 0; i < 2; i++)
            _node.RegisterTransport(new RegisterTransportOptions { Host = "host", Path = _directory.PathOf($"region{i}"), Format = true, SizeBytes = 16 << 20 });
        Assert.Equal([0, 1], _node.ListTransports().Select(t => t.TransportId));
        CbdException twice = Assert.Throws<CbdException>(() => _node.RegisterTransport(new RegisterTransportOptions { Host = "again", Path = _directory.PathOf("region1") }));
        Assert.Contains("is registered by this daemon already", twice.Message, StringComparison.Ordinal);
        _node.StartBackend(new StartBackendOptions { Transport = 1, Path = "memory:1M" });
        Assert.Equal("cbd1.0", Path.GetFileNameWithoutExtension(AddressOf(_node, 1)));
        _node.Dispose();
        Assert.Empty(_node.ListTransports());
        for (int i = 0; i < 2; i++)
        {
            using var view = new RegionView(_directory.PathOf($"region{i}"));
            Assert.Empty(view.Taken);
            Assert.False(view.IsLocked);
        }
    }

    private string AddressOf(Node node, int transport)
    {
        string address = "";
        _exports.WhileOpening = opened => address = opened;
        node.StartDevice(new StartDeviceOptions { Transport = transport, Backend = 0, Queues = 1 });
        return address;
    }

    /// <summary>A kernel that gives devices as the test wants.</summary>
    private sealed class Kernel : IKernelExports
    {
        public TestNode.HandedOver Exports { get; set; } = null!;

        public string? Kind { get; set; }

        public string Asked { get; private set; } = "";

        public string Opened { get; private set; } = "";

        public int CleanUps { get; private set; }

        public Exception? Stacked { get; set; }

        public void CleanUp(Action<string> log, Predicate<string>? isKept = null)
        {
            CleanUps++;
            log("something was left");
        }

        public (string? Kind, string Note) Choose(string asked)
        {
            Asked = asked;
            return asked == AttachChoice.None ? (null, "") : Kind is null ? (null, "this machine has no kind") : (Kind, "");
        }

        public bool Outlives(string kind) => false;

        public IExport Open(string kind, KernelExportOptions options)
        {
            Opened = $"{kind} {options.Name}";
            return Exports.Open(options.Name, new SocketOptions());
        }

        public void RefuseStacked(string path, Guid region)
        {
            if (Stacked is { } error)
                throw error;
        }

        public bool LiesOn(string path, string node) => false;

        /// <summary>Names that other daemons want.</summary>
        public HashSet<string> Wanted { get; } = [];

        public bool IsNameWanted(string name, string owner) => Wanted.Contains(name);

        public void ReserveName(string name, string owner)
        {
            if (Wanted.Contains(name))
                throw new CbdException(CbdErrorKind.Busy, $"device name '{name}' is wanted by another cbdd");
        }

        public void KeepNames(IReadOnlyCollection<string> names, string owner)
        {
        }
    }
}
