using System.Numerics;
using System.Runtime.InteropServices;
using Cbd.Blocks;

namespace Cbd.Exports.Ublk;

/// <summary>
/// struct ublk_params up to its discard part: what the block layer is told of a device. 60 bytes, native-endian, stored
/// by us.
/// </summary>
/// <remarks>
/// <code>
/// offset  size  field                    unit
///      0     4  Length                   bytes of this structure
///      4     4  Kinds                    which parts count
///      8     4  Attributes               read-only, volatile cache, FUA
///     12     1  LogicalShift             log2 of bytes
///     13     1  PhysicalShift            log2 of bytes
///     14     1  OptimalShift             log2 of bytes
///     15     1  MinimumShift             log2 of bytes
///     16     4  MaxSectors               sectors of one read or write
///     20     4  ChunkSectors             0
///     24     8  SizeSectors              sectors
///     32     8  VirtualBoundary          0
///     40     4  DiscardAlignment         bytes
///     44     4  DiscardGranularity       bytes, not 0
///     48     4  MaxDiscardSectors        sectors of one discard; 0: none
///     52     4  MaxWriteZeroesSectors    sectors of one write-zeroes; 0: none
///     56     2  MaxDiscardSegments       1
///     58     2  reserved                 0
/// </code>
/// </remarks>
[StructLayout(LayoutKind.Explicit, Size = SizeBytes)]
internal struct UblkParameters
{
    internal const int SizeBytes = 60;

    /// <summary>Longest discard or write-zeroes, sectors (2 GiB): what fits the block layer's 32-bit byte counts.</summary>
    private const uint MaxRangeSectors = 1u << (31 - UblkProtocol.SectorShift);

    [FieldOffset(0)] internal uint Length;
    [FieldOffset(4)] internal uint Kinds;
    [FieldOffset(8)] internal uint Attributes;
    [FieldOffset(12)] internal byte LogicalShift;
    [FieldOffset(13)] internal byte PhysicalShift;
    [FieldOffset(14)] internal byte OptimalShift;
    [FieldOffset(15)] internal byte MinimumShift;
    [FieldOffset(16)] internal uint MaxSectors;
    [FieldOffset(20)] internal uint ChunkSectors;
    [FieldOffset(24)] internal ulong SizeSectors;
    [FieldOffset(32)] internal ulong VirtualBoundary;
    [FieldOffset(40)] internal uint DiscardAlignment;
    [FieldOffset(44)] internal uint DiscardGranularity;
    [FieldOffset(48)] internal uint MaxDiscardSectors;
    [FieldOffset(52)] internal uint MaxWriteZeroesSectors;
    [FieldOffset(56)] internal ushort MaxDiscardSegments;

    /// <summary>A device in ublk's terms. <paramref name="maxTransferBytes"/>: bytes of one read or write.</summary>
    internal static UblkParameters Describe(BlockDeviceInfo device, int maxTransferBytes)
    {
        byte physical = Shift(Math.Max(device.PhysicalBlockBytes, device.LogicalBlockBytes));
        return new UblkParameters
        {
            Length = SizeBytes,
            Kinds = UblkProtocol.ParametersBasic | UblkProtocol.ParametersDiscard,
            // The device has FUA, and holds what is not flushed wherever its backend does.
            Attributes = UblkProtocol.AttributeVolatileCache | UblkProtocol.AttributeForceUnitAccess |
                (device.ReadOnly ? UblkProtocol.AttributeReadOnly : 0),
            LogicalShift = Shift(device.LogicalBlockBytes),
            PhysicalShift = physical,
            OptimalShift = physical,
            MinimumShift = physical,
            MaxSectors = (uint)(maxTransferBytes >> UblkProtocol.SectorShift),
            SizeSectors = (ulong)device.SizeBytes >> UblkProtocol.SectorShift,
            DiscardGranularity = (uint)Math.Max(device.DiscardGranularityBytes, device.LogicalBlockBytes),
            MaxDiscardSectors = device is { CanDiscard: true, ReadOnly: false } ? MaxRangeSectors : 0,
            // Not only where it is fast: it spares the payload in any case.
            MaxWriteZeroesSectors = device.ReadOnly ? 0 : MaxRangeSectors,
            MaxDiscardSegments = 1,
        };
    }

    private static byte Shift(int bytes) => (byte)BitOperations.Log2((uint)bytes);
}
