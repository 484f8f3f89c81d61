using Cbd.Control.Api;
using Cbd.Blocks;
using Cbd.Host;
using Cbd.Host.Sessions;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Cbd.Tests.Host;

/// <summary>A host in this process with short times, whose devices are handed over instead of being served.</summary>
internal sealed class TestNode : IDisposable
{
    public const int BeatMs = 50;
    public const int DeadMs = 400;

    private const int LongMs = 600_000;

    public TestNode(string directory, string name, Action<Thread>? startThread = null, ILogger? logger = null, int fenceMs = 300)
    {
        Exports = new HandedOver();
        Node = new Node(OptionsOf(directory, logger, fenceMs), Exports)
        {
            StartThread = startThread ?? (static thread => thread.Start()),
        };
        Name = name;
    }

    /// <summary>Options with short times.</summary>
    public static NodeOptions OptionsOf(string directory, ILogger? logger = null, int fenceMs = 300) => new()
    {
        RunDirectory = directory,
        StateDirectory = directory,
        DisksDirectory = Path.Combine(directory, "disks"),
        HostUuid = Guid.NewGuid(),
        Logger = logger ?? NullLogger.Instance,
        BeatMs = BeatMs,
        DeadMs = DeadMs,
        FenceMs = fenceMs,
        Times = LongTimes(BeatMs, DeadMs),
    };

    /// <summary>Nothing is given up because a thread had no turn.</summary>
    public static HostTimes LongTimes(int beatMs, int deadMs) => new(beatMs, deadMs)
    {
        RegisterMs = LongMs,
        AttachMs = LongMs,
        CloseMs = LongMs,
        ClearingMs = LongMs,
        ClearVerbMs = LongMs,
        TakeOverMs = LongMs,
    };

    public string Name { get; }

    public Node Node { get; }

    public HandedOver Exports { get; }

    public int Register(string region, bool format = false) => Node.RegisterTransport(new RegisterTransportOptions
    {
        Host = Name,
        Path = region,
        Format = format,
        SizeBytes = format ? 16 << 20 : null,
    });

    public int StartBackend(string path, int? backend = null, IReadOnlyList<string>? faults = null, StartLimit? limit = null) =>
        Node.StartBackend(new StartBackendOptions { Path = path, Backend = backend, Faults = faults, Limit = limit });

    public StartedDevice StartDevice(int backend, int queues = 1, OnBackendLoss onLoss = default) =>
        Node.StartDevice(new StartDeviceOptions { Backend = backend, Queues = queues, Nbd = "handed-over", OnBackendLoss = onLoss });

    public void Dispose() => Node.Dispose();

    /// <summary>An export that gives the device to the test.</summary>
    internal sealed class HandedOver : IExportFactory
    {
        public List<Export> All { get; } = [];

        public Export Last => All[^1];

        public Exception? OnServe { get; set; }

        /// <summary>Called with the address when an export is opened; throws if it cannot be.</summary>
        public Action<string> WhileOpening { get; set; } = _ => { };

        public IExport Open(string address, SocketOptions options)
        {
            WhileOpening(address);
            var export = new Export(this);
            All.Add(export);
            return export;
        }

        internal sealed class Export(HandedOver owner) : IExport
        {
            public IBlockDevice? Device { get; private set; }

            public bool IsStopped { get; private set; }

            public bool IsDisposed { get; private set; }

            public int ResizeCount { get; private set; }

            public int ClientCount { get; set; }

            public Exception? OnStop { get; set; }

            /// <summary>Called by a stop, forced or not, while it is under way.</summary>
            public Action<bool> WhileStopping { get; set; } = _ => { };

            public Exception? OnResize { get; set; }

            public string Uri => "handed-over";

            public void Serve(IBlockDevice device, int queues, PollMode mode)
            {
                if (owner.OnServe is { } error)
                    throw error;
                Device = device;
            }

            public void Resize()
            {
                ResizeCount++;
                if (OnResize is { } error)
                    throw error;
            }

            public void Stop(bool force)
            {
                WhileStopping(force);
                if (!force && OnStop is { } error)
                    throw error;
                IsStopped = true;
            }

            public void Dispose() => IsDisposed = true;
        }
    }
}
