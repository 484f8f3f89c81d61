using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// Standard output or standard error as the process was started with it: a file, a terminal or a pipe that may be full, closed,
/// or read by nobody. Any thread; each call writes by itself.
/// </summary>
public sealed unsafe class StandardStream
{
    private readonly FileDescriptor _descriptor;

    private StandardStream(int number, string name)
    {
        Name = name;
        _descriptor = FileDescriptor.Borrow(number, name);
    }

    /// <summary>Descriptor 1.</summary>
    public static StandardStream Output { get; } = new(1, "standard output");

    /// <summary>Descriptor 2.</summary>
    public static StandardStream Error { get; } = new(2, "standard error");

    /// <summary>As messages call it.</summary>
    public string Name { get; }

    /// <summary>A person reads it.</summary>
    public bool IsTerminal => LibC.IsTerminal(_descriptor) == 1;

    /// <summary>
    /// Writes all of the bytes, and waits while nobody takes them. Returns 0 or a negative errno; <paramref name="written"/> is how many
    /// bytes are written in either case.
    /// </summary>
    public int TryWrite(ReadOnlySpan<byte> bytes, out int written)
    {
        written = 0;
        // SAFETY: the bytes are pinned for the calls, each of which reads what is left of them.
        fixed (byte* start = bytes)
        {
            while (written < bytes.Length)
            {
                nint count = LibC.Write(_descriptor, start + written, (nuint)(bytes.Length - written));
                if (count > 0)
                    written += (int)count;
                else if (count == 0)
                    return -EIO;
                else if (LibC.LastErrno == EAGAIN)
                    _ = IsWritableWithin(1000);
                else if (LibC.LastErrno != EINTR)
                    return -LibC.LastErrno;
            }
        }

        return 0;
    }

    /// <summary>Waits until a line can be written without waiting, or writing fails at once; false when the time is over first.</summary>
    public bool IsWritableWithin(int timeoutMs)
    {
        LibC.TimeSpec timeout = LibC.TimeSpec.FromMicroseconds(timeoutMs * 1000L);
        var entry = new LibC.PollEntry { Descriptor = _descriptor.Number, Events = PollOut };
        // SAFETY: both structures live on this stack frame for the length of the call.
        int ready;
        do
            ready = LibC.PPoll(&entry, 1, &timeout, null);
        while (ready < 0 && LibC.LastErrno == EINTR);
        return ready > 0;
    }
}
