using System.Buffers.Binary;

namespace Cbd.Exports.Nbd;

/// <summary>
/// Writes replies, without the data that follows some of them. Each method returns how many bytes it wrote.
/// <code>
/// simple                     structured chunk              extended chunk
/// offset size field          offset size field             offset size field
///      0    4 magic 67446698      0    4 magic 668e33ef         0    4 magic 6e8a278c
///      4    4 error               4    2 flags: 1 = last        4    2 flags: 1 = last
///      8    8 handle              6    2 type                   6    2 type
///                                 8    8 handle                 8    8 handle
///                                16    4 payload, bytes        16    8 offset of the request
///                                                              24    8 payload, bytes
/// </code>
/// All big-endian. Every reply is one chunk, the last one: nothing is sent before all of it is there. Source:
/// doc/proto.md, "Simple reply message", "Structured reply chunk message", "Structured reply types".
/// </summary>
internal static class NbdReplies
{
    /// <summary>Room that any of them fits into.</summary>
    internal const int MaxHeaderBytes = 128;

    private const ushort DoneFlag = 1;

    /// <summary>What every chunk of a reply repeats from its request.</summary>
    internal readonly record struct Origin(bool Extended, ulong Handle, ulong Offset);

    internal static int WriteSimple(Span<byte> to, NbdError error, ulong handle)
    {
        BinaryPrimitives.WriteUInt32BigEndian(to, NbdProtocol.SimpleReplyMagic);
        BinaryPrimitives.WriteUInt32BigEndian(to[4..], (uint)error);
        BinaryPrimitives.WriteUInt64BigEndian(to[8..], handle);
        return NbdProtocol.SimpleReplyBytes;
    }

    /// <summary>Success without data.</summary>
    internal static int WriteNone(Span<byte> to, in Origin origin) => WriteChunk(to, origin, NbdChunk.None, 0);

    /// <summary>u32 error, u16 length of the text, the text.</summary>
    internal static int WriteError(Span<byte> to, in Origin origin, NbdError error, ReadOnlySpan<byte> text)
    {
        int at = WriteChunk(to, origin, NbdChunk.Error, 6 + text.Length);
        BinaryPrimitives.WriteUInt32BigEndian(to[at..], (uint)error);
        BinaryPrimitives.WriteUInt16BigEndian(to[(at + 4)..], (ushort)text.Length);
        text.CopyTo(to[(at + 6)..]);
        return at + 6 + text.Length;
    }

    /// <summary>u64 offset; <paramref name="dataBytes"/> of data follow.</summary>
    internal static int WriteData(Span<byte> to, in Origin origin, int dataBytes)
    {
        int at = WriteChunk(to, origin, NbdChunk.OffsetData, 8 + dataBytes);
        BinaryPrimitives.WriteUInt64BigEndian(to[at..], origin.Offset);
        return at + 8;
    }

    /// <summary>u64 offset, u32 bytes that read as zeroes.</summary>
    internal static int WriteHole(Span<byte> to, in Origin origin, int holeBytes)
    {
        int at = WriteChunk(to, origin, NbdChunk.OffsetHole, 12);
        BinaryPrimitives.WriteUInt64BigEndian(to[at..], origin.Offset);
        BinaryPrimitives.WriteUInt32BigEndian(to[(at + 8)..], (uint)holeBytes);
        return at + 12;
    }

    /// <summary>
    /// u32 context, with extended headers u32 number of extents; <paramref name="extentsBytes"/> of what
    /// <see cref="NbdExtents"/> encoded follow.
    /// </summary>
    internal static int WriteStatus(Span<byte> to, in Origin origin, int extentsBytes)
    {
        int at = WriteChunk(
            to, origin, origin.Extended ? NbdChunk.BlockStatusExtended : NbdChunk.BlockStatus, (origin.Extended ? 8 : 4) + extentsBytes);
        BinaryPrimitives.WriteUInt32BigEndian(to[at..], NbdMetaContexts.AllocationId);
        if (!origin.Extended)
            return at + 4;
        BinaryPrimitives.WriteInt32BigEndian(to[(at + 4)..], extentsBytes / NbdExtents.ExtendedBytes);
        return at + 8;
    }

    private static int WriteChunk(Span<byte> to, in Origin origin, NbdChunk type, int payloadBytes)
    {
        BinaryPrimitives.WriteUInt32BigEndian(to, origin.Extended ? NbdProtocol.ExtendedReplyMagic : NbdProtocol.StructuredReplyMagic);
        BinaryPrimitives.WriteUInt16BigEndian(to[4..], DoneFlag);
        BinaryPrimitives.WriteUInt16BigEndian(to[6..], (ushort)type);
        BinaryPrimitives.WriteUInt64BigEndian(to[8..], origin.Handle);
        if (!origin.Extended)
        {
            BinaryPrimitives.WriteInt32BigEndian(to[16..], payloadBytes);
            return NbdProtocol.StructuredReplyBytes;
        }

        BinaryPrimitives.WriteUInt64BigEndian(to[16..], origin.Offset);
        BinaryPrimitives.WriteUInt64BigEndian(to[24..], (ulong)payloadBytes);
        return NbdProtocol.ExtendedReplyBytes;
    }
}
