using System.Net;
using System.Net.Sockets;
using Cbd.Exports.Nbd.Client;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>The rules and examples of doc/uri.md of the Network Block Device project.</summary>
public sealed class NbdUriTests
{
    [Theory]
    [InlineData("nbd://example.com/disk", "disk")]
    [InlineData("nbd+unix:///disk?socket=sock", "disk")]
    [InlineData("nbd://example.com/", "")]
    [InlineData("nbd://example.com", "")]
    [InlineData("nbd://example.com//disk", "/disk")]
    [InlineData("nbd://example.com/hello%20world", "hello world")]
    [InlineData("nbd+unix:///?socket=sock", "")]
    public void The_path_is_the_name_of_the_export(string uri, string name) => Assert.Equal(name, NbdUri.Parse(uri).ExportName);

    [Fact]
    public void Addresses_have_a_default_port_and_sockets_their_characters()
    {
        Assert.Equal(new IPEndPoint(IPAddress.Loopback, 10809), NbdUri.Parse("nbd://127.0.0.1/").Address);
        Assert.Equal(new IPEndPoint(IPAddress.IPv6Loopback, 99), NbdUri.Parse("nbd://[::1]:99/").Address);
        Assert.Equal(new DnsEndPoint("example.com", 1000), NbdUri.Parse("nbd://example.com:1000/x").Address);
        var socket = Assert.IsType<UnixDomainSocketEndPoint>(NbdUri.Parse("nbd+unix:///?socket=/tmp/a%20b+c").Address);
        Assert.Equal("/tmp/a b+c", socket.ToString());
    }

    [Theory]
    [InlineData("nbds://example.com/", "nbd://HOST")]
    [InlineData("http://example.com/", "nbd://HOST")]
    [InlineData("nbd+unix:///disk", "names no socket")]
    [InlineData("nbd+unix:///disk?socket=a&x-speed=9", "'x-speed=9'")]
    [InlineData("nbd+unix:///disk?socket=a&socket=b", "'socket=b'")]
    [InlineData("nbd://localhost/?socket=a", "nbd+unix")]
    [InlineData("nbd://localhost/?tls-type=x509", "'tls-type=x509'")]
    public void What_is_not_understood_is_said(string uri, string reason)
    {
        var error = Assert.Throws<CbdException>(() => NbdUri.Parse(uri));
        Assert.Equal(CbdErrorKind.Invalid, error.Kind);
        Assert.Contains(reason, error.Message, StringComparison.Ordinal);
    }
}
