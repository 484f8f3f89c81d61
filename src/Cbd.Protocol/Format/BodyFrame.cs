using System.Buffers.Binary;
using Cbd.Memory;

namespace Cbd.Protocol.Format;

/// <summary>
/// One of the two copies of an entry's body. Stored by the owner of the entry's claim only, whole, and never over the
/// newest valid copy; its CRC decides whether a reader's copy counts, so its lines may become visible in any order.
/// <list type="table">
/// <item><term>0, 4</term><description>CRC32C of bytes 4 to the end of the payload, seeded with region id, area, index
/// and epoch</description></item>
/// <item><term>4, 4</term><description>length of the payload, bytes, 1 to 744</description></item>
/// <item><term>8, 8</term><description>generation: 1 for the first body of a claim, raised by every publication</description></item>
/// <item><term>16, 8</term><description>epoch of the claim that published it</description></item>
/// <item><term>24, 744</term><description>payload: <see cref="HostBody"/>, <see cref="BackendBody"/> or
/// <see cref="BlkdevBody"/>; what follows it is not read</description></item>
/// </list>
/// </summary>
internal static class BodyFrame
{
    public const int SizeBytes = 768;
    public const int CrcOffset = 0;
    public const int LengthOffset = 4;
    public const int GenerationOffset = 8;
    public const int EpochOffset = 16;
    public const int PayloadOffset = 24;
    public const int MaxPayloadBytes = SizeBytes - PayloadOffset;

    public static IReadOnlyList<FieldLayout> Layout { get; } =
    [
        new("crc", CrcOffset, 4),
        new("length", LengthOffset, 4),
        new("generation", GenerationOffset, 8),
        new("epoch", EpochOffset, 8),
        new("payload", PayloadOffset, MaxPayloadBytes),
    ];

    /// <summary>Completes the frame of a payload that already lies at <see cref="PayloadOffset"/>.</summary>
    public static void Seal(Span<byte> frame, int payloadBytes, in BodyPlace place, ulong epoch, ulong generation)
    {
        BinaryPrimitives.WriteInt32LittleEndian(frame[LengthOffset..], payloadBytes);
        BinaryPrimitives.WriteUInt64LittleEndian(frame[GenerationOffset..], generation);
        BinaryPrimitives.WriteUInt64LittleEndian(frame[EpochOffset..], epoch);
        BinaryPrimitives.WriteUInt32LittleEndian(frame, Crc(frame, payloadBytes, place, epoch));
    }

    /// <summary>Whether a private copy of a frame is whole and belongs to this place; the epoch is its own claim.</summary>
    public static bool IsValid(ReadOnlySpan<byte> frame, in BodyPlace place, out ulong epoch, out ulong generation, out int payloadBytes)
    {
        payloadBytes = BinaryPrimitives.ReadInt32LittleEndian(frame[LengthOffset..]);
        generation = BinaryPrimitives.ReadUInt64LittleEndian(frame[GenerationOffset..]);
        epoch = BinaryPrimitives.ReadUInt64LittleEndian(frame[EpochOffset..]);
        return payloadBytes is > 0 and <= MaxPayloadBytes && generation != 0 && epoch is not 0 and <= ClaimWord.MaxEpoch &&
            BinaryPrimitives.ReadUInt32LittleEndian(frame) == Crc(frame, payloadBytes, place, epoch);
    }

    private static uint Crc(ReadOnlySpan<byte> frame, int payloadBytes, in BodyPlace place, ulong epoch)
    {
        uint crc = Crc32C.Append(uint.MaxValue, place.RegionIdLow);
        crc = Crc32C.Append(crc, place.RegionIdHigh);
        crc = Crc32C.Append(crc, ((ulong)place.Area << 32) | (uint)place.Index);
        crc = Crc32C.Append(crc, epoch);
        return ~Crc32C.Append(crc, frame[LengthOffset..(PayloadOffset + payloadBytes)]);
    }
}

/// <summary>Which body, and where its two copies lie: seed of its CRC and offset of the first copy in the region.</summary>
internal readonly record struct BodyPlace
{
    private BodyPlace(RegionGeometry geometry, RegionArea area, int index, long firstCopyOffset)
    {
        Span<byte> id = stackalloc byte[16];
        if (!geometry.RegionId.TryWriteBytes(id))
            throw new InvalidOperationException("a GUID has 16 bytes");
        RegionIdLow = BinaryPrimitives.ReadUInt64LittleEndian(id);
        RegionIdHigh = BinaryPrimitives.ReadUInt64LittleEndian(id[8..]);
        Area = area;
        Index = index;
        FirstCopyOffset = firstCopyOffset;
    }

    public ulong RegionIdLow { get; }
    public ulong RegionIdHigh { get; }
    public RegionArea Area { get; }
    public int Index { get; }
    public long FirstCopyOffset { get; }

    public static BodyPlace OfHost(RegionGeometry geometry, int host) =>
        new(geometry, RegionArea.Host, host, geometry.HostOffset(host) + HostEntry.BodyOffset);

    public static BodyPlace OfBackend(RegionGeometry geometry, int backend) =>
        new(geometry, RegionArea.Backend, backend, geometry.BackendOffset(backend) + BackendEntry.BodyOffset);

    public static BodyPlace OfBlkdev(RegionGeometry geometry, int blkdev) =>
        new(geometry, RegionArea.Blkdev, blkdev, geometry.BlkdevOffset(blkdev) + BlkdevEntry.BodyOffset);

    /// <summary>Offset of copy 0 or 1.</summary>
    public long CopyOffset(int copy) => FirstCopyOffset + copy * BodyFrame.SizeBytes;
}

/// <summary>When a body was published: newer means a later epoch, then a higher generation.</summary>
internal readonly record struct BodyStamp(ulong Epoch, ulong Generation, int Copy) : IComparable<BodyStamp>
{
    public int CompareTo(BodyStamp other) =>
        Epoch != other.Epoch ? Epoch.CompareTo(other.Epoch) : Generation.CompareTo(other.Generation);

    public static bool operator <(BodyStamp left, BodyStamp right) => left.CompareTo(right) < 0;

    public static bool operator >(BodyStamp left, BodyStamp right) => left.CompareTo(right) > 0;

    public static bool operator <=(BodyStamp left, BodyStamp right) => left.CompareTo(right) <= 0;

    public static bool operator >=(BodyStamp left, BodyStamp right) => left.CompareTo(right) >= 0;
}
