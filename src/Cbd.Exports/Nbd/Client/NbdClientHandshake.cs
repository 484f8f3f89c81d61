using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text;
using Cbd.Memory;

namespace Cbd.Exports.Nbd.Client;

/// <summary>The client's side of a fixed-newstyle handshake, over a blocking socket.</summary>
internal static class NbdClientHandshake
{
    /// <summary>How long each answer of the server may take, unless told otherwise.</summary>
    internal const int TimeoutMs = 10_000;

    private const int MaxReplyBytes = 64 << 10;

    /// <summary>Connects, and negotiates simple replies with NBD_OPT_GO; the socket is ready for requests then.</summary>
    /// <exception cref="CbdException">Nobody listens, or the server speaks otherwise.</exception>
    internal static (Socket Socket, NbdExportInfo Info) Connect(NbdUri uri, int timeoutMs = TimeoutMs)
    {
        ProtocolType protocol = uri.Address is UnixDomainSocketEndPoint ? ProtocolType.Unspecified : ProtocolType.Tcp;
        var socket = protocol == ProtocolType.Tcp
            ? new Socket(SocketType.Stream, protocol) { NoDelay = true }
            : new Socket(AddressFamily.Unix, SocketType.Stream, protocol);
        try
        {
            socket.ReceiveTimeout = socket.SendTimeout = timeoutMs;
            socket.Connect(uri.Address);
            return (socket, Negotiate(socket, uri));
        }
        catch (SocketException error)
        {
            socket.Dispose();
            // .NET has no error of its own for a path that is not there.
            throw uri.Address is UnixDomainSocketEndPoint path && !File.Exists($"{path}")
                ? new CbdException(CbdErrorKind.Failed, $"NBD server {uri.Text}: there is no socket '{path}': start the server, or correct the path (dev-list shows those of cbdd)", error)
                : new CbdException(CbdErrorKind.Failed, $"NBD server {uri.Text}: {error.Message}", error);
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    private static NbdExportInfo Negotiate(Socket socket, NbdUri uri)
    {
        byte[] greeting = Receive(socket, 18, uri);
        if (BinaryPrimitives.ReadUInt64BigEndian(greeting) != NbdProtocol.GreetingMagic ||
            BinaryPrimitives.ReadUInt64BigEndian(greeting.AsSpan(8)) != NbdProtocol.OptionMagic)
            throw Wrong(uri, "it does not greet as a newstyle NBD server");
        var server = (NbdHandshakeFlags)BinaryPrimitives.ReadUInt16BigEndian(greeting.AsSpan(16));
        if ((server & NbdHandshakeFlags.FixedNewstyle) == 0)
            throw Wrong(uri, "it has no fixed newstyle handshake");
        var client = NbdClientFlags.FixedNewstyle | ((server & NbdHandshakeFlags.NoZeroes) != 0 ? NbdClientFlags.NoZeroes : 0);
        byte[] name = Encoding.UTF8.GetBytes(uri.ExportName);
        byte[] request = new byte[4 + 16 + 4 + name.Length + 2 + 2];
        Span<byte> bytes = request;
        BinaryPrimitives.WriteUInt32BigEndian(bytes, (uint)client);
        BinaryPrimitives.WriteUInt64BigEndian(bytes[4..], NbdProtocol.OptionMagic);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[12..], (uint)NbdOption.Go);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[16..], (uint)(4 + name.Length + 4));
        BinaryPrimitives.WriteUInt32BigEndian(bytes[20..], (uint)name.Length);
        name.CopyTo(bytes[24..]);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[(24 + name.Length)..], 1);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[(26 + name.Length)..], (ushort)NbdInfo.BlockSize);
        for (int sent = 0; sent < request.Length;)
            sent += socket.Send(request.AsSpan(sent));
        return ReceiveInfo(socket, uri);
    }

    private static NbdExportInfo ReceiveInfo(Socket socket, NbdUri uri)
    {
        var info = new NbdExportInfo(0, 0, 1, 4096, NbdExportInfo.MaxPayloadBytes);
        while (true)
        {
            byte[] header = Receive(socket, 20, uri);
            if (BinaryPrimitives.ReadUInt64BigEndian(header) != NbdProtocol.OptionReplyMagic)
                throw Wrong(uri, "it does not answer as the protocol says");
            var kind = (NbdOptionReply)BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(12));
            uint length = BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(16));
            if (length > MaxReplyBytes)
                throw Wrong(uri, $"it answers an option with {length} bytes");
            byte[] data = Receive(socket, (int)length, uri);
            if (kind == NbdOptionReply.Ack)
                return info.SizeBytes > 0 ? info : throw Wrong(uri, "it told no size");
            if (kind != NbdOptionReply.Info)
                throw Wrong(uri, $"it refuses export '{uri.ExportName}' (0x{(uint)kind:x8} {Encoding.UTF8.GetString(data)})");
            if (data.Length < 2)
                continue;
            switch ((NbdInfo)BinaryPrimitives.ReadUInt16BigEndian(data))
            {
                case NbdInfo.Export when data.Length == 12:
                    info = info with
                    {
                        SizeBytes = BinaryPrimitives.ReadUInt64BigEndian(data.AsSpan(2)),
                        Flags = (NbdTransmissionFlags)BinaryPrimitives.ReadUInt16BigEndian(data.AsSpan(10)),
                    };
                    break;
                case NbdInfo.BlockSize when data.Length == 14:
                    info = info with
                    {
                        MinBlockBytes = BinaryPrimitives.ReadUInt32BigEndian(data.AsSpan(2)),
                        PreferredBlockBytes = BinaryPrimitives.ReadUInt32BigEndian(data.AsSpan(6)),
                        MaxBlockBytes = BinaryPrimitives.ReadUInt32BigEndian(data.AsSpan(10)),
                    };
                    break;
            }
        }
    }

    private static byte[] Receive(Socket socket, int count, NbdUri uri)
    {
        byte[] bytes = new byte[count];
        for (int received = 0; received < count;)
        {
            int more = socket.Receive(bytes.AsSpan(received));
            if (more == 0)
                throw Wrong(uri, "it ended the connection during the handshake");
            received += more;
        }

        return bytes;
    }

    private static CbdException Wrong(NbdUri uri, string why) => new(CbdErrorKind.Failed, $"NBD server {uri.Text}: {why}");
}
