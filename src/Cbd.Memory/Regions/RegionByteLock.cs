using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// An exclusive OFD lock (fcntl(2)) of one byte of a file. It belongs to the open file description, not to the
/// process: the kernel drops it when the last descriptor of that description is closed and the last mapping made of it
/// is gone, so when its process has died, and not while that could still store into the region. Seen by all processes of this kernel that open the same inode, and by nobody else.
/// </summary>
public sealed class RegionByteLock : IDisposable
{
    private readonly FileDescriptor _descriptor;
    private bool _held = true;

    private RegionByteLock(FileDescriptor descriptor, long offset)
    {
        _descriptor = descriptor;
        Offset = offset;
    }

    /// <summary>The byte, from the start of the file. It may lie beyond the end.</summary>
    public long Offset { get; }

    /// <summary>
    /// Locks the byte for the open file description of <paramref name="descriptor"/> (open for writing, and to be kept
    /// open by the caller); null, at once, if another description holds it. A second lock of the same byte through
    /// the same description succeeds: it is the same lock.
    /// </summary>
    public static RegionByteLock? TryAcquire(FileDescriptor descriptor, long offset)
    {
        int error = -descriptor.TryLockRange(LockWrite, offset, 1);
        if (error == 0)
            return new RegionByteLock(descriptor, offset);
        return error is EAGAIN or EACCES ? null : throw new SystemCallException("fcntl F_OFD_SETLK", error, $"byte {offset}");
    }

    /// <summary>
    /// Another open file description holds the byte. Locks of <paramref name="descriptor"/>'s own description do not
    /// count.
    /// </summary>
    public static bool IsHeld(FileDescriptor descriptor, long offset) => descriptor.IsRangeLocked(offset, 1);

    /// <summary>Another open file description holds a lock of any byte of the file, or beyond its end.</summary>
    public static bool IsAnyHeld(FileDescriptor descriptor) => descriptor.IsRangeLocked(0, 0);

    /// <summary>Unlocks. If the descriptor was closed before, the end of the description does it.</summary>
    public void Dispose()
    {
        if (!_held)
            return;
        _held = false;
        if (!_descriptor.IsClosed)
            _ = _descriptor.TryLockRange(LockNone, Offset, 1);
    }
}
