using Cbd.Disks;
using Cbd.Host;
using Cbd.Host.Threads;
using Cbd.Host.Transports;
using Microsoft.Extensions.Logging;

namespace Cbd.Tests.Host;

/// <summary>A transport without its node, so that a test can hold its lock and reach what drives its backends and devices.</summary>
internal sealed class BareTransport : IDisposable
{
    public BareTransport(string region, string name, bool format = false, ILogger? logger = null, int fenceMs = 300, int diskWaitMs = NodeOptions.DefaultDiskWaitMs, Action<string, int, string>? backendLost = null)
    {
        NodeOptions options = TestNode.OptionsOf(Path.GetDirectoryName(region)!, logger, fenceMs) with { DiskWaitMs = diskWaitMs, BackendLost = backendLost };
        OpenedTransport opened = TransportOpening.Open(
            0, new RegisterTransportOptions { Host = name, Path = region, Format = format, SizeBytes = format ? 16 << 20 : null }, options, (_, _) => false);
        Transport = new Transport(0, region, opened, options, thread => thread.Start());
    }

    public Transport Transport { get; }

    public TestNode.HandedOver Exports { get; } = new();

    public int HostId => Transport.Session.Claim.Host;

    public int StartBackend(string path, int? backend = null, IReadOnlyList<string>? faults = null, IReadOnlyList<FileIdentity>? regions = null) =>
        Transport.Backends.Start(new StartBackendOptions { Path = path, Backend = backend, Faults = faults }, regions ?? [], _ => null);

    public StartedDevice StartDevice(int backend, int queues = 1) =>
        Transport.Devices.Start(new StartDeviceOptions { Backend = backend, Queues = queues, Nbd = "handed-over" }, id => $"cbd{id}", _ => Exports.Open("handed-over", new SocketOptions()));

    public BackendServer BackendServer(int backend)
    {
        lock (Transport.StateLock)
            return Transport.FindBackend(backend)!;
    }

    public DeviceServer DeviceServer(int device)
    {
        lock (Transport.StateLock)
            return Transport.FindDevice(device)!;
    }

    public void Dispose() => Transport.Close();
}
