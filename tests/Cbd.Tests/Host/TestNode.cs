using Cbd.Control.Api;
using Cbd.Blocks;
using Cbd.Host;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Cbd.Tests.Host;

/// <summary>A host in this process with short times, whose devices are handed over instead of being served.</summary>
internal sealed class TestNode : IDisposable
{
    public const int BeatMs = 50;
    public const int DeadMs = 400;

    public TestNode(string directory, string name, Action<Thread>? startThread = null, ILogger? logger = null, int fenceMs = 300)
    {
        Exports = new HandedOver();
        Node = new Node(
            new NodeOptions
            {
                RunDirectory = directory,
                StateDirectory = directory,
                HostUuid = Guid.NewGuid(),
                Logger = logger ?? NullLogger.Instance,
                BeatMs = BeatMs,
                DeadMs = DeadMs,
                FenceMs = fenceMs,
            },
            Exports)
        {
            StartThread = startThread ?? (static thread => thread.Start()),
        };
        Name = name;
    }

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

    public int StartBackend(string path, int? backend = null, IReadOnlyList<string>? faults = null) =>
        Node.StartBackend(new StartBackendOptions { Path = path, Backend = backend, Faults = faults });

    public StartedDevice StartDevice(int backend, int queues = 1, OnBackendLoss onLoss = default) =>
        Node.StartDevice(new StartDeviceOptions { Backend = backend, Queues = queues, Nbd = "handed-over", OnBackendLoss = onLoss });

    public void Dispose() => Node.Dispose();

    /// <summary>An export that gives the device to the test.</summary>
    internal sealed class HandedOver : IExportFactory
    {
        public List<Export> All { get; } = [];

        public Export Last => All[^1];

        public Exception? OnServe { get; set; }

        public IExport Open(string address, SocketOptions options)
        {
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

            public string Uri => "handed-over";

            public void Serve(IBlockDevice device, int queues, PollMode mode)
            {
                if (owner.OnServe is { } error)
                    throw error;
                Device = device;
            }

            public void Resize() => ResizeCount++;

            public void Stop(bool force)
            {
                if (!force && OnStop is { } error)
                    throw error;
                IsStopped = true;
            }

            public void Dispose() => IsDisposed = true;
        }
    }
}
