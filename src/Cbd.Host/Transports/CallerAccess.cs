using Cbd.Host.Threads;
using Cbd.Memory;

namespace Cbd.Host.Transports;

/// <summary>
/// What a caller may have of a transport. A caller gets nothing through this process that it could not read by itself, but what
/// <see cref="AccessOptions.AllowedPaths"/> name. Thread-safe.
/// </summary>
internal sealed class CallerAccess(Transport transport)
{
    private AccessOptions Access => transport.Node.Access;

    /// <summary>
    /// Refuses to bring blocks into a region that a stranger owns: only that user may, whose region it is.
    /// </summary>
    public void CheckRegion(Caller? caller)
    {
        uint owner = transport.RegionOwner;
        if (!Access.Trust.IsRoot || Access.Trust.Trusts(owner) || caller?.UserId == owner)
            return;
        throw new CbdException(CbdErrorKind.Denied, $"region '{transport.Path}' of transport {transport.Id} belongs to {OwnerTrust.Name(owner)}, who could read and write every block in it: use another transport, or start cbdd with --trust-owner {owner}");
    }

    /// <summary>
    /// Whether a caller may read the blocks of a backend, and write them unless <paramref name="readOnly"/>: it started the backend, or may open
    /// its disk, or the region; or the disk is in memory, and no file that somebody keeps from others.
    /// </summary>
    /// <param name="caller">Who asks.</param>
    /// <param name="backend">Id of the backend.</param>
    /// <param name="readOnly">The device does not write.</param>
    /// <param name="identity">The disk that was looked at: no other one may be behind that id later. Null: any may.</param>
    public bool MayUse(Caller? caller, int backend, bool readOnly, out string? identity)
    {
        identity = null;
        if (Access.RightsOf(caller) is not { } rights)
            return true;
        BackendServer? own;
        lock (transport.StateLock)
            own = transport.FindBackend(backend);
        if (own is not null && MayUse(caller!, rights, own, readOnly))
        {
            identity = own.Disk.Identity;
            return true;
        }

        // A region has the blocks of all disks on it: a path that is allowed is not enough.
        return MayOpen(rights.WithoutAllowed, transport.Path, readOnly: false, transport.Region.Device, transport.Region.Inode);
    }

    private static bool MayUse(Caller caller, PathRights rights, BackendServer backend, bool readOnly) =>
        StartBackendOptions.IsDiskScheme(backend.Options.Path) || backend.Options.Caller?.UserId == caller.UserId ||
        (backend.Disk.OpenFile is { } served && MayOpen(rights, backend.Options.Path, readOnly, served.Device, served.Inode));

    private static bool MayOpen(PathRights rights, string path, bool readOnly, ulong device, ulong inode)
    {
        OpenFlags flags = (readOnly ? OpenFlags.ReadOnly : OpenFlags.ReadWrite) | OpenFlags.NonBlocking | OpenFlags.NoTerminal;
        int error = rights.TryOpen(path, flags, 0, out FileDescriptor? opened);
        if (Exhaustion.RemedyOf(-error) is { } remedy)
            throw new CbdException(CbdErrorKind.Exhausted, $"'{path}' cannot be looked at (errno {-error}){remedy}");
        if (error != 0)
            return false;
        using FileDescriptor file = opened!;
        FileStatus status = file.GetStatus();
        return status.Device == device && status.Inode == inode;
    }
}
