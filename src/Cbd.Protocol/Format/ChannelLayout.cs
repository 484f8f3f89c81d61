namespace Cbd.Protocol.Format;

/// <summary>
/// Where the parts of one channel lie; offsets in bytes from the start of the region.
/// <list type="table">
/// <item><term>+0, 8</term><description>claim word; compare-and-swap by blkdev, handler and clearers</description></item>
/// <item><term>+128, 64</term><description>ctrl line of the blkdev (<see cref="BlkdevCtrlLine"/>)</description></item>
/// <item><term>+256, 64</term><description>ctrl line of the handler (<see cref="HandlerCtrlLine"/>)</description></item>
/// <item><term>+384, 4</term><description>handler's doorbell: 1 = asleep; set by the handler, swapped to 0 by whoever
/// wakes it. A hint: bounded sleeps make its loss a delay, never an error</description></item>
/// <item><term>+512, 4</term><description>blkdev's doorbell, likewise</description></item>
/// <item><term>+4096</term><description>completion ring: slots × 64, stored by the handler only</description></item>
/// <item><term>after it</term><description>command ring: slots × 64, stored by the blkdev only</description></item>
/// <item><term>next page</term><description>write pool (stored by the blkdev only), then read pool (stored by the
/// handler only): two equal halves of what is left, whole pages each</description></item>
/// </list>
/// </summary>
internal readonly record struct ChannelLayout
{
    public const int BlkdevCtrlOffset = 128;
    public const int HandlerCtrlOffset = 256;
    public const int HandlerDoorbellOffset = 384;
    public const int BlkdevDoorbellOffset = 512;
    public const int CtrlBytes = 4096;

    /// <summary>Least pages in a pool: one piece of half a pool must hold a page.</summary>
    public const int MinimumPoolPages = 2;

    public ChannelLayout(RegionGeometry geometry, int channel)
    {
        long start = geometry.ChannelOffset(channel);
        Channel = channel;
        ClaimOffset = start;
        CompletionRingOffset = start + CtrlBytes;
        CommandRingOffset = CompletionRingOffset + geometry.RingSlots * 64L;
        RingSlots = geometry.RingSlots;
        long page = geometry.PageBytes;
        WritePoolOffset = start + MetaBytes(geometry.RingSlots, geometry.PageBytes);
        PoolBytes = (start + geometry.BytesPerChannel - WritePoolOffset) / 2 / page * page;
        ReadPoolOffset = WritePoolOffset + PoolBytes;
    }

    public int Channel { get; }
    public int RingSlots { get; }
    public long ClaimOffset { get; }
    public long CompletionRingOffset { get; }
    public long CommandRingOffset { get; }
    public long WritePoolOffset { get; }
    public long ReadPoolOffset { get; }

    /// <summary>Bytes of either pool.</summary>
    public long PoolBytes { get; }

    public long BlkdevCtrlLineOffset => ClaimOffset + BlkdevCtrlOffset;
    public long HandlerCtrlLineOffset => ClaimOffset + HandlerCtrlOffset;

    /// <summary>Bytes before the pools, whole pages.</summary>
    public static long MetaBytes(int ringSlots, int pageBytes) =>
        (CtrlBytes + 2L * ringSlots * 64 + pageBytes - 1) / pageBytes * pageBytes;

    /// <summary>The smallest channel that works with such rings and pages, bytes.</summary>
    public static long MinimumBytes(int ringSlots, int pageBytes) =>
        MetaBytes(ringSlots, pageBytes) + 2L * MinimumPoolPages * pageBytes;
}
