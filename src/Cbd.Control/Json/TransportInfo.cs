using System.Globalization;
using Cbd.Memory;
using Cbd.Host;

namespace Cbd.Control.Json;

/// <summary>
/// One transport as JSON: the keys of the original's info attribute, then what this system adds. Offsets and sizes
/// are bytes. Keys may be added, none renamed.
/// </summary>
internal sealed record TransportInfo
{
    public required int TransportId { get; init; }

    /// <summary>"0x" and 16 hexadecimal digits.</summary>
    public required string Magic { get; init; }
    public required int Version { get; init; }

    /// <summary>"0x" and 8 hexadecimal digits.</summary>
    public required string Flags { get; init; }
    public required long HostAreaOff { get; init; }
    public required int BytesPerHostInfo { get; init; }
    public required int HostNum { get; init; }
    public required long BackendAreaOff { get; init; }
    public required int BytesPerBackendInfo { get; init; }
    public required int BackendNum { get; init; }
    public required long BlkdevAreaOff { get; init; }
    public required int BytesPerBlkdevInfo { get; init; }
    public required int BlkdevNum { get; init; }
    public required long ChannelAreaOff { get; init; }
    public required long BytesPerChannel { get; init; }
    public required int ChannelNum { get; init; }
    public required int HostId { get; init; }
    public required int MyHostId { get; init; }
    public required string Path { get; init; }
    public required string Coherence { get; init; }
    public required Guid Uuid { get; init; }
    public required string Hostname { get; init; }
    public required long SizeBytes { get; init; }
    public required int RingSlots { get; init; }
    public required bool PayloadCrc { get; init; }

    /// <summary>Empty while all is well; else why this transport serves nothing.</summary>
    public required string Failure { get; init; }

    /// <summary>Entries of each area that nobody may reuse until a death is proven or vouched for.</summary>
    public int QuarantinedHosts { get; set; }
    public int QuarantinedBackends { get; set; }
    public int QuarantinedBlkdevs { get; set; }
    public int QuarantinedChannels { get; set; }

    public static TransportInfo From(TransportDescription transport) => new()
    {
        TransportId = transport.TransportId,
        Magic = "0x" + transport.Magic.ToString("x16", CultureInfo.InvariantCulture),
        Version = transport.Version,
        Flags = "0x" + transport.Flags.ToString("x8", CultureInfo.InvariantCulture),
        HostAreaOff = transport.HostAreaOffset,
        BytesPerHostInfo = transport.BytesPerHost,
        HostNum = transport.HostCount,
        BackendAreaOff = transport.BackendAreaOffset,
        BytesPerBackendInfo = transport.BytesPerBackend,
        BackendNum = transport.BackendCount,
        BlkdevAreaOff = transport.BlkdevAreaOffset,
        BytesPerBlkdevInfo = transport.BytesPerBlkdev,
        BlkdevNum = transport.BlkdevCount,
        ChannelAreaOff = transport.ChannelAreaOffset,
        BytesPerChannel = transport.BytesPerChannel,
        ChannelNum = transport.ChannelCount,
        HostId = transport.HostId,
        MyHostId = transport.HostId,
        Path = transport.Path,
        Coherence = transport.Coherence,
        Uuid = transport.Uuid,
        Hostname = transport.HostName,
        SizeBytes = transport.SizeBytes,
        RingSlots = transport.RingSlots,
        PayloadCrc = transport.PayloadCrc,
        Failure = transport.Failure,
        QuarantinedHosts = transport.Quarantined.Hosts,
        QuarantinedBackends = transport.Quarantined.Backends,
        QuarantinedBlkdevs = transport.Quarantined.Blkdevs,
        QuarantinedChannels = transport.Quarantined.Channels,
    };

    public TransportDescription ToDescription() => new()
    {
        TransportId = TransportId,
        Magic = ParseHexadecimal(Magic, "magic", 16),
        Version = Version,
        Flags = (uint)ParseHexadecimal(Flags, "flags", 8),
        HostAreaOffset = HostAreaOff,
        BytesPerHost = BytesPerHostInfo,
        HostCount = HostNum,
        BackendAreaOffset = BackendAreaOff,
        BytesPerBackend = BytesPerBackendInfo,
        BackendCount = BackendNum,
        BlkdevAreaOffset = BlkdevAreaOff,
        BytesPerBlkdev = BytesPerBlkdevInfo,
        BlkdevCount = BlkdevNum,
        ChannelAreaOffset = ChannelAreaOff,
        BytesPerChannel = BytesPerChannel,
        ChannelCount = ChannelNum,
        HostId = MyHostId,
        HostName = Hostname,
        Path = Path,
        Coherence = Coherence,
        PayloadCrc = PayloadCrc,
        RingSlots = RingSlots,
        SizeBytes = SizeBytes,
        Uuid = Uuid,
        Failure = Failure,
        Quarantined = new QuarantineCounts(QuarantinedHosts, QuarantinedBackends, QuarantinedBlkdevs, QuarantinedChannels),
    };

    private static ulong ParseHexadecimal(string text, string key, int digits)
    {
        if (text.Length == digits + 2 && text.StartsWith("0x", StringComparison.Ordinal)
            && ulong.TryParse(text.AsSpan(2), NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out var value))
            return value;
        throw new CbdException(CbdErrorKind.Corrupt, $"the daemon answered {key} '{text}', which is not 0x and {digits} digits");
    }
}
