using System.Text.Json.Serialization;

namespace Cbd.Control.Api;

/// <summary>Body of tp-reg. Numbers that are left out are computed from the size of the region.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public sealed record RegisterTransportOptions : ControlRequest, IStartRequest
{
    /// <summary>Most entries of one kind that a region can be formatted with, and most slots of a ring.</summary>
    private const int MaxEntries = 32768;

    public required string Host { get; init; }
    public required string Path { get; init; }
    public bool Format { get; set; }

    /// <summary>
    /// Format if the region is missing or all zeros, and register on it as it is otherwise. Of several hosts that find it so, one
    /// formats it.
    /// </summary>
    public bool FormatIfEmpty { get; set; }

    /// <summary>The region must have this uuid; null: any.</summary>
    public Guid? RegionUuid { get; set; }

    /// <summary>Format over anything but a transport with live hosts.</summary>
    public bool Force { get; set; }

    /// <summary>Size of a region file that is created or grown at format, bytes.</summary>
    public long? SizeBytes { get; set; }
    public int? Hosts { get; set; }
    public int? Backends { get; set; }
    public int? Blkdevs { get; set; }
    public int? Channels { get; set; }
    public long? ChannelSizeBytes { get; set; }
    public int? RingSlots { get; set; }

    /// <summary>Payload carries a CRC32C (format option; default yes).</summary>
    public bool PayloadCrc { get; set; } = true;

    /// <summary>"hardware" or null; required at format for devdax and BARs.</summary>
    public string? Coherence { get; set; }

    /// <summary>
    /// A registration that takes longer, seconds, is taken back; null: it waits three dead-times and five seconds for other hosts, and for formatting as long as that takes.
    /// </summary>
    [JsonPropertyName("timeout")]
    public int? TimeoutSeconds { get; set; }

    /// <inheritdoc/>
    StartLimit? IStartRequest.Limit => Limit;

    /// <inheritdoc cref="IStartRequest.Limit"/>
    internal StartLimit? Limit { get; init; }

    internal override void CheckValues()
    {
        if (string.IsNullOrEmpty(Host))
            throw Rules.Invalid("the host name is empty; give this host a name with -H");
        if (Host.AsSpan().ContainsAnyInRange('\0', '\x1f'))
            throw Rules.Invalid($"the host name '{Host}' has control characters; use printable ones");
        Rules.CheckPath(Path, "region");
        Rules.CheckAbsolute(Path, "region");
        Rules.CheckTimeout(TimeoutSeconds);
        Rules.CheckRange(SizeBytes, "the region size", 1, long.MaxValue);
        Rules.CheckRange(Hosts, "the number of hosts", 1, MaxEntries);
        Rules.CheckRange(Backends, "the number of backends", 1, MaxEntries);
        Rules.CheckRange(Blkdevs, "the number of blkdevs", 1, MaxEntries);
        Rules.CheckRange(Channels, "the number of channels", 1, MaxEntries);
        Rules.CheckRange(ChannelSizeBytes, "the channel size", 1, long.MaxValue);
        Rules.CheckRange(RingSlots, "the number of ring slots", 1, MaxEntries);
        if (Coherence is not (null or "hardware"))
            throw Rules.Invalid($"coherence '{Coherence}' is not known; this version has only 'hardware'");
        if (Format && FormatIfEmpty)
            throw Rules.Invalid("--format and --format-if-empty: leave one of the two out");
        if (FormatIfEmpty && Force)
            throw Rules.Invalid("--force is for --format; with --format-if-empty leave it out");
        if (!Format && !FormatIfEmpty && FormatOption() is { } given)
            throw Rules.Invalid($"{given} is chosen when a region is formatted; add --format or --format-if-empty, or leave it out");
    }

    private string? FormatOption() =>
        SizeBytes is not null ? "--size"
        : Hosts is not null ? "--hosts"
        : Backends is not null ? "--backends"
        : Blkdevs is not null ? "--blkdevs"
        : Channels is not null ? "--channels"
        : ChannelSizeBytes is not null ? "--channel-size"
        : RingSlots is not null ? "--ring-slots"
        : !PayloadCrc ? "--payload-crc"
        : null;
}

public sealed record TransportStarted
{
    public required int TransportId { get; init; }
}

