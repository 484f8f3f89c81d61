using System.Buffers.Binary;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;

namespace Cbd.Protocol.Transports;

/// <summary>
/// The hosts of a region whose transport info this program cannot use: of another version, with unknown features, or
/// damaged. It looks at what all versions have in common: the place of the host area, the claim words at the start of its
/// entries, and the byte locks of hosts of this kernel. One thread at a time.
/// </summary>
/// <remarks>
/// A host may be alive if any byte of the region's file is locked, if the bytes of its entry change, or if its body can be
/// read and does not prove its death. An entry whose body cannot be read counts as dead after it has stood still for
/// a dead-time. Where the transport info is damaged, its numbers may be wrong: more entries are looked at then, and every
/// one that is not zero counts.
/// </remarks>
internal sealed class ForeignHosts<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    /// <summary>Entries that are looked at where their number cannot be known.</summary>
    private const int AssumedHosts = 512;

    private const int MaxEntryBytes = 1 << 16;

    private readonly TMemory _memory;
    private readonly HostIdentity _self;
    private readonly IHostLocks _locks;
    private readonly RegionGeometry _geometry;
    private readonly LivenessTracker<TMemory, TPolicy> _tracker;
    private readonly Entry[] _entries;
    private readonly bool _isDamaged;
    private readonly string _why;
    private readonly byte[] _bytes;
    private long? _sampledMs;

    /// <param name="header">The 4096 bytes of the transport info.</param>
    public ForeignHosts(TMemory memory, ReadOnlySpan<byte> header, HostIdentity self, IHostLocks locks)
    {
        _memory = memory;
        _self = self;
        _locks = locks;
        Header = header.ToArray();
        int version = BinaryPrimitives.ReadUInt16LittleEndian(header[TransportInfo.VersionOffset..]);
        uint incompat = BinaryPrimitives.ReadUInt32LittleEndian(header[TransportInfo.IncompatOffset..]) & ~TransportInfo.KnownIncompat;
        _isDamaged = !TransportInfo.IsWhole(header);
        _why = version != TransportInfo.SupportedVersion ? $"the region has format version {version} and this program knows {TransportInfo.SupportedVersion}"
            : incompat != 0 ? $"the region has features (incompat 0x{incompat:x8}) that this program does not know"
            : "the region's transport info is damaged";
        _geometry = HostArea(header, memory.SizeBytes);
        _tracker = new LivenessTracker<TMemory, TPolicy>(memory, _geometry, self, locks);
        _entries = new Entry[_geometry.HostCount];
        _bytes = new byte[Math.Min(_geometry.BytesPerHost, MaxEntryBytes)];
    }

    /// <summary>The transport info that was looked at.</summary>
    public byte[] Header { get; }

    private struct Entry
    {
        public uint Crc;
        public long StillMs;
        public bool IsTaken;
    }

    /// <summary>Whether all hosts are gone; ask again after a beat if not. Throws, with the remedy, if one may be alive.</summary>
    /// <param name="nowMs">This host's monotonic clock.</param>
    public bool AreGone(long nowMs)
    {
        if (_locks.IsAnyHeld(_self.Device, _self.Inode))
            throw new CbdException(CbdErrorKind.Busy, $"region is in use: a daemon of this machine is alive on it, and {_why}: unregister it with its own cbdctrl (tp-unreg), or end it, then format");
        bool areGone = true;
        bool isFirst = _sampledMs is null;
        long gapMs = nowMs - (_sampledMs ?? nowMs);
        _sampledMs = nowMs;
        _tracker.Sample(nowMs);
        for (int host = 0; host < _entries.Length; host++)
        {
            ref Entry entry = ref _entries[host];
            (uint crc, bool isTaken) = Look(host);
            if (!isFirst && crc != entry.Crc && (isTaken || entry.IsTaken))
                throw new CbdException(CbdErrorKind.Busy, $"region is in use: host entry {host} changes, so its host is alive, and {_why}: unregister it there with its own cbdctrl (tp-unreg), or end its daemon, then format");
            (entry.Crc, entry.IsTaken) = (crc, isTaken);
            if (gapMs is >= 0 && gapMs <= 2L * _self.BeatMs)
                entry.StillMs += gapMs;
            if (isTaken)
                areGone &= IsGone(host, entry.StillMs);
        }

        return areGone;
    }

    /// <summary>Nothing has changed since the last <see cref="AreGone"/>, and nobody holds a lock.</summary>
    public bool IsUnchanged()
    {
        if (_locks.IsAnyHeld(_self.Device, _self.Inode))
            return false;
        for (int host = 0; host < _entries.Length; host++)
        {
            if (Look(host).Crc != _entries[host].Crc)
                return false;
        }

        return true;
    }

    private bool IsGone(int host, long stillMs)
    {
        HostSighting sighting = _tracker.Get(host);
        if (sighting.Body is null)
            return stillMs >= _self.DeadMs;
        if (sighting.Liveness == Liveness.Dead)
            return true;
        if (sighting.Settled)
            throw new CbdException(CbdErrorKind.Busy, $"region may be in use: nothing proves that host {host} ('{sighting.Name}') is dead, and {_why}: clear it with host-clear of the program that formatted the region, or, if its machine is off or cut off, overwrite the first 4096 bytes of the region with zeroes; then format");
        return false;
    }

    private (uint Crc, bool IsTaken) Look(int host)
    {
        long at = _geometry.HostOffset(host);
        _memory.Read(at, _bytes);
        bool isTaken = _isDamaged
            ? _bytes.AsSpan().ContainsAnyExcept((byte)0)
            : ClaimOperations<TMemory, TPolicy>.Read(_memory, at).State != ClaimState.Free;
        return (Crc32C.Compute(_bytes), isTaken);
    }

    /// <summary>The host area as the header states it, where that can be; else as this version lays it out.</summary>
    private RegionGeometry HostArea(ReadOnlySpan<byte> header, long regionBytes)
    {
        ReadOnlySpan<byte> area = header[TransportInfo.HostAreaOffset..];
        long offset = BinaryPrimitives.ReadInt64LittleEndian(area);
        long bytes = BinaryPrimitives.ReadInt32LittleEndian(area[8..]);
        long count = BinaryPrimitives.ReadInt32LittleEndian(area[12..]);
        // Bodies are read as this version's, so that each entry must have room for one.
        bool isPossible = offset >= TransportInfo.SizeBytes && offset % 8 == 0 && bytes is >= HostEntry.SizeBytes and <= 1 << 20 && bytes % 8 == 0 &&
            count is >= 1 and <= 1 << 15 && offset <= regionBytes && bytes * count <= regionBytes - offset;
        if (!isPossible)
            (offset, bytes, count) = (TransportInfo.SizeBytes, HostEntry.SizeBytes, 0);
        if (_isDamaged || !isPossible)
            count = Math.Max(count, Math.Min(AssumedHosts, (regionBytes - offset) / bytes));
        return new RegionGeometry
        {
            RegionId = new Guid(header.Slice(TransportInfo.RegionIdOffset, 16)),
            SizeBytes = regionBytes,
            HostAreaOffset = offset,
            BytesPerHost = (int)bytes,
            HostCount = (int)count,
            BackendAreaOffset = 0,
            BytesPerBackend = 0,
            BackendCount = 0,
            BlkdevAreaOffset = 0,
            BytesPerBlkdev = 0,
            BlkdevCount = 0,
            ChannelAreaOffset = 0,
            BytesPerChannel = 0,
            ChannelCount = 0,
            RingSlots = 0,
            PayloadCrc = false,
        };
    }
}
