using System.Text;
using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// The rights that a path is opened with for somebody else: a user with its groups, as the kernel would open it for that user, without any
/// capability. Paths below the allowed ones are opened with the rights of this process instead, and then no others at all. Any thread.
/// </summary>
/// <remarks>
/// The rights are on one thread for the length of one system call (<c>cbd_call_with_rights</c>). What leads through <c>/proc</c> to a
/// descriptor, root or directory of a process is refused: the kernel takes this process's own for open to it.
/// </remarks>
/// <param name="userId">The user.</param>
/// <param name="groupId">Its first group.</param>
/// <param name="groups">Its other groups.</param>
/// <param name="allowed">Files and directories that are opened with the rights of this process; empty: none.</param>
public sealed unsafe class PathRights(uint userId, uint groupId, IReadOnlyList<uint> groups, IReadOnlyList<string>? allowed = null)
{
    /// <summary>A directory that moves meanwhile must not be looked for without an end.</summary>
    private const int MostParents = 4096;

    private readonly uint[] _groups = [.. groups];
    private readonly IReadOnlyList<string> _allowed = allowed ?? [];

    public uint UserId => userId;

    public uint GroupId => groupId;

    /// <summary>The user's own rights, without the paths that are opened with those of this process.</summary>
    public PathRights WithoutAllowed => _allowed.Count == 0 ? this : new PathRights(userId, groupId, groups);

    /// <summary>How an operator lets this user have what was refused.</summary>
    public string Remedy => _allowed.Count == 0
        ? $"give uid {userId} the right to it, or start cbdd with --allow-path"
        : $"use a path below {string.Join(", ", _allowed)}, where no symbolic link and no further hard link of a file counts, or start cbdd with another --allow-path";

    /// <summary>Opens a path with these rights, or with those of this process where there are none. Returns 0 or a negative errno.</summary>
    /// <exception cref="CbdException">This process may not take the rights of others.</exception>
    public static int TryOpen(PathRights? rights, string path, OpenFlags flags, int mode, out FileDescriptor? descriptor) =>
        rights is null ? FileDescriptor.TryOpen(path, flags, mode, out descriptor) : rights.TryOpen(path, flags, mode, out descriptor);

    /// <summary>What a path names, for who may look. Returns 0 or a negative errno.</summary>
    /// <exception cref="CbdException">This process may not take the rights of others.</exception>
    public static int TryGetStatus(PathRights? rights, string path, out FileStatus status)
    {
        status = default;
        if (rights is null)
            return FileStatus.TryGet(path, out status);
        int error = rights.TryOpen(path, OpenFlags.Path, 0, out FileDescriptor? place);
        using (place)
            return error != 0 ? error : FileStatus.TryGet(place!, out status);
    }

    /// <summary>As <see cref="TryOpen(PathRights?, string, OpenFlags, int, out FileDescriptor?)"/>.</summary>
    public int TryOpen(string path, OpenFlags flags, int mode, out FileDescriptor? descriptor)
    {
        int error = _allowed.Count == 0
            ? TryOpenAt(this, FileDescriptor.CurrentDirectory, path, flags, mode, ResolveNoMagicLinks, out descriptor)
            : TryOpenAllowed(path, flags, mode, out descriptor);
        // Settings of the kernel look at the user of the process, which stays: no path of a caller is there.
        if (error != 0 || flags.HasFlag(OpenFlags.Path) || descriptor!.GetFileSystem().Magic != ProcFsMagic)
            return error;
        descriptor.Dispose();
        descriptor = null;
        return -EACCES;
    }

    /// <summary>
    /// The directory of a path, for what is made or removed in it, and the name there. Returns 0 or a negative errno.
    /// </summary>
    internal int TryOpenParent(string path, out FileDescriptor? parent, out string name)
    {
        int end = path.LastIndexOf('/');
        name = path[(end + 1)..];
        parent = null;
        if (name is "" or "." or "..")
            return -EISDIR;
        string directory = end <= 0 ? "/" : path[..end];
        if (_allowed.Count == 0)
            return TryOpenAt(this, FileDescriptor.CurrentDirectory, directory, OpenFlags.Path | OpenFlags.Directory, 0, ResolveNoMagicLinks, out parent);
        int error = TryOpenAt(null, FileDescriptor.CurrentDirectory, directory, OpenFlags.Path | OpenFlags.Directory, 0, ResolveNoMagicLinks, out parent);
        if (error == 0 && (_allowed.Any(IsBelow(parent!)) || _allowed.Any(IsNamed(parent!, name))))
            return 0;
        parent?.Dispose();
        parent = null;
        // Not even whether it is there.
        return error is -EMFILE or -ENFILE or -ENOSYS ? error : -EACCES;
    }

