using System.Buffers.Binary;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography.X509Certificates;
using Cbd.Blocks;
using Cbd.Exports.Nbd;
using Cbd.Memory;
using Cbd.Memory.Store;
using Cbd.Host;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>An export with TLS and clients of .NET's own; every wait is bounded by the sockets' time-outs.</summary>
[Collection("environment of a store")]
public sealed class NbdTlsTests : IDisposable
{
    private readonly TlsFiles _files = new();
    private readonly string _directory = Directory.CreateTempSubdirectory("cbd-nbd-").FullName;
    private readonly List<string> _log = [];
    private readonly TestDevice _device = TestDevice.OfSize(8 << 20);
    private NbdExport? _export;

    private string SocketPath => Path.Combine(_directory, "s");

    public void Dispose()
    {
        _export?.Dispose();
        _device.Dispose();
        _files.Dispose();
        Directory.Delete(_directory, recursive: true);
    }

    [Fact]
    public void A_client_with_a_certificate_of_the_authority_writes_and_reads_back()
    {
        Serve(new SocketOptions { Tls = _files.Options(verifyPeer: true, "alice") });
        Assert.StartsWith("nbds+unix:///?socket=", _export!.Uri, StringComparison.Ordinal);
        using X509Certificate2 alice = _files.Sign("CN=alice");
        using SslStream client = Go(alice);
        byte[] data = new byte[1 << 20];
        new Random(1).NextBytes(data);
        Send(client, NbdCommand.Write, 1, 4096, (uint)data.Length, data);
        Assert.Equal(1UL, ReadReply(client));
        Send(client, NbdCommand.Read, 2, 4096, (uint)data.Length);
        Assert.Equal(2UL, ReadReply(client));
        byte[] back = new byte[data.Length];
        client.ReadExactly(back);
        Assert.Equal(data, back);
        Assert.Equal(1, _export.ClientCount);
        client.Dispose();
        Until(() => _export.ClientCount == 0, "the client is gone");
        Assert.Empty(_log);
    }

    [Fact]
    public void A_client_that_may_not_come_in_costs_one_line_of_the_log_and_others_go_on()
    {
        Serve(new SocketOptions { Tls = _files.Options(verifyPeer: true, "alice") });
        using X509Certificate2 alice = _files.Sign("CN=alice");
        using X509Certificate2 mallory = _files.Sign("CN=mallory");
        using SslStream good = Go(alice);
        Assert.ThrowsAny<Exception>(() => Go(mallory).Dispose());
        Until(() => Log().Contains("client 2 was disconnected: TLS: its certificate 'CN=mallory' has no name that is allowed", StringComparison.Ordinal), "the log says why");
        Assert.ThrowsAny<Exception>(() => Go(null).Dispose());
        Until(() => Log().Contains("client 3 was disconnected: TLS: it presented no certificate", StringComparison.Ordinal), "the log says why");
        Assert.Equal(2, _log.Count);
        Send(good, NbdCommand.Flush, 7, 0, 0);
        Assert.Equal(7UL, ReadReply(good));
    }

    [Fact]
    public async Task Replies_still_come_after_a_client_has_ended_its_sending_and_then_the_end_of_TLS()
    {
        Serve(new SocketOptions { Tls = _files.Options() });
        await using SslStream client = Go(null);
        for (ulong handle = 0; handle < 64; handle++)
            Send(client, NbdCommand.Read, handle, 0, 64 << 10);
        await client.ShutdownAsync();
        var seen = new HashSet<ulong>();
        byte[] data = new byte[64 << 10];
        for (int i = 0; i < 64; i++)
        {
            seen.Add(ReadReply(client));
            client.ReadExactly(data);
        }

        Assert.Equal(64, seen.Count);
        Assert.Equal(0, client.Read(data));
        Until(() => _export!.ClientCount == 0, "the client is gone");
    }

