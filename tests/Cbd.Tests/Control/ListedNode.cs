using Cbd.Host;
using Cbd.Host.Transports;
using Cbd.Host.Wanted;

namespace Cbd.Tests.Control;

/// <summary>
/// A node that keeps lists and serves nothing: for what lies in front of a node (routes, JSON, verbs, record), which
/// must pass calls on unchanged. What a node does itself is tested with the real one.
/// </summary>
internal sealed class ListedNode : INode
{
    private readonly Lock _gate = new();
    private readonly List<TransportDescription> _transports = [];
    private readonly List<(int Transport, BackendDescription Backend)> _backends = [];
    private readonly List<(int Transport, DeviceDescription Device)> _devices = [];
    private readonly List<string> _calls = [];
    private readonly OperationHandlers _operations;

    public ListedNode() => _operations = new OperationHandlers()
        .Add(Operations.ListTransports, _ => [.. _transports])
        .Add(Operations.RegisterTransport, Register)
        .Add(Operations.GetTransport, r => Transport(r.Transport))
        .Add(Operations.UnregisterTransport, Unregister)
        .Add(Operations.ListChannels, r => Channels(r.Transport))
        .Add(Operations.ReadFlights, Flights)
        .Add(Operations.ListHosts, r =>
            [new(3, Transport(r.Transport).HostName, "alive", "ACTIVE", true), new(4, "beta", "unknown", "ACTIVE", false)])
        .Add(Operations.ClearHost, r => Call($"clear host {r.Transport} {r.Id} {r.Force} {r.Fenced}"))
        .Add(Operations.ListBackends, Backends)
        .Add(Operations.StartBackend, Start)
        .Add(Operations.StopBackend, StopBackend)
        .Add(Operations.ClearBackend, r => Call($"clear backend {r.Transport} {r.Id} {r.Force} {r.Fenced}"))
        .Add(Operations.ResizeBackend, Resize)
        .Add(Operations.SetFaults, r => Call($"set faults {r.Transport} {r.Id} {string.Join(' ', r.Faults)}"))
        .Add(Operations.ListDevices, Devices)
        .Add(Operations.StartDevice, Start)
        .Add(Operations.StopDevice, StopDevice)
        .Add(Operations.ClearDevice, r => Call($"clear device {r.Transport} {r.Id} {r.Force} {r.Fenced}"));

    /// <summary>Thrown by the next start or stop, if set.</summary>
    public CbdException? Failure { get; set; }

    public IReadOnlyList<string> Calls
    {
        get
        {
            lock (_gate)
                return [.. _calls];
        }
    }

    /// <summary>What stops answer.</summary>
    public StopAnswer StopAnswer { get; set; } = StopAnswer.Gone;

    public void AddForeignBackend(int transport, int backend, string path, string alive, string? name = null, int host = 7, bool isUsed = false, bool isStopped = false) =>
        _backends.Add((transport, Backend(backend, host, path) with { Alive = alive, Name = name, Blkdevs = isUsed ? [9] : [], IsStopped = isStopped }));

