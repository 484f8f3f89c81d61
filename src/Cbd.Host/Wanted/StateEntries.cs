using System.Text.Json.Serialization;

namespace Cbd.Host.Wanted;

/// <summary>What is being done to a thing of the record.</summary>
internal enum StateIntent
{
    /// <summary>It is being started, and nobody was told that it is there.</summary>
    Starting = 0,

    /// <summary>It is being stopped.</summary>
    Stopping = 1,
}

/// <summary>
/// One started thing: exactly one of the three is there. Things name their transport by the region's path, which is
/// registered once per daemon; transport ids change from run to run.
/// </summary>
internal sealed record StateEntry
{
    public TransportEntry? Transport { get; init; }
    public BackendEntry? Backend { get; init; }
    public DeviceEntry? Device { get; init; }

    /// <summary>Left out: it is wanted, and nothing is being done to it.</summary>
    public StateIntent? Intent { get; init; }

    /// <summary>With <see cref="StateIntent.Stopping"/>: it is stopped by force. Left out: it is not.</summary>
    public bool? Forced { get; init; }

    /// <summary>Why it is not started again, until it is stopped and started by hand; left out: it is.</summary>
    public string? Failed { get; init; }

    /// <summary>How often the daemon died while it was started, one time after the other; left out: 0.</summary>
    public int? Deaths { get; init; }

    /// <summary>A <c>--run</c> line wanted it; without that line it is held. Left out: a verb did.</summary>
    public bool? FromRun { get; init; }

    /// <summary>Read from the file and not started in this run (yet).</summary>
    [JsonIgnore]
    public bool IsPending { get; init; }

    /// <summary>Why it is pending and not tried; null: it is tried.</summary>
    [JsonIgnore]
    public string? Held { get; init; }

    /// <summary>This run started it from the record, and no verb has asked for it since: one that does gets this one.</summary>
    [JsonIgnore]
    public bool IsUnclaimed { get; init; }

    /// <summary>A daemon died while it was stopping this.</summary>
    [JsonIgnore]
    public bool IsCut { get; init; }

    /// <summary>What <see cref="Reason"/> says does not pass by itself: a verb has to confirm it.</summary>
    [JsonIgnore]
    public bool IsBlocked { get; init; }

    /// <summary>Why it is pending; null before it was tried.</summary>
    [JsonIgnore]
    public string? Reason { get; init; }

    /// <summary>Tells the entries of one run apart; 0 outside of a record.</summary>
    [JsonIgnore]
    public int Number { get; init; }

    /// <summary>The region that it is on.</summary>
    [JsonIgnore]
    public string Region => Transport?.Region ?? Backend?.Region ?? Device!.Region;

    /// <summary>The verb that ends it, also while it is away.</summary>
    [JsonIgnore]
    public string StopVerb => Device is not null ? $"dev-stop -d {Device.Name}" : Backend is not null ? $"backend-stop -b {Backend.Path}" : $"tp-unreg -t {Region}";

    /// <summary>As an operator knows it.</summary>
    public override string ToString() => this switch
    {
        { Transport: { } transport } => $"transport on {transport.Region}",
        { Backend: { } backend } => backend.Name is null ? $"backend on {backend.Path}" : $"backend {backend.Name} on {backend.Path}",
        { Device: { } device } => $"device {device.Name ?? $"{device.BlkdevId}"}",
        _ => throw new InvalidOperationException("a state entry is nothing"),
    };
}

/// <summary>A restore formats only what <c>--format-if-empty</c> asked for, and only if it is empty.</summary>
internal sealed record TransportEntry
{
    public required string Region { get; init; }
    public required string Host { get; init; }
    public string? Coherence { get; init; }

    /// <summary>Who asked for it, with whose rights the region is opened again; left out: root or the daemon's user.</summary>
    public Caller? Caller { get; init; }

    /// <summary>The region's; left out by versions that did not look.</summary>
    public Guid? Uuid { get; init; }

    /// <summary>The boot of this machine in which it had that uuid. Memory that is gone with a boot may have another one after it.</summary>
    public Guid? BootId { get; init; }

    /// <summary>Left out: it is never formatted.</summary>
    public FormatEntry? FormatIfEmpty { get; init; }
}

/// <summary>The geometry of <c>--format-if-empty</c>, as it was given.</summary>
internal sealed record FormatEntry
{
    public long? SizeBytes { get; init; }
    public int? Hosts { get; init; }
    public int? Backends { get; init; }
    public int? Blkdevs { get; init; }
    public int? Channels { get; init; }
    public long? ChannelSizeBytes { get; init; }
    public int? RingSlots { get; init; }
    public required bool PayloadCrc { get; init; }

    public static FormatEntry? From(RegisterTransportOptions options) => !options.FormatIfEmpty ? null : new()
    {
        SizeBytes = options.SizeBytes,
        Hosts = options.Hosts,
        Backends = options.Backends,
        Blkdevs = options.Blkdevs,
        Channels = options.Channels,
        ChannelSizeBytes = options.ChannelSizeBytes,
        RingSlots = options.RingSlots,
        PayloadCrc = options.PayloadCrc,
    };

