using System.Buffers.Binary;

namespace Cbd.Exports.Nbd;

/// <summary>
/// A request of a client, without its payload.
/// <code>
/// offset size field
///      0    4 magic 0x25609513
///      4    2 command flags
///      6    2 type
///      8    8 handle, returned in the reply
///     16    8 offset, bytes
///     24    4 length, bytes
/// </code>
/// All big-endian, written by the client. Source: doc/proto.md, "Request message".
/// </summary>
internal readonly record struct NbdRequestHeader(
    uint Magic, NbdCommandFlags Flags, NbdCommand Command, ulong Handle, ulong Offset, uint Length)
{
    internal static NbdRequestHeader Decode(ReadOnlySpan<byte> bytes) => new(
        BinaryPrimitives.ReadUInt32BigEndian(bytes),
        (NbdCommandFlags)BinaryPrimitives.ReadUInt16BigEndian(bytes[4..]),
        (NbdCommand)BinaryPrimitives.ReadUInt16BigEndian(bytes[6..]),
        BinaryPrimitives.ReadUInt64BigEndian(bytes[8..]),
        BinaryPrimitives.ReadUInt64BigEndian(bytes[16..]),
        BinaryPrimitives.ReadUInt32BigEndian(bytes[24..]));

    internal void Encode(Span<byte> bytes)
    {
        BinaryPrimitives.WriteUInt32BigEndian(bytes, Magic);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[4..], (ushort)Flags);
        BinaryPrimitives.WriteUInt16BigEndian(bytes[6..], (ushort)Command);
        BinaryPrimitives.WriteUInt64BigEndian(bytes[8..], Handle);
        BinaryPrimitives.WriteUInt64BigEndian(bytes[16..], Offset);
        BinaryPrimitives.WriteUInt32BigEndian(bytes[24..], Length);
    }
}
