using Cbd.Host.Attachments;
using Cbd.Host.Sessions;
using Microsoft.Extensions.Logging;

namespace Cbd.Host;

/// <summary>What a node is told once, when it starts. Times are milliseconds.</summary>
internal sealed record NodeOptions
{
    /// <summary>Where sockets of this host's exports are put by default; exists.</summary>
    public required string RunDirectory { get; init; }

    /// <summary>Where this host keeps what must outlive a restart; exists.</summary>
    public required string StateDirectory { get; init; }

    /// <summary>Where daemons of this machine reserve writable disks; made if it is not there. Null: nothing is reserved.</summary>
    public string? DisksDirectory { get; init; }

    /// <summary>Random, made once and kept in the state directory: tells this host's earlier lives from strangers.</summary>
    public required Guid HostUuid { get; init; }

    public required ILogger Logger { get; init; }

    /// <summary>Whose files are believed, and who gets what is made.</summary>
    public AccessOptions Access { get; init; } = new();

    /// <summary>Period of the heartbeat, 10 to 60000.</summary>
    public int BeatMs { get; init; } = DefaultBeatMs;

    /// <summary>A heartbeat that stands still this long is a dead host's; at least four beats.</summary>
    public int DeadMs { get; init; } = DefaultDeadMs;

    /// <summary>A host that could not beat this long stops serving; more than a beat, less than the dead-time.</summary>
    public int FenceMs { get; init; } = DefaultFenceMs;

    /// <summary>How long this host waits for others; by default what goes with its beat and dead-time.</summary>
    public HostTimes Times
    {
        get => field ?? new HostTimes(BeatMs, DeadMs);
        init;
    }

    /// <summary>A disk that does not finish its requests in this time is left to the end of this process.</summary>
    public int DiskWaitMs { get; init; } = DefaultDiskWaitMs;

    /// <summary>Transports that this node registers on at once, 1 to 1024.</summary>
    public int MaxTransports { get; init; } = DefaultMaxTransports;

    /// <summary>Told of a device, by its name, that failed for good, and why; called by housekeeping, which it must not keep.</summary>
    public Action<string, string>? DeviceFailed { get; init; }

    /// <summary>
    /// Told of a backend that was lost with this host's claim and could not be offered again: its region, its id, and why. Called by the
    /// thread that offers.
    /// </summary>
    public Action<string, int, string>? BackendLost { get; init; }

    /// <summary>Another host announced something: a host, a backend or a device came or went. Called by housekeeping, which it must not keep.</summary>
    public Action? Moved { get; init; }

    /// <summary>Device names that no device gets unless they are asked for; called from any thread.</summary>
    public Predicate<string>? IsNameReserved { get; init; }

    /// <summary>Devices of this machine's kernel that outlive this process; null: none does.</summary>
    public KeptLives? Kept { get; init; }

    public const int DefaultBeatMs = 1000;
    public const int DefaultDeadMs = 10000;
    public const int DefaultFenceMs = 6000;
    public const int DefaultDiskWaitMs = 20_000;
    public const int DefaultMaxTransports = 16;
}
