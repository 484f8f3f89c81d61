using System.Net.Sockets;
using Cbd.Blocks;
using Cbd.Memory;
using Cbd.Memory.Sockets;

namespace Cbd.Exports.Nbd.Client;

/// <summary>
/// An NBD server's export as a block device: one connection for each queue, simple replies, no TLS. For measuring and
/// testing; a server that breaks the protocol fails the queue.
/// </summary>
internal sealed class NbdClientDevice : IBlockDevice
{
    private const int PeerCredentials = 17;
    private const int LevelSocket = 1;

    private readonly NbdUri _uri;
    private readonly int _timeoutMs;
    private readonly NbdExportInfo _export;
    private Socket? _first;

    private NbdClientDevice(NbdUri uri, int timeoutMs, Socket first, NbdExportInfo export)
    {
        _uri = uri;
        _timeoutMs = timeoutMs;
        _first = first;
        _export = export;
        if (uri.Address is UnixDomainSocketEndPoint)
            ServerProcess = ReadServerProcess(first);
        int block = export.MinBlockBytes <= 512 ? 512 : (int)Math.Min(export.MinBlockBytes, 1 << 20);
        Info = new BlockDeviceInfo
        {
            SizeBytes = (long)Math.Min(export.SizeBytes, long.MaxValue) / block * block,
            LogicalBlockBytes = block,
            ReadOnly = (export.Flags & NbdTransmissionFlags.ReadOnly) != 0,
            CanDiscard = (export.Flags & NbdTransmissionFlags.SendTrim) != 0,
            CanZeroFast = (export.Flags & NbdTransmissionFlags.SendWriteZeroes) != 0,
            MaxTransferBytes = (int)Math.Min(export.MaxBlockBytes, NbdExportInfo.MaxPayloadBytes),
        };
    }

    /// <param name="uri">Where the server is.</param>
    /// <param name="timeoutMs">How long each answer of a handshake may take.</param>
    /// <exception cref="CbdException">Nobody listens there, or it is no NBD server that can be used.</exception>
    public static NbdClientDevice Connect(string uri, int timeoutMs = NbdClientHandshake.TimeoutMs)
    {
        NbdUri address = NbdUri.Parse(uri);
        (Socket socket, NbdExportInfo info) = NbdClientHandshake.Connect(address, timeoutMs);
        return new NbdClientDevice(address, timeoutMs, socket, info);
    }

    public BlockDeviceInfo Info { get; }

    /// <summary>A server that keeps its connections consistent with each other can be given several.</summary>
    public int MaxQueues => (_export.Flags & (NbdTransmissionFlags.CanMultiConn | NbdTransmissionFlags.ReadOnly)) != 0 ? int.MaxValue : 1;

    /// <summary>The server's process, where it is on a Unix socket of this machine; else 0.</summary>
    public int ServerProcess { get; }

    public IBlockQueue OpenQueue(int depth, NativeBuffer? buffers = null)
    {
        Socket socket = Interlocked.Exchange(ref _first, null) ?? NbdClientHandshake.Connect(_uri, _timeoutMs).Socket;
        return new NbdClientQueue(StreamSocket.Own(socket), Info, depth);
    }

    public void Dispose() => Interlocked.Exchange(ref _first, null)?.Dispose();

    private static int ReadServerProcess(Socket socket)
    {
        // struct ucred: pid, uid, gid.
        Span<byte> credentials = stackalloc byte[12];
        int length = socket.GetRawSocketOption(LevelSocket, PeerCredentials, credentials);
        return length == 12 ? BitConverter.ToInt32(credentials) : 0;
    }
}