    [Fact]
    public void Stop_waits_for_ever_neither_for_one_that_reads_nothing_nor_for_one_that_never_begins_TLS()
    {
        Serve(new SocketOptions { Tls = _files.Options() }, ClientPatience.Default);
        using SslStream greedy = Go(null);
        for (ulong handle = 0; handle < 8; handle++)
            Send(greedy, NbdCommand.Read, handle, 0, 1 << 20);
        Until(() => _device.Submitted == 8, "the requests are at the device");
        using Socket silent = Connect();
        StartTls(silent);
        _export!.Stop(force: false);
        Assert.Equal(0, _device.OpenQueues);
        Assert.Equal(0, ReadToEnd(silent));
    }

    [Fact]
    public void A_client_that_is_killed_while_much_is_under_way_leaves_nothing()
    {
        Serve(new SocketOptions { Tls = _files.Options() });
        for (int round = 0; round < 8; round++)
        {
            using Socket socket = Connect();
            StartTls(socket);
            using SslStream client = Authenticate(socket, null);
            Negotiate(client);
            for (ulong handle = 0; handle < 32; handle++)
                Send(client, NbdCommand.Read, handle, 0, 1 << 20);
            socket.Close(0);
        }

        Until(() => _export!.ClientCount == 0, "all are gone");
        using SslStream next = Go(null);
        Send(next, NbdCommand.Flush, 7, 0, 0);
        Assert.Equal(7UL, ReadReply(next));
    }

    [Fact]
    public void A_handshake_of_TLS_that_takes_too_long_ends_and_so_does_one_of_NBD_within_it()
    {
        Serve(new SocketOptions { Tls = _files.Options(), HandshakeSeconds = 1 });
        // On a busy machine they may not even come as far as they want.
        using Socket silent = Connect();
        Assert.ThrowsAny<IOException>(() =>
        {
            StartTls(silent);
            using var stream = new NetworkStream(silent, ownsSocket: false);
            stream.ReadExactly(new byte[1]);
        });
        using Socket socket = Connect();
        Assert.ThrowsAny<IOException>(() =>
        {
            StartTls(socket);
            using SslStream idle = Authenticate(socket, null);
            idle.ReadExactly(new byte[1]);
        });
        // Whoever is dropped learns it before the log does.
        Until(() => Log().Split("its handshake took longer than 1 s").Length - 1 == 2, "both are in the log");
    }

    [Fact]
    public void No_more_clients_are_let_in_than_the_limit_and_a_place_is_free_again_after_one_is_gone()
    {
        Serve(new SocketOptions { Tls = _files.Options(), Connections = 2 });
        using SslStream first = Go(null);
        using SslStream second = Go(null);
        using (Socket third = Connect())
            Assert.Equal(0, ReadToEnd(third));
        Assert.Contains("2 are connected, which is the limit", Log(), StringComparison.Ordinal);
        first.Dispose();
        Until(() => _export!.ClientCount == 1, "the first is gone");
        using SslStream fourth = Go(null);
        Send(fourth, NbdCommand.Flush, 7, 0, 0);
        Assert.Equal(7UL, ReadReply(fourth));
    }

    [Fact]
    public void Files_that_are_renewed_are_used_for_the_next_client()
    {
        Serve(new SocketOptions { Tls = _files.Options() });
        using (SslStream client = Go(null))
            Assert.Equal("CN=server", client.RemoteCertificate!.Subject);
        using (X509Certificate2 renewed = _files.Sign("CN=renewed"))
            _files.Write(renewed, "server-cert.pem", "server-key.pem");
        using (SslStream client = Go(null))
            Assert.Equal("CN=renewed", client.RemoteCertificate!.Subject);
        File.WriteAllText(_files.InDirectory("server-key.pem"), "nothing");
        using (SslStream client = Go(null))
            Assert.Equal("CN=renewed", client.RemoteCertificate!.Subject);
        Assert.Contains("until then the files that were read before are in use", Log(), StringComparison.Ordinal);
    }

    [Fact]
    public void Off_loopback_required_TLS_stands_for_insecure_and_offered_TLS_does_not()
    {
        var factory = new NbdExportFactory();
        using (IExport export = factory.Open("tcp:0.0.0.0:0", new SocketOptions { Tls = _files.Options() }))
            Assert.StartsWith("nbds://0.0.0.0:", export.Uri, StringComparison.Ordinal);
        var error = Assert.Throws<CbdException>(() => factory.Open("tcp:0.0.0.0:0", new SocketOptions { Tls = _files.Options() with { Require = false } }));
        Assert.Equal(CbdErrorKind.Denied, error.Kind);
    }

