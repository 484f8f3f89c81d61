using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory.Fuse;

/// <summary>
/// One open <c>/dev/fuse</c>: the kernel's requests to a file system are read from it and answered on it, a request on
/// the channel that it was read from. Does not block. One thread at a time.
/// </summary>
public sealed unsafe class FuseChannel : IDisposable
{
    /// <summary>The device of FUSE.</summary>
    public const string DevicePath = "/dev/fuse";

    private FuseChannel(FileDescriptor descriptor) => Descriptor = descriptor;

    internal FileDescriptor Descriptor { get; }

    /// <summary>A channel for a new file system. Returns 0 or a negative errno.</summary>
    public static int TryOpen(out FuseChannel? channel)
    {
        int error = FileDescriptor.TryOpen(DevicePath, OpenFlags.ReadWrite | OpenFlags.NonBlocking, 0, out FileDescriptor? descriptor);
        channel = error == 0 ? new FuseChannel(descriptor!) : null;
        return error;
    }

    /// <summary>Another channel of the same file system, for another thread. Only once it is mounted.</summary>
    public FuseChannel Clone()
    {
        int error = TryOpen(out FuseChannel? clone);
        if (error != 0)
            throw new SystemCallException("open", -error, DevicePath);
        // SAFETY: the kernel reads one u32.
        uint number = (uint)Descriptor.Number;
        if (LibC.Ioctl(clone!.Descriptor, FuseProtocol.IoctlClone, &number) == 0)
            return clone;
        error = LibC.LastErrno;
        clone.Dispose();
        throw new SystemCallException("ioctl FUSE_DEV_IOC_CLONE", error, DevicePath);
    }

    /// <summary>
    /// Takes the next request, whole. Returns its bytes, or a negative errno: EAGAIN if there is none, ENODEV when the
    /// file system was unmounted or aborted, ENOENT if the request was taken back meanwhile.
    /// </summary>
    public int Receive(NativeBuffer buffer, long offset, int length)
    {
        nint result;
        // SAFETY: GetSpan checks the range against the buffer, which its owner keeps.
        _ = buffer.GetSpan(offset, length);
        do
            result = LibC.Read(Descriptor, (void*)(buffer.Address + (nint)offset), (nuint)length);
        while (result < 0 && LibC.LastErrno == EINTR);
        return result < 0 ? -LibC.LastErrno : (int)result;
    }

    /// <summary>
    /// Answers: a header and what follows it, in one piece. Returns 0 or a negative errno: ENOENT if the request is not
    /// waited for any more, ENODEV when the file system is gone.
    /// </summary>
    public int Reply(NativeBuffer buffer, long offset, int length)
    {
        nint result;
        // SAFETY: as above.
        _ = buffer.GetSpan(offset, length);
        do
            result = LibC.Write(Descriptor, (void*)(buffer.Address + (nint)offset), (nuint)length);
        while (result < 0 && LibC.LastErrno == EINTR);
        return result < 0 ? -LibC.LastErrno : 0;
    }

    /// <summary>When the last channel of a file system is closed, the kernel fails all of its requests.</summary>
    public void Dispose() => Descriptor.Dispose();
}
