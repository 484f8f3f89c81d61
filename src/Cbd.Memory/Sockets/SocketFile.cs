using System.Net;
using System.Net.Sockets;
using static Cbd.Memory.Errno;

namespace Cbd.Memory.Sockets;

/// <summary>
/// The name of a Unix socket in the tree of files: made, looked at and removed, with the rights of another user if there are any. Whatever
/// happens to the directories on the way, it stays in the directory that was found at first then. One thread at a time.
/// </summary>
public sealed class SocketFile : IDisposable
{
    /// <summary>Longest path of a Unix socket, bytes: sun_path has 108 with the final zero.</summary>
    private const int MostPathBytes = 107;

    private readonly string _path;
    private readonly PathRights? _rights;
    private readonly FileDescriptor? _directory;
    private readonly string _name;
    private readonly byte[] _native;

    private SocketFile(string path, PathRights? rights, FileDescriptor? directory, string name)
    {
        _path = path;
        _rights = rights;
        _directory = directory;
        _name = name;
        // A name below an open directory, for calls that take a path alone.
        SocketAddress address = new UnixDomainSocketEndPoint(directory is null ? path : $"/proc/self/fd/{directory.Number}/{name}").Serialize();
        _native = address.Buffer.Span[..address.Size].ToArray();
    }

    /// <summary>Finds its directory. Null and the errno if that cannot be had with these rights.</summary>
    /// <exception cref="CbdException">This process may not take the rights of others, or the name is too long.</exception>
    public static SocketFile? TryFind(string path, PathRights? rights, out int error)
    {
        error = 0;
        if (rights is null)
            return new SocketFile(path, null, null, path);
        error = -rights.TryOpenParent(path, out FileDescriptor? directory, out string name);
        if (error != 0)
            return null;
        int length = System.Text.Encoding.UTF8.GetByteCount($"/proc/self/fd/{directory!.Number}/{name}");
        if (length <= MostPathBytes)
            return new SocketFile(path, rights, directory, name);
        directory.Dispose();
        throw new CbdException(CbdErrorKind.Invalid, $"the name '{name}' of socket '{path}' is too long by {length - MostPathBytes} bytes: use a shorter one");
    }

    /// <summary>What has the name now; no link is followed. Returns 0 or a negative errno.</summary>
    public int TryGetStatus(out FileStatus status) =>
        _directory is null ? FileStatus.TryGet(_path, out status, followLinks: false) : FileStatus.TryGet(_directory, _name, out status);

    /// <summary>
    /// Binds and listens. The file gets its mode from the moment it exists, except for what the umask takes away, which it gets before
    /// anybody can connect. Returns null and the errno on failure.
    /// </summary>
    /// <param name="backlog">Clients that wait to be accepted.</param>
    /// <param name="mode">Permission bits.</param>
    /// <param name="owner">Whose it becomes; null: that of the rights, or of this process.</param>
    /// <param name="error">The errno.</param>
    /// <exception cref="CbdException">It cannot be given to that owner.</exception>
    public StreamSocket? TryListen(int backlog, uint mode, FileOwner? owner, out int error)
    {
        StreamSocket? socket = StreamSocket.TryBind(_native, mode, _rights, out error);
        if (socket is null)
            return null;
        try
        {
            error = SetAccess(mode, owner, null);
            if (error == 0 && socket.TryListen(backlog, out error))
                return socket;
            _ = TryUnlink();
            socket.Dispose();
            return null;
        }
        catch
        {
            _ = TryUnlink();
            socket.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Gives a socket that was bound before this process its mode and its owner, whatever they were. Returns 0 or the errno.
    /// </summary>
    /// <param name="file">What the name is of. Nothing else is changed.</param>
    /// <param name="mode">Permission bits.</param>
    /// <param name="owner">Whose it becomes; null: that of the rights, or of this process.</param>
    /// <exception cref="CbdException">It cannot be given to that owner, or is another one.</exception>
    public int ChangeAccess(in FileStatus file, uint mode, FileOwner? owner) => SetAccess(mode, owner, file);

    /// <summary>Connects without waiting and returns 0 or the errno; the connection is closed again at once.</summary>
    public int Probe() => StreamSocket.Probe(_native, _rights);

    /// <summary>Removes the name; returns 0 or the errno.</summary>
    public int TryUnlink()
    {
        try
        {
            return _directory is null ? StreamSocket.Unlink(_path) : -_rights!.TryUnlink(_directory, _name);
        }
        catch (CbdException)
        {
            // The rights cannot be had now, for want of memory: who ends a socket goes on with that.
            return EPERM;
        }
    }

    public void Dispose() => _directory?.Dispose();

    /// <summary>Returns 0 or the errno.</summary>
    /// <param name="mode">Permission bits.</param>
    /// <param name="owner">Whose it becomes.</param>
    /// <param name="known">What it is; null: it was made just now.</param>
    private int SetAccess(uint mode, FileOwner? owner, FileStatus? known)
    {
        // What this user makes is changed with the rights of this user, who could put something else there.
        if (_rights?.OfUser is { } user)
            return -user.TryChangeMode(_directory!, _name, mode);
        int error = _directory is null
            ? FileDescriptor.TryOpen(_path, OpenFlags.Path | OpenFlags.NoFollow, 0, out FileDescriptor? opened)
            : _directory.TryOpenBelow(_name, OpenFlags.Path | OpenFlags.NoFollow, out opened);
        if (error != 0)
            return -error;
        using FileDescriptor file = opened!;
        FileStatus status = file.GetStatus();
        bool isOurs = known is { } same ? status.IsSameFile(same) : status.OwnerId == ControlSyscalls.EffectiveUserId;
        if (status.Type != FileType.Socket || status.LinkCount != 1 || !isOurs)
            throw new CbdException(CbdErrorKind.Busy, $"socket '{_path}' was replaced by something else while it was made: use a path in a directory that nobody else can write to");
        string path = $"/proc/self/fd/{file.Number}";
        if (known is not null)
            owner ??= new FileOwner(ControlSyscalls.EffectiveUserId, null, IsWanted: false);
        if (status.Permissions != mode && LibC.ChangeMode(path, mode) < 0)
            return LibC.LastErrno;
        if (owner is { } its && (its.User != status.OwnerId || (its.Group is { } group && group != status.GroupId)) &&
            LibC.ChangeOwner(path, its.User, its.Group ?? uint.MaxValue) < 0 && its.IsWanted)
        {
            throw new CbdException(CbdErrorKind.Denied, $"socket '{_path}' cannot be given to {OwnerTrust.Name(its.User)} (errno {LibC.LastErrno}): {Privilege.Remedy("CAP_CHOWN")}, or leave --socket-owner out");
        }

        return 0;
    }
}
