using System.Buffers.Binary;
using Cbd.Blocks;

namespace Cbd.Protocol.Format;

/// <summary>Flags of a backend. Stored: values are fixed and only ever added to.</summary>
[Flags]
internal enum BackendFlags : uint
{
    None = 0,
    ReadOnly = 1,
    CanDiscard = 2,
    CanZeroFast = 4,

    /// <summary>No O_DIRECT: writes go through the page cache of the backend's host.</summary>
    Buffered = 8,

    /// <summary>The operator of its host stopped it while blkdevs used it: they are not to wait for it.</summary>
    Stopped = 16,

    /// <summary>The hint that a range will be read does something.</summary>
    CanCache = 32,

    /// <summary>Seeking takes time: requests are best done in the order of their offsets.</summary>
    Rotational = 64,
}

/// <summary>How a backend does its I/O. Stored: values are fixed and only ever added to.</summary>
internal enum BackendEngine : byte
{
    /// <summary>No system call: memory, null.</summary>
    Direct = 0,
    IoUring = 1,
    Pread = 2,
}

/// <summary>
/// What a backend is; published by its owner at start, with every heartbeat, and before the completion of a flush that
/// failed. Little-endian.
/// <list type="table">
/// <item><term>0, 4</term><description>id of the owning host</description></item>
/// <item><term>4, 4</term><description><see cref="BackendFlags"/></description></item>
/// <item><term>8, 8</term><description>epoch of the owning host's claim</description></item>
/// <item><term>16, 8</term><description>size, bytes; a multiple of the logical block, &gt; 0</description></item>
/// <item><term>24, 4</term><description>logical block, bytes: 512 or 4096</description></item>
/// <item><term>28, 4</term><description>physical block, bytes; a power of two from the logical block on</description></item>
/// <item><term>32, 4</term><description>discard granularity, bytes; a multiple of the logical block</description></item>
/// <item><term>36, 4</term><description>largest transfer, bytes; at least one logical block</description></item>
/// <item><term>40, 16</term><description>durability id: the same while acknowledged, unflushed writes cannot be lost. 8 bytes
/// of what names this life of the disk, then the session since which it has been served without another life between, 8
/// (<see cref="InSession"/>)</description></item>
/// <item><term>56, 4</term><description>handler threads, 1 to 128</description></item>
/// <item><term>60, 4</term><description><see cref="BackendEngine"/></description></item>
/// <item><term>64, 4</term><description>0, or the latched errno of the flush that failed</description></item>
/// <item><term>68, 2</term><description>length of the identity, bytes, 1 to 128</description></item>
/// <item><term>70, 2</term><description>length of the path, bytes, 1 to 511</description></item>
/// <item><term>72, 128</term><description>identity of the disk, UTF-8, zero-padded (<see cref="DiskIdentity"/>)</description></item>
/// <item><term>200, 512</term><description>path as it was given, UTF-8, zero-padded</description></item>
/// <item><term>712, 1</term><description>length of the name, bytes, 0 to 31; from here on it is not there in bodies of older hosts, which have 712 bytes</description></item>
/// <item><term>713, 31</term><description>what users call it, UTF-8, zero-padded; empty if nothing</description></item>
/// </list>
/// </summary>
internal sealed record BackendBody
{
    public const int EncodedSizeBytes = 744;

    /// <summary>Of hosts that do not know names.</summary>
    public const int NamelessSizeBytes = 712;
    public const int MaxNameBytes = 31;
    public const int MaxPathBytes = 511;
    public const int MaxIdentityBytes = 128;
    public const int MaxHandlers = 128;

    private const int HostOffset = 0, FlagsOffset = 4, HostEpochOffset = 8, SizeOffset = 16, LogicalOffset = 24,
        PhysicalOffset = 28, DiscardOffset = 32, TransferOffset = 36, DurabilityOffset = 40, HandlersOffset = 56,
        EngineOffset = 60, FlushErrorOffset = 64, IdentityLengthOffset = 68, PathLengthOffset = 70, IdentityOffset = 72,
        PathOffset = 200, NameLengthOffset = 712, NameOffset = 713;

    public static IReadOnlyList<FieldLayout> Layout { get; } =
    [
        new("host_id", HostOffset, 4), new("flags", FlagsOffset, 4), new("host_epoch", HostEpochOffset, 8),
        new("size", SizeOffset, 8), new("logical_block", LogicalOffset, 4), new("physical_block", PhysicalOffset, 4),
        new("discard_granularity", DiscardOffset, 4), new("max_transfer", TransferOffset, 4),
        new("durability_id", DurabilityOffset, 16), new("handlers", HandlersOffset, 4), new("engine", EngineOffset, 4),
        new("flush_errno", FlushErrorOffset, 4), new("identity_length", IdentityLengthOffset, 2),
        new("path_length", PathLengthOffset, 2), new("identity", IdentityOffset, MaxIdentityBytes), new("path", PathOffset, 512),
        new("name_length", NameLengthOffset, 1), new("name", NameOffset, MaxNameBytes),
    ];

