using Cbd.Host.Devices;
using System.Text.Json.Serialization;
using Cbd.Host;

namespace Cbd.Control.Json;

// What may be left out has a setter and not an init: generated JSON code builds objects with init-only members in one
// expression that names them all, and a default of ours would be lost when a key is not there.

/// <summary>Body of tp-reg. Numbers left out are computed from the region's size. Sizes are bytes.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record TransportRequest
{
    public required string Host { get; init; }
    public required string Path { get; init; }
    public bool Format { get; set; }
    public bool Force { get; set; }
    public long? SizeBytes { get; set; }
    public int? Hosts { get; set; }
    public int? Backends { get; set; }
    public int? Blkdevs { get; set; }
    public int? Channels { get; set; }
    public long? ChannelSizeBytes { get; set; }
    public int? RingSlots { get; set; }
    public bool PayloadCrc { get; set; } = true;
    public string? Coherence { get; set; }

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
internal sealed record BackendRequest
{
    public required string Path { get; init; }
    public int Handlers { get; set; } = 1;
    public int? BackendId { get; set; }
    public bool ReadOnly { get; set; }
    public string Engine { get; set; } = "auto";
    public int? BlockSize { get; set; }
    public bool Fenced { get; set; }
    public string Mode { get; set; } = PollModeText.Adaptive;

    /// <summary>Faults that strike its requests, or "off" alone, to be switched later; left out: none ever.</summary>
    public IReadOnlyList<string>? Faults { get; set; }

    public static BackendRequest From(StartBackendOptions options) => new()
    {
        Path = options.Path,
        Handlers = options.Handlers,
        BackendId = options.Backend,
        ReadOnly = options.ReadOnly,
        Engine = options.Engine,
        BlockSize = options.BlockBytes,
        Fenced = options.Fenced,
        Mode = PollModeText.Of(options.Mode),
        Faults = options.Faults,
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
        Mode = PollModeText.Parse(Mode),
        Faults = Faults,
    };
}

/// <summary>Body of backend-resize. <c>size_bytes</c> left out: what the disk has now.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record ResizeRequest
{
    public long? SizeBytes { get; set; }
}

/// <summary>Body of backend-fault: the faults that are in force from now on, or "off" alone.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record FaultsRequest
{
    public required IReadOnlyList<string> Faults { get; init; }
}

/// <summary>Body of dev-start; the transport is in the address.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record DeviceRequest
{
    public required int BackendId { get; init; }
    public int? Queues { get; set; }
    public string? Attach { get; set; }
    public string? Nbd { get; set; }
    public TlsRequest? Tls { get; set; }
    public int NbdConnections { get; set; } = SocketOptions.DefaultConnections;
    public int NbdHandshakeSeconds { get; set; } = SocketOptions.DefaultHandshakeSeconds;
    public bool Insecure { get; set; }
    public bool ReadOnly { get; set; }
    public string Mode { get; set; } = PollModeText.Adaptive;
    public string OnBackendLoss { get; set; } = LossText.Queue;
    public int LossTimeout { get; set; }

    public static DeviceRequest From(StartDeviceOptions options) => new()
    {
        BackendId = options.Backend,
        Queues = options.Queues,
        Attach = options.Attach,
        Nbd = options.Nbd,
        Tls = TlsRequest.From(options.Tls),
        NbdConnections = options.NbdConnections,
        NbdHandshakeSeconds = options.NbdHandshakeSeconds,
        Insecure = options.Insecure,
        ReadOnly = options.ReadOnly,
        Mode = PollModeText.Of(options.Mode),
        OnBackendLoss = LossText.Of(options.OnBackendLoss),
        LossTimeout = options.LossTimeoutSeconds,
    };

    public StartDeviceOptions ToOptions(int transport) => new()
    {
        Transport = transport,
        Backend = BackendId,
        Queues = Queues,
        Attach = Attach,
        Nbd = Nbd,
        Tls = Tls?.ToOptions(),
        NbdConnections = NbdConnections,
        NbdHandshakeSeconds = NbdHandshakeSeconds,
        Insecure = Insecure,
        ReadOnly = ReadOnly,
        Mode = PollModeText.Parse(Mode),
        OnBackendLoss = LossText.Parse(OnBackendLoss),
        LossTimeoutSeconds = LossTimeout,
    };
}

/// <summary>TLS of a device's socket; <c>certificates</c> is a directory.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record TlsRequest
{
    public bool Require { get; set; } = true;
    public required string Certificates { get; init; }
    public bool VerifyPeer { get; set; }
    public string[] Allow { get; set; } = [];

    public static TlsRequest? From(TlsOptions? options) => options is null ? null : new()
    {
        Require = options.Require,
        Certificates = options.Certificates,
        VerifyPeer = options.VerifyPeer,
        Allow = [.. options.Allow],
    };

    public TlsOptions ToOptions() => new()
    {
        Require = Require,
        Certificates = Certificates,
        VerifyPeer = VerifyPeer,
        Allow = Allow,
    };
}

/// <summary>Body of the stop verbs.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record StopRequest
{
    public bool Force { get; set; }
}

/// <summary>Body of the clear verbs. <c>fenced</c>: the operator vouches that the machine is off or cut off.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
internal sealed record ClearRequest
{
    public bool Force { get; set; }
    public bool Fenced { get; set; }
}

internal sealed record TransportStarted
{
    public required int TransportId { get; init; }
}

internal sealed record BackendStarted
{
    public required int BackendId { get; init; }
}

/// <summary><c>size_bytes</c> is the size that is served now; <c>note</c> says what one may not expect, if anything.</summary>
internal sealed record BackendResized
{
    public required long SizeBytes { get; init; }
    public string? Note { get; set; }

    public static BackendResized From(ResizedBackend backend) =>
        new() { SizeBytes = backend.SizeBytes, Note = backend.Note.Length > 0 ? backend.Note : null };
}

/// <summary>
/// <c>dev_name</c> is the node or NBD URI to use the device with; <c>note</c> says what one may not expect, if anything.
/// </summary>
internal sealed record DeviceStarted
{
    public required int BlkdevId { get; init; }
    public required string DevName { get; init; }
    public string? Note { get; set; }

    public static DeviceStarted From(StartedDevice device) =>
        new() { BlkdevId = device.Device, DevName = device.Node, Note = device.Note.Length > 0 ? device.Note : null };
}
