using System.Text.Json.Serialization;

namespace Cbd.Control.Api;

// What may be left out has a setter and not an init: generated JSON code builds objects with init-only members in one
// expression that names them all, and a default of ours would be lost when a key is not there.

/// <summary>What an operation is asked. Ids in the path are no part of the JSON.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public record ControlRequest
{
    /// <summary>
    /// Who asks, with whose rights paths are opened; null: root or the user of this process. No part of the JSON: the server says it.
    /// </summary>
    internal Caller? Caller { get; set; }

    /// <summary>Checks the values besides the ids in the path.</summary>
    /// <exception cref="CbdException">One is wrong.</exception>
    internal virtual void CheckValues()
    {
    }
}

/// <summary>A request about a transport.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public record TransportTarget : ControlRequest
{
    [JsonIgnore]
    public int Transport { get; set; }
}

/// <summary>A request about a host, a backend or a device of a transport; the path of the operation says which.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public abstract record ItemTarget : TransportTarget
{
    [JsonIgnore]
    public int Id { get; set; }
}

/// <summary>Asks for a list of what this host has, or all hosts have.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public sealed record ListRequest : TransportTarget
{
    public bool All { get; set; }
}

/// <summary>Body of the stop verbs.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public sealed record StopRequest : ItemTarget
{
    public bool Force { get; set; }

    /// <summary>What a device must be called; null: whatever. Ids are used again, and names are not while they are wanted.</summary>
    public string? Name { get; set; }

    /// <summary>A backend ends as if its daemon had died: blkdevs wait for it. Not of the wire.</summary>
    internal bool Leaves { get; init; }

    internal override void CheckValues() => Rules.CheckName(Name, "device");
}

/// <summary>Body of the clear verbs. <c>fenced</c>: the operator vouches that the machine is off or cut off.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public sealed record ClearRequest : ItemTarget
{
    public bool Force { get; set; }
    public bool Fenced { get; set; }
}

/// <summary>The answer of an operation that has nothing to say.</summary>
public sealed record Done
{
    private Done()
    {
    }

    public static Done Instance { get; } = new();
}

/// <summary>The answer of a stop verb. Over HTTP, "gone" is 204, and "stopping" is a problem of kind timed_out.</summary>
public sealed record StopAnswer
{
    private StopAnswer(string state, string? reason)
    {
        State = state;
        Reason = reason;
    }

    public static StopAnswer Gone { get; } = new("gone", null);

    /// <summary>"gone", or "stopping": it was told to stop, and goes as soon as it can.</summary>
    public string State { get; }

    /// <summary>Why it is not gone yet, in one line; null when it is gone.</summary>
    public string? Reason { get; }

    public static StopAnswer Stopping(string reason) => new("stopping", reason);

    /// <exception cref="CbdException">It is not gone yet (TimedOut, with the reason).</exception>
    public void ThrowIfStopping()
    {
        if (State != Gone.State)
            throw new CbdException(CbdErrorKind.TimedOut, Reason!);
    }
}
