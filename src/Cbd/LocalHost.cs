using System.Diagnostics;
using Cbd.Blocks;
using Cbd.Host;
using Cbd.Memory;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Cbd;

/// <summary>
/// This process as a host of its own on one region: opens blkdevs on the backends that are there and drives them
/// without any export in between. Needs no daemon. Thread-safe.
/// </summary>
/// <remarks>
/// The region must be formatted. The process must be able to open it for writing. When the host is disposed, its blkdevs
/// and its entry go; when the process dies, the other hosts clear them.
/// </remarks>
public sealed class LocalHost : IDisposable
{
    private readonly Lock _lock = new();
    private readonly DirectExports _exports = new();
    private readonly Node _node;
    private readonly int _transport;

    private LocalHost(string path, LocalHostOptions options)
    {
        _node = new Node(
            new NodeOptions
            {
                RunDirectory = "/",
                StateDirectory = "/",
                HostUuid = Guid.NewGuid(),
                Logger = options.Logger ?? NullLogger.Instance,
                BeatMs = options.BeatMs,
                DeadMs = options.DeadMs,
                FenceMs = options.FenceMs,
            },
            _exports);
        string name = options.Name ?? $"{Process.GetCurrentProcess().ProcessName}-{Environment.ProcessId}";
        _transport = _node.RegisterTransport(new RegisterTransportOptions { Host = name, Path = path });
    }

    /// <summary>Registers this process on the region at <paramref name="path"/> (absolute).</summary>
    /// <exception cref="CbdException">The region cannot be used, or no host entry is free; one line for the operator.</exception>
    public static LocalHost Join(string path, LocalHostOptions? options = null) => new(path, options ?? new LocalHostOptions());

    /// <summary>The region and this host's entry there.</summary>
    public TransportDescription Describe() => _node.GetTransport(_transport);

    /// <summary>The backends of all hosts of the region.</summary>
    public IReadOnlyList<BackendDescription> ListBackends() => _node.ListBackends(_transport, all: true);

    /// <summary>Starts a blkdev on a backend; answers when its queues are attached. Dispose it after its queues.</summary>
    /// <exception cref="CbdException">There is no such backend, its writer is taken, or nobody serves it.</exception>
    public LocalBlkdev OpenBlkdev(int backend, int queues = 1, bool readOnly = false)
    {
        lock (_lock)
        {
            StartedDevice started = _node.StartDevice(new StartDeviceOptions
            {
                Transport = _transport,
                Backend = backend,
                Queues = queues,
                ReadOnly = readOnly,
                Nbd = DirectExports.Address,
            });
            return new LocalBlkdev(this, started.Device, _exports.TakeServed());
        }
    }

    public void Dispose() => _node.Dispose();

    internal void Stop(int device) => _node.StopDevice(_transport, device, force: false);

    /// <summary>Hands the device itself over instead of serving it.</summary>
    private sealed class DirectExports : IExportFactory
    {
        public const string Address = "in-process";

        private DirectExport? _last;

        public IExport Open(string address, SocketOptions options) => _last = new DirectExport();

        public IBlockDevice TakeServed() => _last?.Device ?? throw new InvalidOperationException("the device that was started is not there");
    }

    private sealed class DirectExport : IExport
    {
        public IBlockDevice? Device { get; private set; }

        public string Uri => DirectExports.Address;

        public int ClientCount => 0;

        public void Serve(IBlockDevice device, int queues, PollMode mode) => Device = device;

        public void Stop(bool force)
        {
        }

        public void Dispose()
        {
        }
    }
}

/// <summary>What a <see cref="LocalHost"/> is told; times are milliseconds, as in <see cref="NodeOptions"/>.</summary>
public sealed record LocalHostOptions
{
    /// <summary>Name of the host entry; by default the program's name and the process id.</summary>
    public string? Name { get; init; }
    public ILogger? Logger { get; init; }
    public int BeatMs { get; init; } = NodeOptions.DefaultBeatMs;
    public int DeadMs { get; init; } = NodeOptions.DefaultDeadMs;
    public int FenceMs { get; init; } = NodeOptions.DefaultFenceMs;
}

/// <summary>A blkdev of this process. Its queues must be disposed before it.</summary>
public sealed class LocalBlkdev : IBlockDevice
{
    private readonly LocalHost _host;
    private readonly IBlockDevice _device;
    private bool _disposed;

    internal LocalBlkdev(LocalHost host, int id, IBlockDevice device)
    {
        _host = host;
        Id = id;
        _device = device;
    }

    /// <summary>Its id on the region.</summary>
    public int Id { get; }

    public BlockDeviceInfo Info => _device.Info;

    public int MaxQueues => _device.MaxQueues;

    public IBlockQueue OpenQueue(int depth, NativeBuffer? buffers = null) => _device.OpenQueue(depth, buffers);

    /// <summary>Closes the channels and frees the entry.</summary>
    public void Dispose()
    {
        if (_disposed)
            return;
        _disposed = true;
        _host.Stop(Id);
    }
}
