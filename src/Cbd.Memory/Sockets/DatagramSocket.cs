using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text;
using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory.Sockets;

/// <summary>
/// One non-blocking Unix socket of datagrams, which may carry descriptors. Any number of threads may send; one receives.
/// </summary>
public sealed unsafe class DatagramSocket : IDisposable
{
    /// <summary>SCM_MAX_FD: more descriptors are in no datagram.</summary>
    private const int MostDescriptors = 253;

    private readonly FileDescriptor _file;

    private DatagramSocket(FileDescriptor file) => _file = file;

    /// <summary>Readable while datagrams wait.</summary>
    public FileDescriptor Descriptor => _file;

    /// <summary>
    /// A socket under a name that the kernel chose, which is in no tree of files: the namespace of the network has it until the socket is
    /// closed. It tells of each datagram who sent it.
    /// </summary>
    /// <param name="name">As in NOTIFY_SOCKET: <c>@</c> and the name.</param>
    public static DatagramSocket Bind(out string name)
    {
        DatagramSocket socket = Open();
        try
        {
            int one = 1;
            ushort family = FamilyUnix;
            byte* address = stackalloc byte[128];
            uint length = 128;
            // SAFETY: all that the calls read and store lives on this stack. An address of the family alone asks for a name.
            if (LibC.SetSocketOption(socket._file, LevelSocket, PassCredentials, &one, sizeof(int)) != 0)
                throw SystemCallException.Last("setsockopt SO_PASSCRED");
            if (LibC.Bind(socket._file, (byte*)&family, sizeof(ushort)) != 0)
                throw SystemCallException.Last("bind");
            if (LibC.GetSocketName(socket._file, address, &length) != 0 || length is <= sizeof(ushort) + 1 or > 128)
                throw SystemCallException.Last("getsockname");
            name = $"@{Encoding.ASCII.GetString(address + sizeof(ushort) + 1, (int)length - sizeof(ushort) - 1)}";
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }

    /// <summary>
    /// A socket that sends to <paramref name="name"/>: a full path, or <c>@</c> and a name that is in no tree of files. Returns null and the errno if
    /// nobody is there.
    /// </summary>
    /// <exception cref="CbdException">It is no such name.</exception>
    public static DatagramSocket? TryConnect(string name, out int error)
    {
        byte[] text = Encoding.UTF8.GetBytes(name);
        if (text.Length is < 2 or > 107 || text[0] is not ((byte)'/' or (byte)'@') || text.Contains((byte)0))
            throw new CbdException(CbdErrorKind.Invalid, $"NOTIFY_SOCKET is '{name}': it must be a full path, or '@' and a name, of at most 107 bytes");
        byte* address = stackalloc byte[sizeof(ushort) + 108];
        var bytes = new Span<byte>(address, sizeof(ushort) + 108);
        bytes.Clear();
        ushort family = FamilyUnix;
        MemoryMarshal.Write(bytes, in family);
        text.CopyTo(bytes[sizeof(ushort)..]);
        bool isAbstract = text[0] == (byte)'@';
        if (isAbstract)
            bytes[sizeof(ushort)] = 0;
        DatagramSocket socket = Open();
        // A path has its zero counted.
        // SAFETY: the address lives on this stack until the call returns.
        error = LibC.Connect(socket._file, address, (uint)(sizeof(ushort) + text.Length + (isAbstract ? 0 : 1))) == 0 ? 0 : LibC.LastErrno;
        if (error == 0)
            return socket;
        socket.Dispose();
        return null;
    }

    /// <summary>Two sockets, each of which sends to the other. The second tells who sent what it receives.</summary>
    public static (DatagramSocket Sender, DatagramSocket Receiver) CreatePair()
    {
        int* pair = stackalloc int[2];
        int one = 1;
        // SAFETY: the call stores two descriptors on this stack.
        if (LibC.SocketPair(FamilyUnix, SocketDatagram | SocketCloseOnExec | SocketNonBlocking, 0, pair) != 0)
            throw SystemCallException.Last("socketpair");
        var receiver = new DatagramSocket(FileDescriptor.Own(pair[1], "datagrams"));
        _ = LibC.SetSocketOption(receiver._file, LevelSocket, PassCredentials, &one, sizeof(int));
        return (new DatagramSocket(FileDescriptor.Own(pair[0], "datagrams")), receiver);
    }

    /// <summary>Sends one datagram, waiting for room in the other's queue. Returns 0 or a negative errno; ETIMEDOUT after <paramref name="timeoutMs"/>.</summary>
    public int TrySend(ReadOnlySpan<byte> bytes, FileDescriptor? descriptor, int timeoutMs)
    {
        long end = KernelClock.MonotonicNs + (timeoutMs * 1_000_000L);
        while (true)
        {
            int error = TrySendNow(bytes, descriptor);
            if (error is not (-EAGAIN or -EINTR))
                return error;
            long left = end - KernelClock.MonotonicNs;
            if (left <= 0)
                return -ETIMEDOUT;
            var entry = new LibC.PollEntry { Descriptor = _file.Number, Events = PollOut };
            LibC.TimeSpec timeout = LibC.TimeSpec.FromNanoseconds(Math.Min(left, 100_000_000));
            // SAFETY: both structures live on this stack until the call returns. It may be early, and the queue full again.
            _ = LibC.PPoll(&entry, 1, &timeout, null);
        }
    }

    /// <summary>
    /// Takes one datagram. False if none is there. Descriptors that came with it belong to the caller.
    /// </summary>
    public bool TryReceive(Span<byte> buffer, out ReceivedDatagram datagram)
    {
        // As many as can come, and who sent them.
        int controlBytes = Align(sizeof(LibC.ControlHeader) + (MostDescriptors * sizeof(int))) + Align(sizeof(LibC.ControlHeader) + sizeof(LibC.Credentials));
        byte* control = stackalloc byte[controlBytes];
        datagram = default;
        // SAFETY: the buffers live until the call returns, which stores at most their lengths.
        fixed (byte* start = buffer)
        {
            var vector = new LibC.IoVector { Start = start, Length = (nuint)buffer.Length };
            var message = new LibC.MessageHeader { Vectors = &vector, VectorCount = 1, Control = control, ControlLength = (nuint)controlBytes };
            nint count;
            do
                count = LibC.ReceiveMessage(_file.Number, &message, MessageDontWait | MessageCloseOnExec);
            while (count < 0 && LibC.LastErrno == EINTR);
            if (count < 0)
                return LibC.LastErrno == EAGAIN ? false : throw SystemCallException.Last("recvmsg");
            var descriptors = new List<FileDescriptor>();
            int processId = ReadControl(control, (int)message.ControlLength, descriptors);
            datagram = new ReceivedDatagram((int)count, processId, descriptors, (message.Flags & (MessageTruncated | MessageControlTruncated)) != 0);
            return true;
        }
    }

    public void Dispose() => _file.Dispose();

    private static DatagramSocket Open()
    {
        int descriptor = LibC.Socket(FamilyUnix, SocketDatagram | SocketNonBlocking | SocketCloseOnExec, 0);
        return descriptor >= 0 ? new DatagramSocket(FileDescriptor.Own(descriptor, "datagrams")) : throw SystemCallException.Last("socket");
    }

    private static int Align(int bytes) => (bytes + sizeof(nuint) - 1) & -sizeof(nuint);

    private static int ReadControl(byte* control, int length, List<FileDescriptor> descriptors)
    {
        int processId = 0;
        // SAFETY: the kernel wrote the records, and each is looked at only as far as 'length' says.
        for (int at = 0; at + sizeof(LibC.ControlHeader) <= length;)
        {
            var header = (LibC.ControlHeader*)(control + at);
            int bytes = (int)Math.Min(header->Length, (nuint)(length - at)) - sizeof(LibC.ControlHeader);
            if (bytes < 0)
                break;
            byte* data = control + at + sizeof(LibC.ControlHeader);
            if (header->Level == LevelSocket && header->Type == ControlRights)
            {
                for (int i = 0; i < bytes / sizeof(int); i++)
                    descriptors.Add(FileDescriptor.Own(((int*)data)[i], "received"));
            }
            else if (header->Level == LevelSocket && header->Type == ControlCredentials && bytes >= sizeof(LibC.Credentials))
            {
                processId = ((LibC.Credentials*)data)->ProcessId;
            }

            at += Align(sizeof(LibC.ControlHeader) + bytes);
        }

        return processId;
    }

    /// <summary>Returns 0 or a negative errno.</summary>
    private int TrySendNow(ReadOnlySpan<byte> bytes, FileDescriptor? descriptor)
    {
        int controlBytes = Align(sizeof(LibC.ControlHeader) + sizeof(int));
        byte* control = stackalloc byte[controlBytes];
        new Span<byte>(control, controlBytes).Clear();
        var header = (LibC.ControlHeader*)control;
        *header = new LibC.ControlHeader { Length = (nuint)(sizeof(LibC.ControlHeader) + sizeof(int)), Level = LevelSocket, Type = ControlRights };
        // SAFETY: the bytes are pinned, and all structures live on this stack, until the call returns.
        fixed (byte* start = bytes)
        {
            var vector = new LibC.IoVector { Start = start, Length = (nuint)bytes.Length };
            var message = new LibC.MessageHeader { Vectors = &vector, VectorCount = 1 };
            if (descriptor is not null)
            {
                *(int*)(control + sizeof(LibC.ControlHeader)) = descriptor.Number;
                message.Control = control;
                message.ControlLength = (nuint)controlBytes;
            }

            nint sent = LibC.SendMessage(_file.Number, &message, MessageDontWait | MessageNoSignal);
            int error = sent < 0 ? -LibC.LastErrno : 0;
            GC.KeepAlive(descriptor);
            return error;
        }
    }
}

/// <summary>One datagram that came.</summary>
/// <param name="Length">Its bytes in the buffer.</param>
/// <param name="ProcessId">Who sent it; 0 if the kernel does not say.</param>
/// <param name="Descriptors">What came with it.</param>
/// <param name="IsCut">Some of its bytes or descriptors did not fit, and are lost.</param>
public readonly record struct ReceivedDatagram(int Length, int ProcessId, IReadOnlyList<FileDescriptor> Descriptors, bool IsCut);
