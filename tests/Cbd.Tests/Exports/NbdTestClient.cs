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
        _socket.ReceiveTimeout = 180_000;
        _socket.SendTimeout = 180_000;
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

    /// <summary>A client that negotiated these before GO.</summary>
    internal static NbdTestClient Go(string path, NbdSession session)
    {
        var client = new NbdTestClient(path);
        client.Greet();
        client.Negotiate(session);
        client.SendOption(NbdOption.Go, [0, 0, 0, 0, 0, 0]);
        while (client.ReadOptionReply().Reply != NbdOptionReply.Ack)
        {
        }

        return client;
    }

    /// <summary>What requests and replies look like from now on.</summary>
    internal NbdSession Session { get; private set; }

    internal void Negotiate(NbdSession session)
    {
        if (session.StructuredReplies)
            Acknowledged(NbdOption.StructuredReply, []);
        if (session.ExtendedHeaders)
            Acknowledged(NbdOption.ExtendedHeaders, []);
        if (session.HasAllocation)
            Assert.Equal(["base:allocation"], Contexts(NbdOption.SetMetaContext, "base:allocation"));
        Session = session;
    }

    internal void Acknowledged(NbdOption option, ReadOnlySpan<byte> data)
    {
        SendOption(option, data);
        (NbdOption answered, NbdOptionReply reply, byte[] rest) = ReadOptionReply();
        Assert.Equal((option, NbdOptionReply.Ack, 0), (answered, reply, rest.Length));
    }

    /// <summary>The contexts that a query finds.</summary>
    internal List<string> Contexts(NbdOption option, params string[] queries)
    {
        SendOption(option, ContextQuery("", queries));
        var found = new List<string>();
        while (true)
        {
            (NbdOption answered, NbdOptionReply reply, byte[] data) = ReadOptionReply();
            Assert.Equal(option, answered);
            if (reply == NbdOptionReply.Ack)
                return found;
            Assert.Equal(NbdOptionReply.MetaContext, reply);
            found.Add(Encoding.UTF8.GetString(data[4..]));
        }
    }

    internal static byte[] ContextQuery(string export, params string[] queries)
    {
        var bytes = new List<byte>();
        AddText(bytes, export);
        bytes.AddRange(BigEndian(queries.Length));
        foreach (string query in queries)
            AddText(bytes, query);
        return [.. bytes];
    }

    private static void AddText(List<byte> bytes, string text)
    {
        bytes.AddRange(BigEndian(text.Length));
        bytes.AddRange(Encoding.ASCII.GetBytes(text));
    }

    private static byte[] BigEndian(int value)
    {
        byte[] bytes = new byte[4];
        BinaryPrimitives.WriteInt32BigEndian(bytes, value);
        return bytes;
    }

    /// <summary>The next chunk of a reply: its type, whether it is the last, its handle and payload.</summary>
    internal (NbdChunk Type, bool Done, ulong Handle, ulong Offset, byte[] Payload) ReadChunk()
    {
        bool extended = Session.ExtendedHeaders;
        byte[] bytes = Read(extended ? NbdProtocol.ExtendedReplyBytes : NbdProtocol.StructuredReplyBytes);
        Assert.Equal(
            extended ? NbdProtocol.ExtendedReplyMagic : NbdProtocol.StructuredReplyMagic, BinaryPrimitives.ReadUInt32BigEndian(bytes));
        int flags = BinaryPrimitives.ReadUInt16BigEndian(bytes.AsSpan(4));
        Assert.InRange(flags, 0, 1);
        long length = extended ? BinaryPrimitives.ReadInt64BigEndian(bytes.AsSpan(24)) : BinaryPrimitives.ReadUInt32BigEndian(bytes.AsSpan(16));
        return (
            (NbdChunk)BinaryPrimitives.ReadUInt16BigEndian(bytes.AsSpan(6)),
            flags == 1,
            BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(8)),
            extended ? BinaryPrimitives.ReadUInt64BigEndian(bytes.AsSpan(16)) : 0,
            Read(checked((int)length)));
    }

    /// <summary>Sends one request and returns its only chunk.</summary>
    internal (NbdChunk Type, byte[] Payload) Ask(
        NbdCommand command, long offset, ulong length, NbdCommandFlags flags = 0, ReadOnlySpan<byte> payload = default)
    {
        SendRequest(command, 0x99, offset, length, flags, payload);
        (NbdChunk type, bool done, ulong handle, ulong echoed, byte[] data) = ReadChunk();
        Assert.True(done);
        Assert.Equal(0x99UL, handle);
        if (Session.ExtendedHeaders)
            Assert.Equal((ulong)offset, echoed);
        return (type, data);
    }

    /// <summary>Sends one request that is refused in words.</summary>
    internal NbdError Refused(NbdCommand command, long offset, ulong length, NbdCommandFlags flags = 0, ReadOnlySpan<byte> payload = default)
    {
        (NbdChunk type, byte[] data) = Ask(command, offset, length, flags, payload);
        Assert.Equal(NbdChunk.Error, type);
        Assert.Equal(data.Length - 6, BinaryPrimitives.ReadUInt16BigEndian(data.AsSpan(4)));
        Assert.NotEqual(6, data.Length);
        return (NbdError)BinaryPrimitives.ReadUInt32BigEndian(data);
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
        NbdCommand command, ulong handle, long offset, ulong length, NbdCommandFlags flags = 0, ReadOnlySpan<byte> payload = default,
        uint? magic = null)
    {
        int headerBytes = Session.ExtendedHeaders ? NbdProtocol.ExtendedRequestBytes : NbdProtocol.RequestBytes;
        byte[] bytes = new byte[headerBytes + payload.Length];
        new NbdRequestHeader(magic ?? Session.RequestMagic, flags, command, handle, (ulong)offset, length).Encode(bytes);
        payload.CopyTo(bytes.AsSpan(headerBytes));
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

    /// <summary>Most that may be sent and not received yet, about: a longer <see cref="Send"/> ends when the server has received the rest.</summary>
    internal int SendBufferBytes
    {
        set => _socket.SendBufferSize = value;
    }

    /// <summary>The server has closed, and nothing is left to be read.</summary>
    internal bool HasEnded => _socket.Poll(0, SelectMode.SelectRead) && _socket.Available == 0;

    internal void ShutdownSend() => _socket.Shutdown(SocketShutdown.Send);

    public void Dispose() => _socket.Dispose();
}
