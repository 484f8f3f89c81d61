using System.Buffers.Binary;
using Cbd.Memory;

namespace Cbd.Protocol.Format;

/// <summary>Flags of a transport. Stored: values are fixed and only ever added to; bits 0 and 1 are the original's.</summary>
[Flags]
internal enum TransportFlags : ushort
{
    None = 0,

    /// <summary>Formatted by a big-endian host: refused.</summary>
    BigEndian = 1,

    /// <summary>Payload carries a CRC32C.</summary>
    PayloadCrc = 2,
}

/// <summary>How the hosts' views of the memory agree. Stored: values are fixed and only ever added to.</summary>
internal enum RegionCoherence
{
    /// <summary>The hardware keeps all hosts' caches coherent.</summary>
    Hardware = 1,
}

/// <summary>
/// The first 4096 bytes of a region, stored by the formatter only and constant while the magic is there. Little-endian;
/// bytes that are not listed are zero.
/// <list type="table">
/// <item><term>0, 8</term><description>magic 0x65B05EFA96C596EF; stored last (compare-and-swap). While it is being
/// formatted: high half 0x464F524D, low half a number that moves with the formatter's progress</description></item>
/// <item><term>8, 2</term><description>version: 2</description></item>
/// <item><term>10, 2</term><description><see cref="TransportFlags"/></description></item>
/// <item><term>12, 4</term><description>CRC32C of bytes 8 to 11 and 16 to 4095</description></item>
/// <item><term>16, 4</term><description>compat feature bits: an unknown one is ignored</description></item>
/// <item><term>20, 4</term><description>ro_compat feature bits: with an unknown one, lists only</description></item>
/// <item><term>24, 4</term><description>incompat feature bits: an unknown one refuses</description></item>
/// <item><term>28, 4</term><description><see cref="RegionCoherence"/></description></item>
/// <item><term>32, 16</term><description>region id, random; seeds every CRC in the region</description></item>
/// <item><term>48, 8</term><description>size of the region, bytes</description></item>
/// <item><term>56, 16</term><description>host area: offset (8), bytes per entry (4), number (4)</description></item>
/// <item><term>72, 16</term><description>backend area, likewise</description></item>
/// <item><term>88, 16</term><description>blkdev area, likewise</description></item>
/// <item><term>104, 20</term><description>channel area: offset (8), bytes per channel (8), number (4)</description></item>
/// <item><term>124, 4</term><description>slots of each ring of a channel</description></item>
/// <item><term>128, 4</term><description>alignment of pools, bytes: the page size of the mapping</description></item>
/// </list>
/// </summary>
internal sealed record TransportInfo
{
    /// <summary>Magic of the original (cbd_internal.h).</summary>
    public const ulong Magic = 0x65B05EFA96C596EF;

    /// <summary>High half of the magic while the region is being formatted.</summary>
    public const uint FormattingMark = 0x464F524D;
    public const int SupportedVersion = 2;
    public const int SizeBytes = RegionGeometry.TransportInfoBytes;

    /// <summary>Feature bits that this version knows.</summary>
    public const uint KnownRoCompat = 0, KnownIncompat = 0;

    public const int MagicOffset = 0;
    internal const int VersionOffset = 8, FlagsOffset = 10, CrcOffset = 12, CompatOffset = 16, RoCompatOffset = 20,
        IncompatOffset = 24, CoherenceOffset = 28, RegionIdOffset = 32, RegionSizeOffset = 48, HostAreaOffset = 56,
        BackendAreaOffset = 72, BlkdevAreaOffset = 88, ChannelAreaOffset = 104, BytesPerChannelOffset = 112,
        ChannelCountOffset = 120, RingSlotsOffset = 124, PageBytesOffset = 128, EndOffset = 132;

    public static IReadOnlyList<FieldLayout> Layout { get; } =
    [
        new("magic", MagicOffset, 8), new("version", VersionOffset, 2), new("flags", FlagsOffset, 2), new("crc", CrcOffset, 4),
        new("compat", CompatOffset, 4), new("ro_compat", RoCompatOffset, 4), new("incompat", IncompatOffset, 4),
        new("coherence", CoherenceOffset, 4), new("region_id", RegionIdOffset, 16), new("size", RegionSizeOffset, 8),
        new("host_area_off", HostAreaOffset, 8), new("bytes_per_host", HostAreaOffset + 8, 4), new("host_num", HostAreaOffset + 12, 4),
        new("backend_area_off", BackendAreaOffset, 8), new("bytes_per_backend", BackendAreaOffset + 8, 4), new("backend_num", BackendAreaOffset + 12, 4),
        new("blkdev_area_off", BlkdevAreaOffset, 8), new("bytes_per_blkdev", BlkdevAreaOffset + 8, 4), new("blkdev_num", BlkdevAreaOffset + 12, 4),
        new("channel_area_off", ChannelAreaOffset, 8), new("bytes_per_channel", BytesPerChannelOffset, 8), new("channel_num", ChannelCountOffset, 4),
        new("ring_slots", RingSlotsOffset, 4), new("page_bytes", PageBytesOffset, 4),
    ];

