using System.Runtime.InteropServices;
using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory.Sockets;

/// <summary>How many bytes a call moved, or the errno with which it failed (then <paramref name="Count"/> is −1).</summary>
public readonly record struct SocketResult(int Count, int Error)
{
    /// <summary>Nothing can be moved now; the descriptor will say when.</summary>
    public bool WouldBlock => Error == EAGAIN;
}

/// <summary>
/// One non-blocking stream socket (Unix or TCP), listening or connected. Owned by one thread at a time; nothing here
/// locks. Calls that are interrupted by a signal are repeated. Nothing allocates.
/// </summary>
public sealed unsafe partial class StreamSocket : IDisposable
{
    private const uint OwnerOnly = 0b110_000_000;

    private readonly FileDescriptor _file;

    private StreamSocket(int descriptor)
        : this(FileDescriptor.Own(descriptor, "socket"))
    {
    }

    private StreamSocket(FileDescriptor file) => _file = file;

    /// <summary>Its descriptor; stays the socket's.</summary>
    internal FileDescriptor File => _file;

    /// <summary>The descriptor, for <see cref="EventPoll"/>; −1 after <see cref="Dispose"/>.</summary>
    internal int Descriptor => _file.IsClosed ? -1 : _file.Number;

    /// <summary>
    /// Binds and listens. <paramref name="address"/> is a native sockaddr (<c>EndPoint.Serialize()</c> gives one).
    /// A Unix socket's file gets mode 0600 from the moment it exists. Returns null and the errno on failure.
    /// </summary>
    public static StreamSocket? TryListen(ReadOnlySpan<byte> address, int backlog, out int error) => TryListen(address, backlog, null, out error);

    /// <summary>As above. A port is one that the user of <paramref name="rights"/> may bind.</summary>
    public static StreamSocket? TryListen(ReadOnlySpan<byte> address, int backlog, PathRights? rights, out int error)
    {
        StreamSocket? socket = TryBind(address, OwnerOnly, rights, out error);
        if (socket is null || socket.TryListen(backlog, out error))
            return socket;
        socket.Dispose();
        return null;
    }

    /// <summary>Binds. A Unix socket's file has this mode, less the umask, from the moment it exists. Returns null and the errno on failure.</summary>
    internal static StreamSocket? TryBind(ReadOnlySpan<byte> address, uint mode, PathRights? rights, out int error)
    {
        int family = MemoryMarshal.Read<ushort>(address);
        StreamSocket? socket = TryOpen(family, out error);
        if (socket is null)
            return null;
        int one = 1;
        // SAFETY: 'one' lives until the calls return; the length is its own.
        bool ready = family == FamilyUnix
            // The mode of the socket's own inode is what bind() creates the file with, so there is no moment in
            // which others could open it, and the umask of the whole process stays alone.
            ? LibC.FChangeMode(socket._file, mode) == 0
            : LibC.SetSocketOption(socket._file, LevelSocket, ReuseAddress, &one, sizeof(int)) == 0;
        if (ready && family == FamilyInet6)
            ready = LibC.SetSocketOption(socket._file, LevelIpv6, Ipv6Only, &one, sizeof(int)) == 0;
        error = ready ? 0 : LibC.LastErrno;
        try
        {
            if (error == 0)
                error = socket.Bind(address, rights, family);
        }
        catch
        {
            socket.Dispose();
            throw;
        }

        if (error == 0)
            return socket;
        socket.Dispose();
        return null;
    }

    /// <summary>Listens on what it is bound to. False and the errno on failure.</summary>
    internal bool TryListen(int backlog, out int error)
    {
        error = LibC.Listen(_file, backlog) == 0 ? 0 : LibC.LastErrno;
        return error == 0;
    }

    private int Bind(ReadOnlySpan<byte> address, PathRights? rights, int family)
    {
        if (rights is not null)
            return -rights.TryBind(_file, address, asUser: family != FamilyUnix);
        // SAFETY: the address lives until the call returns and has that length.
        fixed (byte* start = address)
            return LibC.Bind(_file, start, (uint)address.Length) == 0 ? 0 : LibC.LastErrno;
    }

    /// <summary>
    /// Two connected Unix sockets: one of ours, and one as a bare descriptor that blocks, for the kernel to use.
    /// </summary>
    public static (StreamSocket Ours, FileDescriptor Other) CreatePair()
    {
        int* pair = stackalloc int[2];
        // SAFETY: the call stores two descriptors on this stack.
        if (LibC.SocketPair(FamilyUnix, SocketStream | SocketCloseOnExec, 0, pair) != 0)
            throw SystemCallException.Last("socketpair");
        var other = FileDescriptor.Own(pair[1], "socket of the kernel");
        var ours = new StreamSocket(pair[0]);
        int flags = LibC.FCntl(ours._file, FcntlGetFlags, 0);
        _ = LibC.FCntl(ours._file, FcntlSetFlags, flags | SocketNonBlocking);
        return (ours, other);
    }