    /// <summary>Not before its requests are answered, and with the end of TLS, so that it connects again.</summary>
    [Fact]
    public async Task Clients_end_between_requests_when_others_are_handed_over()
    {
        using var store = new NbdTestStore();
        using KeptSockets kept = store.NextProcess(_log.Add);
        Serve(new SocketOptions { Tls = _files.Options() with { Require = false } }, NbdTestServer.Endless with { ParkMs = 120_000 }, kept);
        _export!.KeepFor("vm");
        await using SslStream client = Go(null);
        using NbdTestClient plain = NbdTestClient.Go(SocketPath);
        _device.Held = true;
        for (ulong handle = 0; handle < 64; handle++)
            Send(client, NbdCommand.Read, handle, 0, 64 << 10);
        Until(() => _device.Submitted == 64, "all are at the device");
        // The beginning of another request.
        await client.WriteAsync(new byte[10], TestContext.Current.CancellationToken);
        Task<bool> parking = Task.Run(_export.TryPark, TestContext.Current.CancellationToken);
        await Task.Delay(100, TestContext.Current.CancellationToken);
        Assert.False(parking.IsCompleted);
        _device.Held = false;
        var seen = new HashSet<ulong>();
        byte[] data = new byte[64 << 10];
        for (int i = 0; i < 64; i++)
        {
            Assert.True(seen.Add(ReadReply(client)));
            client.ReadExactly(data);
        }

        Assert.Equal(0, await client.ReadAsync(data, TestContext.Current.CancellationToken));
        Assert.True(await parking);
        Assert.Equal(1, store.Connections);
        Assert.DoesNotContain("disconnected", Log(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Nothing_is_begun_while_clients_are_handed_over()
    {
        using var store = new NbdTestStore();
        using KeptSockets kept = store.NextProcess(_log.Add);
        Serve(new SocketOptions { Tls = _files.Options() with { Require = false } }, NbdTestServer.Endless with { ParkMs = 120_000 }, kept);
        _export!.KeepFor("vm");
        await using SslStream client = Go(null);
        using NbdTestClient plain = NbdTestClient.Go(SocketPath);
        _device.Held = true;
        plain.SendRequest(NbdCommand.Flush, 1, 0, 0);
        Until(() => _device.Submitted == 1, "it is at the device");
        Task<bool> parking = Task.Run(_export.TryPark, TestContext.Current.CancellationToken);
        // The end of this one says that the thread of both has begun to park.
        Assert.Equal(0, await client.ReadAsync(new byte[1], TestContext.Current.CancellationToken));
        plain.SendRequest(NbdCommand.Flush, 2, 0, 0);
        await Task.Delay(200, TestContext.Current.CancellationToken);
        _device.Held = false;
        Assert.Equal((NbdError.None, 1UL), plain.ReadReply());
        Assert.True(await parking);
        Assert.Equal((1, 1), (_device.Submitted, store.Connections));
    }

    /// <summary>Time is what one test is about; to the others a busy machine must not matter.</summary>
    private void Serve(SocketOptions options, ClientPatience? patience = null, KeptSockets? kept = null)
    {
        if (options.HandshakeSeconds == SocketOptions.DefaultHandshakeSeconds)
            options = options with { HandshakeSeconds = 300 };
        _export = new NbdExportFactory(message =>
        {
            lock (_log)
                _log.Add(message);
        }, kept: kept)
        {
            Patience = patience ?? NbdTestServer.Endless,
        }.OpenNbd("unix:" + SocketPath, options);
        _export.Serve(_device, 1, PollMode.Adaptive);
    }

    private string Log()
    {
        lock (_log)
            return string.Join('\n', _log);
    }

    private static void Until(Func<bool> condition, string what) => NbdTestServer.Until(condition, what);

    private Socket Connect()
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = 120_000, SendTimeout = 120_000 };
        socket.Connect(new UnixDomainSocketEndPoint(SocketPath));
        return socket;
    }

    private static void StartTls(Socket socket)
    {
        using var stream = new NetworkStream(socket, ownsSocket: false);
        stream.ReadExactly(new byte[18]);
        stream.Write([0, 0, 0, 3]);
        SendOption(stream, NbdOption.StartTls, []);
        byte[] reply = new byte[20];
        stream.ReadExactly(reply);
        Assert.Equal(NbdOptionReply.Ack, (NbdOptionReply)BinaryPrimitives.ReadUInt32BigEndian(reply.AsSpan(12)));
    }

    private SslStream Authenticate(Socket socket, X509Certificate2? certificate)
    {
        var stream = new SslStream(new NetworkStream(socket, ownsSocket: true));
        var policy = new X509ChainPolicy { TrustMode = X509ChainTrustMode.CustomRootTrust, RevocationMode = X509RevocationMode.NoCheck };
        policy.CustomTrustStore.Add(_files.Authority);
        stream.AuthenticateAsClient(new SslClientAuthenticationOptions
        {
            TargetHost = "",
            CertificateChainPolicy = policy,
            ClientCertificates = certificate is null ? null : [certificate],
            RemoteCertificateValidationCallback = (_, _, _, errors) => (errors & ~SslPolicyErrors.RemoteCertificateNameMismatch) == 0,
        });
        return stream;
    }

    private static void Negotiate(SslStream stream)
    {
        SendOption(stream, NbdOption.Go, [0, 0, 0, 0, 0, 0]);
        byte[] header = new byte[20];
        do
        {
            stream.ReadExactly(header);
            stream.ReadExactly(new byte[BinaryPrimitives.ReadInt32BigEndian(header.AsSpan(16))]);
        }
        while ((NbdOptionReply)BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(12)) == NbdOptionReply.Info);
        Assert.Equal(NbdOptionReply.Ack, (NbdOptionReply)BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(12)));
    }

    private SslStream Go(X509Certificate2? certificate)
    {
        Socket socket = Connect();
        StartTls(socket);
        SslStream stream = Authenticate(socket, certificate);
        Negotiate(stream);
        return stream;
    }

    private static void SendOption(Stream stream, NbdOption option, byte[] data)
    {
        byte[] bytes = new byte[16 + data.Length];
        BinaryPrimitives.WriteUInt64BigEndian(bytes, NbdProtocol.OptionMagic);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(8), (uint)option);
        BinaryPrimitives.WriteInt32BigEndian(bytes.AsSpan(12), data.Length);
        data.CopyTo(bytes, 16);
        stream.Write(bytes);
    }

    private static void Send(SslStream stream, NbdCommand command, ulong handle, long offset, uint length, byte[]? payload = null)
    {
        byte[] bytes = new byte[28 + (payload?.Length ?? 0)];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, NbdProtocol.RequestMagic);
        BinaryPrimitives.WriteUInt16BigEndian(bytes.AsSpan(6), (ushort)command);
        BinaryPrimitives.WriteUInt64BigEndian(bytes.AsSpan(8), handle);
        BinaryPrimitives.WriteInt64BigEndian(bytes.AsSpan(16), offset);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(24), length);
        payload?.CopyTo(bytes, 28);
        stream.Write(bytes);
    }

    private static ulong ReadReply(SslStream stream)
    {
        byte[] reply = new byte[16];
        stream.ReadExactly(reply);
        Assert.Equal(NbdProtocol.SimpleReplyMagic, BinaryPrimitives.ReadUInt32BigEndian(reply));
        Assert.Equal(0U, BinaryPrimitives.ReadUInt32BigEndian(reply.AsSpan(4)));
        return BinaryPrimitives.ReadUInt64BigEndian(reply.AsSpan(8));
    }

    private static int ReadToEnd(Socket socket)
    {
        try
        {
            return socket.Receive(new byte[4096]);
        }
        catch (SocketException error) when (error.SocketErrorCode == SocketError.ConnectionReset)
        {
            return 0;
        }
    }
}