    public TAnswer Execute<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request)
        where TRequest : ControlRequest
        where TAnswer : class =>
        _operations.Execute(operation, request);

    public void LeaveBackend(int transport, int backend) => Call($"leave backend {transport} {backend}");

    /// <summary>Disks that lie on nodes.</summary>
    public HashSet<(string Disk, string Node)> Stacked { get; } = [];

    /// <summary>Devices get nodes of the kernel, <c>/dev/loop</c> and their name.</summary>
    public bool HasNodes { get; set; }

    public bool LiesOn(string disk, string node) => Stacked.Contains((disk, node));

    public void KeepNames(Func<IReadOnlyCollection<string>> names) => names();

    public void LeaveTransport(int transport) => Call($"leave transport {transport}");

    public void Dispose() => Call("dispose");

    /// <summary>Of the regions that are registered from now on.</summary>
    public Guid Uuid { get; set; } = new("00112233-4455-6677-8899-aabbccddeeff");

    private TransportStarted Register(RegisterTransportOptions options)
    {
        Call($"{options}");
        if (options.RegionUuid is { } wanted && wanted != Uuid)
            throw new OtherRegionException($"region '{options.Path}' has the uuid {Uuid}, not {wanted}");
        if (_transports.Any(t => t.Path == options.Path))
            throw new CbdException(CbdErrorKind.Busy, $"'{options.Path}' is registered already");
        var id = FreeId(_transports.Select(t => t.TransportId));
        _transports.Add(new TransportDescription
        {
            TransportId = id,
            Magic = 0x123456789abcdef0,
            Version = 1,
            Flags = 1,
            HostAreaOffset = 4096,
            BytesPerHost = 512,
            HostCount = options.Hosts ?? 16,
            BackendAreaOffset = 12288,
            BytesPerBackend = 4096,
            BackendCount = options.Backends ?? 32,
            BlkdevAreaOffset = 143360,
            BytesPerBlkdev = 512,
            BlkdevCount = options.Blkdevs ?? 32,
            ChannelAreaOffset = 262144,
            BytesPerChannel = options.ChannelSizeBytes ?? 4194304,
            ChannelCount = options.Channels ?? 64,
            HostId = 3,
            MyHostId = 3,
            Failure = "",
            State = "running",
            HostName = options.Host,
            Path = options.Path,
            Coherence = options.Coherence ?? "hardware",
            PayloadCrc = options.PayloadCrc,
            RingSlots = options.RingSlots ?? 128,
            SizeBytes = options.SizeBytes ?? 536870912,
            Uuid = Uuid,
        });
        return new TransportStarted { TransportId = id };
    }

    private void Unregister(TransportTarget request)
    {
        Call($"unregister {request.Transport}");
        _transports.Remove(Transport(request.Transport));
    }

    private TransportDescription Transport(int transport) =>
        _transports.FirstOrDefault(t => t.TransportId == transport)
        ?? throw new CbdException(CbdErrorKind.NotFound, $"there is no transport {transport}; tp-list shows those that are");

    private BackendStarted Start(StartBackendOptions options)
    {
        Call($"{options}");
        Transport(options.Transport);
        if (options.DiskIdentity is { } wanted && wanted != IdentityOf(options.Path))
            throw new CbdException(CbdErrorKind.Invalid, $"'{options.Path}' is another disk ({IdentityOf(options.Path)}) than the one that is wanted ({wanted})");
        if (options.Backend is { } taken)
            _backends.RemoveAll(b => b.Transport == options.Transport && b.Backend.BackendId == taken);
        var id = options.Backend ?? FreeId(_backends.Where(b => b.Transport == options.Transport).Select(b => b.Backend.BackendId));
        _backends.Add((options.Transport, Backend(id, host: 3, options.Path) with
        {
            Name = options.Name,
            Handlers = options.Handlers,
            ReadOnly = options.ReadOnly,
            BlockBytes = options.BlockBytes ?? 512,
            Faults = options.Faults is { } faults ? [.. faults.Where(f => f != "off").Select(f => new FaultDescription(f, 2))] : null,
        }));
        return new BackendStarted { BackendId = id };
    }

    private StopAnswer StopBackend(StopRequest request)
    {
        Call(request.Leaves ? $"leave backend {request.Transport} {request.Id}" : $"stop backend {request.Transport} {request.Id} {request.Force}");
        if (_backends.RemoveAll(b => b.Transport == request.Transport && b.Backend.BackendId == request.Id) == 0)
            throw new CbdException(CbdErrorKind.NotFound, $"there is no backend {request.Id}");
        return StopAnswer;
    }

    private ResizedBackend Resize(ResizeRequest request)
    {
        Call($"resize backend {request.Transport} {request.Id} {request.SizeBytes}");
        var place = _backends.FindIndex(b => b.Transport == request.Transport && b.Backend.BackendId == request.Id);
        if (place < 0)
            throw new CbdException(CbdErrorKind.NotFound, $"there is no backend {request.Id}");
        var now = _backends[place].Backend with { SizeBytes = request.SizeBytes ?? 2147483648 };
        if (now.Path.StartsWith("memory:", StringComparison.Ordinal))
            now = now with { Path = $"memory:{now.SizeBytes}" };
        _backends[place] = (request.Transport, now);
        return new ResizedBackend(now.SizeBytes, request.SizeBytes == 7 ? "device 0: keeps its old size" : "");
    }

    private BackendDescription[] Backends(ListRequest request)
    {
        Transport(request.Transport);
        return [.. _backends.Where(b => b.Transport == request.Transport && (request.All || b.Backend.HostId == 3)).Select(b => b.Backend)];
    }

    private StartedDevice Start(StartDeviceOptions options)
    {
        Call($"{options}");
        Transport(options.Transport);
        var id = FreeId(_devices.Where(d => d.Transport == options.Transport).Select(d => d.Device.BlkdevId));
        var given = options.Name ?? $"cbd{id}";
        if (_devices.Exists(d => d.Device.Name == given))
            throw new CbdException(CbdErrorKind.Busy, $"device name '{given}' is taken");
        if (options.DiskIdentity is { } wanted && _backends.Find(b => b.Transport == options.Transport && b.Backend.BackendId == options.Backend).Backend?.DiskIdentity != wanted)
            throw new CbdException(CbdErrorKind.Busy, $"backend {options.Backend} is another disk than {wanted}");
        var name = options.Nbd ?? $"nbd+unix:///?socket=/run/cbd/{given}.nbd";
        _devices.Add((options.Transport, new DeviceDescription
        {
            BlkdevId = id,
            HostId = 3,
            BackendId = options.Backend,
            Name = given,
            Address = name,
            Node = HasNodes ? $"/dev/loop-{given}" : "",
            Alive = "alive",
            State = "running",
            Queues = options.Queues ?? 2,
            SizeBytes = 1073741824,
            ReadOnly = options.ReadOnly,
        }));
        return new StartedDevice(id, name, Name: given);
    }

    private StopAnswer StopDevice(StopRequest request)
    {
        Call($"stop device {request.Transport} {request.Id} {request.Force}");
        if (_devices.RemoveAll(d => d.Transport == request.Transport && d.Device.BlkdevId == request.Id) == 0)
            throw new CbdException(CbdErrorKind.NotFound, $"there is no device {request.Id}");
        return StopAnswer;
    }

    private DeviceDescription[] Devices(ListRequest request)
    {
        Transport(request.Transport);
        return [.. _devices.Where(d => d.Transport == request.Transport).Select(d => d.Device)];
    }

    private ChannelDescription[] Channels(int transport)
    {
        Transport(transport);
        return
        [
            new ChannelDescription
            {
                ChannelId = 0, BlkdevId = 1, BackendId = 2, HostId = 3, State = "ATTACHED", Epoch = 1099511627775,
                Outstanding = 17, Quarantined = false,
            },
        ];
    }

    /// <summary>Called while flights are read.</summary>
    public Action OnReadFlights { get; set; } = () => { };

    private FlightDescription[] Flights(FlightFilter filter)
    {
        Call($"{filter}");
        OnReadFlights();
        return
        [
            new FlightDescription
            {
                TransportId = filter.Transport, ChannelId = 4, Side = "queue", BackendId = 2, BlkdevId = 1, Recorded = 700,
                Events =
                [
                    new(new DateTime(2026, 1, 2, 3, 4, 5, 6, DateTimeKind.Utc), "issued", 9, 12, "write", "fua", 8192, 4096, 3, 0, ""),
                    new(new DateTime(2026, 1, 2, 3, 4, 5, 7, DateTimeKind.Utc), "completed", 9, 12, "write", "fua", 8192, 4096, 3, 5, ""),
                    new(new DateTime(2026, 1, 2, 3, 4, 5, 8, DateTimeKind.Utc), "reset", 10, 0, "", "", 0, 0, 0, 0, "nobody fetches a command"),
                ],
            },
        ];
    }

    private void Call(string what)
    {
        lock (_gate)
            _calls.Add(what);
        if (Failure is { } failure && what != "dispose")
        {
            Failure = null;
            throw failure;
        }
    }

    private BackendDescription Backend(int id, int host, string path) => new()
    {
        BackendId = id,
        HostId = host,
        Path = path,
        DiskIdentity = StartBackendOptions.IsDiskScheme(path) ? $"{path.Split(':')[0]}:{s_lives++}" : IdentityOf(path),
        Alive = "alive",
        State = "ACTIVE",
        Blkdevs = [],
        SizeBytes = 1073741824,
        BlockBytes = 512,
        ReadOnly = false,
        Handlers = 1,
        Engine = "io_uring",
        FlushError = 0,
    };

    private static int s_lives;

    /// <summary>What is behind a path, where it is not the file that was always there.</summary>
    public Dictionary<string, string> Identities { get; } = [];

    private string IdentityOf(string path) => Identities.GetValueOrDefault(path, $"file:{path}");

    private static int FreeId(IEnumerable<int> taken)
    {
        var ids = taken.ToHashSet();
        return Enumerable.Range(0, 1024).First(id => !ids.Contains(id));
    }
}