    /// <summary>Takes over a connected socket; <paramref name="socket"/> is of no use afterwards.</summary>
    public static StreamSocket Own(System.Net.Sockets.Socket socket)
    {
        System.Net.Sockets.SafeSocketHandle handle = socket.SafeHandle;
        var own = new StreamSocket((int)handle.DangerousGetHandle());
        handle.SetHandleAsInvalid();
        return own;
    }

    /// <summary>Connects without waiting and returns 0 or the errno; the connection is closed again at once.</summary>
    public static int Probe(ReadOnlySpan<byte> address, PathRights? rights = null)
    {
        using StreamSocket? socket = TryOpen(MemoryMarshal.Read<ushort>(address), out int error);
        if (socket is null)
            return error;
        if (rights is not null)
            return -rights.TryConnect(socket._file, address);
        // SAFETY: the address lives until the call returns and has that length.
        fixed (byte* start = address)
            return LibC.Connect(socket._file, start, (uint)address.Length) == 0 ? 0 : LibC.LastErrno;
    }

    /// <summary>Removes the name of a Unix socket; returns 0 or the errno.</summary>
    public static int Unlink(string path) => LibC.Unlink(path) == 0 ? 0 : LibC.LastErrno;

    /// <summary>Takes one waiting connection, non-blocking like all sockets here; null and the errno otherwise.</summary>
    public StreamSocket? TryAccept(out int error)
    {
        while (true)
        {
            int descriptor = LibC.Accept(Descriptor, null, null, SocketNonBlocking | SocketCloseOnExec);
            error = descriptor < 0 ? LibC.LastErrno : 0;
            if (descriptor >= 0)
            {
                var accepted = new StreamSocket(descriptor);
                if (ProcessLimits.IsForClients(accepted._file))
                    return accepted;
                accepted.Dispose();
                error = EMFILE;
                return null;
            }

            if (error != EINTR)
                return null;
        }
    }

    /// <summary>The port that a TCP socket is bound to.</summary>
    public int GetLocalPort()
    {
        byte* address = stackalloc byte[128];
        uint length = 128;
        // SAFETY: sockaddr_in and sockaddr_in6 both have the port, big-endian, at offset 2.
        if (LibC.GetSocketName(_file, address, &length) != 0 || length < 4)
            throw new CbdException(CbdErrorKind.Failed, $"the port of a socket cannot be read: errno {LibC.LastErrno}");
        return (address[2] << 8) | address[3];
    }

    /// <summary>
    /// For TCP: sends small replies at once, and finds peers whose machine is gone within two minutes. Ignored where
    /// the socket is not TCP.
    /// </summary>
    public void TuneForRequests()
    {
        SetOption(LevelTcp, TcpNoDelay, 1);
        SetOption(LevelSocket, KeepAlive, 1);
        SetOption(LevelTcp, TcpKeepIdle, 60);
        SetOption(LevelTcp, TcpKeepInterval, 10);
        SetOption(LevelTcp, TcpKeepCount, 6);
    }

    /// <summary>Receives what is there; a count of 0 is the end of the stream.</summary>
    public SocketResult Receive(Span<byte> bytes)
    {
        // SAFETY: the span is pinned for the call and has that length.
        fixed (byte* start = bytes)
        {
            nint count;
            do
                count = LibC.Receive(Descriptor, start, (nuint)bytes.Length, MessageDontWait);
            while (count < 0 && LibC.LastErrno == EINTR);
            return Result(count);
        }
    }

    /// <summary>Sends as much as fits now.</summary>
    public SocketResult Send(ReadOnlySpan<byte> bytes)
    {
        // SAFETY: the span is pinned for the call and has that length.
        fixed (byte* start = bytes)
        {
            nint count;
            do
                count = LibC.Send(Descriptor, start, (nuint)bytes.Length, MessageDontWait | MessageNoSignal);
            while (count < 0 && LibC.LastErrno == EINTR);
            return Result(count);
        }
    }

    public void Dispose() => _file.Dispose();

    internal static SocketResult Result(nint count) =>
        count >= 0 ? new SocketResult((int)count, 0) : new SocketResult(-1, LibC.LastErrno);

    private static StreamSocket? TryOpen(int family, out int error)
    {
        int descriptor = LibC.Socket(family, SocketStream | SocketNonBlocking | SocketCloseOnExec, 0);
        error = descriptor < 0 ? LibC.LastErrno : 0;
        return descriptor < 0 ? null : new StreamSocket(descriptor);
    }

    private void SetOption(int level, int option, int value) =>
        // SAFETY: the value lives until the call returns. A failure only leaves the default behaviour.
        _ = LibC.SetSocketOption(_file, level, option, &value, sizeof(int));
}