    public RegisterTransportOptions AddTo(RegisterTransportOptions options) => options with
    {
        FormatIfEmpty = true,
        SizeBytes = SizeBytes,
        Hosts = Hosts,
        Backends = Backends,
        Blkdevs = Blkdevs,
        Channels = Channels,
        ChannelSizeBytes = ChannelSizeBytes,
        RingSlots = RingSlots,
        PayloadCrc = PayloadCrc,
    };
}

internal sealed record BackendEntry
{
    public required string Region { get; init; }
    public required int BackendId { get; init; }

    /// <summary>What the backend is called; left out: nothing.</summary>
    public string? Name { get; init; }
    public required string Path { get; init; }

    /// <summary>Who asked for it, with whose rights the disk is opened again; left out: root or the daemon's user.</summary>
    public Caller? Caller { get; init; }

    /// <summary>Which disk it is; left out by versions that did not look, and of disks that begin anew with each life.</summary>
    public string? DiskIdentity { get; init; }
    public required int Handlers { get; init; }
    public required bool ReadOnly { get; init; }
    public required string Engine { get; init; }
    public int? BlockSize { get; init; }

    /// <summary>Left out: adaptive.</summary>
    public string? Mode { get; init; }
}

internal sealed record DeviceEntry
{
    public required string Region { get; init; }
    public required int BlkdevId { get; init; }

    /// <summary>What the device is called; left out by versions that did not name devices.</summary>
    public string? Name { get; init; }
    public required int BackendId { get; init; }

    /// <summary>The disk behind the backend, so that a restore does not take another one under the same id.</summary>
    public required string BackendPath { get; init; }

    /// <summary>Which disk that is: the device is found by it, whatever id the backend has. Left out by versions that did not look.</summary>
    public string? DiskIdentity { get; init; }
    public int? Queues { get; init; }
    public string? Attach { get; init; }

    /// <summary>Who asked for it, with whose rights socket and certificates are opened again; left out: root or the daemon's user.</summary>
    public Caller? Caller { get; init; }
    public string? Nbd { get; init; }

    /// <summary>Left out: no TLS.</summary>
    public TlsEntry? Tls { get; init; }

    /// <summary>Left out: the default.</summary>
    public int? NbdConnections { get; init; }
    public int? NbdHandshakeSeconds { get; init; }
    public required bool Insecure { get; init; }
    public required bool ReadOnly { get; init; }

    /// <summary>Left out: adaptive.</summary>
    public string? Mode { get; init; }

    /// <summary>Left out: queue.</summary>
    public string? OnBackendLoss { get; init; }

    /// <summary>Seconds; left out: for ever.</summary>
    public int? LossTimeout { get; init; }

    /// <summary>The start that it is of.</summary>
    public StartDeviceOptions ToOptions() => new()
    {
        Backend = BackendId,
        Name = Name,
        Queues = Queues,
        Attach = Attach,
        Caller = Caller,
        Nbd = Nbd,
        Tls = Tls?.ToOptions(),
        NbdConnections = NbdConnections ?? NbdLimits.DefaultConnections,
        NbdHandshakeSeconds = NbdHandshakeSeconds ?? NbdLimits.DefaultHandshakeSeconds,
        Insecure = Insecure,
        ReadOnly = ReadOnly,
        Mode = PollModeText.Parse(Mode ?? PollModeText.Adaptive),
        OnBackendLoss = LossText.Parse(OnBackendLoss ?? LossText.Queue),
        LossTimeoutSeconds = LossTimeout ?? 0,
    };
}

/// <summary>TLS of a device's socket. The files themselves are read anew.</summary>
internal sealed record TlsEntry
{
    public required bool Require { get; init; }
    public required string Certificates { get; init; }
    public required bool VerifyPeer { get; init; }
    public required IReadOnlyList<string> Allow { get; init; }

    public static TlsEntry? From(TlsOptions? options) => options is null ? null : new()
    {
        Require = options.Require,
        Certificates = options.Certificates,
        VerifyPeer = options.VerifyPeer,
        Allow = options.Allow,
    };

    public bool Equals(TlsEntry? other) =>
        other is not null && Require == other.Require && Certificates == other.Certificates && VerifyPeer == other.VerifyPeer && Allow.SequenceEqual(other.Allow);

    public override int GetHashCode() => HashCode.Combine(Require, Certificates, VerifyPeer, Allow.Count);

    /// <summary>All of it for people, in one line.</summary>
    public string Describe() => $"{(Require ? "required" : "on")} with {Certificates}{(VerifyPeer ? $", peers {string.Join(' ', Allow.DefaultIfEmpty("verified"))}" : "")}";

    public TlsOptions ToOptions() => new() { Require = Require, Certificates = Certificates, VerifyPeer = VerifyPeer, Allow = Allow };
}
