using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text;
using Cbd.Exports.Nbd;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>A client that speaks NBD byte by byte, also wrongly. Every wait is bounded.</summary>
internal sealed class NbdTestClient : IDisposable
{
    private readonly Socket _socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);

    internal NbdTestClient(string path)
    {
        _socket.ReceiveTimeout = 20_000;
        _socket.SendTimeout = 20_000;
        _socket.Connect(new UnixDomainSocketEndPoint(path));
    }

    /// <summary>A client whose handshake is over.</summary>
    internal static NbdTestClient Go(string path)
    {
        var client = new NbdTestClient(path);
        client.Greet();
        client.SendOption(NbdOption.Go, [0, 0, 0, 0, 0, 0]);
        while (client.ReadOptionReply().Reply != NbdOptionReply.Ack)
        {
        }

        return client;
    }

    internal void Greet(uint clientFlags = 3)
    {
        byte[] greeting = Read(18);
        Assert.Equal("NBDMAGICIHAVEOPT", Encoding.ASCII.GetString(greeting[..16]));
        Assert.Equal(3, BinaryPrimitives.ReadUInt16BigEndian(greeting.AsSpan(16)));
        byte[] flags = new byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(flags, clientFlags);
        Send(flags);
    }

    internal void SendOption(NbdOption option, ReadOnlySpan<byte> data, uint? length = null)
    {
        byte[] bytes = new byte[16 + data.Length];
        BinaryPrimitives.WriteUInt64BigEndian(bytes, NbdProtocol.OptionMagic);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(8), (uint)option);
        BinaryPrimitives.WriteUInt32BigEndian(bytes.AsSpan(12), length ?? (uint)data.Length);
        data.CopyTo(bytes.AsSpan(16));
        Send(bytes);
    }

    internal (NbdOption Option, NbdOptionReply Reply, byte[] Data) ReadOptionReply()
    {
        byte[] header = Read(20);
        Assert.Equal(NbdProtocol.OptionReplyMagic, BinaryPrimitives.ReadUInt64BigEndian(header));
        return (
            (NbdOption)BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(8)),
            (NbdOptionReply)BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(12)),
            Read(BinaryPrimitives.ReadInt32BigEndian(header.AsSpan(16))));
    }

    internal void SendRequest(
        NbdCommand command, ulong handle, long offset, uint length, NbdCommandFlags flags = 0, ReadOnlySpan<byte> payload = default,
        uint magic = NbdProtocol.RequestMagic)
    {
        byte[] bytes = new byte[NbdProtocol.RequestBytes + payload.Length];
        new NbdRequestHeader(magic, flags, command, handle, (ulong)offset, length).Encode(bytes);
        payload.CopyTo(bytes.AsSpan(NbdProtocol.RequestBytes));
        Send(bytes);
    }

    internal (NbdError Error, ulong Handle) ReadReply()
    {
        byte[] bytes = Read(NbdProtocol.SimpleReplyBytes);
        Assert.Equal(NbdProtocol.SimpleReplyMagic, BinaryPrimitives.ReadUInt32BigEndian(bytes));
        return ((NbdError)BinaryPrimitives.ReadUInt32BigEndian(bytes.AsSpan(4)), BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(8)));
    }

    /// <summary>Sends one request and returns the error of its reply.</summary>
    internal NbdError Do(NbdCommand command, long offset, uint length, NbdCommandFlags flags = 0, ReadOnlySpan<byte> payload = default)
    {
        SendRequest(command, 0x1122334455667788, offset, length, flags, payload);
        (NbdError error, ulong handle) = ReadReply();
        Assert.Equal(0x1122334455667788UL, handle);
        return error;
    }

    internal NbdError Write(long offset, ReadOnlySpan<byte> payload, NbdCommandFlags flags = 0) =>
        Do(NbdCommand.Write, offset, (uint)payload.Length, flags, payload);

    internal byte[] ReadBlocks(long offset, int length)
    {
        Assert.Equal(NbdError.None, Do(NbdCommand.Read, offset, (uint)length));
        return Read(length);
    }

    internal void Send(ReadOnlySpan<byte> bytes)
    {
        while (bytes.Length != 0)
            bytes = bytes[_socket.Send(bytes)..];
    }

    internal byte[] Read(int count)
    {
        byte[] bytes = new byte[count];
        for (int read = 0; read < count;)
        {
            int now = _socket.Receive(bytes.AsSpan(read));
            Assert.True(now > 0, $"the server closed the connection {count - read} bytes early");
            read += now;
        }

        return bytes;
    }

    /// <summary>Waits until the server has closed; what it still sent is thrown away.</summary>
    internal void ReadToEnd()
    {
        byte[] bytes = new byte[4096];
        try
        {
            while (_socket.Receive(bytes) > 0)
            {
            }
        }
        catch (SocketException error) when (error.SocketErrorCode == SocketError.ConnectionReset)
        {
        }
    }

    internal void ShutdownSend() => _socket.Shutdown(SocketShutdown.Send);

    public void Dispose() => _socket.Dispose();
}
