using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;
using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// The few system calls that a daemon needs for its run directory and that .NET has no call for: the lock, the group
/// of the socket, the durable rename. All are thread-safe and throw <see cref="CbdException"/> with errno named.
/// </summary>
public static class ControlSyscalls
{
    private const int OwnerReadWrite = 0x180; // 0600

    /// <summary>The user id that this process acts as.</summary>
    public static uint EffectiveUserId => LibC.GetEffectiveUserId();

    /// <summary>
    /// Opens a lock file, making it (0600) if it is not there. .NET's own open would take a lock by itself. No link is followed, and a file
    /// that is no regular one, has another name besides this, or belongs to a stranger is refused, with <paramref name="remedy"/> as the
    /// other way.
    /// </summary>
    public static SafeFileHandle OpenLockFile(string path, string? remedy = null, OwnerTrust? trust = null)
    {
        var error = FileDescriptor.TryOpen(path, OpenFlags.ReadWrite | OpenFlags.Create | OpenFlags.NoFollow | OpenFlags.NonBlocking | OpenFlags.NoTerminal, OwnerReadWrite, out var opened);
        if (error != 0)
        {
            throw -error is ELOOP or EISDIR or ENXIO or ENODEV
                ? NoLockFile(path, "it is no regular file", remedy)
                : Failure("open", path, -error);
        }

        try
        {
            CheckOwnFile(opened!, path, "a lock file", remedy, trust);
            return new SafeFileHandle(opened!.Number, ownsHandle: true);
        }
        catch
        {
            opened!.Dispose();
            opened = null;
            throw;
        }
        finally
        {
            // Its number is the other handle's now.
            opened?.SetHandleAsInvalid();
        }
    }

    /// <summary>
    /// Opens a file of ours to read it; null if there is none. As <see cref="OpenLockFile"/>, no link is followed, and nothing is read that
    /// a stranger wrote.
    /// </summary>
    /// <param name="path">Its path.</param>
    /// <param name="what">What belongs there, such as "the record".</param>
    /// <param name="remedy">What else can be done; null: nothing.</param>
    /// <param name="trust">Who is no stranger; null: root and the own user.</param>
    /// <exception cref="CbdException">It is another file than it must be, or cannot be opened.</exception>
    public static FileStream? TryOpenOwnFile(string path, string what, string? remedy = null, OwnerTrust? trust = null)
    {
        var error = FileDescriptor.TryOpen(path, OpenFlags.ReadOnly | OpenFlags.NoFollow | OpenFlags.NonBlocking | OpenFlags.NoTerminal, 0, out var opened);
        if (error == -ENOENT)
            return null;
        if (error != 0)
            throw -error is ELOOP or EISDIR or ENXIO or ENODEV ? NoOwnFile(path, what, "it is no regular file", remedy) : Failure("open", path, -error);
        try
        {
            CheckOwnFile(opened!, path, what, remedy, trust);
            var handle = new SafeFileHandle(opened!.Number, ownsHandle: true);
            opened.SetHandleAsInvalid();
            return new FileStream(handle, FileAccess.Read, bufferSize: 0);
        }
        catch
        {
            opened!.Dispose();
            throw;
        }
    }

    private static void CheckOwnFile(FileDescriptor file, string path, string what, string? remedy, OwnerTrust? trust)
    {
        var status = file.GetStatus();
        if (status.Type != FileType.Regular)
            throw NoOwnFile(path, what, "it is no regular file", remedy);
        if (!(trust ?? OwnerTrust.Default).Trusts(status.OwnerId))
            throw NoOwnFile(path, what, $"the file there belongs to {OwnerTrust.Name(status.OwnerId)} (mode {OwnerTrust.Mode(status)})", remedy, CbdErrorKind.Denied);
        if (status.LinkCount > 1)
            throw NoOwnFile(path, what, $"the file there has {status.LinkCount} names (hard links), so that it may be another one", remedy, CbdErrorKind.Denied);
    }

    private static CbdException NoLockFile(string path, string why, string? remedy) => NoOwnFile(path, "a lock file", why, remedy);

    private static CbdException NoOwnFile(string path, string what, string why, string? remedy, CbdErrorKind kind = CbdErrorKind.Busy) =>
        new(kind, $"'{path}' is where {what} belongs, and {why}: move it away{(remedy is null ? "" : $", or {remedy}")}");

    /// <summary>The name of a user by its id; null if there is none.</summary>
    public static unsafe string? FindUserName(uint user)
    {
        string? name = null;
        Find((buffer, bytes) =>
        {
            LibC.User found;
            LibC.User* there = null;
            var errno = LibC.GetUserById(user, &found, (byte*)buffer, bytes, &there);
            if (errno == 0 && there is not null)
                name = Marshal.PtrToStringUTF8((nint)found.Name);
            return errno;
        });
        return name;
    }

