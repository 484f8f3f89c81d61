using System.Text.Json.Serialization;

namespace Cbd.Control.Api;

/// <summary>What this host should have: started by a verb, and not stopped.</summary>
public sealed record WantedThings
{
    /// <summary>The daemon still does what it was told at its start: the record, and the verbs of its command line.</summary>
    public required bool Starting { get; init; }

    /// <summary>In the order in which they were started first.</summary>
    public required IReadOnlyList<WantedThing> Things { get; init; }
}

/// <summary>One thing that this host should have, and where it stands.</summary>
public sealed record WantedThing
{
    public const string Transport = "transport";
    public const string Backend = "backend";
    public const string Device = "device";

    /// <summary>A <c>--run</c> line of the daemon that waits.</summary>
    public const string Line = "run";

    /// <summary>The state of what is there and works.</summary>
    public const string Running = "running";

    /// <summary>The state of what is not there yet, or waits.</summary>
    public const string Waiting = "waiting";

    /// <summary>The state of what a record has, and this run was not told to restore.</summary>
    public const string Held = "held";

    /// <summary>The state of what does not come back by itself.</summary>
    public const string Failed = "failed";

    /// <summary>"transport", "backend", "device", or "run" for a line of the daemon's command line that waits.</summary>
    public required string Kind { get; init; }

    /// <summary>A transport's region, a backend's disk, what a device is called.</summary>
    public required string Name { get; init; }

    /// <summary>"running", "waiting" (it is not there yet, or what it needs is away; it comes by itself), "held" or "failed".</summary>
    public required string State { get; init; }

    /// <summary>Why it is not running, in one line; null if it is.</summary>
    public string? Reason { get; init => field = OneLine.OrNull(value); }

    /// <summary>Its transport; null while that is not registered.</summary>
    public int? TransportId { get; init; }

    /// <summary>Its id; null while it has none.</summary>
    public int? Id { get; init; }
}

/// <summary>Asks to want a thing no more that is not there.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public sealed record ForgetRequest : ControlRequest
{
    /// <summary>"transport", "backend" or "device".</summary>
    public required string Kind { get; init; }

    /// <summary>As <see cref="WantedThing.Name"/>.</summary>
    public required string Name { get; init; }

    internal override void CheckValues()
    {
        if (Kind is not (WantedThing.Transport or WantedThing.Backend or WantedThing.Device))
            throw Rules.Invalid($"'{Kind}' is no kind of thing; use transport, backend or device");
        if (Kind == WantedThing.Device)
            Rules.CheckName(Name, "device");
        else
            Rules.CheckPath(Name, Kind);
    }
}
