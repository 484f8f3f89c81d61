using System.Buffers.Binary;
using System.Globalization;
using System.Text;
using Cbd.Blocks;
using Cbd.Protocol.Format;

namespace Cbd.Protocol.Records;

/// <summary>How far a device has come, for the process after the one that dies. Stored: values are fixed and only ever added to.</summary>
internal enum DeviceRecordState
{
    /// <summary>Its start was not answered: a successor undoes it.</summary>
    Starting = 1,

    /// <summary>A successor goes on with it.</summary>
    Serving = 2,

    /// <summary>Its stop was accepted: a successor finishes it.</summary>
    Stopping = 3,
}

/// <summary>What gives a device to the kernel of its machine. Stored: values are fixed and only ever added to.</summary>
internal enum DeviceRecordKind
{
    Fuse = 1,
    Ublk = 2,
    KernelNbd = 3,
}

/// <summary>
/// What a successor has to know of a device, but for its counts. One of two copies of a <see cref="DeviceRecord"/>, stored whole. The
/// layout is in docs/inflight.md; a field that moves is another <see cref="DeviceRecord.Version"/>.
/// </summary>
internal sealed record DeviceRecordBody
{
    public const int SizeBytes = 1024;
    public const int MaxNameBytes = BlkdevBody.MaxNameBytes;
    public const int MaxIdentityBytes = BackendBody.MaxIdentityBytes;
    public const int MaxFailureBytes = 512;

    internal const int CrcOffset = 0, GenerationOffset = 8;
    private const int LifeOffset = 16, RegionOffset = 24, HostUuidOffset = 40, BackendOffset = 56, BlkdevOffset = 60, BlkdevEpochOffset = 64,
        HostOffset = 72, StateOffset = 76, HostEpochOffset = 80, DurabilityOffset = 88, SessionOffset = 104, SizeOffset = 112, LogicalOffset = 120,
        PhysicalOffset = 124, DiscardOffset = 128, TransferOffset = 132, SlotOffset = 136, QueuesOffset = 140, FlagsOffset = 144,
        NameLengthOffset = 148, IdentityLengthOffset = 150, FailureLengthOffset = 152, NameOffset = 160, IdentityOffset = 288, FailureOffset = 416,
        KindOffset = 928, NumberOffset = 932;

    private const uint ReadOnlyFlag = 1, BufferedFlag = 2, CanDiscardFlag = 4, CanZeroFastFlag = 8, CanCacheFlag = 16, RotationalFlag = 32;

    public static IReadOnlyList<FieldLayout> Layout { get; } =
    [
        new("crc", CrcOffset, 4), new("generation", GenerationOffset, 8), new("life", LifeOffset, 8), new("region_id", RegionOffset, 16),
        new("host_uuid", HostUuidOffset, 16), new("backend_id", BackendOffset, 4), new("blkdev_id", BlkdevOffset, 4), new("blkdev_epoch", BlkdevEpochOffset, 8),
        new("host_id", HostOffset, 4), new("state", StateOffset, 4), new("host_epoch", HostEpochOffset, 8), new("durability_id", DurabilityOffset, 16),
        new("session", SessionOffset, 8), new("size", SizeOffset, 8), new("logical_block", LogicalOffset, 4), new("physical_block", PhysicalOffset, 4),
        new("discard_granularity", DiscardOffset, 4), new("max_transfer", TransferOffset, 4), new("slot_size", SlotOffset, 4), new("queues", QueuesOffset, 4),
        new("flags", FlagsOffset, 4), new("name_length", NameLengthOffset, 2), new("identity_length", IdentityLengthOffset, 2),
        new("failure_length", FailureLengthOffset, 2), new("name", NameOffset, MaxNameBytes), new("identity", IdentityOffset, MaxIdentityBytes),
        new("failure", FailureOffset, MaxFailureBytes), new("kind", KindOffset, 4), new("number", NumberOffset, 4),
    ];

    /// <summary>Which attachment it is, over any number of processes: random, never 0.</summary>
    public required ulong Life { get; init; }

    public required Guid RegionId { get; init; }

    public required Guid HostUuid { get; init; }

    public required int BackendId { get; init; }

    /// <summary>Id of the blkdev; −1 before the first claim.</summary>
    public int BlkdevId { get; init; } = -1;

    /// <summary>Epoch of its last claim; 0 before the first.</summary>
    public ulong BlkdevEpoch { get; init; }

