using System.Runtime.InteropServices;

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
    private const int ControlAdd = 1;
    private const int ControlRemove = 2;
    private const int ControlModify = 3;

    // struct epoll_event {u32 events; u64 data}: packed on x86-64 alone, for the sake of 32-bit programs there.
    private static readonly int s_dataOffset = RuntimeInformation.ProcessArchitecture == Architecture.X64 ? 4 : 8;
    private static readonly int s_eventBytes = s_dataOffset + 8;

    private readonly int _capacity;
    private int _descriptor;
    private byte* _events;

    /// <param name="capacity">Most events that one <see cref="Wait"/> returns.</param>
    public EventPoll(int capacity)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(capacity, 1);
        _capacity = capacity;
        _descriptor = SocketCalls.EpollCreate(SocketCalls.EPOLL_CLOEXEC);
        if (_descriptor < 0)
            throw Failed("epoll_create1");
        _events = (byte*)NativeMemory.AllocZeroed((nuint)capacity, (nuint)s_eventBytes);
    }

    ~EventPoll() => Free();

    /// <summary>The number of the epoll descriptor, which is readable while there are events.</summary>
    public int Descriptor => _descriptor;

    /// <summary>Watches a socket; <paramref name="token"/> comes back with its events.</summary>
    public void Add(StreamSocket socket, ulong token, SocketEvents events) => Control(ControlAdd, socket.Descriptor, token, events);

    /// <summary>Watches a wake-up, level-triggered.</summary>
    public void Add(PollWake wake, ulong token) => Control(ControlAdd, wake.Descriptor, token, SocketEvents.Readable);

    /// <summary>Changes what is watched; what is true already is reported again.</summary>
    public void Modify(StreamSocket socket, ulong token, SocketEvents events) => Control(ControlModify, socket.Descriptor, token, events);

    /// <summary>Watches a socket no more. Closing it does the same.</summary>
    public void Remove(StreamSocket socket) => Control(ControlRemove, socket.Descriptor, 0, SocketEvents.None);

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
            SocketCalls.PollDescriptor self = new() { Descriptor = _descriptor, Events = 1 };
            SocketCalls.TimeSpecification time = new()
            {
                Seconds = timeoutNanoseconds / 1_000_000_000,
                Nanoseconds = timeoutNanoseconds % 1_000_000_000,
            };
            // SAFETY: both structures live until the call returns.
            if (SocketCalls.PollDescriptors(&self, 1, &time, null) <= 0)
                return 0;
            timeoutNanoseconds = 0;
        }

        int timeoutMs = timeoutNanoseconds < 0 ? -1 : (int)Math.Min(timeoutNanoseconds / 1_000_000, int.MaxValue);
        // SAFETY: the buffer has room for _capacity events.
        int count = SocketCalls.EpollWait(_descriptor, _events, _capacity, timeoutMs);
        if (count >= 0)
            return count;
        return Marshal.GetLastPInvokeError() == SocketErrno.EINTR ? 0 : throw Failed("epoll_wait");
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
        GC.SuppressFinalize(this);
    }

    private static CbdException Failed(string call) =>
        new(CbdErrorKind.Failed, $"{call} failed with errno {Marshal.GetLastPInvokeError()}");

    private void Control(int operation, int descriptor, ulong token, SocketEvents events)
    {
        Span<byte> bytes = stackalloc byte[16];
        uint bits = (uint)events;
        MemoryMarshal.Write(bytes, in bits);
        MemoryMarshal.Write(bytes[s_dataOffset..], in token);
        // SAFETY: the structure lives on this stack until the call returns.
        fixed (byte* start = bytes)
        {
            if (SocketCalls.EpollControl(_descriptor, operation, descriptor, start) != 0)
                throw Failed("epoll_ctl");
        }
    }

    private void Free()
    {
        int descriptor = Interlocked.Exchange(ref _descriptor, -1);
        if (descriptor >= 0)
            _ = SocketCalls.Close(descriptor);
        byte* events = _events;
        _events = null;
        if (events != null)
            NativeMemory.Free(events);
    }
}
