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

    /// <summary>Of sockaddr_un, without the zero at its end.</summary>
    private const int MostNameBytes = 107;
    private const int AddressBytes = sizeof(ushort) + MostNameBytes + 1;

    /// <summary>Octal 0600.</summary>
    private const uint OwnerOnly = 0x180;

    private readonly FileDescriptor _file;

    /// <summary>The file that the socket was bound to, which has no name any more; null if there was none.</summary>
    private readonly FileDescriptor? _place;

    private DatagramSocket(FileDescriptor file, FileDescriptor? place = null)
    {
        _file = file;
        _place = place;
    }

    /// <summary>Readable while datagrams wait.</summary>
    public FileDescriptor Descriptor => _file;

    /// <summary>
    /// A socket that this user alone, and root, can send to. Its file is in the directory for a moment, under a name that nobody can guess and for its owner
    /// alone; after that it is reached through this process's descriptor of it, so that nothing is left of it, however the process ends. It tells of each
    /// datagram who sent it.
    /// </summary>
    /// <param name="directory">A directory that strangers cannot write.</param>
    /// <param name="name">A full path, as in NOTIFY_SOCKET.</param>
    /// <exception cref="CbdException">It cannot be made there, or not be reached.</exception>
    public static DatagramSocket Bind(string directory, out string name)
    {
        using FileDescriptor parent = FileDescriptor.Open(directory, OpenFlags.Path | OpenFlags.Directory);
        string entry = $"notify-{Guid.NewGuid():N}";
        // The path of the directory may be longer than an address.
        string path = $"/proc/self/fd/{parent.Number}/{entry}";
        FileDescriptor file = OpenFile();
        FileDescriptor? place = null;
        try
        {
            int one = 1;
            // SAFETY: what the call reads lives on this stack.
            if (LibC.SetSocketOption(file, LevelSocket, PassCredentials, &one, sizeof(int)) != 0)
                throw SystemCallException.Last("setsockopt SO_PASSCRED");
            byte* address = stackalloc byte[AddressBytes];
            uint length = WriteAddress(path, new Span<byte>(address, AddressBytes));
            // The file gets the mode of the socket's own inode: there is no moment in which others could send.
            if (LibC.FChangeMode(file, OwnerOnly) != 0 || LibC.Bind(file, address, length) != 0)
                throw SystemCallException.Last("bind", $"a socket in '{directory}'");
            try
            {
                place = parent.TryOpenBelow(entry, OpenFlags.Path | OpenFlags.NoFollow, out FileDescriptor? opened) is var error && error == 0
                    ? opened
                    : throw new SystemCallException("open", -error, $"a socket in '{directory}'");
            }
            finally
            {
                _ = LibC.Unlink(path);
            }

            name = $"/proc/{OwnNumber()}/fd/{place!.Number}";
            using DatagramSocket? probe = TryConnect(name, out int refused);
            if (probe is null)
                throw new CbdException(CbdErrorKind.Failed, $"a socket in '{directory}' cannot be reached through '{name}' (errno {refused}): /proc must be mounted, and let this user look at its own processes");
            return new DatagramSocket(file, place);
        }
        catch
        {
            place?.Dispose();
            file.Dispose();
            throw;
        }
    }

    /// <summary>
    /// A socket that sends to <paramref name="name"/>: a full path, or <c>@</c> and a name that is in no tree of files. Returns null and the errno if
    /// nobody is there; EINVAL if it is no such name.
    /// </summary>
    public static DatagramSocket? TryConnect(string name, out int error)
    {
        error = EINVAL;
        if (Encoding.UTF8.GetByteCount(name) is < 2 or > MostNameBytes || name[0] is not ('/' or '@') || name.Contains('\0', StringComparison.Ordinal))
            return null;
        byte* address = stackalloc byte[AddressBytes];
        uint length = WriteAddress(name, new Span<byte>(address, AddressBytes));
        var socket = new DatagramSocket(OpenFile());
        // SAFETY: the address lives on this stack until the call returns.
        error = LibC.Connect(socket._file, address, length) == 0 ? 0 : LibC.LastErrno;
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
    /// Takes one datagram that a process sent. What others sent is taken, too, and returned without its descriptors: those never get into this process, where
    /// to close them may wait for whoever serves their file. False if nothing is there.
    /// </summary>
    /// <param name="buffer">For its bytes.</param>
    /// <param name="sender">The process; 0: nobody's descriptors are taken.</param>
    /// <param name="datagram">Descriptors that came with it belong to the caller.</param>
    public bool TryReceiveFrom(int sender, Span<byte> buffer, out ReceivedDatagram datagram)
    {
        int controlBytes = Align(sizeof(LibC.ControlHeader) + sizeof(LibC.Credentials));
        byte* control = stackalloc byte[controlBytes];
        datagram = default;
        // Who sent it is told first, and takes all the room there is. Whoever comes later comes after it.
        nint count = Receive([], control, controlBytes, MessagePeek, out LibC.MessageHeader message);
        if (count < 0)
            return false;
        int processId = ReadControl(control, (int)message.ControlLength, []);
        if (sender != 0 && processId == sender)
            return TryReceive(buffer, out datagram);
        count = Receive(buffer, null, 0, 0, out message);
        datagram = new ReceivedDatagram((int)Math.Max(0, count), processId, [], (message.Flags & (MessageTruncated | MessageControlTruncated)) != 0);
        return count >= 0;
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
        nint count = Receive(buffer, control, controlBytes, 0, out LibC.MessageHeader message);
        if (count < 0)
            return false;
        var descriptors = new List<FileDescriptor>();
        int processId = ReadControl(control, (int)message.ControlLength, descriptors);
        datagram = new ReceivedDatagram((int)count, processId, descriptors, (message.Flags & (MessageTruncated | MessageControlTruncated)) != 0);
        return true;
    }

    public void Dispose()
    {
        _file.Dispose();
        _place?.Dispose();
    }

    private static FileDescriptor OpenFile()
    {
        int descriptor = LibC.Socket(FamilyUnix, SocketDatagram | SocketNonBlocking | SocketCloseOnExec, 0);
        return descriptor >= 0 ? FileDescriptor.Own(descriptor, "datagrams") : throw SystemCallException.Last("socket");
    }

    /// <summary>The address of a name that fits. Returns its length, bytes.</summary>
    private static uint WriteAddress(string name, Span<byte> address)
    {
        address.Clear();
        ushort family = FamilyUnix;
        MemoryMarshal.Write(address, in family);
        int length = Encoding.UTF8.GetBytes(name, address[sizeof(ushort)..]);
        bool isAbstract = name[0] == '@';
        if (isAbstract)
            address[sizeof(ushort)] = 0;
        // A path has its zero counted.
        return (uint)(sizeof(ushort) + length + (isAbstract ? 0 : 1));
    }

    /// <summary>This process's number in the process namespace that /proc was mounted in.</summary>
    private static string OwnNumber()
    {
        const int mostBytes = 32;
        byte* text = stackalloc byte[mostBytes];
        // SAFETY: the call stores at most that many bytes on this stack.
        nint length = LibC.ReadLink("/proc/self", text, mostBytes);
        return length > 0 ? Encoding.ASCII.GetString(text, (int)length) : throw SystemCallException.Last("readlink", "/proc/self");
    }

    /// <summary>One recvmsg(2). Returns the count of bytes, or -1 if no datagram is there.</summary>
    private nint Receive(Span<byte> buffer, byte* control, int controlBytes, int flags, out LibC.MessageHeader message)
    {
        // SAFETY: the buffers live until the call returns, which stores at most their lengths.
        fixed (byte* start = buffer)
        {
            var vector = new LibC.IoVector { Start = start, Length = (nuint)buffer.Length };
            LibC.MessageHeader header;
            nint count;
            do
            {
                header = new LibC.MessageHeader { Vectors = &vector, VectorCount = 1, Control = control, ControlLength = (nuint)controlBytes };
                count = LibC.ReceiveMessage(_file.Number, &header, MessageDontWait | MessageCloseOnExec | flags);
            }
            while (count < 0 && LibC.LastErrno == EINTR);
            message = header;
            message.Vectors = null;
            return count >= 0 || LibC.LastErrno == EAGAIN ? count : throw SystemCallException.Last("recvmsg");
        }
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
