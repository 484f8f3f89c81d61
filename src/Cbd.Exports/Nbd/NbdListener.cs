using Cbd.Memory;
using Cbd.Memory.Sockets;

namespace Cbd.Exports.Nbd;

/// <summary>A bound and listening address. A Unix socket's file is removed at the end if it is still this one.</summary>
internal sealed class NbdListener : IDisposable
{
    private const int Backlog = 128;

    private readonly NbdAddress _address;
    private readonly FileStatus _file;

    /// <summary>Where the socket is somebody else's: tells that it is free again. Its file stays.</summary>
    private readonly Action? _giveBack;
    private bool _disposed;

    private NbdListener(NbdAddress address, StreamSocket socket, bool withTls, Action? giveBack = null)
    {
        _address = address;
        _giveBack = giveBack;
        Socket = socket;
        if (address.UnixPath is not null)
            _ = FileStatus.TryGet(address.UnixPath, out _file, followLinks: false);
        Uri = address.ToUri(address.UnixPath is null ? socket.GetLocalPort() : 0, withTls);
    }

    internal StreamSocket Socket { get; }
    internal string Uri { get; }

    /// <summary>Binds an address; a Unix socket that nobody answers on is replaced.</summary>
    /// <exception cref="CbdException">It is in use, or cannot be bound.</exception>
    internal static NbdListener Bind(NbdAddress address, bool withTls)
    {
        StreamSocket? socket = StreamSocket.TryListen(address.Native, Backlog, out int error);
        if (socket is null && error == Errno.EADDRINUSE && address.UnixPath is not null && RemoveStale(address))
            socket = StreamSocket.TryListen(address.Native, Backlog, out error);
        return socket is not null ? new NbdListener(address, socket, withTls) : throw Explain(address, error);
    }

    /// <summary>Takes a socket that was opened before this process.</summary>
    /// <exception cref="CbdException">There is none of that name, it is in use, or off loopback and insecure.</exception>
    internal static NbdListener Take(GivenSockets given, string name, bool insecure, bool withTls)
    {
        StreamSocket socket = given.Take(name, "served as a device");
        try
        {
            SocketPlace place = socket.GetPlace() ?? throw new InvalidOperationException($"socket '{name}' is bound nowhere");
            return new NbdListener(NbdAddress.Of(place, $"fd:{name}", insecure), socket, withTls, () => given.GiveBack(name));
        }
        catch
        {
            socket.Dispose();
            given.GiveBack(name);
            throw;
        }
    }

    public void Dispose()
    {
        if (_disposed)
            return;
        _disposed = true;
        // Removed before it is closed: a new client finds no name rather than one that refuses. Somebody may have
        // put another socket there meanwhile; that one stays.
        if (_giveBack is null && _address.UnixPath is not null && FileStatus.TryGet(_address.UnixPath, out FileStatus now, followLinks: false) == 0 && now.IsSameFile(_file))
            _ = StreamSocket.Unlink(_address.UnixPath);
        Socket.Dispose();
        _giveBack?.Invoke();
    }

    private static bool RemoveStale(NbdAddress address)
    {
        int error = FileStatus.TryGet(address.UnixPath!, out FileStatus file, followLinks: false);
        if (error != 0)
            return error == -Errno.ENOENT;
        if (file.Type != FileType.Socket)
        {
            throw new CbdException(
                CbdErrorKind.Busy, $"'{address.UnixPath}' exists and is not a socket; remove it or use another path");
        }

        return StreamSocket.Probe(address.Native) == Errno.ECONNREFUSED && StreamSocket.Unlink(address.UnixPath!) is 0 or Errno.ENOENT;
    }

    private static CbdException Explain(NbdAddress address, int error) => error switch
    {
        Errno.EADDRINUSE when address.UnixPath is not null => new CbdException(
            CbdErrorKind.Busy, $"socket '{address.UnixPath}' is in use: another server answers on it; use another path or stop that server"),
        Errno.EADDRINUSE => new CbdException(
            CbdErrorKind.Busy, $"NBD address '{address.Text}' is in use; use another port or stop the server that has it"),
        Errno.EADDRNOTAVAIL => new CbdException(
            CbdErrorKind.NotFound, $"NBD address '{address.Text}' is not an address of this machine; use one that 'ip address' lists"),
        Errno.EACCES => new CbdException(
            CbdErrorKind.Denied, $"NBD address '{address.Text}' may not be bound by this user; use another path, or a port above 1023"),
        Errno.ENOENT => new CbdException(
            CbdErrorKind.NotFound, $"the directory of socket '{address.UnixPath}' does not exist; create it or use another path"),
        _ => new CbdException(CbdErrorKind.Failed, $"NBD address '{address.Text}' cannot be bound (errno {error}); use another one"),
    };
}
