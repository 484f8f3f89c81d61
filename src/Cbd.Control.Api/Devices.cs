using System.Text.Json.Serialization;

namespace Cbd.Control.Api;

/// <summary>Limits of the NBD clients of a device.</summary>
public static class NbdLimits
{
    public const int DefaultConnections = 128;
    public const int MaxConnections = 512;
    public const int DefaultHandshakeSeconds = 10;
    public const int MaxHandshakeSeconds = 3600;
}

/// <summary>Body of dev-start.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public sealed record StartDeviceOptions : TransportTarget, IStartRequest
{
    /// <summary>Longest time that requests wait for a lost backend before they fail: a year.</summary>
    private const int MaxLossTimeoutSeconds = 365 * 24 * 3600;

    [JsonPropertyName("backend_id")]
    public required int Backend { get; init; }

    /// <summary>The disk that the backend must have, as <see cref="BackendDescription.DiskIdentity"/> has it; null: whichever it has.</summary>
    public string? DiskIdentity { get; set; }

    /// <summary>
    /// What the device is called (<see cref="ThingName"/>): its node, its socket and the lists have this name. Null: <c>cbdN</c>, with
    /// the device's id if no other device has that name, else the next number.
    /// </summary>
    public string? Name { get; set; }

    /// <summary>Queues, 1 to 128; null: min(CPUs, 4).</summary>
    public int? Queues { get; set; }

    /// <summary>
    /// How the device reaches this machine's kernel: "auto" (the best that it has, else NBD over a socket), "ublk",
    /// "nbd", "fuse" or "none" (NBD over a socket). Null: "none" if something is asked for that only a socket has, else "auto".
    /// </summary>
    public string? Attach { get; set; }

    /// <summary>
    /// Address of the socket: <c>unix:PATH</c>, <c>tcp:HOST:PORT</c>, or <c>fd:NAME</c> for one that the service manager
    /// gave to this process; null: <c>&lt;run-dir&gt;/NAME.nbd</c>. With a kind of attachment by name there is no socket, and
    /// it is refused.
    /// </summary>
    public string? Nbd { get; set; }

    /// <summary>How connections to the socket are encrypted; null: not at all.</summary>
    public TlsOptions? Tls { get; set; }

    /// <summary>Clients at once, those in their handshake included.</summary>
    public int NbdConnections { get; set; } = NbdLimits.DefaultConnections;

    /// <summary>A client whose handshakes, of TLS and of NBD together, take longer is dropped, seconds.</summary>
    public int NbdHandshakeSeconds { get; set; } = NbdLimits.DefaultHandshakeSeconds;

    /// <summary>Allow TCP on an address that is not loopback.</summary>
    public bool Insecure { get; set; }

    /// <summary>Open the device read-only.</summary>
    public bool ReadOnly { get; set; }

    /// <summary>How the export's threads wait.</summary>
    public PollMode Mode { get; set; }

    /// <summary>What is done with requests while the backend is away.</summary>
    public OnBackendLoss OnBackendLoss { get; set; }

    /// <summary>With <see cref="OnBackendLoss.Queue"/>: they wait this many seconds, then fail; 0: for ever.</summary>
    [JsonPropertyName("loss_timeout")]
    public int LossTimeoutSeconds { get; set; }

    /// <summary>A start that takes longer, seconds, is taken back; null: 10.</summary>
    [JsonPropertyName("timeout")]
    public int? TimeoutSeconds { get; set; }

    /// <inheritdoc/>
    StartLimit? IStartRequest.Limit => Limit;

    /// <inheritdoc cref="IStartRequest.Limit"/>
    internal StartLimit? Limit { get; init; }

    /// <summary>
    /// What is asked for that only a socket has, in words, so that the device is not to be attached to the kernel; null if
    /// nothing is. Limits that are the default ones ask for nothing.
    /// </summary>
    internal string? AskedOfSocket() =>
        Nbd is { } address ? $"NBD address '{address}'"
        : Tls is not null ? "TLS"
        : Insecure ? "insecure"
        : NbdConnections != NbdLimits.DefaultConnections || NbdHandshakeSeconds != NbdLimits.DefaultHandshakeSeconds ? "limits of NBD clients"
        : null;

    /// <summary>How it is to reach this machine's kernel, also where that is not said.</summary>
    internal string AskedAttach => Attach ?? (AskedOfSocket() is null ? AttachWords.Auto : AttachWords.None);

    internal override void CheckValues()
    {
        Rules.CheckId(Backend, "backend");
        Rules.CheckName(Name, "device");
        Rules.CheckRange(Queues, "the number of queues", 1, Rules.MaxThreads);
        Rules.CheckTimeout(TimeoutSeconds);
        bool byName = Attach is { } word && AttachWords.Kinds.Contains(word);
        if (!byName && Attach is not (null or AttachWords.Auto or AttachWords.None))
            throw Rules.Invalid($"attach '{Attach}' is not known; use {AttachWords.Auto}, {string.Join(", ", AttachWords.Kinds)} or {AttachWords.None}");
        Rules.CheckRange(LossTimeoutSeconds, "the loss timeout in seconds", 0, MaxLossTimeoutSeconds);
        if (LossTimeoutSeconds > 0 && OnBackendLoss != OnBackendLoss.Queue)
            throw Rules.Invalid($"loss timeout {LossTimeoutSeconds} with requests that fail at once; it is for --on-backend-loss {LossText.Queue}: leave one of the two out");
        Rules.CheckRange(NbdConnections, "the number of NBD connections", 1, NbdLimits.MaxConnections);
        Rules.CheckRange(NbdHandshakeSeconds, "the time for NBD handshakes, seconds,", 1, NbdLimits.MaxHandshakeSeconds);
        if (byName && AskedOfSocket() is { } asked)
            throw Rules.Invalid($"{asked} with attach '{Attach}': a device that is attached by {Attach} has no socket; leave one of the two out, or use attach {AttachWords.None}");
        Tls?.Check();
        if (Nbd is null)
            return;
        Rules.CheckPath(Nbd, "NBD address");
        if (Nbd.StartsWith("unix:", StringComparison.Ordinal))
            Rules.CheckAbsolute(Nbd["unix:".Length..], "NBD socket");
        else if (!Nbd.StartsWith("tcp:", StringComparison.Ordinal) && !Nbd.StartsWith("fd:", StringComparison.Ordinal))
            throw Rules.Invalid($"NBD address '{Nbd}' is not known; use unix:PATH, tcp:HOST:PORT or fd:NAME");
    }
}

