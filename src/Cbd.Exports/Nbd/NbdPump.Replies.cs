using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Exports.Nbd;

/// <content>What a reply says, in the form that its client negotiated.</content>
internal sealed partial class NbdPump
{
    /// <summary>
    /// From here on a read in chunks is looked through for zeroes, which are sent as a hole. Shorter ones cost their
    /// system call and not their bytes.
    /// </summary>
    private const int LeastHoleBytes = 64 << 10;

    /// <summary>Writes the header and tells how much data goes with it.</summary>
    private static void WriteReply(ref RequestSlot slot, in NbdSession session, Span<byte> to)
    {
        bool reads = slot.Operation == BlockOperation.Read && slot.Errno == 0;
        if (!session.HasChunks)
        {
            slot.ReplyDataBytes = reads ? slot.Data.Length : 0;
            slot.ReplyHeaderBytes = NbdReplies.WriteSimple(to, NbdErrors.FromErrno(slot.Errno), slot.Handle);
            return;
        }

        var origin = new NbdReplies.Origin(session.ExtendedHeaders, slot.Handle, (ulong)slot.Offset);
        if (slot.Errno != 0)
        {
            slot.ReplyDataBytes = 0;
            slot.ReplyHeaderBytes = NbdReplies.WriteError(to, origin, NbdErrors.FromErrno(slot.Errno), NbdRefusals.Text(slot.Refusal));
        }
        else if (reads && IsHole(slot.Data))
        {
            slot.ReplyHeaderBytes = NbdReplies.WriteHole(to, origin, slot.Data.Length);
        }
        else if (reads)
        {
            slot.ReplyDataBytes = slot.Data.Length;
            slot.ReplyHeaderBytes = NbdReplies.WriteData(to, origin, slot.Data.Length);
        }
        else if (slot.Operation == BlockOperation.BlockStatus)
        {
            slot.ReplyDataBytes = NbdExtents.Encode(slot.Data.Span[..(int)slot.Stored], session.ExtendedHeaders);
            slot.ReplyHeaderBytes = NbdReplies.WriteStatus(to, origin, slot.ReplyDataBytes);
        }
        else
        {
            // A success without data may be simple among structured replies, and is shorter then.
            slot.ReplyHeaderBytes = session.ExtendedHeaders
                ? NbdReplies.WriteNone(to, origin)
                : NbdReplies.WriteSimple(to, NbdError.None, slot.Handle);
        }
    }

    private static bool IsHole(in BufferSlice data)
    {
        if (data.Length < LeastHoleBytes)
            return false;
        ReadOnlySpan<byte> bytes = data.Span;
        return bytes[^1] == 0 && !bytes.ContainsAnyExcept((byte)0);
    }

    /// <summary>A device that does not know what is where has data everywhere.</summary>
    private static void FinishStatus(ref RequestSlot slot)
    {
        if (slot.Errno == Errno.EOPNOTSUPP)
        {
            new BlockExtent(slot.Length, BlockExtentState.Data).Encode(slot.Data.Span);
            slot.Stored = BlockExtent.EncodedSizeBytes;
            slot.Errno = 0;
        }

        if (slot.Errno == 0 && !NbdExtents.AreValid(slot.Data.Span, slot.Stored, slot.Length))
            slot.Errno = Errno.EIO;
    }
}
