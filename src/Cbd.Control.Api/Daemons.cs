using System.Text.Json.Serialization;

namespace Cbd.Control.Api;

/// <summary>Asks for another program in the place of the one that runs.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public sealed record UpgradeRequest : ControlRequest
{
    /// <summary>Path of the program, absolute; null: from where the supervisor was started.</summary>
    public string? Program { get; set; }

    /// <summary>Also if disks in memory begin anew.</summary>
    public bool Force { get; set; }

    internal override void CheckValues()
    {
        if (Program is not null)
            Rules.CheckPath(Program, "program");
    }
}

/// <summary>The process that answers for a daemon.</summary>
public sealed record DaemonDescription
{
    public required string Version { get; init; }

    /// <summary>Id of the process.</summary>
    public required int Pid { get; init; }

    /// <summary>It has tried to start what is wanted, and done or begun to wait for what its command line asks for.</summary>
    public required bool Ready { get; init; }

    /// <summary>Devices and sockets outlive this process: a supervisor starts the next one.</summary>
    public required bool Supervised { get; init; }

    /// <summary>How often the supervisor has started it again; 0 without one.</summary>
    public required int Restarts { get; init; }

    /// <summary>Why the last upgrade was taken back, in one line; null if it was not.</summary>
    public string? UpgradeFailure { get; init => field = OneLine.OrNull(value); }

    /// <summary>Called when the answer is on its way. Not of the wire.</summary>
    [JsonIgnore]
    internal Action? Sent { get; init; }
}
