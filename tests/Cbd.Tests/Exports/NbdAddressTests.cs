using System.Net;
using System.Net.Sockets;
using Cbd.Exports.Nbd;
using Cbd.Memory;
using Cbd.Host;
using Xunit;

namespace Cbd.Tests.Exports;

[System.Runtime.Versioning.SupportedOSPlatform("linux")]
public sealed class NbdAddressTests : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("cbd-nbd-").FullName;

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    private string SocketPath => Path.Combine(_directory, "a b%.sock");

    [Theory]
    [InlineData("", CbdErrorKind.Invalid, "neither unix: nor tcp:")]
    [InlineData("/run/s", CbdErrorKind.Invalid, "'/run/s'")]
    [InlineData("unix:", CbdErrorKind.Invalid, "unix:PATH")]
    [InlineData("unix:/nowhere-at-all/s", CbdErrorKind.NotFound, "directory of socket '/nowhere-at-all/s'")]
    [InlineData("tcp:", CbdErrorKind.Invalid, "tcp:HOST:PORT")]
    [InlineData("tcp:localhost", CbdErrorKind.Invalid, "tcp:HOST:PORT")]
    [InlineData("tcp:::1:10809", CbdErrorKind.Invalid, "brackets")]
    [InlineData("tcp:127.0.0.1:65536", CbdErrorKind.Invalid, "'65536'")]
    [InlineData("tcp:127.0.0.1:-1", CbdErrorKind.Invalid, "'-1'")]
    [InlineData("tcp:127.0.0.1:", CbdErrorKind.Invalid, "''")]
    [InlineData("tcp:0.0.0.0:10809", CbdErrorKind.Denied, "--insecure")]
    [InlineData("tcp:[::]:10809", CbdErrorKind.Denied, "tcp:[::]:10809")]
    [InlineData("tcp:203.0.113.7:10809", CbdErrorKind.Denied, "loopback")]
    public void A_bad_address_is_refused_with_its_value_and_a_remedy(string address, CbdErrorKind kind, string words)
    {
        var error = Assert.Throws<CbdException>(() => new NbdExportFactory().Open(address, insecure: false));
        Assert.Equal(kind, error.Kind);
        Assert.Contains(words, error.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', error.Message);
    }

    [Fact]
    public void An_address_of_no_interface_of_this_machine_is_refused()
    {
        var error = Assert.Throws<CbdException>(() => new NbdExportFactory().Open("tcp:203.0.113.7:10809", insecure: true));
        Assert.Equal(CbdErrorKind.NotFound, error.Kind);
    }

    [Fact]
    public void A_path_is_taken_up_to_the_length_that_the_kernel_takes()
    {
        string longest = Path.Combine(_directory, new string('x', NbdAddress.MaxUnixPathBytes - _directory.Length - 1));
        using (new NbdExportFactory().Open("unix:" + longest, insecure: false))
            Assert.True(File.Exists(longest));
        var error = Assert.Throws<CbdException>(() => new NbdExportFactory().Open("unix:" + longest + "y", insecure: false));
        Assert.Contains("108 bytes", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_socket_is_the_owners_alone_and_its_uri_is_escaped()
    {
        using IExport export = new NbdExportFactory().Open("unix:" + SocketPath, insecure: false);
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(SocketPath));
        Assert.Equal($"nbd+unix:///?socket={_directory}/a%20b%25.sock", export.Uri);
        Assert.Equal(0, export.ClientCount);
    }

    [Fact]
    public void A_stale_socket_is_replaced_and_a_live_one_is_not()
    {
        using (var dead = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified))
        {
            dead.Bind(new UnixDomainSocketEndPoint(SocketPath));
            dead.Listen();
            var busy = Assert.Throws<CbdException>(() => new NbdExportFactory().Open("unix:" + SocketPath, insecure: false));
            Assert.Equal(CbdErrorKind.Busy, busy.Kind);
            Assert.Contains(SocketPath, busy.Message, StringComparison.Ordinal);
            // .NET removes the file of a socket that it closes; a process that is killed does not.
            File.Move(SocketPath, SocketPath + "x");
        }

        File.Move(SocketPath + "x", SocketPath);
        using (new NbdExportFactory().Open("unix:" + SocketPath, insecure: false))
            Assert.True(File.Exists(SocketPath));
        Assert.False(File.Exists(SocketPath));
    }

    [Fact]
    public void A_file_that_is_no_socket_stays()
    {
        File.WriteAllText(SocketPath, "precious");
        var error = Assert.Throws<CbdException>(() => new NbdExportFactory().Open("unix:" + SocketPath, insecure: false));
        Assert.Contains("not a socket", error.Message, StringComparison.Ordinal);
        Assert.Equal("precious", File.ReadAllText(SocketPath));
    }

    [Fact]
    public void A_socket_that_somebody_put_in_our_place_stays()
    {
        using IExport export = new NbdExportFactory().Open("unix:" + SocketPath, insecure: false);
        File.Delete(SocketPath);
        using IExport successor = new NbdExportFactory().Open("unix:" + SocketPath, insecure: false);
        export.Dispose();
        Assert.True(File.Exists(SocketPath));
    }

    [Theory]
    [InlineData("127.0.0.1")]
    [InlineData("localhost")]
    [InlineData("[::1]")]
    public void Tcp_serves_on_loopback_and_a_port_in_use_is_named(string host)
    {
        if (host == "[::1]" && !Socket.OSSupportsIPv6)
            Assert.Skip("this machine has no IPv6");
        using var device = TestDevice.OfSize(1 << 20);
        using IExport export = new NbdExportFactory().Open($"tcp:{host}:0", insecure: false);
        export.Serve(device, 1, PollMode.Adaptive);
        Assert.StartsWith($"nbd://{host}:", export.Uri, StringComparison.Ordinal);
        int port = new Uri(export.Uri).Port;
        var error = Assert.Throws<CbdException>(() => new NbdExportFactory().Open($"tcp:{host}:{port}", insecure: false));
        Assert.Equal(CbdErrorKind.Busy, error.Kind);
        Assert.Contains($"tcp:{host}:{port}", error.Message, StringComparison.Ordinal);
        using var client = new TcpClient(host == "[::1]" ? AddressFamily.InterNetworkV6 : AddressFamily.InterNetwork);
        client.Connect(host == "[::1]" ? IPAddress.IPv6Loopback : IPAddress.Loopback, port);
        byte[] greeting = new byte[18];
        client.GetStream().ReadExactly(greeting);
        Assert.Equal("NBDMAGIC"u8, greeting.AsSpan(0, 8));
    }

    [Fact]
    public void Clients_wait_until_it_serves()
    {
        using var device = TestDevice.OfSize(1 << 20);
        using IExport export = new NbdExportFactory().Open("unix:" + SocketPath, new SocketOptions { HandshakeSeconds = 300 });
        using var client = new NbdTestClient(SocketPath);
        export.Serve(device, 1, PollMode.Adaptive);
        client.Greet();
    }
}
