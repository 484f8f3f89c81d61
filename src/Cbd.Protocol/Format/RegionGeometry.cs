using Cbd.Memory;

namespace Cbd.Protocol.Format;

/// <summary>
/// Where everything lies in a region: the validated, private copy of the numbers of the transport info. All offsets
/// are bytes from the start of the region, all sizes bytes.
/// </summary>
internal sealed record RegionGeometry
{
    /// <summary>Bytes of the transport info at offset 0.</summary>
    public const int TransportInfoBytes = 4096;

    public required Guid RegionId { get; init; }
    public required long SizeBytes { get; init; }
    public required long HostAreaOffset { get; init; }
    public required int BytesPerHost { get; init; }
    public required int HostCount { get; init; }
    public required long BackendAreaOffset { get; init; }
    public required int BytesPerBackend { get; init; }
    public required int BackendCount { get; init; }
    public required long BlkdevAreaOffset { get; init; }
    public required int BytesPerBlkdev { get; init; }
    public required int BlkdevCount { get; init; }
    public required long ChannelAreaOffset { get; init; }
    public required long BytesPerChannel { get; init; }
    public required int ChannelCount { get; init; }

    /// <summary>Slots of either ring of a channel; a power of two, 2 to 32768.</summary>
    public required int RingSlots { get; init; }

    /// <summary>Payload carries a CRC32C.</summary>
    public required bool PayloadCrc { get; init; }

    /// <summary>Alignment of a channel's pools, bytes: the page size of the mapping.</summary>
    public int PageBytes { get; init; } = 4096;

    public long HostOffset(int host) => Entry(HostAreaOffset, BytesPerHost, host, HostCount);

    public long BackendOffset(int backend) => Entry(BackendAreaOffset, BytesPerBackend, backend, BackendCount);

    public long BlkdevOffset(int blkdev) => Entry(BlkdevAreaOffset, BytesPerBlkdev, blkdev, BlkdevCount);

    public long ChannelOffset(int channel) => Entry(ChannelAreaOffset, BytesPerChannel, channel, ChannelCount);

    private static long Entry(long area, long bytes, int index, int count)
    {
        if ((uint)index >= (uint)count)
            throw new ArgumentOutOfRangeException(nameof(index), index, $"not one of {count} entries");
        return checked(area + bytes * index);
    }

    /// <summary>
    /// Throws a <see cref="CbdException"/> that names the first field which cannot be: area outside the region,
    /// overlapping or misaligned areas, entries too small for their structure, counts of zero or too large.
    /// </summary>
    public void Validate(long mappedBytes)
    {
        Check(SizeBytes <= mappedBytes, "size", SizeBytes, $"larger than the {mappedBytes} bytes that are there; the region was truncated after formatting: restore its size or format it anew");
        Check(RingSlots is >= 2 and <= 32768 && (RingSlots & (RingSlots - 1)) == 0, "ring_slots", RingSlots, "not a power of two from 2 to 32768");
        Check(PageBytes is >= 4096 and <= 1 << 30 && (PageBytes & (PageBytes - 1)) == 0, "page_bytes", PageBytes, "not a power of two from 4096 to 1 GiB");
        long end = TransportInfoBytes;
        end = Area("host", HostAreaOffset, BytesPerHost, HostCount, Format.HostEntry.SizeBytes, 1 << 15, end);
        end = Area("backend", BackendAreaOffset, BytesPerBackend, BackendCount, Format.BackendEntry.SizeBytes, 1 << 15, end);
        end = Area("blkdev", BlkdevAreaOffset, BytesPerBlkdev, BlkdevCount, Format.BlkdevEntry.SizeBytes, 1 << 15, end);
        Check(ChannelAreaOffset % PageBytes == 0, "channel_area_off", ChannelAreaOffset, $"not a multiple of {PageBytes}");
        Check(BytesPerChannel % PageBytes == 0, "bytes_per_channel", BytesPerChannel, $"not a multiple of {PageBytes}");
        Check(BytesPerChannel <= 1L << 32, "bytes_per_channel", BytesPerChannel, "more than 4 GiB");
        Area("channel", ChannelAreaOffset, BytesPerChannel, ChannelCount, ChannelLayout.MinimumBytes(RingSlots, PageBytes), 1 << 15, end);
    }

    private long Area(string name, long offset, long bytes, int count, long minimumBytes, int maximumCount, long after)
    {
        Check(offset >= after && offset % 4096 == 0, $"{name}_area_off", offset, $"not a multiple of 4096 from {after} on");
        Check(bytes >= minimumBytes && bytes % 128 == 0, $"bytes_per_{name}", bytes, $"not a multiple of 128 from {minimumBytes} on");
        Check(count >= 1 && count <= maximumCount, $"{name}_num", count, $"not from 1 to {maximumCount}");
        // Counts and sizes were bounded above, so the product fits in 64 bits.
        long end = offset + bytes * count;
        Check(end > offset && end <= SizeBytes, $"{name}_area_off", offset, $"the area of {count} entries of {bytes} bytes leaves the region of {SizeBytes} bytes");
        return end;
    }

    private static void Check(bool holds, string field, long value, string why)
    {
        if (!holds)
            throw new CbdException(CbdErrorKind.Corrupt, $"transport info: {field} is {value}: {why}");
    }
}
