using Cbd.Protocol.Backends;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;
using Cbd.Simulation;
using Cbd.Protocol.Transports;

namespace Cbd.Fuzz;

/// <summary>
/// A host on a region whose other entries are whatever the input says: claim words, bodies under good seals, writer words,
/// ctrl lines, and bytes anywhere. It looks, lists, clears, sweeps, starts and stops; all of that ends with a result or a
/// <see cref="CbdException"/>.
/// </summary>
internal sealed class RegionTarget : IFuzzTarget
{
    private readonly RegionGeometry _geometry;
    private readonly ArrayMemory _formatted;
    private ArrayMemory _memory;

    public RegionTarget()
    {
        var options = new RegionOptions { Hosts = 4, Backends = 3, Blkdevs = 3, Channels = 4, RingSlots = 2, ChannelSizeBytes = 24576 };
        _geometry = RegionPlan.Create(RegionPlan.MinimumBytes(options), options, new Guid("0f0e0d0c-0b0a-0908-0706-050403020100"));
        _formatted = new ArrayMemory(_geometry.SizeBytes);
        var info = new TransportInfo { Geometry = _geometry, Coherence = RegionCoherence.Hardware };
        while (new Formatter<ArrayMemory, SafePolicy>(_formatted, info, Self, new Locks(0), force: false).Step(0) != StepResult.Done)
        {
        }
    }

    private static HostIdentity Self => new()
    {
        Name = "self",
        BootId = new Guid("11111111-2222-3333-4444-555555555555"),
        HostUuid = new Guid("aaaaaaaa-0000-0000-0000-000000000001"),
        Device = 5,
        Inode = 77,
        Pid = 4711,
    };

    public void Run(ReadOnlySpan<byte> input)
    {
        var fields = new FuzzInput(input);
        _memory = _formatted.Clone();
        var locks = new Locks(fields.Byte());
        var tracker = new LivenessTracker<ArrayMemory, SafePolicy>(_memory, _geometry, Self, locks);
        var clearing = new Clearing<ArrayMemory, SafePolicy>(_memory, _geometry, tracker);
        var registration = new HostRegistration<ArrayMemory, SafePolicy>(_memory, _geometry, Self, locks, tracker, clearing);
        long now = 0;
        for (int early = fields.Byte() % 4; early > 0; early--)
            Damage(ref fields);
        try
        {
            for (int step = 0; registration.Step(now += 1000) != StepResult.Done; step++)
            {
                if (step == 50)
                {
                    registration.Cancel();
                    return;
                }
            }
        }
        catch (CbdException)
        {
            registration.Cancel();
            return;
        }

        HostClaim<ArrayMemory, SafePolicy> claim = registration.Claim!;
        var backends = new BackendRegistry<ArrayMemory, SafePolicy>(_memory, claim, tracker);
        var blkdevs = new BlkdevRegistry<ArrayMemory, SafePolicy>(_memory, claim, tracker);
        var watches = new List<BackendWatch<ArrayMemory, SafePolicy>>();
        BackendClaim<ArrayMemory, SafePolicy>? backend = null;
        BlkdevClaim<ArrayMemory, SafePolicy>? blkdev = null;
        for (int turn = 0; turn < 40 && !fields.IsEmpty; turn++)
        {
            try
            {
                switch (fields.Byte() % 16)
                {
                    case <= 5:
                        Damage(ref fields);
                        break;
                    case 6:
                        now += fields.Byte() * 50L;
                        claim.Beat();
                        backend?.Beat();
                        blkdev?.Beat();
                        tracker.Sample(now);
                        clearing.ClearDeadHosts(now);
                        clearing.Sweep(now);
                        break;
                    case 7:
                        tracker.List();
                        backends.List();
                        blkdevs.List();
                        clearing.CountQuarantined();
                        break;
                    case 8:
                        backend ??= backends.Start(Disk());
                        break;
                    case 9:
                        backends.TakeOver(fields.Byte() % 3, Disk(), fields.Byte() % 2 == 1, now += 100, out BackendClaim<ArrayMemory, SafePolicy>? taken);
                        backend ??= taken;
                        break;
                    case 10:
                        if (blkdev is null)
                        {
                            blkdev = blkdevs.Claim(fields.Byte() % 3, fields.Byte() % 2 == 1);
                            blkdev.Activate([], "nbd");
                        }

                        break;
                    case 11:
                        watches.Add(new BackendWatch<ArrayMemory, SafePolicy>(_memory, _geometry, fields.Byte() % 3));
                        foreach (BackendWatch<ArrayMemory, SafePolicy> watch in watches)
                            watch.TryRefresh(out _);
                        break;
                    case 12:
                        clearing.Step(fields.Byte() % 4, (ClearAuthority)(fields.Byte() % 3), now += 500);
                        break;
                    case 13:
                        backend?.BeginClose(force: true);
                        backend?.EndClose();
                        backend = null;
                        break;
                    case 14:
                        blkdev?.BeginClose();
                        blkdev?.End();
                        blkdev = null;
                        break;
                    default:
                        References<ArrayMemory, SafePolicy>.FreeUnusedOrphans(_memory, _geometry);
                        backends.ReadRecord(fields.Byte() % 3);
                        break;
                }
            }
            catch (CbdException)
            {
            }
        }

        for (int step = 0; step < 20 && claim.Leave(clearing, now += 1000) != StepResult.Done; step++)
        {
        }
    }