/// <summary>
/// One transport: the keys of the original's info attribute, then what this system adds. Offsets and sizes are bytes. Keys
/// may be added, none renamed.
/// </summary>
public sealed record TransportDescription
{
    /// <summary>Its id; −1, in JSON null, if it is wanted here and is not registered.</summary>
    [JsonConverter(typeof(IdOrNullJson))]
    public required int TransportId { get; init; }

    [JsonConverter(typeof(Hexadecimal64Json))]
    public required ulong Magic { get; init; }
    public required int Version { get; init; }

    [JsonConverter(typeof(Hexadecimal32Json))]
    public required uint Flags { get; init; }

    [JsonPropertyName("host_area_off")]
    public required long HostAreaOffset { get; init; }

    [JsonPropertyName("bytes_per_host_info")]
    public required int BytesPerHost { get; init; }

    [JsonPropertyName("host_num")]
    public required int HostCount { get; init; }

    [JsonPropertyName("backend_area_off")]
    public required long BackendAreaOffset { get; init; }

    [JsonPropertyName("bytes_per_backend_info")]
    public required int BytesPerBackend { get; init; }

    [JsonPropertyName("backend_num")]
    public required int BackendCount { get; init; }

    [JsonPropertyName("blkdev_area_off")]
    public required long BlkdevAreaOffset { get; init; }

    [JsonPropertyName("bytes_per_blkdev_info")]
    public required int BytesPerBlkdev { get; init; }

    [JsonPropertyName("blkdev_num")]
    public required int BlkdevCount { get; init; }

    [JsonPropertyName("channel_area_off")]
    public required long ChannelAreaOffset { get; init; }
    public required long BytesPerChannel { get; init; }

    [JsonPropertyName("channel_num")]
    public required int ChannelCount { get; init; }

    /// <summary>The host entry that this node holds there, −1 (in JSON null) if it is not registered. The original has it twice.</summary>
    [JsonConverter(typeof(IdOrNullJson))]
    public required int HostId { get; init; }

    /// <inheritdoc cref="HostId"/>
    [JsonConverter(typeof(IdOrNullJson))]
    public required int MyHostId { get; init; }
    public required string Path { get; init; }
    public required string Coherence { get; init; }
    public required Guid Uuid { get; init; }

    [JsonPropertyName("hostname")]
    public required string HostName { get; init; }
    public required long SizeBytes { get; init; }
    public required int RingSlots { get; init; }
    public required bool PayloadCrc { get; init; }

    /// <summary>Empty while all is well; else why this transport serves nothing.</summary>
    public required string Failure { get; init; }

    /// <summary>Where this host's membership stands: "starting", "running", "waiting" (it registers anew, or is not registered yet), "held", "stopping", "failed".</summary>
    public string State { get; init; } = "";

    /// <summary>Entries of each area that nobody may reuse until a death is proven or vouched for.</summary>
    public int QuarantinedHosts { get; init; }
    public int QuarantinedBackends { get; init; }
    public int QuarantinedBlkdevs { get; init; }
    public int QuarantinedChannels { get; init; }

    /// <summary>Why it is in the state that it is in, in one line; null when there is nothing to say.</summary>
    public string? Reason { get; init => field = OneLine.OrNull(value); }

    /// <summary>When it entered that state, UTC; null when that is not known.</summary>
    public DateTime? Since { get; init; }

    /// <summary>Lines of the daemon's log that are lost, because the log could not be written or stood still.</summary>
    public long LogLost { get; init; }
}

/// <summary>
/// One host entry. <paramref name="Alive"/> is "alive", "dead" or "unknown"; <paramref name="Mine"/>: it is the host that was
/// asked; <paramref name="Quarantined"/> counts the backends, blkdevs and channels under its id that nobody may reuse yet.
/// </summary>
public sealed record HostDescription(
    int HostId, [property: JsonPropertyName("hostname")] string HostName, string Alive, string State, bool Mine, int Quarantined = 0);

/// <summary>One channel in use. An id is −1 where it cannot be told.</summary>
public sealed record ChannelDescription
{
    public required int ChannelId { get; init; }
    public required int BlkdevId { get; init; }
    public required int BackendId { get; init; }
    public required string State { get; init; }
    public required ulong Epoch { get; init; }
    public required long Outstanding { get; init; }
    public required bool Quarantined { get; init; }
    public required int HostId { get; init; }
}
