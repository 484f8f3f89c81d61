using System.Buffers.Binary;

namespace Cbd.Protocol.Format;

/// <summary>
/// What a blkdev is; published by its owner at start and with every heartbeat. Little-endian.
/// <list type="table">
/// <item><term>0, 4</term><description>id of the owning host</description></item>
/// <item><term>4, 4</term><description>flags: bit 0 read-only; bit 1 kept: it outlives its process</description></item>
/// <item><term>8, 8</term><description>epoch of the owning host's claim</description></item>
/// <item><term>16, 8</term><description>session of the backend (its claim's epoch) when the blkdev started</description></item>
/// <item><term>24, 4</term><description>id of the backend</description></item>
/// <item><term>28, 2</term><description>number of queues, 0 to 128: channel ids that follow</description></item>
/// <item><term>30, 2</term><description>length of the name, bytes, 0 to 128</description></item>
/// <item><term>32, 128</term><description>name (node or NBD URI on its host), UTF-8, zero-padded</description></item>
/// <item><term>160, 256</term><description>channel id of each queue, 2 bytes each; the rest zero. What follows is not there in
/// bodies without bit 1 of the flags, which have 416 bytes</description></item>
/// <item><term>416, 16</term><description>uuid of the host that may adopt it</description></item>
/// <item><term>432, 8</term><description>life of the device, never 0: one attachment, over any number of processes</description></item>
/// </list>
/// </summary>
internal sealed record BlkdevBody
{
    /// <summary>Of a blkdev that is kept.</summary>
    public const int EncodedSizeBytes = 440;

    /// <summary>Of one that ends with its process; hosts of the version before know no other.</summary>
    public const int PlainSizeBytes = 416;

    private const uint ReadOnlyFlag = 1, KeptFlag = 2;
    public const int MaxQueues = 128;
    public const int MaxNameBytes = 128;

    private const int HostOffset = 0, FlagsOffset = 4, HostEpochOffset = 8, SessionOffset = 16, BackendOffset = 24,
        QueuesOffset = 28, NameLengthOffset = 30, NameOffset = 32, ChannelsOffset = 160, HostUuidOffset = 416, LifeOffset = 432;

    public static IReadOnlyList<FieldLayout> Layout { get; } =
    [
        new("host_id", HostOffset, 4), new("flags", FlagsOffset, 4), new("host_epoch", HostEpochOffset, 8),
        new("session", SessionOffset, 8), new("backend_id", BackendOffset, 4), new("queues", QueuesOffset, 2),
        new("name_length", NameLengthOffset, 2), new("name", NameOffset, MaxNameBytes), new("channels", ChannelsOffset, 2 * MaxQueues),
        new("host_uuid", HostUuidOffset, 16), new("life", LifeOffset, 8),
    ];

    public int HostId { get; init; }
    public ulong HostEpoch { get; init; }
    public required bool ReadOnly { get; init; }

    /// <summary>The backend's claim epoch when the blkdev started.</summary>
    public required ulong SessionEpoch { get; init; }
    public required int BackendId { get; init; }
    public required string Name { get; init; }

    /// <summary>The channel of each queue.</summary>
    public required IReadOnlyList<int> Channels { get; init; }

    /// <summary>The host that may adopt it; empty unless it is kept.</summary>
    public Guid HostUuid { get; init; }

    /// <summary>Which attachment it is, over any number of processes; 0: it ends with its process.</summary>
    public ulong Life { get; init; }

    /// <summary>It outlives its process: a clearer with proof of death makes an orphan of it.</summary>
    public bool IsKept => Life != 0;

    /// <summary>What <see cref="Encode"/> stores, bytes.</summary>
    public int SizeBytes => IsKept ? EncodedSizeBytes : PlainSizeBytes;

    /// <summary>Whether a body of this many bytes can be that of a kept blkdev.</summary>
    public static bool MayBeKept(int payloadBytes) => payloadBytes >= EncodedSizeBytes;

    /// <summary>Whether this can be a blkdev's name: up to 128 bytes of UTF-8 without control characters.</summary>
    public static bool IsValidName(string name) =>
        StoredText.CountBytes(name) is >= 0 and <= MaxNameBytes && !name.Any(char.IsControl);

