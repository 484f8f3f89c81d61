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
