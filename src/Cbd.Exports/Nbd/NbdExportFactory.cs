using Cbd.Exports.Nbd.Tls;
using Cbd.Memory.Sockets;
using Cbd.Memory.Store;
using Cbd.Host;

namespace Cbd.Exports.Nbd;

/// <summary>Makes NBD servers. Thread-safe.</summary>
/// <param name="log">Gets one line per message that an operator may want to see; called from any thread.</param>
/// <param name="given">Sockets that addresses of kind <c>fd:NAME</c> mean; stays the caller's.</param>
/// <param name="kept">Sockets that outlive this process; stays the caller's.</param>
internal sealed class NbdExportFactory(Action<string>? log = null, GivenSockets? given = null, KeptSockets? kept = null) : IExportFactory
{
    private const string GivenScheme = "fd:";

    private readonly Action<string> _log = log ?? (static _ => { });
    private readonly GivenSockets _given = given ?? GivenSockets.None;
    private readonly KeptSockets _kept = kept ?? KeptSockets.None;

    /// <summary>How long clients of the servers may keep others, and the end, waiting.</summary>
    internal ClientPatience Patience { get; init; } = ClientPatience.Default;

    /// <inheritdoc/>
    /// <exception cref="CbdException">
    /// The address is wrong, in use or off loopback, or a TLS file is wrong; nothing is bound then.
    /// </exception>
    public IExport Open(string address, SocketOptions options) => OpenNbd(address, options);

    /// <summary><see cref="Open(string, SocketOptions)"/> without TLS and with the default limits.</summary>
    public IExport Open(string address, bool insecure) => OpenNbd(address, insecure);

    /// <summary><see cref="Open(string, bool)"/> with the type that also has the statistics.</summary>
    public NbdExport OpenNbd(string address, bool insecure) => OpenNbd(address, new SocketOptions { Insecure = insecure });

    /// <summary><see cref="Open(string, SocketOptions)"/> with the type that also has the statistics.</summary>
    public NbdExport OpenNbd(string address, SocketOptions options)
    {
        bool isGiven = address.StartsWith(GivenScheme, StringComparison.Ordinal);
        if (isGiven && options.Rights is { } rights)
            throw new CbdException(CbdErrorKind.Denied, $"'{address}' was opened for cbdd, and uid {rights.UserId} may not have it: let root or the user of cbdd start this device, or give another address");
        TlsServer? tls = options.Tls is null ? null : new TlsServer(options.Tls, _log, options.Rights, options.Trust);
        bool withTls = options.Tls is { Require: true };
        bool insecure = options.Insecure || withTls;
        NbdListener listener = isGiven
            ? NbdListener.Take(_given, address[GivenScheme.Length..], insecure, withTls)
            : NbdListener.Bind(NbdAddress.Parse(address, insecure), withTls, options, _kept);
        return new NbdExport(listener, options, Patience, tls, _kept.Connections, _log);
    }
}