    /// <summary>The host entry under which that claim was made, and its epoch: for messages.</summary>
    public int HostId { get; init; } = -1;

    public ulong HostEpoch { get; init; }

    public DeviceRecordState State { get; init; } = DeviceRecordState.Starting;

    /// <summary>The durability id under which the writes that no flush has covered were acknowledged.</summary>
    public Guid DurabilityId { get; init; }

    /// <summary>The session that the queues were told to use last; 0 before there is one.</summary>
    public ulong Session { get; init; }

    /// <summary>A session of this life went through the page cache of its host.</summary>
    public bool WasBuffered { get; init; }

    /// <summary>What the device's users were told; zeroes before there is a claim. Its durability id is not stored here.</summary>
    public BlockDeviceInfo Info { get; init; } = new() { SizeBytes = 0, LogicalBlockBytes = 0, PhysicalBlockBytes = 0 };

    /// <summary>Payload of a slot of the in-flight record, bytes; 0 if there is none.</summary>
    public int SlotBytes { get; init; }

    public required int Queues { get; init; }

    /// <summary>What users call the device.</summary>
    public string Name { get; init; } = "";

    /// <summary>Identity of the disk on which it was started; empty before there is a claim.</summary>
    public string Identity { get; init; } = "";

    /// <summary>Why every request is answered with EIO; empty while the device works.</summary>
    public string Failure { get; init; } = "";

    /// <summary>What gives it to the kernel of its machine.</summary>
    public DeviceRecordKind Kind { get; init; } = DeviceRecordKind.Fuse;

    /// <summary>The kernel's number of its block device; −1 before there is one, and always of a kind that is found by its descriptors.</summary>
    public int Number { get; init; } = -1;

    /// <summary>A reason as it can be stored: without control characters, and not too long.</summary>
    public static string ToFailure(string reason)
    {
        string text = string.Concat(reason.Select(c => char.IsControl(c) || char.IsSurrogate(c) ? '?' : c));
        while (Encoding.UTF8.GetByteCount(text) > MaxFailureBytes)
            text = text[..^1];
        return text.Length > 0 ? text : "unknown";
    }

    /// <summary>Stores it as a record of that version has it.</summary>
    public void Encode(Span<byte> copy, uint version)
    {
        copy[..SizeBytes].Clear();
        BinaryPrimitives.WriteUInt64LittleEndian(copy[LifeOffset..], Life);
        Write(copy[RegionOffset..], RegionId);
        Write(copy[HostUuidOffset..], HostUuid);
        BinaryPrimitives.WriteInt32LittleEndian(copy[BackendOffset..], BackendId);
        BinaryPrimitives.WriteInt32LittleEndian(copy[BlkdevOffset..], BlkdevId);
        BinaryPrimitives.WriteUInt64LittleEndian(copy[BlkdevEpochOffset..], BlkdevEpoch);
        BinaryPrimitives.WriteInt32LittleEndian(copy[HostOffset..], HostId);
        BinaryPrimitives.WriteInt32LittleEndian(copy[StateOffset..], (int)State);
        BinaryPrimitives.WriteUInt64LittleEndian(copy[HostEpochOffset..], HostEpoch);
        Write(copy[DurabilityOffset..], DurabilityId);
        BinaryPrimitives.WriteUInt64LittleEndian(copy[SessionOffset..], Session);
        BinaryPrimitives.WriteInt64LittleEndian(copy[SizeOffset..], Info.SizeBytes);
        BinaryPrimitives.WriteInt32LittleEndian(copy[LogicalOffset..], Info.LogicalBlockBytes);
        BinaryPrimitives.WriteInt32LittleEndian(copy[PhysicalOffset..], Info.PhysicalBlockBytes);
        BinaryPrimitives.WriteInt32LittleEndian(copy[DiscardOffset..], Info.DiscardGranularityBytes);
        BinaryPrimitives.WriteInt32LittleEndian(copy[TransferOffset..], Info.MaxTransferBytes);
        BinaryPrimitives.WriteInt32LittleEndian(copy[SlotOffset..], SlotBytes);
        BinaryPrimitives.WriteInt32LittleEndian(copy[QueuesOffset..], Queues);
        BinaryPrimitives.WriteUInt32LittleEndian(copy[FlagsOffset..], (Info.ReadOnly ? ReadOnlyFlag : 0) | (WasBuffered ? BufferedFlag : 0) |
            (Info.CanDiscard ? CanDiscardFlag : 0) | (Info.CanZeroFast ? CanZeroFastFlag : 0) | (Info.CanCache ? CanCacheFlag : 0) | (Info.IsRotational ? RotationalFlag : 0));
        BinaryPrimitives.WriteUInt16LittleEndian(copy[NameLengthOffset..], (ushort)StoredText.Write(Name, copy.Slice(NameOffset, MaxNameBytes), "device name"));
        BinaryPrimitives.WriteUInt16LittleEndian(copy[IdentityLengthOffset..], (ushort)StoredText.Write(Identity, copy.Slice(IdentityOffset, MaxIdentityBytes), "disk identity"));
        BinaryPrimitives.WriteUInt16LittleEndian(copy[FailureLengthOffset..], (ushort)StoredText.Write(Failure, copy.Slice(FailureOffset, MaxFailureBytes), "failure"));
        if (version < DeviceRecord.FirstVersionWithKinds)
            return;
        BinaryPrimitives.WriteUInt32LittleEndian(copy[KindOffset..], (uint)Kind);
        BinaryPrimitives.WriteInt32LittleEndian(copy[NumberOffset..], Number);
    }