    /// <summary>Id and first group of a user by name; null if there is none of that name.</summary>
    public static unsafe (uint User, uint Group)? FindUser(string name)
    {
        (uint User, uint Group)? ids = null;
        Find((buffer, bytes) =>
        {
            LibC.User found;
            LibC.User* there = null;
            var errno = LibC.GetUserByName(name, &found, (byte*)buffer, bytes, &there);
            if (errno == 0 && there is not null)
                ids = (found.Id, found.GroupId);
            return errno;
        });
        return ids;
    }

    /// <summary>The id of a group by name, from the system's group database; null if there is none of that name.</summary>
    public static unsafe uint? FindGroupId(string name)
    {
        uint? id = null;
        Find((buffer, bytes) =>
        {
            LibC.Group found;
            LibC.Group* there = null;
            var errno = LibC.GetGroupByName(name, &found, (byte*)buffer, bytes, &there);
            if (errno == 0 && there is not null)
                id = found.Id;
            return errno;
        });
        return id;
    }

    /// <summary>Asks one of the system's databases, with more memory as long as that is too little.</summary>
    private static unsafe void Find(Func<nint, nuint, int> ask)
    {
        for (var bufferBytes = 4096; bufferBytes <= 1 << 24; bufferBytes *= 4)
        {
            // SAFETY: the buffer is pinned for the call, which stores at most the given length in it, and one structure on its own stack.
            fixed (byte* buffer = new byte[bufferBytes])
            {
                if (ask((nint)buffer, (nuint)bufferBytes) is not (ERANGE or EINTR))
                    return;
            }
        }
    }

    /// <summary>
    /// Takes an exclusive flock(2) on an open file; it ends with the last descriptor of this open file. False if
    /// another open file has it.
    /// </summary>
    public static bool TryLockExclusive(SafeFileHandle file, string path)
    {
        while (LibC.FLock(file, FlockExclusive | FlockNonBlocking) != 0)
        {
            var errno = LibC.LastErrno;
            if (errno == EAGAIN)
                return false;
            if (errno != EINTR)
                throw Failure("lock", path, errno);
        }

        return true;
    }

    /// <summary>
    /// Gives an exclusive lock back before the file is closed: a process that is just being started has the descriptor, too, until it
    /// runs its program.
    /// </summary>
    public static void Unlock(SafeFileHandle file) => _ = LibC.FLock(file, FlockUnlock);

    /// <summary>Makes a rename or a new name in a directory durable.</summary>
    public static void SynchronizeDirectory(string path)
    {
        using FileDescriptor opened = OpenDirectory(path);
        SynchronizeDirectory(opened, path);
    }

    /// <summary>Opens a directory for <see cref="SynchronizeDirectory(FileDescriptor, string)"/>.</summary>
    public static FileDescriptor OpenDirectory(string path)
    {
        var error = FileDescriptor.TryOpen(path, OpenFlags.ReadOnly, 0, out var directory);
        return directory ?? throw Failure("open", path, -error);
    }

    /// <summary>As above, of a directory that is open.</summary>
    public static void SynchronizeDirectory(FileDescriptor directory, string path)
    {
        while (LibC.FSync(directory) != 0)
        {
            var errno = LibC.LastErrno;
            if (errno != EINTR)
                throw Failure("fsync", path, errno);
        }
    }

    /// <summary>Changes the mode of a directory, and never that of what a link leads to.</summary>
    public static void SetDirectoryMode(string path, uint mode)
    {
        var error = FileDescriptor.TryOpen(path, OpenFlags.ReadOnly | OpenFlags.Directory | OpenFlags.NoFollow, 0, out var directory);
        using var opened = directory;
        if (opened is null)
            throw Failure("open", path, -error);
        if (LibC.FChangeMode(opened, mode) != 0)
            throw Failure("change the mode of", path, LibC.LastErrno);
    }

    /// <summary>Gives a file to a group and leaves its owner. The path is one that no stranger can change.</summary>
    public static void ChangeGroup(string path, uint groupId)
    {
        if (LibC.ChangeOwner(path, uint.MaxValue, groupId) != 0)
            throw Failure($"change to group {groupId} the file", path, LibC.LastErrno);
    }

    private static CbdException Failure(string what, string path, int errno)
    {
        string? remedy = Exhaustion.RemedyOf(errno);
        var kind = errno is EPERM or EACCES ? CbdErrorKind.Denied : remedy is null ? CbdErrorKind.Failed : CbdErrorKind.Exhausted;
        return new CbdException(kind, $"cannot {what} '{path}': {Marshal.GetPInvokeErrorMessage(errno)} (errno {errno}){remedy}");
    }
}
