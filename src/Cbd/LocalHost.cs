using System.Diagnostics;
using Cbd.Blocks;
using Cbd.Host;
using Cbd.Host.Sessions;
using Cbd.Memory;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Cbd;

/// <summary>
/// This process as a host of its own on one region: opens blkdevs on the backends that are there and drives them
/// without any export in between. Needs no daemon.
/// </summary>
/// <remarks>
/// <para>The region must be formatted, and the process must be able to open it for reading and writing.</para>
/// <para>Disposing the host ends its blkdevs and frees its entry. When the process dies, the other hosts clear them.</para>
/// <para>All members may be called by any thread.</para>
/// </remarks>
public sealed class LocalHost : IDisposable
{
    private readonly Lock _lock = new();
    private readonly LocalExports _exports = new();
    private readonly ILogger _logger;
    private readonly Node _node;
    private readonly int _transport;
    private volatile bool _isDisposed;

    private LocalHost(string path, LocalHostOptions options)
    {
        _logger = options.Logger ?? NullLogger.Instance;
        _node = new Node(
            new NodeOptions
            {
                RunDirectory = "/",
                StateDirectory = "/",
                HostUuid = Guid.NewGuid(),
                Logger = _logger,
                BeatMs = options.BeatMs,
                DeadMs = options.DeadMs,
                FenceMs = options.FenceMs,
                Times = options.Times ?? new HostTimes(options.BeatMs, options.DeadMs),
            },
            _exports);
        string name = options.Name ?? $"{Process.GetCurrentProcess().ProcessName}-{Environment.ProcessId}";
        try
        {
            _transport = _node.RegisterTransport(new RegisterTransportOptions { Host = name, Path = path });
        }
        catch
        {
            _node.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Registers this process as a host of a region. May take a few dead-times, while an earlier host of the same name is
    /// proven dead or another one decides.
    /// </summary>
    /// <param name="path">The region: an absolute path of a file, a /dev/daxX.Y or a PCI resource.</param>
    /// <param name="options">Name, times and log; null for the defaults.</param>
    /// <exception cref="CbdException">
    /// The region cannot be used, the name is taken, or no host entry is free; one line for the operator.
    /// </exception>
    public static LocalHost Join(string path, LocalHostOptions? options = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        return new LocalHost(path, options ?? new LocalHostOptions());
    }

    /// <summary>The region and this host's entry there, as they are now.</summary>
    /// <exception cref="ObjectDisposedException">The host is disposed.</exception>
    public TransportDescription Describe()
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        return _node.GetTransport(_transport);
    }

    /// <summary>The backends of all hosts of the region, as they are now.</summary>
    /// <exception cref="ObjectDisposedException">The host is disposed.</exception>
    /// <exception cref="CbdException">The region failed.</exception>
    public IReadOnlyList<BackendDescription> ListBackends()
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        return _node.ListBackends(_transport, all: true);
    }

    /// <summary>
    /// Starts a blkdev on a backend and returns it when all its queues are attached; waits at most 10 s for that. While the
    /// backend is away later, requests of the blkdev wait for it, without a limit.
    /// </summary>
    /// <param name="backend">Id of the backend, as in <see cref="ListBackends"/>.</param>
    /// <param name="queues">Queues that can be open at once, from 1 on; each takes a channel of the region.</param>
    /// <param name="readOnly">Refuse what changes the disk, and leave the backend's writer free for another blkdev.</param>
    /// <exception cref="ObjectDisposedException">The host is disposed.</exception>
    /// <exception cref="CbdException">
    /// There is no such backend, its writer is taken, no channel is free, or nobody serves it; one line for the operator.
    /// </exception>
    public LocalBlkdev OpenBlkdev(int backend, int queues = 1, bool readOnly = false)
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        lock (_lock)
        {
            StartedDevice started = _node.StartDevice(new StartDeviceOptions
            {
                Transport = _transport,
                Backend = backend,
                Queues = queues,
                ReadOnly = readOnly,
                Nbd = LocalExports.Address,
            });
            return new LocalBlkdev(this, started.Device, _exports.TakeLast());
        }
    }

    /// <summary>
    /// Ends this host: its blkdevs end as with <see cref="LocalBlkdev.Dispose"/>, and its entry is freed. May be called
    /// twice.
    /// </summary>
    public void Dispose()
    {
        _isDisposed = true;
        _node.Dispose();
    }

    /// <summary>Ends a device. What of it cannot be given back is cleared by the other hosts when this one is gone.</summary>
    internal void Stop(int device)
    {
        try
        {
            _node.StopDevice(_transport, device, force: true);
        }
        catch (CbdException e)
        {
            if (!_isDisposed)
                _logger.LogWarning("device {Device}: not given back: {Error}", device, e.Message);
        }
    }
}

/// <summary>What a <see cref="LocalHost"/> is told. Times are milliseconds; hosts of one region should have the same.</summary>
public sealed record LocalHostOptions
{
    /// <summary>
    /// Name of the host entry, unique on the region: 1 to 255 bytes without slash, white space or control characters. By
    /// default the program's name and the process id.
    /// </summary>
    public string? Name { get; init; }

    /// <summary>Where events go that no caller is told of; by default nowhere.</summary>
    public ILogger? Logger { get; init; }

    /// <summary>Period of the heartbeat, 10 to 60000.</summary>
    public int BeatMs { get; init; } = NodeOptions.DefaultBeatMs;

    /// <summary>A host of another machine whose heartbeat stands still this long counts as dead or silent; at least four beats.</summary>
    public int DeadMs { get; init; } = NodeOptions.DefaultDeadMs;

    /// <summary>
    /// If this host could not beat this long, its blkdevs stop storing until its entry was seen to be its own; more than a
    /// beat, less than the dead-time.
    /// </summary>
    public int FenceMs { get; init; } = NodeOptions.DefaultFenceMs;

    /// <inheritdoc cref="NodeOptions.Times"/>
    internal HostTimes? Times { get; init; }
}