    public required RegionGeometry Geometry { get; init; }
    public required RegionCoherence Coherence { get; init; }
    public int Version { get; init; } = SupportedVersion;
    public uint Compat { get; init; }
    public uint RoCompat { get; init; }
    public uint Incompat { get; init; }

    /// <summary>As stored.</summary>
    public TransportFlags Flags => Geometry.PayloadCrc ? TransportFlags.PayloadCrc : TransportFlags.None;

    /// <summary>The region uses a feature of a later version that does not hinder reading: lists only, no claim.</summary>
    public bool ListsOnly => (RoCompat & ~KnownRoCompat) != 0;

    /// <summary>Throws if this version may only list what is in the region, not claim an entry.</summary>
    public void CheckWritable()
    {
        if (ListsOnly)
            throw new CbdException(CbdErrorKind.Unsupported, $"transport info: ro_compat is 0x{RoCompat:x8}: it has a feature that this version may only list: use a newer version to register");
    }

    /// <summary>Whether a magic word says that a formatter is at work, or died at it.</summary>
    public static bool IsFormatting(ulong magic) => magic >> 32 == FormattingMark;

    /// <summary>Whether the CRC of 4096 bytes is right: that of other versions is in the same place.</summary>
    public static bool IsWhole(ReadOnlySpan<byte> header) => BinaryPrimitives.ReadUInt32LittleEndian(header[CrcOffset..]) == Crc(header);

    /// <summary>Stores all 4096 bytes, with the CRC.</summary>
    public void Encode(Span<byte> header)
    {
        header[..SizeBytes].Clear();
        BinaryPrimitives.WriteUInt64LittleEndian(header, Magic);
        BinaryPrimitives.WriteUInt16LittleEndian(header[VersionOffset..], checked((ushort)Version));
        BinaryPrimitives.WriteUInt16LittleEndian(header[FlagsOffset..], (ushort)Flags);
        BinaryPrimitives.WriteUInt32LittleEndian(header[CompatOffset..], Compat);
        BinaryPrimitives.WriteUInt32LittleEndian(header[RoCompatOffset..], RoCompat);
        BinaryPrimitives.WriteUInt32LittleEndian(header[IncompatOffset..], Incompat);
        BinaryPrimitives.WriteInt32LittleEndian(header[CoherenceOffset..], (int)Coherence);
        if (!Geometry.RegionId.TryWriteBytes(header[RegionIdOffset..]))
            throw new InvalidOperationException("a GUID has 16 bytes");
        BinaryPrimitives.WriteInt64LittleEndian(header[RegionSizeOffset..], Geometry.SizeBytes);
        EncodeArea(header[HostAreaOffset..], Geometry.HostAreaOffset, Geometry.BytesPerHost, Geometry.HostCount);
        EncodeArea(header[BackendAreaOffset..], Geometry.BackendAreaOffset, Geometry.BytesPerBackend, Geometry.BackendCount);
        EncodeArea(header[BlkdevAreaOffset..], Geometry.BlkdevAreaOffset, Geometry.BytesPerBlkdev, Geometry.BlkdevCount);
        BinaryPrimitives.WriteInt64LittleEndian(header[ChannelAreaOffset..], Geometry.ChannelAreaOffset);
        BinaryPrimitives.WriteInt64LittleEndian(header[BytesPerChannelOffset..], Geometry.BytesPerChannel);
        BinaryPrimitives.WriteInt32LittleEndian(header[ChannelCountOffset..], Geometry.ChannelCount);
        BinaryPrimitives.WriteInt32LittleEndian(header[RingSlotsOffset..], Geometry.RingSlots);
        BinaryPrimitives.WriteInt32LittleEndian(header[PageBytesOffset..], Geometry.PageBytes);
        BinaryPrimitives.WriteUInt32LittleEndian(header[CrcOffset..], Crc(header));
    }

    /// <summary>
    /// Copies the transport info out once and validates the copy. Throws a <see cref="CbdException"/> that names the
    /// field, its value and the remedy.
    /// </summary>
    /// <param name="memory">The region.</param>
    /// <param name="mappedBytes">Bytes of the region that are there.</param>
    public static TransportInfo Read<TMemory>(in TMemory memory, long mappedBytes)
        where TMemory : struct, ISharedMemory
    {
        if (mappedBytes < SizeBytes)
            throw new CbdException(CbdErrorKind.Corrupt, $"region is {mappedBytes} bytes, smaller than a transport info of {SizeBytes}: give the path of a formatted region, or a larger size with --format");
        Span<byte> header = stackalloc byte[SizeBytes];
        // Pairs with the formatter's last compare-and-swap: with the magic, the rest of the header is there.
        ulong magic = memory.ReadAcquire(MagicOffset);
        memory.Read(0, header);
        if (magic != Magic)
            throw NotFormatted(magic, RegionContents.Describe(memory));
        return Decode(header, mappedBytes);
    }

