using System.Runtime.InteropServices;
using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory.Sockets;

/// <summary>
/// A list of memory ranges that one system call fills or sends: scatter and gather without copying. Filled, used and
/// cleared by one thread; allocates only when it is made.
/// </summary>
public sealed unsafe class IoVectorList : IDisposable
{
    private readonly int _capacity;
    private LibC.IoVector* _vectors;

    /// <param name="capacity">Most ranges of one call, 1 to 1024 (the kernel's UIO_MAXIOV).</param>
    public IoVectorList(int capacity)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(capacity, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(capacity, 1024);
        _vectors = (LibC.IoVector*)NativeMemory.AllocZeroed((nuint)capacity, (nuint)sizeof(LibC.IoVector));
        _capacity = capacity;
    }

    ~IoVectorList() => Free();

    /// <summary>Ranges in the list.</summary>
    public int Count { get; private set; }

    /// <summary>Bytes of all ranges together.</summary>
    public long LengthBytes { get; private set; }

    /// <summary>Ranges that still fit.</summary>
    public int Room => _capacity - Count;

    public void Clear()
    {
        Count = 0;
        LengthBytes = 0;
    }

    /// <summary>Adds a range; empty ones are left out. The memory must stay until the call was made.</summary>
    public void Add(NativeBuffer buffer, long offset, int length)
    {
        if (length == 0)
            return;
        if (Count == _capacity)
            throw new InvalidOperationException($"a list of {_capacity} memory ranges is full");
        // SAFETY: GetSpan checks the range against the native allocation, which does not move; Count < capacity.
        fixed (byte* start = buffer.GetSpan(offset, length))
        {
            _vectors[Count].Start = start;
            _vectors[Count].Length = (nuint)length;
        }

        Count++;
        LengthBytes += length;
    }

    /// <summary>Receives into the ranges in their order; a count of 0 is the end of the stream.</summary>
    public SocketResult Receive(StreamSocket socket)
    {
        LibC.MessageHeader message = Message();
        nint count;
        do
            count = LibC.ReceiveMessage(socket.Descriptor, &message, MessageDontWait);
        while (count < 0 && LibC.LastErrno == EINTR);
        return StreamSocket.Result(count);
    }

    /// <summary>Sends the ranges in their order, as much as fits now.</summary>
    public SocketResult Send(StreamSocket socket)
    {
        LibC.MessageHeader message = Message();
        nint count;
        do
            count = LibC.SendMessage(socket.Descriptor, &message, MessageDontWait | MessageNoSignal);
        while (count < 0 && LibC.LastErrno == EINTR);
        return StreamSocket.Result(count);
    }

    public void Dispose()
    {
        Free();
        GC.SuppressFinalize(this);
    }

    private LibC.MessageHeader Message()
    {
        ObjectDisposedException.ThrowIf(_vectors == null, this);
        return new LibC.MessageHeader { Vectors = _vectors, VectorCount = (nuint)Count };
    }

    private void Free()
    {
        LibC.IoVector* vectors = _vectors;
        _vectors = null;
        if (vectors != null)
            NativeMemory.Free(vectors);
    }
}
