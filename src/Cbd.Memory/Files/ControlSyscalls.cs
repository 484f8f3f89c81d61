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
    private const uint OwnerReadWrite = 0x180; // 0600

    /// <summary>The user id that this process acts as.</summary>
    public static uint EffectiveUserId => LibC.GetEffectiveUserId();

    /// <summary>
    /// Opens a lock file, making it (0600) if it is not there. .NET's own open would take a lock by itself. What is there and is no
    /// regular file is refused, with <paramref name="remedy"/> as the other way; no link is followed.
    /// </summary>
    public static SafeFileHandle OpenLockFile(string path, string? remedy = null)
    {
        var flags = OpenFlags.ReadWrite | OpenFlags.Create | OpenFlags.CloseOnExec | OpenFlags.NoFollow | OpenFlags.NonBlocking | OpenFlags.NoTerminal;
        var descriptor = LibC.Open(path, flags.ToNative(), OwnerReadWrite);
        if (descriptor < 0)
        {
            throw LibC.LastErrno is ELOOP or EISDIR or ENXIO or ENODEV
                ? NoLockFile(path, remedy)
                : Failure("open", path, LibC.LastErrno);
        }

        var file = new SafeFileHandle(descriptor, ownsHandle: true);
        using var borrowed = FileDescriptor.Borrow(descriptor, path);
        if (FileStatus.TryGet(borrowed, out var status) == 0 && status.Type == FileType.Regular)
            return file;
        file.Dispose();
        throw NoLockFile(path, remedy);
    }

    private static CbdException NoLockFile(string path, string? remedy) =>
        new(CbdErrorKind.Busy, $"'{path}' is where a lock file belongs, and it is no regular file: move it away{(remedy is null ? "" : $", or {remedy}")}");

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

    /// <summary>Makes a rename or a new name in a directory durable.</summary>
    public static void SynchronizeDirectory(string path)
    {
        var error = FileDescriptor.TryOpen(path, OpenFlags.ReadOnly, 0, out var directory);
        using var opened = directory;
        if (opened is null)
            throw Failure("open", path, -error);
        while (LibC.FSync(opened) != 0)
        {
            var errno = LibC.LastErrno;
            if (errno != EINTR)
                throw Failure("fsync", path, errno);
        }
    }

    /// <summary>Gives a file to a group and leaves its owner.</summary>
    public static void ChangeGroup(string path, uint groupId)
    {
        if (LibC.ChangeOwner(path, uint.MaxValue, groupId) != 0)
            throw Failure($"change to group {groupId} the file", path, LibC.LastErrno);
    }

    /// <summary>The id of a group by name, from the system's group database; null if there is none of that name.</summary>
    public static unsafe uint? FindGroupId(string name)
    {
        for (var bufferBytes = 4096; bufferBytes <= 1 << 24; bufferBytes *= 4)
        {
            var buffer = new byte[bufferBytes];
            // SAFETY: the buffer is pinned for the call, which stores at most the given length in it, and one struct
            // group on this stack frame.
            fixed (byte* bufferAt = buffer)
            {
                LibC.Group group;
                LibC.Group* found = null;
                var errno = LibC.GetGroupByName(name, &group, bufferAt, (nuint)bufferBytes, &found);
                if (errno == 0)
                    return found is null ? null : group.Id;
                if (errno is not (ERANGE or EINTR))
                    return null;
            }
        }

        return null;
    }

    private static CbdException Failure(string what, string path, int errno)
    {
        var kind = errno is EPERM or EACCES ? CbdErrorKind.Denied : CbdErrorKind.Failed;
        return new CbdException(kind, $"cannot {what} '{path}': {Marshal.GetPInvokeErrorMessage(errno)} (errno {errno})");
    }
}
