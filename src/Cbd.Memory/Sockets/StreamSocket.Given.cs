using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using System.Text;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory.Sockets;

/// <summary>Where a socket is bound. One of the two is there.</summary>
/// <param name="UnixPath">Path of a Unix socket.</param>
/// <param name="Address">Address and port of a TCP socket.</param>
public sealed record SocketPlace(string? UnixPath, IPEndPoint? Address);

/// <content>Listening sockets that this process was given already open.</content>
public sealed unsafe partial class StreamSocket
{
    /// <summary>
    /// Takes over a descriptor that must be a listening stream socket, Unix with a path or TCP; makes it non-blocking and
    /// private to this process. Returns null and says what it is instead; it is left as it was then.
    /// </summary>
    public static StreamSocket? TryOwnListening(int descriptor, out string fault) => TryOwnListening(FileDescriptor.Own(descriptor, "socket"), isOurs: false, out fault);

    /// <summary>The same for a descriptor that stays the caller's if it is no such socket.</summary>
    public static StreamSocket? TryOwnListening(FileDescriptor descriptor, out string fault) => TryOwnListening(descriptor, isOurs: true, out fault);

    private static StreamSocket? TryOwnListening(FileDescriptor descriptor, bool isOurs, out string fault)
    {
        var borrowed = new StreamSocket(descriptor);
        fault = borrowed.DescribeFault();
        if (fault.Length == 0)
        {
            borrowed.MakeOwn();
            return borrowed;
        }

        // The number is not ours to close.
        if (!isOurs)
            borrowed._file.SetHandleAsInvalid();
        return null;
    }

    /// <summary>
    /// Takes over a descriptor that must be a stream socket which does not listen; the connection may be over by now. Returns null and says what it is
    /// instead; it stays the caller's then.
    /// </summary>
    public static StreamSocket? TryOwnConnected(FileDescriptor descriptor, out string fault)
    {
        var borrowed = new StreamSocket(descriptor);
        fault = borrowed.TryGetOption(SocketTypeOption) switch
        {
            null => "no socket",
            not SocketStream => "no stream socket",
            _ => borrowed.TryGetOption(AcceptsConnections) == 0 ? "" : "listening",
        };
        if (fault.Length != 0)
            return null;
        borrowed.MakeOwn();
        return borrowed;
    }

    /// <summary>
    /// What the kernel calls this socket, as long as it lives, in whatever process (SO_COOKIE, Linux 4.12); 0 if it does not tell.
    /// </summary>
    public ulong Cookie
    {
        get
        {
            ulong value = 0;
            uint length = sizeof(ulong);
            // SAFETY: the call stores at most eight bytes, which live on this stack.
            return LibC.GetSocketOption(_file, LevelSocket, SocketCookieOption, (int*)&value, &length) == 0 && length == sizeof(ulong) ? value : 0;
        }
    }

    /// <summary>Another descriptor of the same socket.</summary>
    public StreamSocket Duplicate()
    {
        int copy = LibC.FCntl(_file, FcntlDuplicateCloseOnExec, 3);
        return copy >= 0 ? new StreamSocket(copy) : throw SystemCallException.Last("fcntl F_DUPFD_CLOEXEC");
    }

    /// <summary>Hands a copy of the descriptor to .NET's own sockets.</summary>
    public Socket DuplicateAsSocket()
    {
        StreamSocket copy = Duplicate();
        var handle = new SafeSocketHandle(copy.Descriptor, ownsHandle: true);
        copy._file.SetHandleAsInvalid();
        return new Socket(handle);
    }

    /// <summary>Where the socket is bound; null for anything but a path or TCP.</summary>
    public SocketPlace? GetPlace()
    {
        const int Room = 128;
        byte* address = stackalloc byte[Room];
        uint length = Room;
        // SAFETY: the call stores at most that many bytes on this stack.
        if (LibC.GetSocketName(_file, address, &length) != 0 || length < sizeof(ushort) || length > Room)
            return null;
        var bytes = new ReadOnlySpan<byte>(address, (int)length);
        // sockaddr_in {u16, be16 port, address}, sockaddr_in6 {u16, be16 port, u32, address, u32 scope}, sockaddr_un {u16, path}.
        switch (BitConverter.ToUInt16(bytes))
        {
            case FamilyInet when length >= 8:
                return new SocketPlace(null, new IPEndPoint(new IPAddress(bytes[4..8]), BinaryPrimitives.ReadUInt16BigEndian(bytes[2..])));
            case FamilyInet6 when length >= 28:
                return new SocketPlace(
                    null, new IPEndPoint(new IPAddress(bytes[8..24], BitConverter.ToUInt32(bytes[24..])), BinaryPrimitives.ReadUInt16BigEndian(bytes[2..])));
            case FamilyUnix when length > 2 && bytes[2] != 0:
                ReadOnlySpan<byte> path = bytes[2..];
                int end = path.IndexOf((byte)0);
                return new SocketPlace(Encoding.UTF8.GetString(end < 0 ? path : path[..end]), null);
            default:
                return null;
        }
    }

    /// <summary>
    /// The file of a Unix socket: its path now, which the name that it was bound under need not tell. Null, and nothing is told, if it has none,
    /// or without CAP_NET_ADMIN.
    /// </summary>
    public string? TryGetFile(out FileStatus status)
    {
        status = default;
        // SAFETY: the call takes no argument and returns a new descriptor, which the socket's file is opened with.
        int number = LibC.Ioctl(_file, IoctlSocketFile, null);
        if (number < 0)
            return null;
        using var file = FileDescriptor.Own(number, "file of a socket");
        file.SetInherited(false);
        if (FileStatus.TryGet(file, out status) != 0)
            return null;
        const int Room = 4096;
        byte* text = stackalloc byte[Room];
        // SAFETY: the call stores at most that many bytes on this stack.
        nint length = LibC.ReadLink($"/proc/self/fd/{file.Number}", text, Room);
        return length > 0 ? Encoding.UTF8.GetString(text, (int)length) : null;
    }

    /// <summary>Non-blocking, and private to this process.</summary>
    private void MakeOwn()
    {
        _file.SetInherited(false);
        int flags = LibC.FCntl(_file, FcntlGetFlags, 0);
        _ = LibC.FCntl(_file, FcntlSetFlags, flags | SocketNonBlocking);
    }

    private string DescribeFault()
    {
        if (TryGetOption(SocketTypeOption) is not { } type)
            return "no socket";
        if (type != SocketStream)
            return "no stream socket";
        if (TryGetOption(AcceptsConnections) != 1)
            return "not listening";
        return GetPlace() is null ? "neither a Unix socket with a path nor TCP" : "";
    }

    private int? TryGetOption(int option)
    {
        int value = 0;
        uint length = sizeof(int);
        // SAFETY: the call stores at most four bytes, which live on this stack.
        return LibC.GetSocketOption(_file, LevelSocket, option, &value, &length) == 0 ? value : null;
    }
}
