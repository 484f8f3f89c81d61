using System.Net;
using System.Net.Sockets;
using Cbd.Memory;

namespace Cbd.Exports.Nbd.Client;

/// <summary>
/// Where an NBD server is and which export is meant: <c>nbd://HOST[:PORT]/NAME</c> or
/// <c>nbd+unix:///NAME?socket=PATH</c> (doc/uri.md of the Network Block Device project; without TLS).
/// </summary>
internal sealed record NbdUri(string Text, EndPoint Address, string ExportName)
{
    private const int DefaultPort = 10809;

    /// <exception cref="CbdException">It is not such a URI.</exception>
    internal static NbdUri Parse(string text)
    {
        if (!Uri.TryCreate(text, UriKind.Absolute, out Uri? uri) || uri.Scheme is not ("nbd" or "nbd+unix"))
            throw Invalid(text, "use nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH");
        // One slash separates; those behind it belong to the name.
        string name = Uri.UnescapeDataString(uri.AbsolutePath is ['/', .. var rest] ? rest : uri.AbsolutePath);
        string path = TakeSocket(text, uri.Query);
        if (uri.Scheme == "nbd+unix")
        {
            if (path.Length == 0)
                throw Invalid(text, "it names no socket: add ?socket=PATH");
            return new NbdUri(text, new UnixDomainSocketEndPoint(path), name);
        }

        if (path.Length != 0)
            throw Invalid(text, "it names a socket, which nbd:// does not have: use nbd+unix:///?socket=PATH");

        int port = uri.Port > 0 ? uri.Port : DefaultPort;
        return IPAddress.TryParse(uri.Host.Trim('[', ']'), out IPAddress? address)
            ? new NbdUri(text, new IPEndPoint(address, port), name)
            : new NbdUri(text, new DnsEndPoint(uri.Host, port), name);
    }

    /// <summary>The value of the one parameter that there is, or "".</summary>
    private static string TakeSocket(string text, string query)
    {
        string socket = "";
        foreach (string parameter in query.TrimStart('?').Split('&', StringSplitOptions.RemoveEmptyEntries))
        {
            int equals = parameter.IndexOf('=', StringComparison.Ordinal);
            string key = equals < 0 ? parameter : parameter[..equals];
            if (key != "socket" || equals < 0 || socket.Length != 0)
                throw Invalid(text, $"'{parameter}' is not understood; the only parameter is socket=PATH, once");
            socket = Uri.UnescapeDataString(parameter[(equals + 1)..]);
        }

        return socket;
    }

    private static CbdException Invalid(string text, string why) =>
        new(CbdErrorKind.Invalid, $"NBD URI '{text}' cannot be used: {why}");
}
