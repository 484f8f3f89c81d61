namespace Cbd.Host;

/// <summary>What an export over a socket is told besides the address.</summary>
internal sealed record SocketOptions
{
    public const int DefaultConnections = 128;
    public const int MaxConnections = 512;
    public const int DefaultHandshakeSeconds = 10;
    public const int MaxHandshakeSeconds = 3600;

    /// <summary>Allow TCP on an address that is not loopback, though not every connection is encrypted.</summary>
    public bool Insecure { get; init; }

    /// <summary>Null: no encryption.</summary>
    public TlsOptions? Tls { get; init; }

    /// <summary>Clients at once, those in their handshake included; 1 to <see cref="MaxConnections"/>.</summary>
    public int Connections { get; init; } = DefaultConnections;

    /// <summary>Longest time from connecting to the first request, 1 to <see cref="MaxHandshakeSeconds"/>.</summary>
    public int HandshakeSeconds { get; init; } = DefaultHandshakeSeconds;

    /// <summary>
    /// What is asked for that only a socket has, in words, so that the device is not to be attached to the kernel; null if
    /// nothing is. Limits that are the default ones ask for nothing.
    /// </summary>
    public static string? AskedFor(StartDeviceOptions device) =>
        device.Nbd is { } address ? $"NBD address '{address}'"
        : device.Tls is not null ? "TLS"
        : device.Insecure ? "insecure"
        : device.NbdConnections != DefaultConnections || device.NbdHandshakeSeconds != DefaultHandshakeSeconds ? "limits of NBD clients"
        : null;

    /// <summary>The part of a device's options that is the socket's.</summary>
    public static SocketOptions Of(StartDeviceOptions device) => new()
    {
        Insecure = device.Insecure,
        Tls = device.Tls,
        Connections = device.NbdConnections,
        HandshakeSeconds = device.NbdHandshakeSeconds,
    };
}

/// <summary>TLS of a socket, with X.509 certificates.</summary>
internal sealed record TlsOptions
{
    /// <summary>A client that does not begin TLS gets nothing; else it is served without.</summary>
    public bool Require { get; init; } = true;

    /// <summary>
    /// The directory of <c>server-cert.pem</c>, <c>server-key.pem</c>, <c>ca-cert.pem</c> and <c>ca-crl.pem</c>, the names
    /// that libnbd, nbdkit and QEMU use; absolute.
    /// </summary>
    public required string Certificates { get; init; }

    /// <summary>Clients need a certificate that <c>ca-cert.pem</c> signed.</summary>
    public bool VerifyPeer { get; init; }

    /// <summary>
    /// Names of which one must be the common name, or a DNS name, of the client's certificate; empty: any will do. Needs
    /// <see cref="VerifyPeer"/>.
    /// </summary>
    public IReadOnlyList<string> Allow { get; init; } = [];

    /// <inheritdoc/>
    public override string ToString() =>
        $"{(Require ? "require" : "on")} {Certificates}{(VerifyPeer ? ", peers verified" : "")}{(Allow.Count == 0 ? "" : $", allowed: {string.Join(", ", Allow)}")}";
}