    /// <summary>Reads a private copy; false, with the field and its value, if something cannot be.</summary>
    public static bool TryDecode(ReadOnlySpan<byte> copy, uint version, out DeviceRecordBody body, out string error)
    {
        body = null!;
        string? name = StoredText.Read(copy.Slice(NameOffset, MaxNameBytes), BinaryPrimitives.ReadUInt16LittleEndian(copy[NameLengthOffset..]));
        string? identity = StoredText.Read(copy.Slice(IdentityOffset, MaxIdentityBytes), BinaryPrimitives.ReadUInt16LittleEndian(copy[IdentityLengthOffset..]));
        string? failure = StoredText.Read(copy.Slice(FailureOffset, MaxFailureBytes), BinaryPrimitives.ReadUInt16LittleEndian(copy[FailureLengthOffset..]));
        if (name is null || identity is null || failure is null)
        {
            error = $"{(name is null ? "name" : identity is null ? "identity" : "failure")} is not text";
            return false;
        }

        uint flags = BinaryPrimitives.ReadUInt32LittleEndian(copy[FlagsOffset..]);
        var durability = new Guid(copy.Slice(DurabilityOffset, 16));
        var read = new DeviceRecordBody
        {
            Life = BinaryPrimitives.ReadUInt64LittleEndian(copy[LifeOffset..]),
            RegionId = new Guid(copy.Slice(RegionOffset, 16)),
            HostUuid = new Guid(copy.Slice(HostUuidOffset, 16)),
            BackendId = BinaryPrimitives.ReadInt32LittleEndian(copy[BackendOffset..]),
            BlkdevId = BinaryPrimitives.ReadInt32LittleEndian(copy[BlkdevOffset..]),
            BlkdevEpoch = BinaryPrimitives.ReadUInt64LittleEndian(copy[BlkdevEpochOffset..]),
            HostId = BinaryPrimitives.ReadInt32LittleEndian(copy[HostOffset..]),
            State = (DeviceRecordState)BinaryPrimitives.ReadInt32LittleEndian(copy[StateOffset..]),
            HostEpoch = BinaryPrimitives.ReadUInt64LittleEndian(copy[HostEpochOffset..]),
            DurabilityId = durability,
            Session = BinaryPrimitives.ReadUInt64LittleEndian(copy[SessionOffset..]),
            WasBuffered = (flags & BufferedFlag) != 0,
            Info = new BlockDeviceInfo
            {
                SizeBytes = BinaryPrimitives.ReadInt64LittleEndian(copy[SizeOffset..]),
                LogicalBlockBytes = BinaryPrimitives.ReadInt32LittleEndian(copy[LogicalOffset..]),
                PhysicalBlockBytes = BinaryPrimitives.ReadInt32LittleEndian(copy[PhysicalOffset..]),
                DiscardGranularityBytes = BinaryPrimitives.ReadInt32LittleEndian(copy[DiscardOffset..]),
                MaxTransferBytes = BinaryPrimitives.ReadInt32LittleEndian(copy[TransferOffset..]),
                ReadOnly = (flags & ReadOnlyFlag) != 0,
                CanDiscard = (flags & CanDiscardFlag) != 0,
                CanZeroFast = (flags & CanZeroFastFlag) != 0,
                CanCache = (flags & CanCacheFlag) != 0,
                IsRotational = (flags & RotationalFlag) != 0,
                DurabilityId = durability,
            },
            SlotBytes = BinaryPrimitives.ReadInt32LittleEndian(copy[SlotOffset..]),
            Queues = BinaryPrimitives.ReadInt32LittleEndian(copy[QueuesOffset..]),
            Name = name,
            Identity = identity,
            Failure = failure,
        };
        // Before, there was one kind, which needs no number.
        if (version >= DeviceRecord.FirstVersionWithKinds)
            read = read with { Kind = (DeviceRecordKind)BinaryPrimitives.ReadUInt32LittleEndian(copy[KindOffset..]), Number = BinaryPrimitives.ReadInt32LittleEndian(copy[NumberOffset..]) };
        error = read.FindError();
        if (error.Length != 0)
            return false;
        body = read;
        return true;
    }

