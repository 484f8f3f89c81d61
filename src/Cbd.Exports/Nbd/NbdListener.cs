using Cbd.Memory;
using Cbd.Memory.Sockets;
using Cbd.Memory.Store;
using Cbd.Host;

namespace Cbd.Exports.Nbd;

/// <summary>A bound and listening address. A Unix socket's file is removed at the end if it is still this one.</summary>
internal sealed class NbdListener : IDisposable
{
    private const int Backlog = 128;

    private readonly SocketFile? _name;
    private readonly FileStatus _file;

    /// <summary>Where the socket is somebody else's: tells that it is free again. Its file stays.</summary>
    private readonly Action? _giveBack;
    private readonly KeptSockets _kept;

    /// <summary>The device that it is kept for.</summary>
    private string? _device;

    /// <summary>It was open before this process.</summary>
    private bool _isAdopted;
    private bool _disposed;

    private NbdListener(NbdAddress address, StreamSocket socket, bool withTls, SocketFile? name, KeptSockets kept, Action? giveBack = null)
    {
        _kept = kept;
        _name = name;
        _giveBack = giveBack;
        Socket = socket;
        _ = name?.TryGetStatus(out _file);
        Uri = address.ToUri(address.UnixPath is null ? socket.GetLocalPort() : 0, withTls);
    }

    internal StreamSocket Socket { get; }
    internal string Uri { get; }

    /// <summary>
    /// Binds an address; a Unix socket that nobody answers on is replaced. The socket that was kept for the device is taken instead, if it is
    /// bound there.
    /// </summary>
    /// <exception cref="CbdException">It is in use, or cannot be bound.</exception>
    internal static NbdListener Bind(NbdAddress address, bool withTls, SocketOptions options, KeptSockets kept)
    {
        if (address.UnixPath is not { } path)
        {
            StreamSocket? old = options.Device is null ? null : kept.TryTake(options.Device, null, address.EndPoint, null);
            if (old is not null)
                return new NbdListener(address, old, withTls, null, kept) { _device = options.Device, _isAdopted = true };
            return StreamSocket.TryListen(address.Native, Backlog, options.Rights, out int refused) is { } bound
                ? new NbdListener(address, bound, withTls, null, kept)
                : throw Explain(address, refused, options.Rights);
        }

        PathRights? rights = options.IsOwnAddress ? null : options.Rights;
        SocketFile name = SocketFile.TryFind(path, rights, out int error) ?? throw Explain(address, error, rights);
        try
        {
            FileStatus? file = name.TryGetStatus(out FileStatus now) == 0 ? now : null;
            if (options.Device is { } device && kept.TryTake(device, path, null, file) is { } old)
                return Adopt(device, old, file!.Value);
            StreamSocket? socket = name.TryListen(Backlog, options.Mode, options.Owner, out error);
            if (socket is null && error == Errno.EADDRINUSE && RemoveStale(name, path, ref error))
                socket = name.TryListen(Backlog, options.Mode, options.Owner, out error);
            return socket is not null ? new NbdListener(address, socket, withTls, name, kept) : throw Explain(address, error, rights);
        }
        catch
        {
            name.Dispose();
            throw;
        }

        NbdListener Adopt(string device, StreamSocket old, FileStatus its)
        {
            try
            {
                // Its file has what was asked for when it was made.
                int denied = name.ChangeAccess(its, options.Mode, options.Owner);
                return denied == 0 ? new NbdListener(address, old, withTls, name, kept) { _device = device, _isAdopted = true } : throw Explain(address, denied, rights);
            }
            catch
            {
                kept.GiveBack(device, old);
                throw;
            }
        }
    }

    /// <summary>Takes a socket that was opened before this process.</summary>
    /// <exception cref="CbdException">There is none of that name, it is in use, or off loopback and insecure.</exception>
    internal static NbdListener Take(GivenSockets given, string name, bool insecure, bool withTls)
    {
        StreamSocket socket = given.Take(name, "served as a device");
        try
        {
            SocketPlace place = socket.GetPlace() ?? throw new InvalidOperationException($"socket '{name}' is bound nowhere");
            return new NbdListener(NbdAddress.Of(place, $"fd:{name}", insecure), socket, withTls, null, KeptSockets.None, () => given.GiveBack(name));
        }
        catch
        {
            socket.Dispose();
            given.GiveBack(name);
            throw;
        }
    }

    /// <summary>
    /// Keeps the socket open over the death of this process, under the device's name. One that was opened before this process is kept by who opened it.
    /// </summary>
    /// <exception cref="CbdException">It cannot be kept; it serves on without.</exception>
    internal void KeepFor(string device)
    {
        if (_giveBack is not null || _device is not null)
            return;
        _kept.Keep(device, Socket);
        _device = device;
    }

    /// <summary>The device was not served: clients of the one before wait for the next try.</summary>
    internal void GiveUp()
    {
        if (!_isAdopted || _disposed)
        {
            Dispose();
            return;
        }

        _disposed = true;
        _name?.Dispose();
        _kept.GiveBack(_device!, Socket);
    }

    public void Dispose()
    {
        if (_disposed)
            return;
        _disposed = true;
        // Removed before it is closed: a new client finds no name rather than one that refuses. Somebody may have
        // put another socket there meanwhile; that one stays.
        if (_name is not null && _name.TryGetStatus(out FileStatus now) == 0 && now.IsSameFile(_file))
            _ = _name.TryUnlink();
        _name?.Dispose();
        if (_device is not null)
            _kept.Close(_device, Socket, Uri);
        else
            Socket.Dispose();
        _giveBack?.Invoke();
    }

    /// <param name="error">Set to the errno of the probe if a resource ran out.</param>
    private static bool RemoveStale(SocketFile name, string path, ref int error)
    {
        int looked = name.TryGetStatus(out FileStatus file);
        if (looked != 0)
            return looked == -Errno.ENOENT;
        if (file.Type != FileType.Socket)
            throw new CbdException(CbdErrorKind.Busy, $"'{path}' exists and is not a socket; remove it or use another path");
        int answer = name.Probe();
        if (Exhaustion.RemedyOf(answer) is not null)
            error = answer;
        return answer == Errno.ECONNREFUSED && name.TryUnlink() is 0 or Errno.ENOENT;
    }

    private static CbdException Explain(NbdAddress address, int error, PathRights? rights) => error switch
    {
        Errno.EACCES or Errno.EPERM or Errno.ELOOP when rights is not null && address.UnixPath is not null => new CbdException(
            CbdErrorKind.Denied, $"socket '{address.UnixPath}' may not be made by uid {rights.UserId}, who asks for it; {rights.Remedy}, or leave the address out"),
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
        _ when Exhaustion.RemedyOf(error) is { } remedy => new CbdException(
            CbdErrorKind.Exhausted, $"NBD address '{address.Text}' cannot be bound (errno {error}){remedy}"),
        _ => new CbdException(CbdErrorKind.Failed, $"NBD address '{address.Text}' cannot be bound (errno {error}); use another one"),
    };
}