    private static BackendBody Disk() => new()
    {
        SizeBytes = 1 << 20,
        LogicalBlockBytes = 512,
        PhysicalBlockBytes = 4096,
        DiscardGranularityBytes = 4096,
        MaxTransferBytes = 1 << 20,
        DurabilityId = new Guid("dddddddd-0000-0000-0000-000000000001"),
        Handlers = 1,
        Engine = BackendEngine.Direct,
        Identity = "file:1:2",
        Path = "/disks/a",
    };

    /// <summary>One store of a hostile host.</summary>
    private void Damage(ref FuzzInput fields)
    {
        byte kind = fields.Byte();
        int entry = fields.Byte();
        switch (kind % 6)
        {
            case 0:
                StoreWord(ref fields, kind / 6 % 4, entry);
                break;
            case 1 or 2:
                StoreBody(ref fields, kind / 6 % 3, entry);
                break;
            case 3:
                _memory.WriteRelease(_geometry.BackendOffset(entry % _geometry.BackendCount) + BackendEntry.WriterOffset, fields.UInt64());
                break;
            case 4:
                int channel = entry % _geometry.ChannelCount;
                ulong epoch = new ClaimWord(_memory.ReadAcquire(_geometry.ChannelOffset(channel))).Epoch;
                new BlkdevCtrlLine(epoch, fields.Byte() % 5, fields.Byte() % 5, fields.UInt16(), fields.Byte(), fields.Byte(), fields.Byte(), 0, 0, fields.Byte() % 4u).Store(_memory, _geometry, channel);
                break;
            default:
                int at = fields.Below((int)Math.Min(_geometry.SizeBytes, 65536));
                _memory.Write(at, fields.Take(Math.Min(fields.Byte() % 32, (int)_geometry.SizeBytes - at)));
                break;
        }
    }

    private long EntryOffset(int area, ref int entry)
    {
        int count = area switch { 0 => _geometry.HostCount, 1 => _geometry.BackendCount, 2 => _geometry.BlkdevCount, _ => _geometry.ChannelCount };
        entry %= count;
        return area switch { 0 => _geometry.HostOffset(entry), 1 => _geometry.BackendOffset(entry), 2 => _geometry.BlkdevOffset(entry), _ => _geometry.ChannelOffset(entry) };
    }

    private void StoreWord(ref FuzzInput fields, int area, int entry)
    {
        long offset = EntryOffset(area, ref entry);
        ulong epoch = new ClaimWord(_memory.ReadAcquire(offset)).Epoch;
        byte state = fields.Byte();
        byte host = fields.Byte();
        byte step = fields.Byte();
        _memory.WriteRelease(offset, new ClaimWord((ClaimState)(state % 24), host % 6, step < 250 ? epoch + step % 3u : fields.UInt64()).Raw);
    }

    /// <summary>A body as its owner would publish it, with some bytes replaced, sealed for the claim's epoch.</summary>
    private void StoreBody(ref FuzzInput fields, int area, int entry)
    {
        long offset = EntryOffset(area, ref entry);
        ulong epoch = new ClaimWord(_memory.ReadAcquire(offset)).Epoch;
        BodyPlace place = area switch
        {
            0 => BodyPlace.OfHost(_geometry, entry),
            1 => BodyPlace.OfBackend(_geometry, entry),
            _ => BodyPlace.OfBlkdev(_geometry, entry),
        };
        Span<byte> frame = new byte[BodyFrame.SizeBytes];
        Span<byte> payload = frame[BodyFrame.PayloadOffset..];
        int length = area switch { 0 => HostBody.EncodedSizeBytes, 1 => BackendBody.EncodedSizeBytes, _ => BlkdevBody.EncodedSizeBytes };
        switch (area)
        {
            case 0:
                new HostBody
                {
                    Heartbeat = fields.Byte(),
                    BootId = fields.Byte() % 2 == 0 ? Self.BootId : Guid.Empty,
                    HostUuid = Self.HostUuid,
                    Device = 5,
                    Inode = 77,
                    LockByteOffset = _geometry.HostOffset(entry),
                    BeatMs = 1000,
                    DeadMs = 10000,
                    Pid = 1,
                    Name = "other",
                }.Encode(payload);
                break;
            case 1:
                (Disk() with { HostId = fields.Byte() % 4, HostEpoch = fields.Byte() % 4u }).Encode(payload);
                break;
            default:
                new BlkdevBody { HostId = fields.Byte() % 4, HostEpoch = fields.Byte() % 4u, ReadOnly = false, SessionEpoch = 1, BackendId = fields.Byte() % 3, Name = "nbd", Channels = [0] }.Encode(payload);
                break;
        }

        for (int patches = fields.Byte() % 4; patches > 0; patches--)
        {
            int at = fields.Byte() * 3 % length;
            fields.Take(Math.Min(fields.Byte() % 9, length - at)).CopyTo(payload[at..]);
        }

        byte other = fields.Byte();
        BodyFrame.Seal(frame, other < 240 ? length : (other - 239) * 45, place, epoch, fields.Byte() + 1UL);
        _memory.Write(place.CopyOffset(fields.Byte() % 2), frame);
    }

    /// <summary>Locks of a file: which hosts' bytes are held is the input's choice.</summary>
    private sealed class Locks(byte held) : IHostLocks
    {
        public bool TryLock(int host) => (held >> 4 >> host & 1) == 0;

        public void Unlock(int host)
        {
        }

        public bool IsHeld(int host, ulong device, ulong inode) => (held >> host & 1) != 0;
    }
}
