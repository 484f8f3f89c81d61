using Cbd.Memory;

namespace Cbd.Host;

/// <summary>What an export over a socket is told besides the address.</summary>
internal sealed record SocketOptions
{
    public const int DefaultConnections = NbdLimits.DefaultConnections;
    public const int MaxConnections = NbdLimits.MaxConnections;
    public const int DefaultHandshakeSeconds = NbdLimits.DefaultHandshakeSeconds;
    public const int MaxHandshakeSeconds = NbdLimits.MaxHandshakeSeconds;

    /// <summary>Allow TCP on an address that is not loopback, though not every connection is encrypted.</summary>
    public bool Insecure { get; init; }

    /// <summary>Null: no encryption.</summary>
    public TlsOptions? Tls { get; init; }

    /// <summary>Clients at once, those in their handshake included; 1 to <see cref="MaxConnections"/>.</summary>
    public int Connections { get; init; } = DefaultConnections;

    /// <summary>Longest time from connecting to the first request, 1 to <see cref="MaxHandshakeSeconds"/>.</summary>
    public int HandshakeSeconds { get; init; } = DefaultHandshakeSeconds;

    /// <summary>Name of the device, under which a socket may have been kept over the death of a daemon; null: it has no name yet.</summary>
    public string? Device { get; init; }

    /// <summary>Whose rights the files of TLS are read with, and the address is bound with; null: those of this process.</summary>
    public PathRights? Rights { get; init; }

    /// <summary>The address is this process's choice: it is bound with the rights of this process.</summary>
    public bool IsOwnAddress { get; init; }

    /// <summary>Whose files of TLS are used.</summary>
    public OwnerTrust Trust { get; init; } = OwnerTrust.Default;

    /// <summary>Mode of a Unix socket.</summary>
    public uint Mode { get; init; } = AccessOptions.OwnerOnly;

    /// <summary>Whose a Unix socket becomes; null: this process's, or that of the rights.</summary>
    public FileOwner? Owner { get; init; }

    /// <summary>The part of a device's options that is the socket's.</summary>
    public static SocketOptions Of(StartDeviceOptions device) => new()
    {
        Insecure = device.Insecure,
        Tls = device.Tls,
        Connections = device.NbdConnections,
        HandshakeSeconds = device.NbdHandshakeSeconds,
    };
}
