using System.Text.Json.Serialization;

namespace Cbd.Control.Api;

/// <summary>Body of backend-start.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public sealed record StartBackendOptions : TransportTarget, IStartRequest
{
    /// <summary>A file, a block device, <c>memory:SIZE</c> or <c>null:SIZE</c>.</summary>
    public required string Path { get; init; }

    /// <summary>What the backend is called (<see cref="ThingName"/>), alone among those of its host; null: nothing.</summary>
    public string? Name { get; set; }

    /// <summary>The disk that must be there, as <see cref="BackendDescription.DiskIdentity"/> has it; null: whichever is.</summary>
    public string? DiskIdentity { get; set; }

    /// <summary>Handler threads, 1 to 128.</summary>
    public int Handlers { get; set; } = 1;

    /// <summary>Take over this backend id, whose session is gone.</summary>
    [JsonPropertyName("backend_id")]
    public int? Backend { get; set; }
    public bool ReadOnly { get; set; }

    /// <summary>"auto", "io_uring" or "pread".</summary>
    public string Engine { get; set; } = "auto";

    /// <summary>Logical block size to offer: 512, 4096, or null for the disk's own.</summary>
    [JsonPropertyName("block_size")]
    public int? BlockBytes { get; set; }

    /// <summary>The operator vouches that the machine of the old session is off or cut off.</summary>
    public bool Fenced { get; set; }

    /// <summary>
    /// Nobody says that the path still leads to the disk of <see cref="Backend"/>: it is taken over only if that is proven. For what is
    /// done from a record; not in the API.
    /// </summary>
    [JsonIgnore]
    public bool IsUnattended { get; set; }

    /// <summary>How the handler threads wait.</summary>
    public PollMode Mode { get; set; }

    /// <summary>
    /// Faults that strike its requests: each <c>KIND[,key=value…]</c>, or <c>off</c> alone, to be switched later. Null:
    /// none ever, and nothing on the way of requests.
    /// </summary>
    public IReadOnlyList<string>? Faults { get; set; }

    /// <inheritdoc cref="StartDeviceOptions.TimeoutSeconds"/>
    [JsonPropertyName("timeout")]
    public int? TimeoutSeconds { get; set; }

    /// <inheritdoc/>
    StartLimit? IStartRequest.Limit => Limit;

    /// <inheritdoc cref="IStartRequest.Limit"/>
    internal StartLimit? Limit { get; init; }

    /// <summary>The path is a kind of disk that is not a file.</summary>
    internal static bool IsDiskScheme(string path) =>
        path.StartsWith("memory:", StringComparison.Ordinal) || path.StartsWith("null:", StringComparison.Ordinal);

    internal override void CheckValues()
    {
        Rules.CheckPath(Path, "disk");
        if (!IsDiskScheme(Path))
            Rules.CheckAbsolute(Path, "disk");
        Rules.CheckRange(Handlers, "the number of handlers", 1, Rules.MaxThreads);
        Rules.CheckName(Name, "backend");
        Rules.CheckId(Backend, "backend");
        if (Engine is not ("auto" or "io_uring" or "pread"))
            throw Rules.Invalid($"engine '{Engine}' is not known; use auto, io_uring or pread");
        if (BlockBytes is not (null or 512 or 4096))
            throw Rules.Invalid($"block size {BlockBytes} is not possible; use 512 or 4096");
        Rules.CheckTimeout(TimeoutSeconds);
        if (Faults is { } faults)
            Rules.CheckFaults(faults);
    }
}

public sealed record BackendStarted
{
    public required int BackendId { get; init; }
}

/// <summary>Body of backend-resize. <c>size_bytes</c> left out: what the disk has now.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public sealed record ResizeRequest : ItemTarget
{
    public long? SizeBytes { get; set; }

    internal override void CheckValues() => Rules.CheckRange(SizeBytes, "the size of the disk", 1, long.MaxValue);
}

/// <summary>
/// A backend that has its new size, bytes. <paramref name="Note"/> says, in one line, which devices of this node could not
/// show it to their users, and why; null if there are none.
/// </summary>
public sealed record ResizedBackend(long SizeBytes, string? Note = null)
{
    public string? Note { get; init => field = OneLine.OrNull(value); } = OneLine.OrNull(Note);
}

/// <summary>Body of backend-fault: the faults that are in force from now on, or "off" alone.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public sealed record FaultsRequest : ItemTarget
{
    public required IReadOnlyList<string> Faults { get; init; }

    internal override void CheckValues() => Rules.CheckFaults(Faults);
}

/// <summary>One backend entry.</summary>
public sealed record BackendDescription
{
    /// <summary>Its id; −1, in JSON null, if it is wanted here and is not there.</summary>
    [JsonConverter(typeof(IdOrNullJson))]
    public required int BackendId { get; init; }
    public required int HostId { get; init; }

    /// <summary>What it is called; null if nothing.</summary>
    public string? Name { get; init; }

    [JsonPropertyName("backend_path")]
    public required string Path { get; init; }

    /// <summary>Which disk it is: kind and identity of what is behind the path; empty while that cannot be read.</summary>
    public string DiskIdentity { get; init; } = "";

    /// <summary>"alive", "dead" or "unknown".</summary>
    public required string Alive { get; init; }
    public required IReadOnlyList<int> Blkdevs { get; init; }
    public required string State { get; init; }
    public required long SizeBytes { get; init; }

    [JsonPropertyName("block_size")]
    public required int BlockBytes { get; init; }
    public required bool ReadOnly { get; init; }
    public required int Handlers { get; init; }
    public required string Engine { get; init; }

    /// <summary>0, or the errno of the flush that failed and latched.</summary>
    public required int FlushError { get; init; }

    /// <summary>Epoch of its claim: the number of this session, or of the last one.</summary>
    public ulong Session { get; init; }

    /// <summary>Its operator stopped it while blkdevs used it: they do not wait for it, but answer with EIO.</summary>
    [JsonPropertyName("stopped")]
    public bool IsStopped { get; init; }

    /// <summary>CPU time of its handler threads so far, µs; null for backends of other hosts.</summary>
    public long? CpuUs { get; init; }

    /// <summary>Managed memory that its handler threads allocated so far; null for backends of other hosts.</summary>
    public long? AllocatedBytes { get; init; }

    /// <summary>The faults in force; null where there can be none, and for backends of other hosts.</summary>
    public IReadOnlyList<FaultDescription>? Faults { get; init; }

    /// <inheritdoc cref="TransportDescription.Reason"/>
    public string? Reason { get; init => field = OneLine.OrNull(value); }

    /// <inheritdoc cref="TransportDescription.Since"/>
    public DateTime? Since { get; init; }
}

/// <summary>A fault in force on a backend: how it can be given again, and how many requests it has struck.</summary>
public sealed record FaultDescription(string Spec, long Struck);
