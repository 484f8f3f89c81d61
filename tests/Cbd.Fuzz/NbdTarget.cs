using System.Buffers.Binary;
using System.Net.Sockets;
using Cbd.Disks;
using Cbd.Exports.Nbd;
using Cbd.Host;

namespace Cbd.Fuzz;

/// <summary>
/// The whole NBD server, with a client that sends the input, ends its side, and reads to the end, which must come. The
/// first byte chooses how: 0 as it is; 1 behind a right handshake; 2 behind a right handshake, as requests with a right
/// magic and as much payload as they say.
/// </summary>
internal sealed class NbdTarget : IFuzzTarget
{
    private const int PatienceMs = 10_000;
    private readonly Disk _disk = Disk.Open(new DiskOptions { Path = "memory:1M" });
    private readonly NbdExport _export;
    private readonly UnixDomainSocketEndPoint _address;
    private readonly byte[] _replies = new byte[64 << 10];

    public NbdTarget()
    {
        string path = Path.Combine(Directory.CreateTempSubdirectory("cbd-fuzz-").FullName, "nbd");
        _address = new UnixDomainSocketEndPoint(path);
        _export = new NbdExportFactory(_ => { }).OpenNbd($"unix:{path}", insecure: false);
        _export.Serve(_disk, 1, PollMode.Sleep);
    }

    public void Run(ReadOnlySpan<byte> input)
    {
        var fields = new FuzzInput(input);
        byte mode = fields.Byte();
        var message = new List<byte>();
        if (mode % 3 != 0)
        {
            AddBigEndian(message, 3u);
            message.AddRange("IHAVEOPT"u8);
            AddBigEndian(message, 7u);
            AddBigEndian(message, 6u);
            message.AddRange(new byte[6]);
        }

        if (mode % 3 == 2)
            AddRequests(message, ref fields);
        else
            message.AddRange(fields.Rest());
        Exchange([.. message]);
    }

    private static void AddRequests(List<byte> message, ref FuzzInput fields)
    {
        Span<byte> bytes = stackalloc byte[8];
        for (int count = 0; !fields.IsEmpty && count < 64; count++)
        {
            byte command = fields.Byte();
            AddBigEndian(message, 0x25609513u);
            message.AddRange([fields.Byte(), fields.Byte(), 0, command]);
            message.AddRange(BitConverter.GetBytes((ulong)count));
            // Mostly inside the device and whole blocks, else as it comes.
            byte kind = fields.Byte();
            ulong offset = (kind & 1) != 0 ? fields.UInt64() : fields.UInt16() % 2100u * 512u;
            uint length = (kind & 2) != 0 ? fields.UInt32() : fields.Byte() * 512u;
            BinaryPrimitives.WriteUInt64BigEndian(bytes, offset);
            message.AddRange(bytes);
            AddBigEndian(message, length);
            if (command == 1 && length <= 1 << 20)
                message.AddRange(new byte[length]);
        }
    }

    private void Exchange(byte[] message)
    {
        using var client = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified) { ReceiveTimeout = PatienceMs, SendTimeout = PatienceMs };
        client.Connect(_address);
        try
        {
            // The server stops reading while its replies are not taken; then a part is sent and the rest is not.
            client.Blocking = false;
            int sent = 0;
            long limit = Environment.TickCount64 + PatienceMs;
            while (true)
            {
                if (sent < message.Length)
                {
                    int more = client.Send(message.AsSpan(sent), SocketFlags.None, out SocketError error);
                    sent += error == SocketError.Success ? more : 0;
                    if (error is not (SocketError.Success or SocketError.WouldBlock))
                        return;
                    if (sent == message.Length)
                        client.Shutdown(SocketShutdown.Send);
                }
                else if (message.Length == 0 && sent == 0)
                {
                    client.Shutdown(SocketShutdown.Send);
                    sent = 1;
                }

                int received = client.Receive(_replies, SocketFlags.None, out SocketError failure);
                if (failure == SocketError.WouldBlock)
                {
                    FuzzTargets.Check(Environment.TickCount64 < limit, "the server ends a connection whose client has ended");
                    client.Poll(1000, SelectMode.SelectRead);
                }
                else if (failure != SocketError.Success || received == 0)
                {
                    return;
                }
            }
        }
        catch (SocketException)
        {
            // The server was first to end it.
        }
    }

    private static void AddBigEndian(List<byte> message, uint value)
    {
        Span<byte> bytes = stackalloc byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, value);
        message.AddRange(bytes);
    }
}
