using Cbd.Memory;
using Cbd.Memory.Sockets;

namespace Cbd.Exports.Nbd;

/// <summary>
/// One client in the transmission phase: its socket, what was received and not yet understood, and the replies that
/// wait to be sent. Belongs to one pump's thread.
/// </summary>
internal sealed class NbdConnection : IDisposable
{
    /// <summary>Room for requests that came together.</summary>
    internal const int InputBytes = 64 << 10;

    /// <summary>Most that is ever received and not taken: a header that was taken may be put back before what came with it.</summary>
    internal const int MaxUntakenBytes = InputBytes + NbdProtocol.ExtendedRequestBytes;

    /// <param name="id">Number of the client in this export, for messages.</param>
    /// <param name="socket">A connected socket whose handshake is over; the connection owns it.</param>
    /// <param name="received">What the client sent behind its handshake, or what was read ahead; at most <see cref="MaxUntakenBytes"/>.</param>
    internal NbdConnection(long id, StreamSocket socket, ReadOnlySpan<byte> received)
    {
        Id = id;
        Socket = socket;
        StalledNode = new LinkedListNode<NbdConnection>(this);
        Input = new NativeBuffer(MaxUntakenBytes);
        received.CopyTo(Input.GetSpan(0, MaxUntakenBytes));
        InputEnd = received.Length;
    }

    internal long Id { get; }

    /// <summary>What the handshake came to.</summary>
    internal NbdSession Session { get; init; }

    /// <summary>What the client was told of the device.</summary>
    internal NbdExportInfo Told { get; init; }

    internal NbdClientFlags ClientFlags { get; init; }

    /// <summary>The socket is half of a pair whose other half a relay of TLS has.</summary>
    internal bool HasTls { get; init; }

    internal StreamSocket Socket { get; }

    /// <summary>Bytes [<see cref="InputStart"/>, <see cref="InputEnd"/>) are received and not yet taken.</summary>
    internal NativeBuffer Input { get; }
    internal int InputStart;
    internal int InputEnd;

    /// <summary>What was received and not taken.</summary>
    internal Span<byte> Untaken => Input.GetSpan(InputStart, InputEnd - InputStart);

    /// <summary>The place in the pump's table; the epoll token is one more.</summary>
    internal int Index = -1;

    /// <summary>A header that was taken and waits for a slot or for memory.</summary>
    internal NbdRequestHeader Header;

    /// <summary>What was received last may not be started yet.</summary>
    internal bool IsHeld;
    internal bool HasHeader;

    /// <summary>The write whose payload is being received or thrown away, or −1.</summary>
    internal int ReceivingSlot = -1;
    internal long PayloadReceived;

    internal SlotList Replies = SlotList.Empty;

    /// <summary>Bytes of the first reply that are sent already.</summary>
    internal long FirstReplySent;

    /// <summary>Slots that belong to requests of this client.</summary>
    internal int SlotsInUse;

    /// <summary>What its requests hold of what all clients share.</summary>
    internal ClientHold Hold;

    /// <summary>How fast it gives back what it holds.</summary>
    internal MinimumRate Rate;

    /// <summary>Bytes that were moved in either direction.</summary>
    internal long MovedBytes;

    /// <summary>There may be something to receive.</summary>
    internal bool Readable = true;

    /// <summary>The peer has closed; receive until it says so.</summary>
    internal bool HangUpSeen;

    /// <summary>The socket takes nothing now; epoll will tell.</summary>
    internal bool OutputBlocked;

    /// <summary>Nothing more is received; it closes when the last slot is back.</summary>
    internal bool Ending;

    /// <summary>Nothing more is sent either.</summary>
    internal bool Broken;
    internal bool Closed;

    internal bool InReady;

    /// <summary>In the list of those who wait for what others hold, with <see cref="Header"/>.</summary>
    internal bool InStalled => StalledNode.List is not null;

    internal LinkedListNode<NbdConnection> StalledNode { get; }
    internal bool InUnsent;
    internal bool InClosing;

    /// <summary>Holds a header back because this client holds as much as one may.</summary>
    internal bool AtShare;

    /// <summary>When bytes last moved in either direction, in ticks of the stopwatch.</summary>
    internal long LastMoved;

    public void Dispose()
    {
        Closed = true;
        Socket.Dispose();
        Input.Dispose();
    }
}
