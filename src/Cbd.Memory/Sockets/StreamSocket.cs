using System.Runtime.InteropServices;

namespace Cbd.Memory.Sockets;

/// <summary>How many bytes a call moved, or the errno with which it failed (then <paramref name="Count"/> is −1).</summary>
public readonly record struct SocketResult(int Count, int Error)
{
    /// <summary>Nothing can be moved now; the descriptor will say when.</summary>
    public bool WouldBlock => Error == SocketErrno.EAGAIN;
}

/// <summary>
/// One non-blocking stream socket (Unix or TCP), listening or connected. Owned by one thread at a time; nothing here
/// locks. Calls that are interrupted by a signal are repeated. Nothing allocates.
/// </summary>
public sealed unsafe class StreamSocket : IDisposable
{
    private int _descriptor;

    private StreamSocket(int descriptor) => _descriptor = descriptor;

    ~StreamSocket() => Close();

    /// <summary>The descriptor, for <see cref="EventPoll"/>; −1 after <see cref="Dispose"/>.</summary>
    internal int Descriptor => _descriptor;

    /// <summary>
    /// Binds and listens. <paramref name="address"/> is a native sockaddr (<c>EndPoint.Serialize()</c> gives one).
    /// A Unix socket's file gets mode 0600 from the moment it exists. Returns null and the errno on failure.
    /// </summary>
    public static StreamSocket? TryListen(ReadOnlySpan<byte> address, int backlog, out int error)
    {
        int family = MemoryMarshal.Read<ushort>(address);
        StreamSocket? socket = TryOpen(family, out error);
        if (socket is null)
            return null;
        int one = 1;
        fixed (byte* start = address)
        {
            bool ready = true;
            // SAFETY: 'one' and 'address' live until the calls return; the lengths are theirs.
            if (family == SocketCalls.AF_UNIX)
                // The mode of the socket's own inode is what bind() creates the file with, so there is no moment in
                // which others could open it, and the umask of the whole process stays alone.
                ready = SocketCalls.ChangeMode(socket._descriptor, 0b110_000_000) == 0;
            else
                ready = SocketCalls.SetSocketOption(socket._descriptor, SocketCalls.SOL_SOCKET, SocketCalls.SO_REUSEADDR, &one, sizeof(int)) == 0;
            if (ready && family == SocketCalls.AF_INET6)
                ready = SocketCalls.SetSocketOption(socket._descriptor, SocketCalls.IPPROTO_IPV6, SocketCalls.IPV6_V6ONLY, &one, sizeof(int)) == 0;
            ready = ready && SocketCalls.Bind(socket._descriptor, start, (uint)address.Length) == 0;
            ready = ready && SocketCalls.Listen(socket._descriptor, backlog) == 0;
            if (ready)
                return socket;
        }

        error = Marshal.GetLastPInvokeError();
        socket.Dispose();
        return null;
    }

    /// <summary>Connects without waiting and returns 0 or the errno; the connection is closed again at once.</summary>
    public static int Probe(ReadOnlySpan<byte> address)
    {
        using StreamSocket? socket = TryOpen(MemoryMarshal.Read<ushort>(address), out int error);
        if (socket is null)
            return error;
        // SAFETY: the address lives until the call returns and has that length.
        fixed (byte* start = address)
            return SocketCalls.Connect(socket._descriptor, start, (uint)address.Length) == 0 ? 0 : Marshal.GetLastPInvokeError();
    }

    /// <summary>Takes one waiting connection, non-blocking like all sockets here; null and the errno otherwise.</summary>
    public StreamSocket? TryAccept(out int error)
    {
        while (true)
        {
            int descriptor = SocketCalls.Accept(_descriptor, null, null, SocketCalls.SOCK_NONBLOCK | SocketCalls.SOCK_CLOEXEC);
            error = descriptor < 0 ? Marshal.GetLastPInvokeError() : 0;
            if (descriptor >= 0)
                return new StreamSocket(descriptor);
            if (error != SocketErrno.EINTR)
                return null;
        }
    }

    /// <summary>The port that a TCP socket is bound to.</summary>
    public int GetLocalPort()
    {
        byte* address = stackalloc byte[128];
        uint length = 128;
        // SAFETY: sockaddr_in and sockaddr_in6 both have the port, big-endian, at offset 2.
        if (SocketCalls.GetSocketName(_descriptor, address, &length) != 0 || length < 4)
            throw new CbdException(CbdErrorKind.Failed, $"the port of a socket cannot be read: errno {Marshal.GetLastPInvokeError()}");
        return (address[2] << 8) | address[3];
    }

    /// <summary>
    /// For TCP: sends small replies at once, and finds peers whose machine is gone within two minutes. Ignored where
    /// the socket is not TCP.
    /// </summary>
    public void TuneForRequests()
    {
        SetOption(SocketCalls.IPPROTO_TCP, SocketCalls.TCP_NODELAY, 1);
        SetOption(SocketCalls.SOL_SOCKET, SocketCalls.SO_KEEPALIVE, 1);
        SetOption(SocketCalls.IPPROTO_TCP, SocketCalls.TCP_KEEPIDLE, 60);
        SetOption(SocketCalls.IPPROTO_TCP, SocketCalls.TCP_KEEPINTVL, 10);
        SetOption(SocketCalls.IPPROTO_TCP, SocketCalls.TCP_KEEPCNT, 6);
    }

    /// <summary>Receives what is there; a count of 0 is the end of the stream.</summary>
    public SocketResult Receive(Span<byte> bytes)
    {
        // SAFETY: the span is pinned for the call and has that length.
        fixed (byte* start = bytes)
        {
            nint count;
            do
                count = SocketCalls.Receive(_descriptor, start, (nuint)bytes.Length, SocketCalls.MSG_DONTWAIT);
            while (count < 0 && Marshal.GetLastPInvokeError() == SocketErrno.EINTR);
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
                count = SocketCalls.Send(_descriptor, start, (nuint)bytes.Length, SocketCalls.MSG_DONTWAIT | SocketCalls.MSG_NOSIGNAL);
            while (count < 0 && Marshal.GetLastPInvokeError() == SocketErrno.EINTR);
            return Result(count);
        }
    }

    public void Dispose()
    {
        Close();
        GC.SuppressFinalize(this);
    }

    internal static SocketResult Result(nint count) =>
        count >= 0 ? new SocketResult((int)count, 0) : new SocketResult(-1, Marshal.GetLastPInvokeError());

    private static StreamSocket? TryOpen(int family, out int error)
    {
        int descriptor = SocketCalls.Socket(family, SocketCalls.SOCK_STREAM | SocketCalls.SOCK_NONBLOCK | SocketCalls.SOCK_CLOEXEC, 0);
        error = descriptor < 0 ? Marshal.GetLastPInvokeError() : 0;
        return descriptor < 0 ? null : new StreamSocket(descriptor);
    }

    private void SetOption(int level, int option, int value) =>
        // SAFETY: the value lives until the call returns. A failure only leaves the default behaviour.
        _ = SocketCalls.SetSocketOption(_descriptor, level, option, &value, sizeof(int));

    private void Close()
    {
        int descriptor = Interlocked.Exchange(ref _descriptor, -1);
        if (descriptor >= 0)
            _ = SocketCalls.Close(descriptor);
    }
}