/// <summary>TLS of a socket, with X.509 certificates.</summary>
[JsonUnmappedMemberHandling(JsonUnmappedMemberHandling.Disallow)]
public sealed record TlsOptions
{
    /// <summary>A client that does not begin TLS gets nothing; else it is served without.</summary>
    public bool Require { get; set; } = true;

    /// <summary>
    /// The directory of <c>server-cert.pem</c>, <c>server-key.pem</c>, <c>ca-cert.pem</c> and <c>ca-crl.pem</c>, the names
    /// that libnbd, nbdkit and QEMU use; absolute.
    /// </summary>
    public required string Certificates { get; init; }

    /// <summary>Clients need a certificate that <c>ca-cert.pem</c> signed.</summary>
    public bool VerifyPeer { get; set; }

    /// <summary>
    /// Names of which one must be the common name, or a DNS name, of the client's certificate; empty: any will do. Needs
    /// <see cref="VerifyPeer"/>.
    /// </summary>
    public IReadOnlyList<string> Allow { get; set; } = [];

    /// <inheritdoc/>
    public override string ToString() =>
        $"{(Require ? "require" : "on")} {Certificates}{(VerifyPeer ? ", peers verified" : "")}{(Allow.Count == 0 ? "" : $", allowed: {string.Join(", ", Allow)}")}";

    internal void Check()
    {
        Rules.CheckPath(Certificates, "TLS certificates");
        Rules.CheckAbsolute(Certificates, "TLS certificates");
        if (Allow.Count != 0 && !VerifyPeer)
            throw Rules.Invalid($"names of clients are allowed ({string.Join(", ", Allow)}) and their certificates are not verified; add --tls-verify-peer, or leave --tls-allow out");
        if (Allow.Any(string.IsNullOrEmpty))
            throw Rules.Invalid("an allowed name of a client is empty; give the common name or a DNS name of its certificate");
    }
}

/// <summary>
/// A device that was started: its id and the node or NBD URI to use it with. <paramref name="Note"/> says what the user
/// may not expect, in one line; null if there is nothing. <paramref name="Name"/> is what the device is called.
/// </summary>
public sealed record StartedDevice(
    [property: JsonPropertyName("blkdev_id")] int Device, [property: JsonPropertyName("dev_name")] string Node, string? Note = null, string? Name = null)
{
    public string? Note { get; init => field = OneLine.OrNull(value); } = OneLine.OrNull(Note);
}

/// <summary>One blkdev entry.</summary>
public sealed record DeviceDescription
{
    /// <summary>Its id; −1, in JSON null, if it is wanted here and is not there.</summary>
    [JsonConverter(typeof(IdOrNullJson))]
    public required int BlkdevId { get; init; }
    public required int HostId { get; init; }

    /// <summary>The backend that it is on; −1, in JSON null, while the device is not there: its disk may be another backend then.</summary>
    [JsonConverter(typeof(IdOrNullJson))]
    public required int BackendId { get; init; }

    /// <summary>What a device of ours is called; null for those of other hosts.</summary>
    public string? Name { get; init; }

    /// <summary>Node or NBD URI; empty for devices of other hosts.</summary>
    [JsonPropertyName("dev_name")]
    public required string Address { get; init; }

    /// <summary>The kernel's own node behind the name, e.g. <c>/dev/loop0</c>; empty where there is none.</summary>
    public required string Node { get; init; }
    public required string Alive { get; init; }

    /// <summary>
    /// For our own: "running", "waiting" (the backend is away, requests wait), "failing" (it is away, requests are answered
    /// with EIO until it is back), "failed: …" (for good); for others the claim's state.
    /// </summary>
    public required string State { get; init; }
    public required int Queues { get; init; }
    public required long SizeBytes { get; init; }
    public required bool ReadOnly { get; init; }

    /// <summary>Why a device of ours is not running; empty while it is, and for those of other hosts.</summary>
    public string Loss { get; set; } = "";

    /// <summary>What it does while its backend is away; null for devices of other hosts.</summary>
    public OnBackendLoss? OnBackendLoss { get; init; }

    /// <summary>How long requests wait then, seconds; 0: for ever; null for devices of other hosts.</summary>
    [JsonPropertyName("loss_timeout")]
    public int? LossTimeoutSeconds { get; init; }

    /// <summary>What its user may not expect, in one line, for our own: that its node has not the size it could have. Null if nothing.</summary>
    public string? Note { get; init => field = OneLine.OrNull(value); }

    /// <inheritdoc cref="TransportDescription.Reason"/>
    public string? Reason { get; init => field = OneLine.OrNull(value); }

    /// <inheritdoc cref="TransportDescription.Since"/>
    public DateTime? Since { get; init; }
}
