using Cbd.Memory;
using Cbd.Host;

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

    public void AddForeignBackend(int transport, int backend, string path, string alive) =>
        _backends.Add((transport, Backend(backend, host: 7, path) with { Alive = alive }));

    public int RegisterTransport(RegisterTransportOptions options)
    {
        Call($"{options}");
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
            HostName = options.Host,
            Path = options.Path,
            Coherence = options.Coherence ?? "hardware",
            PayloadCrc = options.PayloadCrc,
            RingSlots = options.RingSlots ?? 128,
            SizeBytes = options.SizeBytes ?? 536870912,
            Uuid = new Guid("00112233-4455-6677-8899-aabbccddeeff"),
        });
        return id;
    }

    public void UnregisterTransport(int transport)
    {
        Call($"unregister {transport}");
        _transports.Remove(GetTransport(transport));
    }

    public IReadOnlyList<TransportDescription> ListTransports() => [.. _transports];

    public TransportDescription GetTransport(int transport) =>
        _transports.FirstOrDefault(t => t.TransportId == transport)
        ?? throw new CbdException(CbdErrorKind.NotFound, $"there is no transport {transport}; tp-list shows those that are");

    public IReadOnlyList<HostDescription> ListHosts(int transport) =>
        [new(3, GetTransport(transport).HostName, "alive", "ACTIVE", true), new(4, "beta", "unknown", "ACTIVE", false)];

    public void ClearHost(int transport, int host, bool force, bool fenced) => Call($"clear host {transport} {host} {force} {fenced}");

    public int StartBackend(StartBackendOptions options)
    {
        Call($"{options}");
        GetTransport(options.Transport);
        if (options.Backend is { } taken)
            _backends.RemoveAll(b => b.Transport == options.Transport && b.Backend.BackendId == taken);
        var id = options.Backend ?? FreeId(_backends.Where(b => b.Transport == options.Transport).Select(b => b.Backend.BackendId));
        _backends.Add((options.Transport, Backend(id, host: 3, options.Path) with
        {
            Handlers = options.Handlers,
            ReadOnly = options.ReadOnly,
            BlockBytes = options.BlockBytes ?? 512,
            Faults = options.Faults is { } faults ? [.. faults.Where(f => f != "off").Select(f => new FaultDescription(f, 2))] : null,
        }));
        return id;
    }

    public void StopBackend(int transport, int backend, bool force)
    {
        Call($"stop backend {transport} {backend} {force}");
        if (_backends.RemoveAll(b => b.Transport == transport && b.Backend.BackendId == backend) == 0)
            throw new CbdException(CbdErrorKind.NotFound, $"there is no backend {backend}");
    }

    public void ClearBackend(int transport, int backend, bool force, bool fenced) =>
        Call($"clear backend {transport} {backend} {force} {fenced}");

    public ResizedBackend ResizeBackend(int transport, int backend, long? sizeBytes)
    {
        Call($"resize backend {transport} {backend} {sizeBytes}");
        var place = _backends.FindIndex(b => b.Transport == transport && b.Backend.BackendId == backend);
        if (place < 0)
            throw new CbdException(CbdErrorKind.NotFound, $"there is no backend {backend}");
        var now = _backends[place].Backend with { SizeBytes = sizeBytes ?? 2147483648 };
        if (now.Path.StartsWith("memory:", StringComparison.Ordinal))
            now = now with { Path = $"memory:{now.SizeBytes}" };
        _backends[place] = (transport, now);
        return new ResizedBackend(now.SizeBytes, sizeBytes == 7 ? "device 0: keeps its old size" : "");
    }

    public IReadOnlyList<BackendDescription> ListBackends(int transport, bool all)
    {
        GetTransport(transport);
        return [.. _backends.Where(b => b.Transport == transport && (all || b.Backend.HostId == 3)).Select(b => b.Backend)];
    }

    public StartedDevice StartDevice(StartDeviceOptions options)
    {
        Call($"{options}");
        GetTransport(options.Transport);
        var id = FreeId(_devices.Where(d => d.Transport == options.Transport).Select(d => d.Device.BlkdevId));
        var name = options.Nbd ?? $"nbd+unix:///?socket=/run/cbd/cbd{id}.nbd";
        _devices.Add((options.Transport, new DeviceDescription
        {
            BlkdevId = id,
            HostId = 3,
            BackendId = options.Backend,
            Name = name,
            Alive = "alive",
            State = "running",
            Queues = options.Queues ?? 2,
            SizeBytes = 1073741824,
            ReadOnly = options.ReadOnly,
        }));
        return new StartedDevice(id, name);
    }

    public void StopDevice(int transport, int device, bool force)
    {
        Call($"stop device {transport} {device} {force}");
        if (_devices.RemoveAll(d => d.Transport == transport && d.Device.BlkdevId == device) == 0)
            throw new CbdException(CbdErrorKind.NotFound, $"there is no device {device}");
    }

    public void ClearDevice(int transport, int device, bool force, bool fenced) =>
        Call($"clear device {transport} {device} {force} {fenced}");

    public IReadOnlyList<DeviceDescription> ListDevices(int transport, bool all)
    {
        GetTransport(transport);
        return [.. _devices.Where(d => d.Transport == transport).Select(d => d.Device)];
    }

    public IReadOnlyList<ChannelDescription> ListChannels(int transport)
    {
        GetTransport(transport);
        return
        [
            new ChannelDescription
            {
                ChannelId = 0, BlkdevId = 1, BackendId = 2, HostId = 3, State = "ATTACHED", Epoch = 1099511627775,
                Outstanding = 17, Quarantined = false,
            },
        ];
    }

    public void SetFaults(int transport, int backend, IReadOnlyList<string> faults) =>
        Call($"set faults {transport} {backend} {string.Join(' ', faults)}");

    /// <summary>Called while flights are read.</summary>
    public Action OnReadFlights { get; set; } = () => { };

    public IReadOnlyList<FlightDescription> ReadFlights(int transport, FlightFilter filter)
    {
        Call($"{filter}");
        OnReadFlights();
        return
        [
            new FlightDescription
            {
                TransportId = transport, ChannelId = 4, Side = "queue", BackendId = 2, BlkdevId = 1, Recorded = 700,
                Events =
                [
                    new(new DateTime(2026, 1, 2, 3, 4, 5, 6, DateTimeKind.Utc), "issued", 9, 12, "write", "fua", 8192, 4096, 3, 0, ""),
                    new(new DateTime(2026, 1, 2, 3, 4, 5, 7, DateTimeKind.Utc), "completed", 9, 12, "write", "fua", 8192, 4096, 3, 5, ""),
                    new(new DateTime(2026, 1, 2, 3, 4, 5, 8, DateTimeKind.Utc), "reset", 10, 0, "", "", 0, 0, 0, 0, "nobody fetches a command"),
                ],
            },
        ];
    }

    public void Dispose() => Call("dispose");

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

    private static BackendDescription Backend(int id, int host, string path) => new()
    {
        BackendId = id,
        HostId = host,
        Path = path,
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

    private static int FreeId(IEnumerable<int> taken)
    {
        var ids = taken.ToHashSet();
        return Enumerable.Range(0, 1024).First(id => !ids.Contains(id));
    }
}
