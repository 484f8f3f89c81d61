using System.Runtime.InteropServices;
using System.Text;
using Microsoft.Win32.SafeHandles;

namespace Cbd.Memory;

/// <summary>
/// The few system calls that a daemon needs for its run directory and that .NET has no call for: the lock, the group
/// of the socket, the durable rename. All are thread-safe and throw <see cref="CbdException"/> with errno named.
/// </summary>
public static partial class ControlSyscalls
{
    private const int LockExclusive = 2;
    private const int LockNonBlocking = 4;
    private const int OpenCloseOnExec = 0x80000; // O_CLOEXEC, the same on x86-64 and arm64, as the next two
    private const int OpenCreate = 0x40;
    private const int OpenReadWrite = 2;
    private const uint OwnerReadWrite = 0x180; // 0600
    private const int ErrnoWouldBlock = 11;
    private const int ErrnoInterrupted = 4;
    private const int ErrnoRange = 34;

    /// <summary>The user id that this process acts as.</summary>
    public static uint EffectiveUserId => geteuid();

    /// <summary>
    /// Opens a lock file, making it (0600) if it is not there. .NET's own open would take a lock by itself.
    /// </summary>
    public static SafeFileHandle OpenLockFile(string path)
    {
        var file = open(path, OpenReadWrite | OpenCreate | OpenCloseOnExec, OwnerReadWrite);
        if (!file.IsInvalid)
            return file;
        var errno = Marshal.GetLastPInvokeError();
        file.Dispose();
        throw Failure("open", path, errno);
    }

    /// <summary>
    /// Takes an exclusive flock(2) on an open file; it ends with the last descriptor of this open file. False if
    /// another open file has it.
    /// </summary>
    public static bool TryLockExclusive(SafeFileHandle file, string path)
    {
        while (flock(file, LockExclusive | LockNonBlocking) != 0)
        {
            var errno = Marshal.GetLastPInvokeError();
            if (errno == ErrnoWouldBlock)
                return false;
            if (errno != ErrnoInterrupted)
                throw Failure("lock", path, errno);
        }

        return true;
    }

    /// <summary>Makes a rename or a new name in a directory durable.</summary>
    public static void SynchronizeDirectory(string path)
    {
        using var directory = open(path, OpenCloseOnExec, 0);
        if (directory.IsInvalid)
            throw Failure("open", path, Marshal.GetLastPInvokeError());
        while (fsync(directory) != 0)
        {
            var errno = Marshal.GetLastPInvokeError();
            if (errno != ErrnoInterrupted)
                throw Failure("fsync", path, errno);
        }
    }

    /// <summary>Gives a file to a group and leaves its owner.</summary>
    public static void ChangeGroup(string path, uint groupId)
    {
        if (chown(path, uint.MaxValue, groupId) != 0)
            throw Failure($"change to group {groupId} the file", path, Marshal.GetLastPInvokeError());
    }

    /// <summary>The id of a group by name, from the system's group database; null if there is none of that name.</summary>
    public static unsafe uint? FindGroupId(string name)
    {
        const int groupIdOffset = 16; // struct group: name pointer, password pointer, gid
        var nameBytes = new byte[Encoding.UTF8.GetByteCount(name) + 1];
        Encoding.UTF8.GetBytes(name, nameBytes);
        for (var bufferBytes = 4096; bufferBytes <= 1 << 24; bufferBytes *= 4)
        {
            var buffer = new byte[bufferBytes];
            var group = new byte[64];
            // SAFETY: the four arrays are pinned for the call; getgrnam_r stores at most the given length in the
            // buffer and one struct group (32 bytes on 64-bit Linux) in the 64 bytes of group.
            fixed (byte* nameAt = nameBytes, bufferAt = buffer, groupAt = group)
            {
                byte* found = null;
                var errno = getgrnam_r(nameAt, groupAt, bufferAt, (nuint)bufferBytes, &found);
                if (errno == 0)
                    return found is null ? null : MemoryMarshal.Read<uint>(group.AsSpan(groupIdOffset));
                if (errno is not (ErrnoRange or ErrnoInterrupted))
                    return null;
            }
        }

        return null;
    }

    private static CbdException Failure(string what, string path, int errno)
    {
        var kind = errno is 1 or 13 ? CbdErrorKind.Denied : CbdErrorKind.Failed;
        return new CbdException(kind, $"cannot {what} '{path}': {Marshal.GetPInvokeErrorMessage(errno)} (errno {errno})");
    }

    [LibraryImport("libc")]
    private static partial uint geteuid();

    [LibraryImport("libc", SetLastError = true)]
    private static partial int flock(SafeFileHandle file, int operation);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial SafeFileHandle open(string path, int flags, uint mode);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int fsync(SafeFileHandle file);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static partial int chown(string path, uint owner, uint group);

    [LibraryImport("libc")]
    private static unsafe partial int getgrnam_r(byte* name, byte* group, byte* buffer, nuint bufferBytes, byte** found);
}
