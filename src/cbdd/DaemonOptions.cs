using Cbd.Host;

namespace Cbd.Programs.Daemon;

/// <summary>The command line of cbdd, checked. Directories are absolute; times are milliseconds.</summary>
internal sealed record DaemonOptions
{
    public required string RunDirectory { get; init; }
    public required string StateDirectory { get; init; }

    public required string DisksDirectory { get; init; }

    /// <summary>A group's name or number, or null: only root and the own user may use the socket.</summary>
    public string? SocketGroup { get; init; }

    /// <summary>A group's name or number, or null: its members may look.</summary>
    public string? ObserveGroup { get; init; }

    /// <summary>Names or numbers of users whose files are believed; null: root and the own user alone. Empty: everybody's are.</summary>
    public IReadOnlyList<string>? TrustOwners { get; init; }

    /// <summary>Permission bits of regions that are formatted.</summary>
    public uint RegionMode { get; init; } = AccessOptions.OwnerOnly;

    /// <summary>Their group, name or number; null: the daemon's.</summary>
    public string? RegionGroup { get; init; }

    /// <summary>Permission bits of NBD sockets; null: 0600.</summary>
    public uint? SocketMode { get; init; }

    /// <summary>Their owner, USER or USER:GROUP, by names or numbers; null: who asks.</summary>
    public string? SocketOwner { get; init; }

    /// <summary>What members of the socket group may open. Absolute.</summary>
    public IReadOnlyList<string> AllowedPaths { get; init; } = [];

    /// <summary>Supervise a daemon with the other options.</summary>
    public bool Supervise { get; init; }

    /// <summary>Say whether a daemon with the other options can be started, and end.</summary>
    public bool CheckStart { get; init; }

    /// <summary>What the record has is held, and not started.</summary>
    public bool NoRestore { get; init; }

    /// <summary>The record was written by another machine, and this one takes it over.</summary>
    public bool AdoptRecord { get; init; }

    /// <summary>Verbs to do at start, each one line.</summary>
    public IReadOnlyList<string> RunLines { get; init; } = [];
    public bool LogsAsJson { get; init; }
    public int BeatMs { get; init; } = NodeOptions.DefaultBeatMs;
    public int DeadMs { get; init; } = NodeOptions.DefaultDeadMs;
    public int FenceMs { get; init; } = NodeOptions.DefaultFenceMs;
    public int MaxTransports { get; init; } = NodeOptions.DefaultMaxTransports;
}
