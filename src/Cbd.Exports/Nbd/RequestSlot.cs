using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Exports.Nbd;

/// <summary>Where a request is on its way through a pump.</summary>
internal enum RequestStage : byte
{
    Free,

    /// <summary>Its payload is being received, or thrown away where it was refused.</summary>
    Receiving,

    /// <summary>It, or a part of it, is at the device or waits for room there.</summary>
    AtDevice,

    /// <summary>Its reply waits to be sent.</summary>
    Replying,
}

/// <summary>One request in flight, from its header to the last byte of its reply.</summary>
internal struct RequestSlot
{
    internal NbdConnection? Connection;
    internal ulong Handle;
    internal long Offset;
    internal long Length;

    /// <summary>Room of the payload of a read, write or block-status; default for the others.</summary>
    internal BufferSlice Data;

    /// <summary>Bytes given to the device so far; a request that is longer than the device takes goes in pieces.</summary>
    internal long Submitted;

    /// <summary>Bytes that the device stored for a read or block-status.</summary>
    internal long Stored;

    /// <summary>Pieces at the device.</summary>
    internal int Pieces;

    /// <summary>0 or the first errno.</summary>
    internal int Errno;

    /// <summary>Bytes of the reply before its data.</summary>
    internal int ReplyHeaderBytes;

    /// <summary>Bytes of <see cref="Data"/> that the reply carries.</summary>
    internal int ReplyDataBytes;

    /// <summary>The next slot in the one list that this one is in: free, waiting for the device, or replies; or −1.</summary>
    internal int Next;
    internal BlockOperation Operation;
    internal BlockFlags Flags;
    internal RequestStage Stage;
    internal NbdRefusal Refusal;

    /// <summary>Nothing of it is to be given to the device any more.</summary>
    internal bool WhollySubmitted;
}

/// <summary>First-in, first-out list of slots that are linked by <see cref="RequestSlot.Next"/>.</summary>
internal struct SlotList
{
    internal int First;
    private int _last;

    internal static SlotList Empty => new() { First = -1, _last = -1 };

    internal readonly bool IsEmpty => First < 0;

    internal void Append(RequestSlot[] slots, int index)
    {
        slots[index].Next = -1;
        if (First < 0)
            First = index;
        else
            slots[_last].Next = index;
        _last = index;
    }

    internal int RemoveFirst(RequestSlot[] slots)
    {
        int index = First;
        First = slots[index].Next;
        slots[index].Next = -1;
        return index;
    }
}