    /// <summary>Validates a private copy of the 4096 bytes, the magic excepted.</summary>
    public static TransportInfo Decode(ReadOnlySpan<byte> header, long mappedBytes)
    {
        int version = BinaryPrimitives.ReadUInt16LittleEndian(header[VersionOffset..]);
        var flags = (TransportFlags)BinaryPrimitives.ReadUInt16LittleEndian(header[FlagsOffset..]);
        uint incompat = BinaryPrimitives.ReadUInt32LittleEndian(header[IncompatOffset..]);
        uint crc = BinaryPrimitives.ReadUInt32LittleEndian(header[CrcOffset..]);
        if ((flags & TransportFlags.BigEndian) != 0)
            throw Refused("flags", $"0x{(ushort)flags:x4}", "a big-endian host formatted it: use it from there, or format it anew with --format --force");
        if (version != SupportedVersion)
            throw Refused("version", $"{version}", $"this program reads version {SupportedVersion}: use the program that formatted it, or format it anew with --format --force");
        if ((incompat & ~KnownIncompat) != 0)
            throw Refused("incompat", $"0x{incompat:x8}", "it has a feature that this version does not know: use a newer version, or format it anew with --format --force");
        if (crc != Crc(header))
            throw Refused("crc", $"0x{crc:x8}", $"the header's bytes have 0x{Crc(header):x8}, so it is damaged: format it anew with --format --force");
        int coherence = BinaryPrimitives.ReadInt32LittleEndian(header[CoherenceOffset..]);
        if (coherence != (int)RegionCoherence.Hardware)
            throw Refused("coherence", $"{coherence}", $"this version knows {(int)RegionCoherence.Hardware} (hardware) only: use a newer version, or format it anew with --format --force");

        var geometry = new RegionGeometry
        {
            RegionId = new Guid(header.Slice(RegionIdOffset, 16)),
            SizeBytes = BinaryPrimitives.ReadInt64LittleEndian(header[RegionSizeOffset..]),
            HostAreaOffset = AreaOffset(header[HostAreaOffset..]),
            BytesPerHost = AreaBytes(header[HostAreaOffset..]),
            HostCount = AreaCount(header[HostAreaOffset..]),
            BackendAreaOffset = AreaOffset(header[BackendAreaOffset..]),
            BytesPerBackend = AreaBytes(header[BackendAreaOffset..]),
            BackendCount = AreaCount(header[BackendAreaOffset..]),
            BlkdevAreaOffset = AreaOffset(header[BlkdevAreaOffset..]),
            BytesPerBlkdev = AreaBytes(header[BlkdevAreaOffset..]),
            BlkdevCount = AreaCount(header[BlkdevAreaOffset..]),
            ChannelAreaOffset = AreaOffset(header[ChannelAreaOffset..]),
            BytesPerChannel = BinaryPrimitives.ReadInt64LittleEndian(header[BytesPerChannelOffset..]),
            ChannelCount = BinaryPrimitives.ReadInt32LittleEndian(header[ChannelCountOffset..]),
            RingSlots = BinaryPrimitives.ReadInt32LittleEndian(header[RingSlotsOffset..]),
            PageBytes = BinaryPrimitives.ReadInt32LittleEndian(header[PageBytesOffset..]),
            PayloadCrc = (flags & TransportFlags.PayloadCrc) != 0,
        };
        geometry.Validate(mappedBytes);
        return new TransportInfo
        {
            Geometry = geometry,
            Coherence = RegionCoherence.Hardware,
            Version = version,
            Compat = BinaryPrimitives.ReadUInt32LittleEndian(header[CompatOffset..]),
            RoCompat = BinaryPrimitives.ReadUInt32LittleEndian(header[RoCompatOffset..]),
            Incompat = incompat,
        };
    }

    private static CbdException NotFormatted(ulong magic, RegionContents contents) => new(
        CbdErrorKind.Corrupt,
        IsFormatting(magic)
            ? "transport info: formatting was interrupted, or goes on right now: format the region again with --format"
            : $"transport info: magic is 0x{magic:x16}, not 0x{Magic:x16}: {contents.Found} is there: " +
              (contents.IsZero ? "format it with --format" : "check the path, or format over it with --format --force"))
    {
        MayPass = IsFormatting(magic) || contents.IsZero,
    };

    private static CbdException Refused(string field, string value, string why) =>
        new(CbdErrorKind.Corrupt, $"transport info: {field} is {value}: {why}");

    private static uint Crc(ReadOnlySpan<byte> header) =>
        ~Crc32C.Append(Crc32C.Append(uint.MaxValue, header.Slice(VersionOffset, 4)), header[CompatOffset..SizeBytes]);

    private static void EncodeArea(Span<byte> field, long offset, int bytes, int count)
    {
        BinaryPrimitives.WriteInt64LittleEndian(field, offset);
        BinaryPrimitives.WriteInt32LittleEndian(field[8..], bytes);
        BinaryPrimitives.WriteInt32LittleEndian(field[12..], count);
    }

    private static long AreaOffset(ReadOnlySpan<byte> field) => BinaryPrimitives.ReadInt64LittleEndian(field);

    private static int AreaBytes(ReadOnlySpan<byte> field) => BinaryPrimitives.ReadInt32LittleEndian(field[8..]);

    private static int AreaCount(ReadOnlySpan<byte> field) => BinaryPrimitives.ReadInt32LittleEndian(field[12..]);
}
