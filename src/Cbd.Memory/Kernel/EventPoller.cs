using System.Buffers.Binary;
using System.Runtime.InteropServices;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>What may be waited for (sys/epoll.h).</summary>
[Flags]
public enum PollEvents
{
    None = 0,
    Readable = 1,
    Writable = 4,

    /// <summary>Always reported.</summary>
    Error = 8,

    /// <summary>Always reported.</summary>
    HangUp = 0x10,
    PeerClosed = 0x2000,
    EdgeTriggered = 1 << 31,
}

/// <summary>One descriptor that is ready; <paramref name="Data"/> is what it was added with.</summary>
public readonly record struct PollResult(PollEvents Events, ulong Data);

/// <summary>An epoll(7) set. <see cref="Wait"/> by one thread at a time, the rest by any; no allocation.</summary>
public sealed unsafe class EventPoller : IDisposable
{
    private const int MaximumResults = 64;
    private static volatile bool s_hasWait2 = true;

    public EventPoller()
    {
        int descriptor = LibC.EpollCreate1(EpollCloseOnExec);
        Descriptor = descriptor < 0 ? throw SystemCallException.Last("epoll_create1") : FileDescriptor.Own(descriptor, "epoll");
    }

    /// <summary>Readable while a descriptor of the set is ready: sets can be nested.</summary>
    public FileDescriptor Descriptor { get; }

    public void Add(FileDescriptor descriptor, PollEvents events, ulong data) => Control(EpollAdd, descriptor, events, data);

    public void Modify(FileDescriptor descriptor, PollEvents events, ulong data) => Control(EpollModify, descriptor, events, data);

    public void Remove(FileDescriptor descriptor) => Control(EpollDelete, descriptor, PollEvents.None, 0);

    /// <summary>
    /// Waits until something is ready or the time is over (negative: without limit) and returns how many results were
    /// stored; 0 also when a signal interrupted it.
    /// </summary>
    public int Wait(Span<PollResult> results, long timeoutMicroseconds)
    {
        int limit = Math.Min(results.Length, MaximumResults);
        byte* entries = stackalloc byte[MaximumResults * 16];
        int count = WaitRaw(entries, limit, timeoutMicroseconds);
        if (count < 0)
        {
            Descriptor.ThrowUnlessInterrupted("epoll_wait");
            return 0;
        }

        int stride = EpollEventBytes;
        for (int i = 0; i < count; i++)
        {
            // SAFETY: count is at most limit, for which there is room; data is the last 8 bytes of an entry.
            var entry = new ReadOnlySpan<byte>(entries + i * stride, stride);
            results[i] = new PollResult(
                (PollEvents)BinaryPrimitives.ReadInt32LittleEndian(entry),
                BinaryPrimitives.ReadUInt64LittleEndian(entry[(stride - 8)..]));
        }

        return count;
    }

    public void Dispose() => Descriptor.Dispose();

    private int WaitRaw(byte* entries, int limit, long timeoutMicroseconds)
    {
        if (s_hasWait2 && timeoutMicroseconds > 0)
        {
            // epoll_wait counts in ms; its newer form takes ns.
            TimeSpec timeout = TimeSpec.FromMicroseconds(timeoutMicroseconds);
            nint count = LibC.SystemCall(SyscallEpollPWait2, Descriptor.Number, (nint)entries, limit, (nint)(&timeout), 0, 0);
            GC.KeepAlive(this);
            if (count >= 0 || Marshal.GetLastPInvokeError() != ENOSYS)
                return (int)count;
            s_hasWait2 = false;
        }

        int timeoutMs = timeoutMicroseconds < 0 ? -1 : (int)Math.Min((timeoutMicroseconds + 999) / 1000, int.MaxValue);
        return LibC.EpollWait(Descriptor, entries, limit, timeoutMs);
    }

    private void Control(int operation, FileDescriptor descriptor, PollEvents events, ulong data)
    {
        int stride = EpollEventBytes;
        byte* entry = stackalloc byte[16];
        var bytes = new Span<byte>(entry, stride);
        bytes.Clear();
        BinaryPrimitives.WriteInt32LittleEndian(bytes, (int)events);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes[(stride - 8)..], data);
        if (LibC.EpollCtl(Descriptor, operation, descriptor, entry) < 0)
            throw SystemCallException.Last("epoll_ctl");
    }
}
