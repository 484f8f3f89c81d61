using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>An eventfd: any thread wakes the thread that watches it.</summary>
public sealed unsafe class PollWake : IDisposable
{
    /// <exception cref="CbdException">No descriptor is left.</exception>
    public PollWake()
    {
        int descriptor = LibC.EventFd(0, EventFdCloseOnExec | EventFdNonBlocking);
        if (descriptor < 0)
        {
            throw new CbdException(
                CbdErrorKind.Exhausted,
                $"no descriptor for an event (errno {LibC.LastErrno}); raise the limit of open files (ulimit -n)");
        }

        Descriptor = FileDescriptor.Own(descriptor, "event");
    }

    /// <summary>Readable while signalled.</summary>
    internal FileDescriptor Descriptor { get; }

    /// <summary>Wakes the watcher. Everything this thread stored before is visible to it then. Any thread.</summary>
    public void Signal()
    {
        ulong one = 1;
        try
        {
            // SAFETY: writes 8 bytes from the stack to a descriptor that is held open. EAGAIN means that it is
            // readable already, which is all that is wanted.
            _ = LibC.Write(Descriptor, &one, sizeof(ulong));
        }
        catch (ObjectDisposedException)
        {
            // The watcher is gone; nobody is left to be woken.
        }
    }

    /// <summary>Forgets the signals so far; called by the watcher before it looks for what they announced.</summary>
    public void Clear()
    {
        ulong count;
        // SAFETY: reads 8 bytes to the stack. It fails with EAGAIN when there was none.
        _ = LibC.Read(Descriptor, &count, sizeof(ulong));
    }

    public void Dispose() => Descriptor.Dispose();
}
