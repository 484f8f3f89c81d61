using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory.Sockets;

/// <content>
/// For connections with a thread per direction: one may receive while another sends, each waits as long as it must, and
/// any thread ends both by <see cref="Shutdown"/>. Disposing waits until neither uses the socket any more.
/// </content>
public sealed unsafe partial class StreamSocket
{
    /// <summary>Two connected Unix sockets of ours, non-blocking like all sockets here.</summary>
    public static (StreamSocket First, StreamSocket Second) CreateConnectedPair()
    {
        int* pair = stackalloc int[2];
        // SAFETY: the call stores two descriptors on this stack.
        if (LibC.SocketPair(FamilyUnix, SocketStream | SocketCloseOnExec | SocketNonBlocking, 0, pair) != 0)
            throw SystemCallException.Last("socketpair");
        return (new StreamSocket(pair[0]), new StreamSocket(pair[1]));
    }

    /// <summary>
    /// Ends what this side sends, or both directions: the peer, and threads that wait here, find the end. Without effect
    /// on a connection that is over.
    /// </summary>
    public void Shutdown(bool sendingOnly) => _ = LibC.Shutdown(Descriptor, sendingOnly ? ShutdownSend : ShutdownBoth);

    /// <summary>Waits, however long, until <see cref="Receive"/> has something to say: bytes, the end or an error.</summary>
    public void WaitReadable() => _ = Wait(PollIn, null);

    /// <summary>
    /// The same, but false as soon as <paramref name="other"/> is over in both directions.
    /// </summary>
    public bool WaitReadable(StreamSocket other) => Wait(PollIn, other);

    /// <summary>Waits, however long, until <see cref="Send(ReadOnlySpan{byte})"/> takes bytes or fails.</summary>
    public void WaitWritable() => _ = Wait(PollOut, null);

    /// <summary>Waits, however long, until the connection is over in both directions.</summary>
    public void WaitOver() => _ = Wait(0, null);

    /// <summary>Sends all of it, waiting for room; returns 0 or the errno that ended it.</summary>
    public int SendAll(ReadOnlySpan<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            SocketResult result = Send(bytes);
            if (result.Count > 0)
                bytes = bytes[result.Count..];
            else if (result.WouldBlock)
                WaitWritable();
            else
                return result.Error == 0 ? EIO : result.Error;
        }

        return 0;
    }

    /// <summary>Returns false if the other socket hung up.</summary>
    private bool Wait(short events, StreamSocket? other)
    {
        LibC.PollEntry* entries = stackalloc LibC.PollEntry[2];
        entries[0] = new LibC.PollEntry { Descriptor = Descriptor, Events = events };
        // Nothing is asked of the other: what poll always tells, an error or the end of both directions, is enough.
        entries[1] = new LibC.PollEntry { Descriptor = other?.Descriptor ?? -1 };
        while (true)
        {
            // SAFETY: both entries live on this stack until the call returns; a negative descriptor is skipped.
            int count = LibC.PPoll(entries, 2, null, null);
            if (count < 0 && LibC.LastErrno != EINTR)
                throw SystemCallException.Last("ppoll");
            if (count <= 0)
                continue;
            return (entries[1].Returned & (PollError | PollHangUp)) == 0;
        }
    }
}
