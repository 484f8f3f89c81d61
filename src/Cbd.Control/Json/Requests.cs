using System.Text.Json.Serialization;
using Cbd.Runtime;

namespace Cbd.Control.Json;

/// <summary>Body of tp-reg. Numbers left out are computed from the region's size. Sizes are bytes.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public sealed record TransportRequest
{
    public required string Host { get; init; }
    public required string Path { get; init; }
    public bool Format { get; init; }
    public bool Force { get; init; }
    public long? SizeBytes { get; init; }
    public int? Hosts { get; init; }
    public int? Backends { get; init; }
    public int? Blkdevs { get; init; }
    public int? Channels { get; init; }
    public long? ChannelSizeBytes { get; init; }
    public int? RingSlots { get; init; }
    public bool PayloadCrc { get; init; } = true;
    public string? Coherence { get; init; }

    public static TransportRequest From(RegisterTransportOptions options) => new()
    {
        Host = options.Host,
        Path = options.Path,
        Format = options.Format,
        Force = options.Force,
        SizeBytes = options.SizeBytes,
        Hosts = options.Hosts,
        Backends = options.Backends,
        Blkdevs = options.Blkdevs,
        Channels = options.Channels,
        ChannelSizeBytes = options.ChannelSizeBytes,
        RingSlots = options.RingSlots,
        PayloadCrc = options.PayloadCrc,
        Coherence = options.Coherence,
    };

    public RegisterTransportOptions ToOptions() => new()
    {
        Host = Host,
        Path = Path,
        Format = Format,
        Force = Force,
        SizeBytes = SizeBytes,
        Hosts = Hosts,
        Backends = Backends,
        Blkdevs = Blkdevs,
        Channels = Channels,
        ChannelSizeBytes = ChannelSizeBytes,
        RingSlots = RingSlots,
        PayloadCrc = PayloadCrc,
        Coherence = Coherence,
    };
}

/// <summary>Body of backend-start; the transport is in the address.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public sealed record BackendRequest
{
    public required string Path { get; init; }
    public int Handlers { get; init; } = 1;
    public int? BackendId { get; init; }
    public bool ReadOnly { get; init; }
    public string Engine { get; init; } = "auto";
    public int? BlockSize { get; init; }
    public bool Fenced { get; init; }

    public static BackendRequest From(StartBackendOptions options) => new()
    {
        Path = options.Path,
        Handlers = options.Handlers,
        BackendId = options.Backend,
        ReadOnly = options.ReadOnly,
        Engine = options.Engine,
        BlockSize = options.BlockBytes,
        Fenced = options.Fenced,
    };

    public StartBackendOptions ToOptions(int transport) => new()
    {
        Transport = transport,
        Path = Path,
        Handlers = Handlers,
        Backend = BackendId,
        ReadOnly = ReadOnly,
        Engine = Engine,
        BlockBytes = BlockSize,
        Fenced = Fenced,
    };
}

/// <summary>Body of dev-start; the transport is in the address.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public sealed record DeviceRequest
{
    public required int BackendId { get; init; }
    public int? Queues { get; init; }
    public string? Nbd { get; init; }
    public bool Insecure { get; init; }
    public bool ReadOnly { get; init; }

    public static DeviceRequest From(StartDeviceOptions options) => new()
    {
        BackendId = options.Backend,
        Queues = options.Queues,
        Nbd = options.Nbd,
        Insecure = options.Insecure,
        ReadOnly = options.ReadOnly,
    };

    public StartDeviceOptions ToOptions(int transport) => new()
    {
        Transport = transport,
        Backend = BackendId,
        Queues = Queues,
        Nbd = Nbd,
        Insecure = Insecure,
        ReadOnly = ReadOnly,
    };
}

/// <summary>Body of the stop verbs.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public sealed record StopRequest
{
    public bool Force { get; init; }
}

/// <summary>Body of the clear verbs. <c>fenced</c>: the operator vouches that the machine is off or cut off.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public sealed record ClearRequest
{
    public bool Force { get; init; }
    public bool Fenced { get; init; }
}

public sealed record TransportStarted
{
    public required int TransportId { get; init; }
}

public sealed record BackendStarted
{
    public required int BackendId { get; init; }
}

/// <summary><c>dev_name</c> is the node or NBD URI to use the device with.</summary>
public sealed record DeviceStarted
{
    public required int BlkdevId { get; init; }
    public required string DevName { get; init; }
}