    /// <summary>Stores all <see cref="SizeBytes"/>.</summary>
    public void Encode(Span<byte> payload)
    {
        BinaryPrimitives.WriteInt32LittleEndian(payload[HostOffset..], HostId);
        BinaryPrimitives.WriteUInt32LittleEndian(payload[FlagsOffset..], (ReadOnly ? ReadOnlyFlag : 0) | (IsKept ? KeptFlag : 0));
        BinaryPrimitives.WriteUInt64LittleEndian(payload[HostEpochOffset..], HostEpoch);
        BinaryPrimitives.WriteUInt64LittleEndian(payload[SessionOffset..], SessionEpoch);
        BinaryPrimitives.WriteInt32LittleEndian(payload[BackendOffset..], BackendId);
        if (Channels.Count > MaxQueues)
            throw new InvalidOperationException($"{Channels.Count} channels, more than {MaxQueues}");
        BinaryPrimitives.WriteUInt16LittleEndian(payload[QueuesOffset..], (ushort)Channels.Count);
        BinaryPrimitives.WriteUInt16LittleEndian(payload[NameLengthOffset..], (ushort)StoredText.Write(Name, payload.Slice(NameOffset, MaxNameBytes), "device name"));
        payload.Slice(ChannelsOffset, 2 * MaxQueues).Clear();
        for (int queue = 0; queue < Channels.Count; queue++)
            BinaryPrimitives.WriteUInt16LittleEndian(payload[(ChannelsOffset + 2 * queue)..], checked((ushort)Channels[queue]));
        if (!IsKept)
            return;
        if (!HostUuid.TryWriteBytes(payload[HostUuidOffset..]))
            throw new InvalidOperationException("a GUID has 16 bytes");
        BinaryPrimitives.WriteUInt64LittleEndian(payload[LifeOffset..], Life);
    }

    /// <summary>
    /// Reads a private copy; false, with the field and its value, if something cannot be in a region with this geometry.
    /// </summary>
    public static bool TryDecode(ReadOnlySpan<byte> payload, RegionGeometry geometry, out BlkdevBody body, out string error)
    {
        body = null!;
        if (payload.Length < PlainSizeBytes)
        {
            error = $"length is {payload.Length}, not {PlainSizeBytes} or more";
            return false;
        }

        uint flags = BinaryPrimitives.ReadUInt32LittleEndian(payload[FlagsOffset..]);
        bool isKept = (flags & KeptFlag) != 0;
        if (isKept && payload.Length < EncodedSizeBytes)
        {
            error = $"length is {payload.Length}, not {EncodedSizeBytes} or more, of a blkdev that is kept";
            return false;
        }

        ulong life = isKept ? BinaryPrimitives.ReadUInt64LittleEndian(payload[LifeOffset..]) : 0;

        int host = BinaryPrimitives.ReadInt32LittleEndian(payload[HostOffset..]);
        int backend = BinaryPrimitives.ReadInt32LittleEndian(payload[BackendOffset..]);
        int queues = BinaryPrimitives.ReadUInt16LittleEndian(payload[QueuesOffset..]);
        string? name = StoredText.Read(payload.Slice(NameOffset, MaxNameBytes), BinaryPrimitives.ReadUInt16LittleEndian(payload[NameLengthOffset..]));
        error = (uint)host >= (uint)geometry.HostCount ? $"host_id is {host}, not below {geometry.HostCount}"
            : (uint)backend >= (uint)geometry.BackendCount ? $"backend_id is {backend}, not below {geometry.BackendCount}"
            : queues > MaxQueues ? $"queues is {queues}, above {MaxQueues}"
            : name is null ? "name is not text"
            : isKept && life == 0 ? "life is 0, of a blkdev that is kept"
            : "";
        if (error.Length != 0)
            return false;
        var channels = new int[queues];
        for (int queue = 0; queue < queues; queue++)
        {
            channels[queue] = BinaryPrimitives.ReadUInt16LittleEndian(payload[(ChannelsOffset + 2 * queue)..]);
            if (channels[queue] >= geometry.ChannelCount)
            {
                error = $"channel of queue {queue} is {channels[queue]}, not below {geometry.ChannelCount}";
                return false;
            }
        }

        body = new BlkdevBody
        {
            HostId = host,
            HostEpoch = BinaryPrimitives.ReadUInt64LittleEndian(payload[HostEpochOffset..]),
            ReadOnly = (flags & ReadOnlyFlag) != 0,
            SessionEpoch = BinaryPrimitives.ReadUInt64LittleEndian(payload[SessionOffset..]),
            BackendId = backend,
            Name = name!,
            Channels = channels,
            HostUuid = isKept ? new Guid(payload.Slice(HostUuidOffset, 16)) : Guid.Empty,
            Life = life,
        };
        return true;
    }
}
