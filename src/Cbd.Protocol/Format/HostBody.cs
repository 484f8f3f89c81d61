using System.Buffers.Binary;

namespace Cbd.Protocol.Format;

/// <summary>
/// What a host says about itself; published by the host at registration and with every heartbeat. Little-endian.
/// <list type="table">
/// <item><term>0, 8</term><description>heartbeat counter; raised with every beat, its value means nothing</description></item>
/// <item><term>8, 16</term><description>boot id of the host's kernel</description></item>
/// <item><term>24, 16</term><description>host uuid: random, kept in the state directory</description></item>
/// <item><term>40, 8</term><description>device number of the region's file as the host sees it</description></item>
/// <item><term>48, 8</term><description>inode number of the region's file</description></item>
/// <item><term>56, 8</term><description>byte of that file on which the host's process holds its lock</description></item>
/// <item><term>64, 4</term><description>beat, ms</description></item>
/// <item><term>68, 4</term><description>dead-time, ms: standing still for so long means dead or unknown</description></item>
/// <item><term>72, 4</term><description>process id; for messages only, it proves nothing</description></item>
/// <item><term>76, 4</term><description>length of the name, bytes, 1 to 63</description></item>
/// <item><term>80, 64</term><description>name, UTF-8, zero-padded</description></item>
/// </list>
/// </summary>
internal sealed record HostBody
{
    public const int EncodedSizeBytes = 144;
    public const int MaxNameBytes = 63;

    /// <summary>Bounds of a believable beat and dead-time, ms.</summary>
    public const int MinBeatMs = 1, MaxBeatMs = 600_000, MaxDeadMs = 86_400_000;

    private const int HeartbeatOffset = 0, BootIdOffset = 8, HostUuidOffset = 24, DeviceOffset = 40, InodeOffset = 48,
        LockOffset = 56, BeatOffset = 64, DeadOffset = 68, PidOffset = 72, NameLengthOffset = 76, NameOffset = 80;

    public static IReadOnlyList<FieldLayout> Layout { get; } =
    [
        new("heartbeat", HeartbeatOffset, 8), new("boot_id", BootIdOffset, 16), new("host_uuid", HostUuidOffset, 16),
        new("device", DeviceOffset, 8), new("inode", InodeOffset, 8), new("lock_offset", LockOffset, 8),
        new("beat_ms", BeatOffset, 4), new("dead_ms", DeadOffset, 4), new("pid", PidOffset, 4),
        new("name_length", NameLengthOffset, 4), new("name", NameOffset, 64),
    ];

    public required ulong Heartbeat { get; init; }
    public required Guid BootId { get; init; }
    public required Guid HostUuid { get; init; }
    public required ulong Device { get; init; }
    public required ulong Inode { get; init; }
    public required long LockByteOffset { get; init; }
    public required int BeatMs { get; init; }
    public required int DeadMs { get; init; }
    public required int Pid { get; init; }
    public required string Name { get; init; }

    /// <summary>Whether this can be a host's name: 1 to 63 bytes of UTF-8, no slash, no white space, no control characters.</summary>
    public static bool IsValidName(string name)
    {
        if (StoredText.CountBytes(name) is < 1 or > MaxNameBytes)
            return false;
        foreach (char character in name)
        {
            if (character == '/' || char.IsControl(character) || char.IsWhiteSpace(character))
                return false;
        }

        return true;
    }

    /// <summary>Stores all <see cref="EncodedSizeBytes"/>.</summary>
    public void Encode(Span<byte> payload)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(payload[HeartbeatOffset..], Heartbeat);
        if (!BootId.TryWriteBytes(payload[BootIdOffset..]) || !HostUuid.TryWriteBytes(payload[HostUuidOffset..]))
            throw new InvalidOperationException("a GUID has 16 bytes");
        BinaryPrimitives.WriteUInt64LittleEndian(payload[DeviceOffset..], Device);
        BinaryPrimitives.WriteUInt64LittleEndian(payload[InodeOffset..], Inode);
        BinaryPrimitives.WriteInt64LittleEndian(payload[LockOffset..], LockByteOffset);
        BinaryPrimitives.WriteInt32LittleEndian(payload[BeatOffset..], BeatMs);
        BinaryPrimitives.WriteInt32LittleEndian(payload[DeadOffset..], DeadMs);
        BinaryPrimitives.WriteInt32LittleEndian(payload[PidOffset..], Pid);
        BinaryPrimitives.WriteInt32LittleEndian(payload[NameLengthOffset..], StoredText.Write(Name, payload.Slice(NameOffset, 64), "host name"));
    }

    /// <summary>Reads a private copy; false, with the field and its value, if something cannot be.</summary>
    public static bool TryDecode(ReadOnlySpan<byte> payload, out HostBody body, out string error)
    {
        body = null!;
        if (payload.Length < EncodedSizeBytes)
        {
            error = $"length is {payload.Length}, not {EncodedSizeBytes} or more";
            return false;
        }

        int beat = BinaryPrimitives.ReadInt32LittleEndian(payload[BeatOffset..]);
        int dead = BinaryPrimitives.ReadInt32LittleEndian(payload[DeadOffset..]);
        int nameLength = BinaryPrimitives.ReadInt32LittleEndian(payload[NameLengthOffset..]);
        string? name = StoredText.Read(payload.Slice(NameOffset, 64), nameLength);
        error = beat is < MinBeatMs or > MaxBeatMs ? $"beat_ms is {beat}, not from {MinBeatMs} to {MaxBeatMs}"
            : dead < beat || dead > MaxDeadMs ? $"dead_ms is {dead}, not from {beat} to {MaxDeadMs}"
            : name is null || !IsValidName(name) ? $"name of {nameLength} bytes is not a host name"
            : "";
        if (error.Length != 0)
            return false;
        body = new HostBody
        {
            Heartbeat = BinaryPrimitives.ReadUInt64LittleEndian(payload[HeartbeatOffset..]),
            BootId = new Guid(payload.Slice(BootIdOffset, 16)),
            HostUuid = new Guid(payload.Slice(HostUuidOffset, 16)),
            Device = BinaryPrimitives.ReadUInt64LittleEndian(payload[DeviceOffset..]),
            Inode = BinaryPrimitives.ReadUInt64LittleEndian(payload[InodeOffset..]),
            LockByteOffset = BinaryPrimitives.ReadInt64LittleEndian(payload[LockOffset..]),
            BeatMs = beat,
            DeadMs = dead,
            Pid = BinaryPrimitives.ReadInt32LittleEndian(payload[PidOffset..]),
            Name = name!,
        };
        return true;
    }
}
