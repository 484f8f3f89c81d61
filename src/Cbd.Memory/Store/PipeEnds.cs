using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory.Store;

/// <summary>A pipe.</summary>
public static unsafe class PipeEnds
{
    /// <summary>What an empty pipe takes at once.</summary>
    public const int MostBytes = 65_536;

    /// <summary>Both ends, private to this process.</summary>
    /// <exception cref="SystemCallException">No descriptor is left.</exception>
    public static (FileDescriptor Reader, FileDescriptor Writer) Create()
    {
        int* ends = stackalloc int[2];
        // SAFETY: the call stores two descriptors on this stack.
        if (LibC.Pipe(ends, SocketCloseOnExec) != 0)
            throw SystemCallException.Last("pipe2");
        return (FileDescriptor.Own(ends[0], "pipe"), FileDescriptor.Own(ends[1], "pipe"));
    }

    /// <summary>Writes what an end takes without waiting; the rest is not written.</summary>
    public static void WriteSome(FileDescriptor writer, ReadOnlySpan<byte> bytes)
    {
        int flags = LibC.FCntl(writer, FcntlGetFlags, 0);
        if (flags < 0 || LibC.FCntl(writer, FcntlSetFlags, flags | SocketNonBlocking) < 0)
            return;
        // SAFETY: the bytes are pinned for the call, which reads at most their length.
        fixed (byte* start = bytes)
            _ = LibC.Write(writer, start, (nuint)bytes.Length);
    }
}
