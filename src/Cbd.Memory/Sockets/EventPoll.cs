using System.Runtime.InteropServices;
using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory.Sockets;

/// <summary>What a descriptor is ready for; the bits of Linux' epoll.h.</summary>
[Flags]
public enum SocketEvents : uint
{
    None = 0,
    Readable = 0x001,
    Writable = 0x004,
    Error = 0x008,
    HangUp = 0x010,

    /// <summary>The peer has closed its sending half.</summary>
    PeerClosed = 0x2000,

    /// <summary>Report a state once when it is entered, not as long as it holds.</summary>
    EdgeTriggered = 0x8000_0000,
}

/// <summary>
/// One epoll descriptor with room for the events of one call. Used by one thread, except that descriptors may be added
/// from any.
/// </summary>
public sealed unsafe class EventPoll : IDisposable
{
    // struct epoll_event {u32 events; u64 data}.
    private static readonly int s_eventBytes = EpollEventBytes;
    private static readonly int s_dataOffset = s_eventBytes - sizeof(ulong);

    private readonly int _capacity;
    private readonly FileDescriptor _descriptor;
    private byte* _events;

    /// <param name="capacity">Most events that one <see cref="Wait"/> returns.</param>
    public EventPoll(int capacity)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(capacity, 1);
        _capacity = capacity;
        int descriptor = LibC.EpollCreate1(EpollCloseOnExec);
        _descriptor = descriptor < 0 ? throw SystemCallException.Last("epoll_create1") : FileDescriptor.Own(descriptor, "epoll");
        _events = (byte*)NativeMemory.AllocZeroed((nuint)capacity, (nuint)s_eventBytes);
    }

    ~EventPoll() => Free();

    /// <summary>The number of the epoll descriptor, which is readable while there are events.</summary>
    public int Descriptor => _descriptor.Number;

    /// <summary>Watches a socket; <paramref name="token"/> comes back with its events.</summary>
    public void Add(StreamSocket socket, ulong token, SocketEvents events) => Control(EpollAdd, socket.Descriptor, token, events);

    /// <summary>Watches a wake-up, level-triggered.</summary>
    public void Add(PollWake wake, ulong token) => Control(EpollAdd, wake.Descriptor.Number, token, SocketEvents.Readable);

    /// <summary>Watches a descriptor for something to read, level-triggered.</summary>
    public void Add(FileDescriptor descriptor, ulong token) => Control(EpollAdd, descriptor.Number, token, SocketEvents.Readable);

    /// <summary>Watches a descriptor no more.</summary>
    public void Remove(FileDescriptor descriptor) => Control(EpollDelete, descriptor.Number, 0, SocketEvents.None);

    /// <summary>Watches a channel of FUSE for requests, level-triggered.</summary>
    public void Add(Fuse.FuseChannel channel, ulong token) => Control(EpollAdd, channel.Descriptor.Number, token, SocketEvents.Readable);

    /// <summary>Watches a channel no more.</summary>
    public void Remove(Fuse.FuseChannel channel) => Control(EpollDelete, channel.Descriptor.Number, 0, SocketEvents.None);

    /// <summary>Changes what is watched; what is true already is reported again.</summary>
    public void Modify(StreamSocket socket, ulong token, SocketEvents events) => Control(EpollModify, socket.Descriptor, token, events);

    /// <summary>Watches a socket no more. Closing it does the same.</summary>
    public void Remove(StreamSocket socket) => Control(EpollDelete, socket.Descriptor, 0, SocketEvents.None);

    /// <summary>
    /// Returns the number of events that are there now, waiting up to <paramref name="timeoutNanoseconds"/> for the
    /// first (0: not at all, negative: without bound). 0 after the time, or early.
    /// </summary>
    public int Wait(long timeoutNanoseconds)
    {
        ObjectDisposedException.ThrowIf(_events == null, this);
        if (timeoutNanoseconds > 0 && timeoutNanoseconds % 1_000_000 != 0)
        {
            // epoll_wait counts in milliseconds and epoll_pwait2 is missing in older C libraries: ppoll on the epoll
            // descriptor sleeps with the resolution that is needed.
            LibC.PollEntry self = new() { Descriptor = _descriptor.Number, Events = PollIn };
            LibC.TimeSpec time = LibC.TimeSpec.FromNanoseconds(timeoutNanoseconds);
            // SAFETY: both structures live until the call returns.
            if (LibC.PPoll(&self, 1, &time, null) <= 0)
                return 0;
            timeoutNanoseconds = 0;
        }

        int timeoutMs = timeoutNanoseconds < 0 ? -1 : (int)Math.Min(timeoutNanoseconds / 1_000_000, int.MaxValue);
        // SAFETY: the buffer has room for _capacity events.
        int count = LibC.EpollWait(_descriptor.Number, _events, _capacity, timeoutMs);
        if (count >= 0)
            return count;
        return LibC.LastErrno == EINTR ? 0 : throw SystemCallException.Last("epoll_wait");
    }

    /// <summary>Event <paramref name="index"/> of the last <see cref="Wait"/>.</summary>
    public SocketEvents GetEvent(int index, out ulong token)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)index, (uint)_capacity, nameof(index));
        ObjectDisposedException.ThrowIf(_events == null, this);
        // SAFETY: index < capacity was checked; the fields may be unaligned in the packed form.
        var bytes = new ReadOnlySpan<byte>(_events + ((nint)index * s_eventBytes), s_eventBytes);
        token = MemoryMarshal.Read<ulong>(bytes[s_dataOffset..]);
        return (SocketEvents)MemoryMarshal.Read<uint>(bytes);
    }

    public void Dispose()
    {
        Free();
        _descriptor.Dispose();
        GC.SuppressFinalize(this);
    }

    private void Control(int operation, int descriptor, ulong token, SocketEvents events)
    {
        Span<byte> bytes = stackalloc byte[16];
        uint bits = (uint)events;
        MemoryMarshal.Write(bytes, in bits);
        MemoryMarshal.Write(bytes[s_dataOffset..], in token);
        // SAFETY: the structure lives on this stack until the call returns.
        fixed (byte* start = bytes)
        {
            if (LibC.EpollCtl(_descriptor.Number, operation, descriptor, start) != 0)
                throw SystemCallException.Last("epoll_ctl");
        }
    }

    private void Free()
    {
        byte* events = _events;
        _events = null;
        if (events != null)
            NativeMemory.Free(events);
    }
}
