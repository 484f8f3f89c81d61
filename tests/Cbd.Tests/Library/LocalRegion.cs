using Cbd.Host;
using Cbd.Tests.Host;
using Microsoft.Extensions.Logging.Abstractions;
using Xunit;

namespace Cbd.Tests.Library;

/// <summary>A region in /dev/shm with a host of this process that serves disks on it, and hosts of the library.</summary>
internal sealed class LocalRegion : IDisposable
{
    private const int BeatMs = 50;

    private readonly List<LocalHost> _hosts = [];
    private readonly Node _server;
    private readonly int _transport;
    private readonly int _deadMs;

    /// <param name="deadMs">
    /// After how long without a beat a host is dead. A host whose threads were stopped for long on a busy machine is still alive.
    /// </param>
    public LocalRegion(int deadMs = 120_000)
    {
        _deadMs = deadMs;
        if (!Directory.Exists("/dev/shm"))
            Assert.Skip("this machine has no /dev/shm");
        _server = Serve(deadMs);
        try
        {
            _transport = Register();
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public string Path { get; } = $"/dev/shm/cbd-local-{Guid.NewGuid():N}";

    /// <summary>The host that serves the disks.</summary>
    public INode Server => _server;

    public int StartBackend(string path, string? fault = "off", int? backend = null) =>
        StartBackend(new StartBackendOptions { Path = path, Faults = fault is null ? null : [fault], Backend = backend });

    public int StartBackend(StartBackendOptions options) => _server.StartBackend(options with { Transport = _transport });

    /// <summary>Puts one fault in the place of those in force; "off" for none.</summary>
    public void SetFault(int backend, string fault) => _server.SetFaults(_transport, backend, [fault]);

    public LocalHost Join()
    {
        var host = LocalHost.Join(Path, new LocalHostOptions { Name = $"library-{_hosts.Count}", BeatMs = BeatMs, FenceMs = _deadMs / 2, DeadMs = _deadMs, Times = TestNode.LongTimes(BeatMs, _deadMs) });
        _hosts.Add(host);
        return host;
    }

    /// <summary>The host with the disks ends as at a shutdown; blkdevs wait.</summary>
    public void LeaveBackend(int backend) => _server.LeaveBackend(_transport, backend);

    public void Dispose()
    {
        _hosts.ForEach(host => host.Dispose());
        _server.Dispose();
        File.Delete(Path);
    }

    /// <summary>The host with the disks unregisters.</summary>
    public void Leave() => _server.UnregisterTransport(_transport);

    /// <summary>Another daemon, as it were.</summary>
    public static Node Serve(int deadMs) => new(
        new NodeOptions
        {
            RunDirectory = "/",
            StateDirectory = "/",
            HostUuid = Guid.NewGuid(),
            Logger = NullLogger.Instance,
            BeatMs = BeatMs,
            FenceMs = deadMs / 2,
            DeadMs = deadMs,
            Times = TestNode.LongTimes(BeatMs, deadMs),
        },
        new LocalExports());

    private int Register() => _server.RegisterTransport(new RegisterTransportOptions
    {
        Host = "server",
        Path = Path,
        Format = true,
        SizeBytes = 64 << 20,
        Hosts = 4,
        Backends = 4,
        Blkdevs = 8,
        Channels = 16,
    });
}
