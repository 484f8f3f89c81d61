using System.Net.Sockets;
using Cbd.Memory.Sockets;
using Xunit;

namespace Cbd.Tests.Memory;

/// <summary>Descriptors that are taken over, and sockets that a thread per direction waits on.</summary>
public sealed class GivenSocketsTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Fact]
    public void A_listening_socket_is_taken_over_with_its_place()
    {
        string path = _directory.PathOf("s");
        // Never disposed: .NET would go on to shut down whatever has its number by then.
        var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(path));
        listener.Listen();
        int number = (int)listener.SafeHandle.DangerousGetHandle();
        using StreamSocket taken = StreamSocket.TryOwnListening(number, out string fault)!;
        listener.SafeHandle.SetHandleAsInvalid();
        Assert.Equal("", fault);
        Assert.Equal(path, taken.GetPlace()!.UnixPath);
        using StreamSocket other = taken.Duplicate();
        using var client = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        client.Connect(new UnixDomainSocketEndPoint(path));
        using StreamSocket? accepted = other.TryAccept(out _);
        Assert.NotNull(accepted);
    }

    [Theory]
    [InlineData("127.0.0.1")]
    [InlineData("::1")]
    public void The_place_of_a_TCP_socket_is_its_address_and_port(string address)
    {
        System.Net.SocketAddress native = new System.Net.IPEndPoint(System.Net.IPAddress.Parse(address), 0).Serialize();
        using StreamSocket? listener = StreamSocket.TryListen(native.Buffer.Span[..native.Size], 1, out int error);
        if (listener is null)
            Assert.Skip($"{address} cannot be bound (errno {error})");
        Assert.Equal(address, listener.GetPlace()!.Address!.Address.ToString());
        Assert.Equal(listener.GetLocalPort(), listener.GetPlace()!.Address!.Port);
    }

    [Fact]
    public void What_is_no_listening_stream_socket_is_named_and_left_alone()
    {
        using FileStream file = File.Create(_directory.PathOf("file"));
        Assert.Null(StreamSocket.TryOwnListening((int)file.SafeFileHandle.DangerousGetHandle(), out string fault));
        Assert.Equal("no socket", fault);
        file.WriteByte(1);
        using var datagrams = new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp);
        Assert.Null(StreamSocket.TryOwnListening((int)datagrams.SafeHandle.DangerousGetHandle(), out fault));
        Assert.Equal("no stream socket", fault);
        using var unconnected = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        Assert.Null(StreamSocket.TryOwnListening((int)unconnected.SafeHandle.DangerousGetHandle(), out fault));
        Assert.Equal("not listening", fault);
        Assert.Equal(SocketType.Stream, unconnected.SocketType);
    }

    [Fact]
    public async Task A_thread_that_waits_for_one_socket_finds_the_end_of_another()
    {
        (StreamSocket idle, StreamSocket idlePeer) = StreamSocket.CreateConnectedPair();
        (StreamSocket watched, StreamSocket watchedPeer) = StreamSocket.CreateConnectedPair();
        using (idle)
        using (idlePeer)
        using (watched)
        {
            // Half an end is none: what comes is found.
            watchedPeer.Shutdown(sendingOnly: true);
            Task<bool> waiting = Task.Run(() => idle.WaitReadable(watched));
            Assert.Equal(1, idlePeer.Send([1]).Count);
            Assert.True(await waiting);
            Assert.Equal(1, idle.Receive(new byte[2]).Count);
            waiting = Task.Run(() => idle.WaitReadable(watched));
            watchedPeer.Dispose();
            Assert.False(await waiting);
            await Task.Run(watched.WaitOver);
        }
    }

    [Fact]
    public async Task Shutdown_by_another_thread_ends_a_send_that_finds_no_room()
    {
        (StreamSocket sender, StreamSocket peer) = StreamSocket.CreateConnectedPair();
        using (sender)
        using (peer)
        {
            Task<int> sending = Task.Run(() => sender.SendAll(new byte[16 << 20]));
            sender.Shutdown(sendingOnly: false);
            Assert.NotEqual(0, await sending);
        }
    }
}
