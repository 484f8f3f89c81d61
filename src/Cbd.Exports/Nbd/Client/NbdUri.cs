using System.Net;
using System.Net.Sockets;
using System.Web;
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
        string name = Uri.UnescapeDataString(uri.AbsolutePath.TrimStart('/'));
        if (uri.Scheme == "nbd+unix")
        {
            string? path = HttpUtility.ParseQueryString(uri.Query)["socket"];
            if (string.IsNullOrEmpty(path))
                throw Invalid(text, "it names no socket: add ?socket=PATH");
            return new NbdUri(text, new UnixDomainSocketEndPoint(path), name);
        }

        int port = uri.Port > 0 ? uri.Port : DefaultPort;
        return IPAddress.TryParse(uri.Host.Trim('[', ']'), out IPAddress? address)
            ? new NbdUri(text, new IPEndPoint(address, port), name)
            : new NbdUri(text, new DnsEndPoint(uri.Host, port), name);
    }

    private static CbdException Invalid(string text, string why) =>
        new(CbdErrorKind.Invalid, $"NBD URI '{text}' cannot be used: {why}");
}