    public int HostId { get; init; }
    public ulong HostEpoch { get; init; }
    public BackendFlags Flags { get; init; }
    public required long SizeBytes { get; init; }
    public required int LogicalBlockBytes { get; init; }
    public required int PhysicalBlockBytes { get; init; }
    public required int DiscardGranularityBytes { get; init; }
    public required int MaxTransferBytes { get; init; }
    public required Guid DurabilityId { get; init; }
    public required int Handlers { get; init; }
    public required BackendEngine Engine { get; init; }

    /// <summary>0, or the errno of the flush that failed and latched.</summary>
    public int FlushError { get; init; }
    public required string Identity { get; init; }

    /// <summary>What the version before says of a disk that is open here; not stored.</summary>
    public string OldIdentity { get; init; } = "";
    public required string Path { get; init; }

    /// <summary>What users call it; empty if nothing.</summary>
    public string Name { get; init; } = "";

    /// <summary>Which disk it is.</summary>
    public DiskIdentity DiskIdentity => new(Identity, OldIdentity, DiskLife);

    public bool ReadOnly => (Flags & BackendFlags.ReadOnly) != 0;

    public bool IsStopped => (Flags & BackendFlags.Stopped) != 0;

    /// <summary>
    /// Says which disk it is, in this life of it (a boot of its host): the part of the durability id that all sessions in that life
    /// share.
    /// </summary>
    public ulong DiskLife
    {
        get
        {
            Span<byte> id = stackalloc byte[16];
            if (!DurabilityId.TryWriteBytes(id))
                throw new InvalidOperationException("a GUID has 16 bytes");
            return BinaryPrimitives.ReadUInt64LittleEndian(id);
        }
    }

    /// <summary>
    /// This body with the durability id of a session. A life of the disk (a boot of its host) that comes back after a session
    /// of another one is not what it was: a blkdev that saw nothing of that session must see the difference.
    /// </summary>
    /// <param name="session">Epoch of the session.</param>
    /// <param name="record">The record of the session before; null for none.</param>
    public BackendBody InSession(ulong session, BackendBody? record)
    {
        Span<byte> id = stackalloc byte[16], before = stackalloc byte[16];
        if (!DurabilityId.TryWriteBytes(id) || (record is not null && !record.DurabilityId.TryWriteBytes(before)))
            throw new InvalidOperationException("a GUID has 16 bytes");
        bool goesOn = record?.DiskLife == DiskLife;
        BinaryPrimitives.WriteUInt64LittleEndian(id[8..], goesOn ? BinaryPrimitives.ReadUInt64LittleEndian(before[8..]) : session);
        return this with { DurabilityId = new Guid(id) };
    }

    /// <summary>Stores all <see cref="EncodedSizeBytes"/>.</summary>
    public void Encode(Span<byte> payload)
    {
        BinaryPrimitives.WriteInt32LittleEndian(payload[HostOffset..], HostId);
        BinaryPrimitives.WriteUInt32LittleEndian(payload[FlagsOffset..], (uint)Flags);
        BinaryPrimitives.WriteUInt64LittleEndian(payload[HostEpochOffset..], HostEpoch);
        BinaryPrimitives.WriteInt64LittleEndian(payload[SizeOffset..], SizeBytes);
        BinaryPrimitives.WriteInt32LittleEndian(payload[LogicalOffset..], LogicalBlockBytes);
        BinaryPrimitives.WriteInt32LittleEndian(payload[PhysicalOffset..], PhysicalBlockBytes);
        BinaryPrimitives.WriteInt32LittleEndian(payload[DiscardOffset..], DiscardGranularityBytes);
        BinaryPrimitives.WriteInt32LittleEndian(payload[TransferOffset..], MaxTransferBytes);
        if (!DurabilityId.TryWriteBytes(payload[DurabilityOffset..]))
            throw new InvalidOperationException("a GUID has 16 bytes");
        BinaryPrimitives.WriteInt32LittleEndian(payload[HandlersOffset..], Handlers);
        BinaryPrimitives.WriteInt32LittleEndian(payload[EngineOffset..], (int)Engine);
        BinaryPrimitives.WriteInt32LittleEndian(payload[FlushErrorOffset..], FlushError);
        BinaryPrimitives.WriteUInt16LittleEndian(payload[IdentityLengthOffset..], (ushort)StoredText.Write(Identity, payload.Slice(IdentityOffset, MaxIdentityBytes), "disk identity"));
        BinaryPrimitives.WriteUInt16LittleEndian(payload[PathLengthOffset..], (ushort)StoredText.Write(Path, payload.Slice(PathOffset, 512), "path"));
        payload[NameLengthOffset] = (byte)StoredText.Write(Name, payload.Slice(NameOffset, MaxNameBytes), "name");
    }

