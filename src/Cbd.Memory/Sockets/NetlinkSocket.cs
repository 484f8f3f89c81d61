using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory.Sockets;

/// <summary>
/// A generic netlink socket that talks with the kernel alone (netlink(7)): what other processes send does not reach it.
/// One thread at a time.
/// </summary>
public sealed unsafe class NetlinkSocket : IDisposable
{
    private const int AddressBytes = 12;

    private readonly FileDescriptor _file;

    private NetlinkSocket(FileDescriptor file) => _file = file;

    /// <summary>Throws <see cref="SystemCallException"/> where netlink is forbidden.</summary>
    public static NetlinkSocket Open()
    {
        int descriptor = LibC.Socket(FamilyNetlink, SocketRaw | SocketCloseOnExec, NetlinkGeneric);
        if (descriptor < 0)
            throw SystemCallException.Last("socket", "netlink");
        var socket = new NetlinkSocket(FileDescriptor.Own(descriptor, "netlink"));
        // struct sockaddr_nl {u16 family; u16 pad; u32 port; u32 groups}: port 0 is the kernel.
        byte* address = stackalloc byte[AddressBytes];
        new Span<byte>(address, AddressBytes).Clear();
        *(ushort*)address = FamilyNetlink;
        int one = 1;
        // SAFETY: the address and the value live until the calls return. Without the options errors are only less clear.
        _ = LibC.SetSocketOption(socket._file, LevelNetlink, NetlinkExtendedAcknowledge, &one, sizeof(int));
        _ = LibC.SetSocketOption(socket._file, LevelNetlink, NetlinkShortAcknowledge, &one, sizeof(int));
        if (LibC.Connect(socket._file, address, AddressBytes) == 0)
            return socket;
        var error = SystemCallException.Last("connect", "netlink");
        socket.Dispose();
        throw error;
    }

    /// <summary>Sends one message. The kernel has done what it asks for when this returns.</summary>
    public void Send(ReadOnlySpan<byte> message)
    {
        // SAFETY: the span is pinned for the call and has that length.
        fixed (byte* start = message)
        {
            while (LibC.Send(_file.Number, start, (nuint)message.Length, MessageNoSignal) < 0)
            {
                if (LibC.LastErrno != EINTR)
                    throw SystemCallException.Last("send", "netlink");
            }
        }
    }

    /// <summary>Receives one datagram of answers; 0 if there is none.</summary>
    public int Receive(Span<byte> bytes)
    {
        // SAFETY: the span is pinned for the call and has that length.
        fixed (byte* start = bytes)
        {
            while (true)
            {
                nint count = LibC.Receive(_file.Number, start, (nuint)bytes.Length, MessageDontWait);
                if (count >= 0)
                    return (int)count;
                int error = LibC.LastErrno;
                if (error == EAGAIN)
                    return 0;
                if (error != EINTR)
                    throw new SystemCallException("recv", error, "netlink");
            }
        }
    }

    public void Dispose() => _file.Dispose();
}