    /// <summary>Names the first field that cannot be, with its value; empty if all can.</summary>
    public string FindError()
    {
        bool isClaimed = BlkdevEpoch != 0;
        return Life == 0 ? "life is 0"
            : RegionId == Guid.Empty ? "region_id is empty"
            : HostUuid == Guid.Empty ? "host_uuid is empty"
            : BackendId is < 0 or >= 1 << 15 ? $"backend_id is {BackendId}"
            : State is < DeviceRecordState.Starting or > DeviceRecordState.Stopping ? $"state is {(int)State}"
            : isClaimed != BlkdevId >= 0 || BlkdevId is < -1 or >= 1 << 15 ? $"blkdev_id is {BlkdevId} of epoch {BlkdevEpoch}"
            : BlkdevEpoch > ClaimWord.MaxEpoch ? $"blkdev_epoch is {BlkdevEpoch}"
            : isClaimed != HostId >= 0 || HostId is < -1 or >= 1 << 15 ? $"host_id is {HostId}, of a blkdev {(isClaimed ? "with" : "without")} a claim"
            : HostEpoch > ClaimWord.MaxEpoch ? $"host_epoch is {HostEpoch}"
            : Session > ClaimWord.MaxEpoch ? $"session is {Session}"
            : State == DeviceRecordState.Serving && Session == 0 ? "session is 0 of a device that serves"
            : Queues is < 1 or > BlkdevBody.MaxQueues ? $"queues is {Queues}, not from 1 to {BlkdevBody.MaxQueues}"
            : SlotBytes < 0 ? $"slot_size is {SlotBytes}"
            : Kind is < DeviceRecordKind.Fuse or > DeviceRecordKind.KernelNbd ? $"kind is {(int)Kind}"
            : Number < -1 || (Kind == DeviceRecordKind.Fuse && Number != -1) ? $"number is {Number}, of kind {(int)Kind}"
            : Session != 0 ? FindInfoError()
            : "";
    }

    private string FindInfoError() =>
        Info.LogicalBlockBytes is not (512 or 4096) ? $"logical_block is {Info.LogicalBlockBytes}, not 512 or 4096"
        : Info.SizeBytes <= 0 || Info.SizeBytes % Info.LogicalBlockBytes != 0 ? $"size is {Info.SizeBytes}, not a multiple of {Info.LogicalBlockBytes} above 0"
        : Info.PhysicalBlockBytes < Info.LogicalBlockBytes || !int.IsPow2(Info.PhysicalBlockBytes) ? $"physical_block is {Info.PhysicalBlockBytes}, not a power of two from {Info.LogicalBlockBytes} on"
        : Info.DiscardGranularityBytes <= 0 || Info.DiscardGranularityBytes % Info.LogicalBlockBytes != 0 ? $"discard_granularity is {Info.DiscardGranularityBytes}, not a multiple of {Info.LogicalBlockBytes} above 0"
        : Info.MaxTransferBytes < Info.LogicalBlockBytes ? $"max_transfer is {Info.MaxTransferBytes}, below one block of {Info.LogicalBlockBytes}"
        : "";

    /// <summary>For messages: 16 hexadecimal digits.</summary>
    public string LifeText => Life.ToString("x16", CultureInfo.InvariantCulture);

    private static void Write(Span<byte> field, Guid id)
    {
        if (!id.TryWriteBytes(field))
            throw new InvalidOperationException("a GUID has 16 bytes");
    }
}