    /// <summary>Reads a private copy; false, with the field and its value, if something cannot be.</summary>
    public static bool TryDecode(ReadOnlySpan<byte> payload, out BackendBody body, out string error)
    {
        body = null!;
        if (payload.Length < NamelessSizeBytes)
        {
            error = $"length is {payload.Length}, not {NamelessSizeBytes} or more";
            return false;
        }

        string? identity = StoredText.Read(payload.Slice(IdentityOffset, MaxIdentityBytes), BinaryPrimitives.ReadUInt16LittleEndian(payload[IdentityLengthOffset..]));
        string? path = StoredText.Read(payload.Slice(PathOffset, 512), BinaryPrimitives.ReadUInt16LittleEndian(payload[PathLengthOffset..]));
        string? name = payload.Length < EncodedSizeBytes ? "" : StoredText.Read(payload.Slice(NameOffset, MaxNameBytes), payload[NameLengthOffset]);
        if (identity is null || path is null || name is null)
        {
            error = identity is null ? "identity is not text" : path is null ? "path is not text" : "name is not text";
            return false;
        }

        var read = new BackendBody
        {
            HostId = BinaryPrimitives.ReadInt32LittleEndian(payload[HostOffset..]),
            Flags = (BackendFlags)BinaryPrimitives.ReadUInt32LittleEndian(payload[FlagsOffset..]),
            HostEpoch = BinaryPrimitives.ReadUInt64LittleEndian(payload[HostEpochOffset..]),
            SizeBytes = BinaryPrimitives.ReadInt64LittleEndian(payload[SizeOffset..]),
            LogicalBlockBytes = BinaryPrimitives.ReadInt32LittleEndian(payload[LogicalOffset..]),
            PhysicalBlockBytes = BinaryPrimitives.ReadInt32LittleEndian(payload[PhysicalOffset..]),
            DiscardGranularityBytes = BinaryPrimitives.ReadInt32LittleEndian(payload[DiscardOffset..]),
            MaxTransferBytes = BinaryPrimitives.ReadInt32LittleEndian(payload[TransferOffset..]),
            DurabilityId = new Guid(payload.Slice(DurabilityOffset, 16)),
            Handlers = BinaryPrimitives.ReadInt32LittleEndian(payload[HandlersOffset..]),
            Engine = (BackendEngine)BinaryPrimitives.ReadInt32LittleEndian(payload[EngineOffset..]),
            FlushError = BinaryPrimitives.ReadInt32LittleEndian(payload[FlushErrorOffset..]),
            Identity = identity,
            Path = path,
            Name = name,
        };
        error = read.FindError();
        if (error.Length != 0)
            return false;
        body = read;
        return true;
    }

    /// <summary>Names the first field that cannot be, with its value; empty if all can.</summary>
    public string FindError() =>
        HostId is < 0 or > ushort.MaxValue ? $"host_id is {HostId}"
        : LogicalBlockBytes is not (512 or 4096) ? $"logical_block is {LogicalBlockBytes}, not 512 or 4096"
        : SizeBytes <= 0 || SizeBytes % LogicalBlockBytes != 0 ? $"size is {SizeBytes}, not a multiple of {LogicalBlockBytes} above 0"
        : PhysicalBlockBytes < LogicalBlockBytes || !int.IsPow2(PhysicalBlockBytes) ? $"physical_block is {PhysicalBlockBytes}, not a power of two from {LogicalBlockBytes} on"
        : DiscardGranularityBytes <= 0 || DiscardGranularityBytes % LogicalBlockBytes != 0 ? $"discard_granularity is {DiscardGranularityBytes}, not a multiple of {LogicalBlockBytes} above 0"
        : MaxTransferBytes < LogicalBlockBytes ? $"max_transfer is {MaxTransferBytes}, below one block of {LogicalBlockBytes}"
        : Handlers is < 1 or > MaxHandlers ? $"handlers is {Handlers}, not from 1 to {MaxHandlers}"
        : FlushError is < 0 or > 4095 ? $"flush_errno is {FlushError}, not an errno"
        : StoredText.CountBytes(Identity) is < 1 or > MaxIdentityBytes || Identity.Any(char.IsControl) ? $"identity is not 1 to {MaxIdentityBytes} bytes of printable text"
        : StoredText.CountBytes(Path) is < 1 or > MaxPathBytes || Path.Any(char.IsControl) ? $"path is not 1 to {MaxPathBytes} bytes of printable text"
        : StoredText.CountBytes(Name) is < 0 or > MaxNameBytes || Name.Any(char.IsControl) ? $"name is not 0 to {MaxNameBytes} bytes of printable text"
        : "";
}
