using System.Runtime.InteropServices;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>An eventfd(2): one thread is woken out of an <see cref="EventPoller"/> by another.</summary>
public sealed unsafe class EventNotifier : IDisposable
{
    public EventNotifier()
    {
        int descriptor = LibC.EventFd(0, EventFdCloseOnExec | EventFdNonBlocking);
        Descriptor = descriptor < 0 ? throw SystemCallException.Last("eventfd") : FileDescriptor.Own(descriptor, "eventfd");
    }

    /// <summary>Readable while signalled.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>Makes it readable. Any thread.</summary>
    public void Signal()
    {
        ulong one = 1;
        while (LibC.Write(Descriptor, &one, sizeof(ulong)) < 0)
        {
            // EAGAIN: the counter is at its limit, so it is signalled.
            if (Marshal.GetLastPInvokeError() == EAGAIN)
                return;
            Descriptor.ThrowUnlessInterrupted("write");
        }
    }

    /// <summary>Makes it unreadable; true if it was signalled.</summary>
    public bool Reset()
    {
        ulong count;
        while (LibC.Read(Descriptor, &count, sizeof(ulong)) < 0)
        {
            if (Marshal.GetLastPInvokeError() == EAGAIN)
                return false;
            Descriptor.ThrowUnlessInterrupted("read");
        }

        return true;
    }

    public void Dispose() => Descriptor.Dispose();
}