    /// <summary>Makes the name in a directory of <see cref="TryOpenParent"/>. Returns 0 or a negative errno.</summary>
    internal int TryCreate(FileDescriptor parent, string name, OpenFlags flags, int mode, out FileDescriptor? descriptor) =>
        TryOpenAt(OfUser, parent, name, flags | OpenFlags.Create | OpenFlags.Exclusive | OpenFlags.NoFollow, mode, ResolveNoSymlinks, out descriptor);

    /// <summary>Removes a name of such a directory. Returns 0 or a negative errno.</summary>
    internal int TryUnlink(FileDescriptor parent, string name)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(name + '\0');
        fixed (byte* start = bytes)
            return (int)Call(OfUser, SyscallUnlinkAt, parent.Number, (nint)start, 0, 0);
    }

    /// <summary>Binds a socket to a native address. Returns 0 or a negative errno.</summary>
    internal int TryBind(FileDescriptor socket, ReadOnlySpan<byte> address, bool asUser)
    {
        fixed (byte* start = address)
            return (int)Call(asUser ? this : OfUser, SyscallBind, socket.Number, (nint)start, address.Length, 0);
    }

    /// <summary>Connects a socket to a native address. Returns 0 or a negative errno.</summary>
    internal int TryConnect(FileDescriptor socket, ReadOnlySpan<byte> address)
    {
        fixed (byte* start = address)
            return (int)Call(OfUser, SyscallConnect, socket.Number, (nint)start, address.Length, 0);
    }

    /// <summary>Changes the mode of a name in a directory, which these rights must allow. Returns 0 or a negative errno.</summary>
    internal int TryChangeMode(FileDescriptor parent, string name, uint mode)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(name + '\0');
        fixed (byte* start = bytes)
            return (int)Call(this, SyscallChangeModeAt, parent.Number, (nint)start, (nint)mode, 0);
    }

    /// <summary>What is made below an allowed path is made by this process.</summary>
    internal PathRights? OfUser => _allowed.Count == 0 ? this : null;

    private int TryOpenAllowed(string path, OpenFlags flags, int mode, out FileDescriptor? descriptor)
    {
        descriptor = null;
        if (!flags.HasFlag(OpenFlags.Create) && TryOpenAt(null, FileDescriptor.CurrentDirectory, path, OpenFlags.Path, 0, ResolveNoMagicLinks, out FileDescriptor? named) == 0)
        {
            using (named)
            {
                // The path of an option itself, by whatever name.
                if (FileStatus.TryGet(named!, out FileStatus status) == 0 && status.Type != FileType.Directory && _allowed.Any(allowed => FileStatus.TryGet(allowed, out FileStatus its) == 0 && its.IsSameFile(status)))
                    return Reopen(named!, flags, out descriptor);
            }
        }

        int error = TryOpenParent(path, out FileDescriptor? parent, out string name);
        if (error != 0)
            return error;
        using (parent)
        {
            if (flags.HasFlag(OpenFlags.Create))
                return TryOpenAt(null, parent!, name, flags | OpenFlags.NoFollow, mode, ResolveNoSymlinks, out descriptor);
            error = TryOpenAt(null, parent!, name, OpenFlags.Path | OpenFlags.NoFollow, 0, ResolveNoSymlinks, out FileDescriptor? place);
            using (place)
            {
                if (error != 0 || (error = FileStatus.TryGet(place!, out FileStatus status)) != 0)
                    return error;
                if (status.Type == FileType.SymbolicLink)
                    return -ELOOP;
                // Who may write to the directory could give a name in it to any file of this file system.
                if (status.Type == FileType.Regular && status.LinkCount > 1)
                    return -EACCES;
                return Reopen(place!, flags, out descriptor);
            }
        }
    }

    /// <summary>Opens what is open as a place already: it cannot be another file meanwhile.</summary>
    private static int Reopen(FileDescriptor place, OpenFlags flags, out FileDescriptor? descriptor)
    {
        int error = FileDescriptor.TryOpen($"/proc/self/fd/{place.Number}", flags & ~OpenFlags.NoFollow, 0, out descriptor);
        GC.KeepAlive(place);
        return error;
    }

    private static Func<string, bool> IsBelow(FileDescriptor directory) => allowed =>
    {
        if (FileStatus.TryGet(allowed, out FileStatus wanted) != 0 || wanted.Type != FileType.Directory)
            return false;
        FileDescriptor at = directory;
        try
        {
            for (int i = 0; i < MostParents; i++)
            {
                if (FileStatus.TryGet(at, out FileStatus status) != 0)
                    return false;
                if (status.IsSameFile(wanted))
                    return true;
                if (at.TryOpenBelow("..", OpenFlags.Path | OpenFlags.Directory, out FileDescriptor? parent) != 0)
                    return false;
                bool isRoot = FileStatus.TryGet(parent!, out FileStatus above) != 0 || above.IsSameFile(status);
                if (at != directory)
                    at.Dispose();
                at = parent!;
                if (isRoot)
                    return false;
            }

            return false;
        }
        finally
        {
            if (at != directory)
                at.Dispose();
        }
    };

    /// <summary>The name in that directory is the allowed path itself, which need not be there.</summary>
    private static Func<string, bool> IsNamed(FileDescriptor directory, string name) => allowed =>
        allowed.LastIndexOf('/') is >= 0 and var end && allowed[(end + 1)..] == name && FileStatus.TryGet(end == 0 ? "/" : allowed[..end], out FileStatus wanted) == 0 &&
        FileStatus.TryGet(directory, out FileStatus status) == 0 && status.IsSameFile(wanted);

    private static int TryOpenAt(PathRights? rights, FileDescriptor directory, string path, OpenFlags flags, int mode, ulong resolve, out FileDescriptor? descriptor)
    {
        var how = new LibC.OpenHow { Flags = (uint)(flags | OpenFlags.CloseOnExec).ToNative(), Mode = (uint)mode, Resolve = resolve };
        byte[] bytes = Encoding.UTF8.GetBytes(path + '\0');
        nint number;
        // SAFETY: path and structure stay where they are until the call returns; the kernel reads both.
        fixed (byte* start = bytes)
            number = Call(rights, SyscallOpenAt2, directory == FileDescriptor.CurrentDirectory ? AtFdCwd : directory.Number, (nint)start, (nint)(&how), sizeof(LibC.OpenHow));
        if (number == -ENOSYS)
            throw new CbdException(CbdErrorKind.Unsupported, "this kernel cannot open paths for others than root and the user of cbdd: Linux 5.6 can (openat2)");
        descriptor = number >= 0 ? FileDescriptor.Own((int)number, path) : null;
        GC.KeepAlive(directory);
        return number >= 0 ? 0 : (int)number;
    }

    private static nint Call(PathRights? rights, nint number, nint a, nint b, nint c, nint d)
    {
        while (true)
        {
            nint result = rights is null ? CallAsItIs(number, a, b, c, d) : rights.Call(number, a, b, c, d);
            if (result != -EINTR)
                return result;
        }
    }

    private static nint CallAsItIs(nint number, nint a, nint b, nint c, nint d)
    {
        nint result = LibC.SystemCall(number, a, b, c, d, 0, 0);
        return result < 0 ? -LibC.LastErrno : result;
    }

    private nint Call(nint number, nint a, nint b, nint c, nint d)
    {
        // SAFETY: the groups are pinned, and the structures live on this stack, until the call returns.
        fixed (uint* first = _groups)
        {
            var rights = new NativeShim.Rights { User = userId, Group = groupId, Count = (uint)_groups.Length, Groups = first };
            int taken = 0;
            nint result = NativeShim.CallWithRights(&rights, &taken, number, a, b, c, d, 0, 0);
            return taken != 0
                ? result
                : throw new CbdException(CbdErrorKind.Denied, $"cbdd cannot open paths with the rights of uid {userId} (errno {-result}): {Privilege.Remedy("CAP_SETUID and CAP_SETGID")}, or let its own user do this verb");
        }
    }
}
