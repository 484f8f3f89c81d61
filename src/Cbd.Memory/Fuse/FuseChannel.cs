using System.Runtime.InteropServices;
using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory.Fuse;

/// <summary>
/// One open <c>/dev/fuse</c>: the kernel's requests to a file system are read from it and answered on it, a request on
/// the channel that it was read from. Does not block. One thread at a time, but for <see cref="AnnounceSize"/>.
/// </summary>
public sealed unsafe class FuseChannel : IDisposable
{
    /// <summary>The device of FUSE.</summary>
    public const string DevicePath = "/dev/fuse";

    private FuseChannel(FileDescriptor descriptor) => Descriptor = descriptor;

    /// <summary>The open device, for who keeps it while no process serves it.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>A channel for a new file system. Returns 0 or a negative errno.</summary>
    public static int TryOpen(out FuseChannel? channel)
    {
        int error = FileDescriptor.TryOpen(DevicePath, OpenFlags.ReadWrite | OpenFlags.NonBlocking, 0, out FileDescriptor? descriptor);
        channel = error == 0 ? new FuseChannel(descriptor!) : null;
        return error;
    }

    /// <summary>
    /// A channel that another process kept; owned from here on, unless this throws. Its state is not asked for (stat), which could wait for
    /// the server of a file system: for this process.
    /// </summary>
    /// <param name="descriptor">The open device.</param>
    /// <param name="name">What messages call it.</param>
    /// <exception cref="CbdException">Invalid: it is something else, or a channel that blocks.</exception>
    public static FuseChannel Adopt(FileDescriptor descriptor, string name)
    {
        string target = new FileInfo($"/proc/self/fd/{descriptor.Number}").LinkTarget ?? "nothing";
        if (target != DevicePath)
            throw new CbdException(CbdErrorKind.Invalid, $"the descriptor '{name}' is {target}, and {DevicePath} is expected");
        int flags = LibC.FCntl(descriptor, FcntlGetFlags, 0);
        if (flags < 0 || (flags & (int)OpenFlags.NonBlocking.ToNative()) == 0)
            throw new CbdException(CbdErrorKind.Invalid, $"the descriptor '{name}' is a channel that waits: it is none of this program's");
        return new FuseChannel(descriptor);
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
    /// Takes the next request, whole: its beginning into one place, the rest into another. Returns its bytes, or a negative errno: EAGAIN if
    /// there is none, ENODEV when the file system was unmounted or aborted, ENOENT if the request was taken back meanwhile.
    /// </summary>
    public int Receive(NativeBuffer buffer, long headOffset, int headBytes, long restOffset, int restBytes)
    {
        LibC.IoVector* parts = stackalloc LibC.IoVector[2];
        Fill(parts, buffer, headOffset, headBytes);
        Fill(parts + 1, buffer, restOffset, restBytes);
        nint result;
        do
            result = LibC.ReadV(Descriptor.Number, parts, 2);
        while (result < 0 && LibC.LastErrno == EINTR);
        return result < 0 ? -LibC.LastErrno : (int)result;
    }

    /// <summary>
    /// Answers: a header, and what follows it from the same place or from another, in one piece. Returns 0 or a negative errno: ENOENT if the
    /// request is not waited for any more, ENODEV when the file system is gone.
    /// </summary>
    /// <param name="head">Where the header is.</param>
    /// <param name="headBytes">Bytes there.</param>
    /// <param name="body">Where the rest is.</param>
    /// <param name="bodyOffset">Offset there.</param>
    /// <param name="bodyBytes">Bytes there; may be 0.</param>
    public int Reply(NativeBuffer head, int headBytes, NativeBuffer body, long bodyOffset, int bodyBytes)
    {
        LibC.IoVector* parts = stackalloc LibC.IoVector[2];
        Fill(parts, head, 0, headBytes);
        Fill(parts + 1, body, bodyOffset, bodyBytes);
        return Write(parts, bodyBytes == 0 ? 1 : 2);
    }

    /// <summary>
    /// Tells the kernel that a file has grown, while it is in use: its last bytes, zeroes, are stored in the kernel's cache, which sets the
    /// size, and are dropped from there. An answer about the size would be dropped while I/O ends that began later. Returns 0 or a negative
    /// errno. Any thread.
    /// </summary>
    /// <param name="node">The file.</param>
    /// <param name="sizeBytes">Its new size.</param>
    /// <param name="blockBytes">How many bytes at its end are stored; the size is a multiple.</param>
    public int AnnounceSize(ulong node, long sizeBytes, int blockBytes)
    {
        bool isHeld = false;
        try
        {
            Descriptor.DangerousAddRef(ref isHeld);
            return Announce(node, sizeBytes, blockBytes);
        }
        catch (ObjectDisposedException)
        {
            return -ENODEV;
        }
        finally
        {
            if (isHeld)
                Descriptor.DangerousRelease();
        }
    }

    /// <summary>When the last channel of a file system is closed, the kernel fails all of its requests.</summary>
    public void Dispose() => Descriptor.Dispose();

    private int Announce(ulong node, long sizeBytes, int blockBytes)
    {
        int headBytes = sizeof(FuseProtocol.ReplyHeader) + sizeof(FuseProtocol.StoreNotification);
        using var message = new NativeBuffer(headBytes + blockBytes);
        Span<byte> bytes = message.GetSpan(0, headBytes + blockBytes);
        MemoryMarshal.Write(bytes, new FuseProtocol.ReplyHeader { Length = (uint)bytes.Length, Error = (int)FuseNotification.Store });
        MemoryMarshal.Write(
            bytes[sizeof(FuseProtocol.ReplyHeader)..],
            new FuseProtocol.StoreNotification { Node = node, Offset = (ulong)(sizeBytes - blockBytes), Size = (uint)blockBytes });
        int error = Reply(message, bytes.Length, message, 0, 0);
        if (error != 0)
            return error;
        bytes = bytes[..(sizeof(FuseProtocol.ReplyHeader) + sizeof(FuseProtocol.InvalidateInodeNotification))];
        MemoryMarshal.Write(bytes, new FuseProtocol.ReplyHeader { Length = (uint)bytes.Length, Error = (int)FuseNotification.InvalidateInode });
        MemoryMarshal.Write(bytes[sizeof(FuseProtocol.ReplyHeader)..], new FuseProtocol.InvalidateInodeNotification { Node = node });
        return Reply(message, bytes.Length, message, 0, 0);
    }

    private int Write(LibC.IoVector* parts, int count)
    {
        nint result;
        do
            result = LibC.WriteV(Descriptor.Number, parts, count);
        while (result < 0 && LibC.LastErrno == EINTR);
        return result < 0 ? -LibC.LastErrno : 0;
    }

    private static void Fill(LibC.IoVector* part, NativeBuffer buffer, long offset, int length)
    {
        buffer.CheckRange(offset, length);
        // SAFETY: the range was checked against the buffer, which its owner keeps for the call.
        part->Start = (void*)(buffer.Address + (nint)offset);
        part->Length = (nuint)length;
    }
}
