using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Transports;

/// <summary>What the operator may choose at format; null: computed from the size of the region.</summary>
internal sealed record RegionOptions
{
    public int? Hosts { get; init; }
    public int? Backends { get; init; }
    public int? Blkdevs { get; init; }
    public int? Channels { get; init; }
    public long? ChannelSizeBytes { get; init; }
    public int? RingSlots { get; init; }

    /// <summary>Payload carries a CRC32C.</summary>
    public bool PayloadCrc { get; init; } = true;

    /// <summary>Page size of the mapping, bytes; a power of two from 4096 on.</summary>
    public int PageBytes { get; init; } = 4096;
}

/// <summary>Computes the geometry of a new region. Pure; throws <see cref="CbdException"/> naming the option and the limit.</summary>
internal static class RegionPlan
{
    public const int DefaultHosts = 16, DefaultBackends = 32, DefaultBlkdevs = 64, DefaultRingSlots = 256;

    /// <summary>Channel sizes that are tried: halved from the largest on until enough channels fit.</summary>
    public const long LargestDefaultChannelBytes = 8 << 20, SmallestDefaultChannelBytes = 256 << 10;

    /// <summary>Channels that a default channel size must leave room for.</summary>
    public const int WantedChannels = 16;

    /// <summary>Most channels that are made without being asked for.</summary>
    public const int MaxDefaultChannels = 512;

    private const int MaxEntries = 1 << 15;
    private const int AreaAlignmentBytes = 4096;

    /// <summary>The smallest region that these options fit in, bytes.</summary>
    public static long MinimumBytes(RegionOptions options)
    {
        RegionOptions checkedOptions = Check(options);
        long channel = checkedOptions.ChannelSizeBytes ?? SmallestChannelBytes(checkedOptions);
        return checked(ChannelAreaOffset(checkedOptions) + channel * (checkedOptions.Channels ?? 1));
    }

    /// <summary>Lays out a region of <paramref name="sizeBytes"/> with a new random id.</summary>
    public static RegionGeometry Create(long sizeBytes, RegionOptions options, Guid regionId)
    {
        long minimum = MinimumBytes(options);
        if (sizeBytes < minimum)
            throw new CbdException(CbdErrorKind.Invalid, $"region of {sizeBytes} bytes is too small: these options need at least {minimum}: give a larger --size, or fewer or smaller entries");
        RegionOptions chosen = Check(options);
        long areaOffset = ChannelAreaOffset(chosen);
        long room = sizeBytes - areaOffset;
        long channelBytes = chosen.ChannelSizeBytes ?? ChooseChannelBytes(room, chosen);
        long count = chosen.Channels ?? Math.Min(MaxDefaultChannels, room / channelBytes);

        long hostOffset = TransportInfo.SizeBytes;
        long backendOffset = hostOffset + AreaBytes(chosen.Hosts ?? DefaultHosts, HostEntry.SizeBytes);
        long blkdevOffset = backendOffset + AreaBytes(chosen.Backends ?? DefaultBackends, BackendEntry.SizeBytes);
        var geometry = new RegionGeometry
        {
            RegionId = regionId,
            SizeBytes = sizeBytes,
            HostAreaOffset = hostOffset,
            BytesPerHost = HostEntry.SizeBytes,
            HostCount = chosen.Hosts ?? DefaultHosts,
            BackendAreaOffset = backendOffset,
            BytesPerBackend = BackendEntry.SizeBytes,
            BackendCount = chosen.Backends ?? DefaultBackends,
            BlkdevAreaOffset = blkdevOffset,
            BytesPerBlkdev = BlkdevEntry.SizeBytes,
            BlkdevCount = chosen.Blkdevs ?? DefaultBlkdevs,
            ChannelAreaOffset = areaOffset,
            BytesPerChannel = channelBytes,
            ChannelCount = (int)count,
            RingSlots = chosen.RingSlots ?? DefaultRingSlots,
            PayloadCrc = chosen.PayloadCrc,
            PageBytes = chosen.PageBytes,
        };
        geometry.Validate(sizeBytes);
        return geometry;
    }

    private static RegionOptions Check(RegionOptions options)
    {
        CheckCount("--hosts", options.Hosts);
        CheckCount("--backends", options.Backends);
        CheckCount("--blkdevs", options.Blkdevs);
        CheckCount("--channels", options.Channels);
        if (options.RingSlots is int slots && (slots is < 2 or > 32768 || !int.IsPow2(slots)))
            throw new CbdException(CbdErrorKind.Invalid, $"--ring-slots is {slots}: give a power of two from 2 to 32768");
        if (options.PageBytes is < 4096 or > 1 << 30 || !int.IsPow2(options.PageBytes))
            throw new CbdException(CbdErrorKind.Invalid, $"page size is {options.PageBytes}: it must be a power of two from 4096 to 1 GiB");
        if (options.ChannelSizeBytes is not long bytes)
            return options;
        long minimum = ChannelLayout.MinimumBytes(options.RingSlots ?? DefaultRingSlots, options.PageBytes);
        if (bytes < minimum || bytes > 1L << 32 || bytes % options.PageBytes != 0)
            throw new CbdException(CbdErrorKind.Invalid, $"--channel-size is {bytes}: give a multiple of {options.PageBytes} from {minimum} to {1L << 32} bytes");
        return options;
    }

    private static void CheckCount(string option, int? count)
    {
        if (count is < 1 or > MaxEntries)
            throw new CbdException(CbdErrorKind.Invalid, $"{option} is {count}: give a number from 1 to {MaxEntries}");
    }

    private static long ChannelAreaOffset(RegionOptions options) => RoundUp(
        TransportInfo.SizeBytes +
        AreaBytes(options.Hosts ?? DefaultHosts, HostEntry.SizeBytes) +
        AreaBytes(options.Backends ?? DefaultBackends, BackendEntry.SizeBytes) +
        AreaBytes(options.Blkdevs ?? DefaultBlkdevs, BlkdevEntry.SizeBytes),
        options.PageBytes);

    private static long ChooseChannelBytes(long room, RegionOptions options)
    {
        long smallest = SmallestChannelBytes(options);
        long wanted = options.Channels ?? WantedChannels;
        long bytes = Math.Max(smallest, RoundUp(LargestDefaultChannelBytes, options.PageBytes));
        while (bytes > smallest && room / bytes < wanted)
            bytes = Math.Max(smallest, RoundUp(bytes / 2, options.PageBytes));
        return bytes;
    }

    private static long SmallestChannelBytes(RegionOptions options) => Math.Max(
        RoundUp(SmallestDefaultChannelBytes, options.PageBytes),
        ChannelLayout.MinimumBytes(options.RingSlots ?? DefaultRingSlots, options.PageBytes));

    private static long AreaBytes(int count, int entryBytes) => RoundUp((long)count * entryBytes, AreaAlignmentBytes);

    private static long RoundUp(long bytes, long unit) => (bytes + unit - 1) / unit * unit;
}
