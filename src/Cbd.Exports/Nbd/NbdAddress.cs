using System.Net;
using System.Net.Sockets;
using System.Text;
using Cbd.Memory;
using Cbd.Memory.Sockets;

namespace Cbd.Exports.Nbd;

/// <summary>Where an NBD server listens: <c>unix:PATH</c> or <c>tcp:HOST:PORT</c>.</summary>
/// <param name="Text">The address as it was given.</param>
/// <param name="UnixPath">Full path of the socket, or null for TCP.</param>
/// <param name="Host">Host as it was given, brackets of IPv6 included; empty for a Unix socket.</param>
/// <param name="Native">The address as a native sockaddr.</param>
internal sealed record NbdAddress(string Text, string? UnixPath, string Host, byte[] Native)
{
    /// <summary>Longest path of a Unix socket, bytes: sun_path has 108 with the final zero.</summary>
    internal const int MaxUnixPathBytes = 107;

    /// <summary>Of TCP, resolved; null for a Unix socket.</summary>
    internal IPEndPoint? EndPoint { get; private init; }

    private const string Forms = "use unix:PATH, tcp:HOST:PORT or fd:NAME";

    /// <summary>Reads and checks an address; resolves a host name.</summary>
    /// <exception cref="CbdException">What is wrong with it, and what to use.</exception>
    internal static NbdAddress Parse(string text, bool insecure)
    {
        if (text.StartsWith("unix:", StringComparison.Ordinal))
            return ParseUnix(text, text["unix:".Length..]);
        if (text.StartsWith("tcp:", StringComparison.Ordinal))
            return ParseTcp(text, text["tcp:".Length..], insecure);
        throw new CbdException(CbdErrorKind.Invalid, $"NBD address '{text}' is neither unix: nor tcp: nor fd:; {Forms}");
    }

    /// <summary>
    /// What a client connects to (doc/uri.md of the Network Block Device project); <paramref name="port"/> is the one that
    /// was bound.
    /// </summary>
    internal string ToUri(int port, bool withTls)
    {
        string scheme = withTls ? "nbds" : "nbd";
        return UnixPath is null ? $"{scheme}://{Host}:{port}" : $"{scheme}+unix:///?socket={EscapePath(UnixPath)}";
    }

    /// <summary>The address of a socket that is bound already.</summary>
    /// <exception cref="CbdException">It is TCP, not loopback, and insecure.</exception>
    internal static NbdAddress Of(SocketPlace place, string text, bool insecure)
    {
        if (place.Address is not { } tcp)
            return new NbdAddress(text, place.UnixPath, "", []);
        CheckLoopback(text, tcp, insecure);
        string host = tcp.AddressFamily == AddressFamily.InterNetworkV6 ? $"[{tcp.Address}]" : $"{tcp.Address}";
        return new NbdAddress(text, null, host, []);
    }

    private static NbdAddress ParseUnix(string text, string path)
    {
        if (path.Length == 0 || path.Contains('\0'))
            throw new CbdException(CbdErrorKind.Invalid, $"NBD address '{text.Replace('\0', '?')}' has no path of a socket; use unix:PATH");
        string fullPath = PathText.FromCaller(path);
        int length = Encoding.UTF8.GetByteCount(fullPath);
        if (length > MaxUnixPathBytes)
        {
            throw new CbdException(
                CbdErrorKind.Invalid,
                $"socket path '{fullPath}' has {length} bytes and the kernel takes {MaxUnixPathBytes}; use a shorter one");
        }

        return new NbdAddress(text, fullPath, "", Serialize(new UnixDomainSocketEndPoint(fullPath)));
    }

    private static NbdAddress ParseTcp(string text, string rest, bool insecure)
    {
        int colon = rest.LastIndexOf(':');
        string host = colon < 0 ? "" : rest[..colon];
        bool bracketed = host.Length > 2 && host[0] == '[' && host[^1] == ']';
        if (host.Length == 0 || (!bracketed && host.Contains(':')))
            throw new CbdException(CbdErrorKind.Invalid, $"NBD address '{text}' has no host and port; use tcp:HOST:PORT, with brackets around an IPv6 host");
        if (!ushort.TryParse(rest[(colon + 1)..], System.Globalization.NumberStyles.None, null, out ushort port))
            throw new CbdException(CbdErrorKind.Invalid, $"NBD address '{text}' has port '{rest[(colon + 1)..]}'; use a number from 0 (any free port) to 65535");

        IPAddress address = Resolve(text, bracketed ? host[1..^1] : host);
        CheckLoopback(text, new IPEndPoint(address, port), insecure);
        var endPoint = new IPEndPoint(address, port);
        return new NbdAddress(text, null, host, Serialize(endPoint)) { EndPoint = endPoint };
    }

    private static void CheckLoopback(string text, IPEndPoint address, bool insecure)
    {
        if (insecure || IPAddress.IsLoopback(address.Address))
            return;
        throw new CbdException(
            CbdErrorKind.Denied,
            $"NBD address '{text}' is not loopback, and NBD without required TLS has neither encryption nor passwords: anyone who reaches it can read and write the device; use --tls require, tcp:127.0.0.1:{address.Port}, or --insecure if the network is trusted");
    }

    private static IPAddress Resolve(string text, string host)
    {
        if (IPAddress.TryParse(host, out IPAddress? literal))
            return literal;
        try
        {
            IPAddress[] found = Dns.GetHostAddresses(host);
            return Array.Find(found, address => address.AddressFamily == AddressFamily.InterNetwork)
                ?? Array.Find(found, address => address.AddressFamily == AddressFamily.InterNetworkV6)
                ?? throw new CbdException(CbdErrorKind.NotFound, $"host '{host}' of NBD address '{text}' has no address; use one of this machine's addresses");
        }
        catch (Exception error) when (error is SocketException or ArgumentException)
        {
            throw new CbdException(CbdErrorKind.NotFound, $"host '{host}' of NBD address '{text}' is unknown ({error.Message}); use one of this machine's addresses", error);
        }
    }

    private static byte[] Serialize(EndPoint endpoint)
    {
        SocketAddress native = endpoint.Serialize();
        return native.Buffer.Span[..native.Size].ToArray();
    }

    private static string EscapePath(string path) => Uri.EscapeDataString(path).Replace("%2F", "/", StringComparison.Ordinal);
}
