using System.Buffers.Binary;

namespace Cbd.Exports.Nbd;

/// <summary>
/// A request of a client, without its payload.
/// <code>
/// offset size field
///      0    4 magic 0x25609513, or 0x21e41c71 where extended headers were negotiated
///      4    2 command flags
///      6    2 type
///      8    8 handle, returned in the reply
///     16    8 offset, bytes
///     24  4/8 length, bytes; 8 with extended headers
/// </code>
/// All big-endian, written by the client. Source: doc/proto.md, "Request message".
/// </summary>
/// <param name="Length">Length of the range; of the payload where <paramref name="PayloadBytes"/> is not 0.</param>
/// <param name="PayloadBytes">Bytes that follow the header and belong to the request.</param>
internal readonly record struct NbdRequestHeader(
    uint Magic, NbdCommandFlags Flags, NbdCommand Command, ulong Handle, ulong Offset, ulong Length, ulong PayloadBytes = 0)
{
    /// <summary>Length of the payload of a block-status request that names one context: u64 length of the range, u32 id.</summary>
    private const int FilterBytes = 12;

    /// <summary>
    /// Reads the request that begins <paramref name="input"/>; returns how many bytes it took, 0 if some are missing. A
    /// block-status request whose payload names the one context that there is becomes one without payload.
    /// </summary>
    internal static int Take(ReadOnlySpan<byte> input, bool extended, out NbdRequestHeader header)
    {
        int headerBytes = extended ? NbdProtocol.ExtendedRequestBytes : NbdProtocol.RequestBytes;
        header = default;
        if (input.Length < headerBytes)
            return 0;
        header = new(
            BinaryPrimitives.ReadUInt32BigEndian(input),
            (NbdCommandFlags)BinaryPrimitives.ReadUInt16BigEndian(input[4..]),
            (NbdCommand)BinaryPrimitives.ReadUInt16BigEndian(input[6..]),
            BinaryPrimitives.ReadUInt64BigEndian(input[8..]),
            BinaryPrimitives.ReadUInt64BigEndian(input[16..]),
            extended ? BinaryPrimitives.ReadUInt64BigEndian(input[24..]) : BinaryPrimitives.ReadUInt32BigEndian(input[24..]));
        bool hasPayload = extended ? (header.Flags & NbdCommandFlags.PayloadLength) != 0 : header.Command == NbdCommand.Write;
        if (!hasPayload)
            return headerBytes;
        header = header with { PayloadBytes = header.Length };
        return header is { Command: NbdCommand.BlockStatus, Length: FilterBytes } ? TakeFilter(input, headerBytes, ref header) : headerBytes;
    }

    internal void Encode(Span<byte> bytes)
    {
        BinaryPrimitives.WriteUInt32BigEndian(bytes, Magic);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[4..], (ushort)Flags);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[6..], (ushort)Command);
        BinaryPrimitives.WriteUInt64BigEndian(bytes[8..], Handle);
        BinaryPrimitives.WriteUInt64BigEndian(bytes[16..], Offset);
        if (Magic == NbdProtocol.ExtendedRequestMagic)
            BinaryPrimitives.WriteUInt64BigEndian(bytes[24..], Length);
        else
            BinaryPrimitives.WriteUInt32BigEndian(bytes[24..], checked((uint)Length));
    }

    private static int TakeFilter(ReadOnlySpan<byte> input, int headerBytes, ref NbdRequestHeader header)
    {
        ReadOnlySpan<byte> filter = input[headerBytes..];
        if (filter.Length < FilterBytes)
            return 0;
        // Another context is unknown here: the payload stays one that is skipped and refused.
        if (BinaryPrimitives.ReadUInt32BigEndian(filter[8..]) != NbdMetaContexts.AllocationId)
            return headerBytes;
        header = header with
        {
            Flags = header.Flags & ~NbdCommandFlags.PayloadLength,
            Length = BinaryPrimitives.ReadUInt64BigEndian(filter),
            PayloadBytes = 0,
        };
        return headerBytes + FilterBytes;
    }
}
