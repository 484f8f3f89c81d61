using System.Buffers.Binary;
using Cbd.Blocks;

namespace Cbd.Exports.Nbd;

/// <summary>
/// Turns a device's extents into those of a status reply: u32 length and u32 flags each, or u64 and u64 with extended
/// headers; big-endian. The values of <see cref="BlockExtentState"/> are those of base:allocation.
/// </summary>
internal static class NbdExtents
{
    internal const int StructuredBytes = 8;
    internal const int ExtendedBytes = 16;

    /// <summary>Most extents of one reply.</summary>
    internal const int MaxCount = 4096;

    /// <summary>Room for a request's extents: not more than it could have blocks, and one where one was asked for.</summary>
    internal static int RoomBytes(in NbdRequestHeader header, BlockDeviceInfo device)
    {
        if ((header.Flags & NbdCommandFlags.OneExtent) != 0)
            return BlockExtent.EncodedSizeBytes;
        ulong blocks = header.Length / (uint)device.LogicalBlockBytes;
        return (int)Math.Clamp(blocks, 1, MaxCount) * BlockExtent.EncodedSizeBytes;
    }

    /// <summary>What a device stored can be an answer: some extents, none of them empty, not longer than what was asked for.</summary>
    internal static bool AreValid(ReadOnlySpan<byte> bytes, long storedBytes, long lengthBytes)
    {
        if (storedBytes <= 0 || storedBytes > bytes.Length || storedBytes % BlockExtent.EncodedSizeBytes != 0)
            return false;
        long left = lengthBytes;
        for (int at = 0; at < (int)storedBytes; at += BlockExtent.EncodedSizeBytes)
        {
            long extentBytes = BlockExtent.Decode(bytes[at..]).LengthBytes;
            if (extentBytes <= 0 || extentBytes > left)
                return false;
            left -= extentBytes;
        }

        return true;
    }

    /// <summary>Encodes valid extents in place, neighbours of one state as one; returns the bytes that it takes.</summary>
    internal static int Encode(Span<byte> bytes, bool extended)
    {
        int end = 0;
        BlockExtent run = BlockExtent.Decode(bytes);
        // What is written is never longer than what was read before it.
        for (int at = BlockExtent.EncodedSizeBytes; at < bytes.Length; at += BlockExtent.EncodedSizeBytes)
        {
            BlockExtent extent = BlockExtent.Decode(bytes[at..]);
            if (extent.State == run.State)
            {
                run = run with { LengthBytes = run.LengthBytes + extent.LengthBytes };
                continue;
            }

            end += Write(bytes[end..], run, extended);
            run = extent;
        }

        return end + Write(bytes[end..], run, extended);
    }

    private static int Write(Span<byte> to, BlockExtent extent, bool extended)
    {
        if (extended)
        {
            BinaryPrimitives.WriteInt64BigEndian(to, extent.LengthBytes);
            BinaryPrimitives.WriteUInt64BigEndian(to[8..], (uint)extent.State);
            return ExtendedBytes;
        }

        // The length of a request without extended headers has 32 bits.
        BinaryPrimitives.WriteUInt32BigEndian(to, checked((uint)extent.LengthBytes));
        BinaryPrimitives.WriteUInt32BigEndian(to[4..], (uint)extent.State);
        return StructuredBytes;
    }
}
