using Cbd.Protocol.Format;

namespace Cbd.Simulation.Region;

/// <summary>What must hold at any time, and what must be there in the end.</summary>
internal sealed partial class World<TPolicy>
{
    /// <summary>Virtual time in which everything has to be well after the faults stopped: a few dead-times each way.</summary>
    private const long CalmMicroseconds = 60L * DeadMicroseconds;

    private bool _isEnding;

    /// <summary>A device has claimed its entry, with the writer word.</summary>
    internal void Claimed(SimulatedDevice<TPolicy> device)
    {
        foreach (SimulatedDevice<TPolicy> other in _liveDevices)
        {
            if (other.IsActive && other.Backend == device.Backend && other.BackendLife == BackendLife(device.Backend) && other.Process.MayStore && !other.IsOver)
                throw new SimulationException($"blkdev {device.Blkdev} of process {device.Process.Number} got the writer word of backend {device.Backend}, which blkdev {other.Blkdev} of process {other.Process.Number} may still write to");
        }

        foreach (EndedLife life in _ended)
        {
            if (life.Disk == device.Disk && life.Backend == device.Backend && life.BackendLife == BackendLife(device.Backend) && !Array.TrueForAll(life.Channels, c => IsDrained(c.Channel, c.Epoch)))
                throw new SimulationException($"blkdev {device.Blkdev} of process {device.Process.Number} got the writer word of backend {device.Backend} while channels of the one before are not free: {string.Join(", ", life.Channels.Select(c => $"{c.Channel} claimed in {c.Epoch} is {Word(Geometry.ChannelOffset(c.Channel))}"))}");
        }

        CheckReserved(device);
        if (!device.IsAdoption)
        {
            device.BackendLife = BackendLife(device.Backend);
            device.BackendEnds = _backendEnds.GetValueOrDefault(Geometry.BackendOffset(device.Backend));
        }

        _liveDevices.Add(device);
    }

    /// <summary>The device is active, and has seen that its backend is still the one that it claimed.</summary>
    internal void Activated(SimulatedDevice<TPolicy> device)
    {
        if (device.BackendEnds != _backendEnds.GetValueOrDefault(Geometry.BackendOffset(device.Backend)))
            throw new SimulationException($"blkdev {device.Blkdev} of process {device.Process.Number} is active on backend {device.Backend}, which was freed meanwhile");
    }

    /// <summary>How often the backend's entry was freed: an operator may give up the blkdevs of a record with it.</summary>
    private int BackendLife(int backend) => _backendLives.GetValueOrDefault(Geometry.BackendOffset(backend));

    /// <summary>A device has claimed a channel.</summary>
    internal void Claimed(SimulatedDevice<TPolicy> device, int channel, ClaimWord word)
    {
        foreach (SimulatedDevice<TPolicy> other in _liveDevices)
        {
            if (other != device && other.Uses(channel))
                throw new SimulationException($"channel {channel} was claimed by process {device.Process.Number} ({word}) while process {other.Process.Number} has it");
        }
    }

    internal void Running(SimulatedDevice<TPolicy> device)
    {
        // It answers with errors, and another may have the disk by now.
        if (!device.Machine.HasClaim)
            return;
        if (device.Disk.Device is { IsOver: false } other && other != device && other.Process.MayStore && other.Backend == device.Backend && other.BackendLife == device.BackendLife)
            throw new SimulationException($"disk {device.Disk.Number} has two devices: of processes {other.Process.Number} and {device.Process.Number}");
        if (device.Name is { } name)
            Records!.Served(device.Process, name, device.Disk, device.Machine.Identity);
        device.Disk.Device = device;
        // The device before, whose record was given up, may not know yet: this one was promised nothing of what was lost.
        if (device.Disk.IsLossPending && !device.IsAdoption)
            device.Disk.Forgive();
        _deviceCount++;
        Trace($"process {device.Process.Number}: blkdev {device.Blkdev} runs on backend {device.Backend} (disk {device.Disk.Number}), channels {string.Join(", ", device.Queues.Select(q => q.Channel))}");
    }

    internal void Started(SimulatedSession<TPolicy> session)
    {
        foreach (SimulatedSession<TPolicy> other in _sessions)
        {
            if (other != session && other.Disk == session.Disk && other.MayTouchDisk)
                throw new SimulationException($"disk {session.Disk.Number} is served twice: as backend {other.Backend} by process {other.Process.Number}, and as backend {session.Backend} by process {session.Process.Number}");
        }

        if (session.Name is { } name)
            Records!.Served(session.Process, name, session.Disk, null);
        if (session.Disk.HasLeftoversOf(session.Process.Machine.Number))
            throw new SimulationException($"disk {session.Disk.Number} is served by process {session.Process.Number} while operations of a dead one on its machine can still land");
        if (Other is { } region && session.Process.Machine == region.Machine && region.IsWaitedFor(session.Disk))
            throw new SimulationException($"disk {session.Disk.Number} is served by process {session.Process.Number} while a blkdev of another region waits for it");
        session.Disk.ServedBy(session.Process.Machine);
        _sessions.Add(session);
        if (_sessions.Count > 64)
            _sessions.RemoveAll(s => !s.MayTouchDisk && s.IsOver && _sessions.IndexOf(s) < _sessions.Count - 32);
        _sessionCount++;
        if (!session.IsTakeOver)
        {
            // Another backend, with nothing of the old one: its operator knows what he does.
            session.Disk.HasFailedFlush = false;
            session.Disk.ClearedAt = session.Disk.History.Begin();
        }

        Trace($"process {session.Process.Number}: disk {session.Disk.Number} is backend {session.Backend}, session {session.Epoch}");
    }

    /// <summary>A host of another region serves a disk on a machine.</summary>
    internal void StartedElsewhere(SharedDisk<TPolicy> disk, Machine machine)
    {
        if (_sessions.Find(s => s.Disk == disk && s.Process.Machine == machine && s.MayTouchDisk) is { } session)
            throw new SimulationException($"disk {disk.Number} is served twice on machine {machine.Number}: by process {session.Process.Number}, and in another region");
        if (disk.WasServedBy(machine) && disk.Device is { IsOver: false, HasFailed: false, Process.MayStore: true } device &&
            Word(Geometry.BackendOffset(device.Backend)) is { State: not ClaimState.Free } word &&
            EntryBodies<SimulatedMemory>.TryReadBackendRecord(Inspection, Geometry, device.Backend, word.Epoch, out BackendBody record, out _, out _) &&
            disk.IsOf(record) && !record.IsStopped)
            throw new SimulationException($"disk {disk.Number} is served in another region while blkdev {device.Blkdev} of process {device.Process.Number} waits for it as backend {device.Backend} ({word})");
        Trace($"the other region: disk {disk.Number} is served");
    }

    internal void Registered(SimulatedProcess<TPolicy> process, string name)
    {
        foreach (SimulatedProcess<TPolicy> other in Living)
        {
            if (other != process && other.MayStore && other.Host!.Name == name && other.Host.Epoch == Word(Geometry.HostOffset(other.Host.Host)).Epoch && Word(Geometry.HostOffset(other.Host.Host)).State == ClaimState.Active)
                throw new SimulationException($"two hosts are '{name}': {other.Host.Host} and {process.Host!.Host}");
        }

        _lastOn[process.Host!.Host] = process;
        Trace($"process {process.Number} is host {process.Host.Host} ('{name}')");
    }

    internal void Formatted(SimulatedProcess<TPolicy> formatter)
    {
        foreach (SimulatedProcess<TPolicy> other in Living)
        {
            if (other != formatter && other.MayStore)
                throw new SimulationException($"process {formatter.Number} formatted the region while host {other.Host!.Host} is alive");
        }

        Geometry = ReadGeometry();
        IsFormatted = true;
        _claimEpochs.Clear();
        _records.Clear();
        _freedEpochs.Clear();
        foreach (EndedLife life in _ended)
            life.Disk.History.EndLife(life.Life);
        _ended.Clear();
        foreach (KeptDevice<TPolicy> kept in _kept)
            kept.MayBeGone = true;
        _watch.Formatted();
        Trace($"process {formatter.Number} has formatted the region");
    }

    /// <summary>A device's life is over; what it sent can take effect until all its channels have gone on.</summary>
    internal void Ended(SimulatedDevice<TPolicy> device, (int Channel, ulong Epoch)[] channels) =>
        _ended.Add(new EndedLife(device.Disk, device.Backend, device.BackendLife, device.Life, channels));

    /// <summary>A device may not store any more, or has given everything back.</summary>
    internal void Over(SimulatedDevice<TPolicy> device) => _liveDevices.Remove(device);

    private RegionGeometry ReadGeometry() => TransportInfo.Read(Inspection, Region.SizeBytes).Geometry;

    private void EndLives()
    {
        for (int i = _ended.Count - 1; i >= 0; i--)
        {
            EndedLife life = _ended[i];
            if (life.Disk.Disk.HasLeftovers || !Array.TrueForAll(life.Channels, c => IsDrained(c.Channel, c.Epoch)))
                continue;
            life.Disk.History.EndLife(life.Life);
            _ended.RemoveAt(i);
        }
    }

    private bool IsDrained(int channel, ulong epoch)
    {
        ClaimWord word = Word(Geometry.ChannelOffset(channel));
        // Resets raise the epoch within one life of the channel; a claim begins the next.
        return word.State == ClaimState.Free || _claimEpochs.GetValueOrDefault(channel) > epoch;
    }

    private void Swapped(int process, long offset, ulong from, ulong to)
    {
        // The words of a region that is being formatted are nobody's: zeroed, or claimed by one who will look at the magic yet.
        // A host that is there goes on: the formatter that finds it steps back.
        if (offset != TransportInfo.MagicOffset && TransportInfo.IsFormatting(Inspection.ReadAcquire(TransportInfo.MagicOffset)) &&
            !Living.Any(p => p.Number == process && p.MayStore))
            return;
        var before = new ClaimWord(from);
        var after = new ClaimWord(to);
        if (IsClaimWord(offset) && after.Epoch != before.Epoch && !_claims.Add((Geometry.RegionId, offset, after.Epoch)))
            throw new SimulationException($"epoch {after.Epoch} of the claim word at {offset} was used twice ({before} → {after})");
        if (after.State == ClaimState.Free)
            _freedEpochs[offset] = after.Epoch;
        if (after.State == ClaimState.Free && Living.FirstOrDefault(p => p.Number == process) is { Host: { } left } leaver && offset == Geometry.HostOffset(left.Host) && before.Epoch == left.Epoch)
            leaver.Freed(left.Host, left.Epoch);
        if (after.State == ClaimState.Free)
            _backendLives[offset] = _backendLives.GetValueOrDefault(offset) + 1;
        if (after.State == ClaimState.Free && process != GivingUp)
            _backendEnds[offset] = _backendEnds.GetValueOrDefault(offset) + 1;
        if (after.State == ClaimState.Claimed)
            _claimEpochs[(int)((offset - Geometry.ChannelAreaOffset) / Geometry.BytesPerChannel)] = after.Epoch;
        if (after.State == ClaimState.Free && offset >= Geometry.ChannelAreaOffset)
            CheckFreed((int)((offset - Geometry.ChannelAreaOffset) / Geometry.BytesPerChannel), before);
        if (offset == TransportInfo.MagicOffset)
            LastMagicSwap = process;
        CheckKeptClaims(process, offset, before, after);
        _watch.Swapped(process, offset, before, after);
    }

    /// <summary>A channel is free when its handler has drained, or is over.</summary>
    private void CheckFreed(int channel, ClaimWord before)
    {
        foreach (SimulatedSession<TPolicy> session in _sessions)
        {
            if (session.MayTouchDisk && session.OutstandingOn(channel) is > 0 and var count)
                throw new SimulationException($"channel {channel} ({before}) was freed while backend {session.Backend} of process {session.Process.Number} has {count} commands of it at the disk");
        }
    }

    private bool IsClaimWord(long offset) =>
        IsFormatted && offset >= Geometry.HostAreaOffset &&
        (offset >= Geometry.ChannelAreaOffset || (offset - EntryStart(offset)) == 0);

    private long EntryStart(long offset)
    {
        (long area, long bytes) = offset >= Geometry.BlkdevAreaOffset ? (Geometry.BlkdevAreaOffset, Geometry.BytesPerBlkdev)
            : offset >= Geometry.BackendAreaOffset ? (Geometry.BackendAreaOffset, Geometry.BytesPerBackend)
            : (Geometry.HostAreaOffset, (long)Geometry.BytesPerHost);
        return area + (offset - area) / bytes * bytes;
    }

    /// <summary>A crash in any publication leaves the old value: whoever is there can be read at any time.</summary>
    private void CheckBodies()
    {
        // While a dead region is formatted anew, its entries are zeroed one after the other.
        if (!IsFormatted || (TransportInfo.IsFormatting(Inspection.ReadAcquire(TransportInfo.MagicOffset)) && !Living.Any(p => p.MayStore)))
            return;
        for (int host = 0; host < Geometry.HostCount; host++)
        {
            ClaimWord word = Word(Geometry.HostOffset(host));
            // Somebody who stood still while he registered there, and was given up, may still store over one copy; the next beat repairs that.
            if (word.State == ClaimState.Active && _machines.Count(m => m.IsLocked(host)) <= 1 && !Living.Any(p => p.Host?.Host == host && p.LastBeat <= StraySeen) && !EntryBodies<SimulatedMemory>.TryReadHost(Inspection, Geometry, host, word.Epoch, out _, out string error))
                throw new SimulationException($"host {host} ({word}) cannot be read: {error}");
        }

        var disks = new Dictionary<string, int>();
        for (int backend = 0; backend < Geometry.BackendCount; backend++)
        {
            ClaimWord word = Word(Geometry.BackendOffset(backend));
            string error = "";
            bool whole = word.State switch
            {
                ClaimState.Active or ClaimState.Closing => EntryBodies<SimulatedMemory>.TryReadBackend(Inspection, Geometry, backend, word.Epoch, out _, out error),
                ClaimState.Orphaned => EntryBodies<SimulatedMemory>.TryReadBackendRecord(Inspection, Geometry, backend, word.Epoch, out _, out _, out error),
                _ => true,
            };
            if (!whole)
                throw new SimulationException($"backend {backend} ({word}) cannot be read: {error}");
            CheckRecord(backend, word);
            // What a new claim finds in its entry is no record, nor what it leaves there for a blkdev of a record that was given up. Of two
            // that begin with one disk at the same moment each publishes what it is, and then steps back.
            if (word.State is not (ClaimState.Free or ClaimState.Claiming) &&
                EntryBodies<SimulatedMemory>.TryReadBackendRecord(Inspection, Geometry, backend, word.Epoch, out BackendBody record, out BodyStamp stamp, out _) &&
                stamp.Epoch > _freedEpochs.GetValueOrDefault(Geometry.BackendOffset(backend)) && !disks.TryAdd(DiskKey(record.Identity), backend))
                throw new SimulationException($"{record.Identity} is backend {disks[DiskKey(record.Identity)]} ({Word(Geometry.BackendOffset(disks[DiskKey(record.Identity)]))}) and backend {backend} ({word}, record of epoch {stamp.Epoch})");
            if (word.State == ClaimState.Active && EntryBodies<SimulatedMemory>.TryReadBackend(Inspection, Geometry, backend, word.Epoch, out BackendBody body, out _) && IsHostOver(body.HostId, body.HostEpoch))
                throw new SimulationException($"backend {backend} ({word}) belongs to a claim of host {body.HostId} that is over");
        }

        for (int blkdev = 0; blkdev < Geometry.BlkdevCount; blkdev++)
        {
            ClaimWord word = Word(Geometry.BlkdevOffset(blkdev));
            if (word.State != ClaimState.Active)
                continue;
            if (!EntryBodies<SimulatedMemory>.TryReadBlkdev(Inspection, Geometry, blkdev, word.Epoch, out BlkdevBody body, out string error))
                throw new SimulationException($"blkdev {blkdev} ({word}) cannot be read: {error}");
            if (IsHostOver(body.HostId, body.HostEpoch))
                throw new SimulationException($"blkdev {blkdev} ({word}) belongs to a claim of host {body.HostId} that is over");
        }
    }

    /// <summary>One disk has one, whatever its identity has become; each life in memory is another disk.</summary>
    private static string DiskKey(string identity) => identity.StartsWith("memory", StringComparison.Ordinal) ? identity : $"{SharedDisk<TPolicy>.NumberOf(identity)}";

    /// <summary>The record of a backend never goes back to an older one, whoever takes it over and dies at that.</summary>
    private void CheckRecord(int backend, ClaimWord word)
    {
        if (word.State == ClaimState.Free || !EntryBodies<SimulatedMemory>.TryReadBackendRecord(Inspection, Geometry, backend, word.Epoch, out _, out BodyStamp stamp, out _))
            return;
        CheckSize(backend, word);
        int life = BackendLife(backend);
        bool known = _records.TryGetValue(backend, out (int Life, BodyStamp Stamp) seen) && seen.Life == life;
        if (known && stamp < seen.Stamp)
            throw new SimulationException($"the record of backend {backend} ({word}) went back from {seen.Stamp} to {stamp}");
        // What a new backend finds in a free entry is no record.
        if (known || word.State != ClaimState.Claiming)
            _records[backend] = (life, stamp);
    }

    /// <summary>Nobody is told of a size that the disk would not have after a loss of power.</summary>
    private void CheckSize(int backend, ClaimWord word)
    {
        if (!EntryBodies<SimulatedMemory>.TryReadBackendRecord(Inspection, Geometry, backend, word.Epoch, out BackendBody body, out _, out _))
            return;
        foreach (SharedDisk<TPolicy> disk in _disks)
        {
            if (disk.IsOf(body) && body.SizeBytes > (long)disk.Disk.DurableBlocks * SimulatedDisk.BlockBytes)
                throw new SimulationException($"backend {backend} ({word}) says {body.SizeBytes} bytes, and disk {disk.Number} has {disk.Disk.DurableBlocks} blocks of {SimulatedDisk.BlockBytes} on its medium");
        }
    }

    /// <summary>A host's entry is freed, or quarantined, after all that it had.</summary>
    private bool IsHostOver(int host, ulong epoch)
    {
        ClaimWord word = Word(Geometry.HostOffset(host));
        return word.State is ClaimState.Free or ClaimState.Quarantined || word.Epoch > epoch;
    }

    /// <summary>No more faults: everything has to come back, hold what was promised, and go away without a trace.</summary>
    private void Settle()
    {
        IsCalming = true;
        Region.Faults = VisibilityFaults.None;
        foreach (Machine machine in _machines)
            machine.Resume();
        foreach (SimulatedProcess<TPolicy> process in Living)
            process.PausedUntil = 0;
        foreach (SharedDisk<TPolicy> disk in _disks)
            disk.Disk.FailShare = disk.Disk.FlushFailShare = 0;
        Trace("the faults stop");
        Records?.ReturnDisks();
        Other?.End();
        Other = null;
        Await("not every disk has a device that works", () => _disks.All(d => d.Device is { IsQuiet: true } && !d.IsLossPending) && _ended.Count == 0);
        foreach (SharedDisk<TPolicy> disk in _disks)
        {
            foreach (DeviceUser<TPolicy> user in disk.Device!.Users)
                user.FinalBlock = 0;
        }

        if (Records is not null)
            Await("what is wanted does not come back", () => MissingThings().Count == 0);
        Await("the last reading does not end", () => _disks.All(d => d.Device is { IsQuiet: true }));
        Await("a death had no end", () => _watch.IsEmpty);
        Await("something stays quarantined, or of the dead", () => CountLeftovers() == 0);
        _operator.TakeDown();
        _isEnding = true;
        Await("not everybody leaves", () => !Living.Any());
        CheckNothingIsLeft();
    }

    /// <summary>What is wanted for certain and not there.</summary>
    internal IReadOnlyList<(int Slot, string Name)> MissingThings() => Records!.Missing((slot, name) => _slots[slot].Process?.Wanted?.Has(name) ?? false);

    private int CountLeftovers()
    {
        int count = 0;
        for (int i = 0; i < Geometry.HostCount; i++)
        {
            ClaimWord word = Word(Geometry.HostOffset(i));
            if (word.State is not (ClaimState.Free or ClaimState.Active) || (word.State == ClaimState.Active && !Living.Any(p => p.IsUp && p.Host!.Host == i)))
                count++;
        }

        for (int i = 0; i < Geometry.BackendCount; i++)
            count += Word(Geometry.BackendOffset(i)).State is ClaimState.Free or ClaimState.Active ? 0 : 1;
        for (int i = 0; i < Geometry.BlkdevCount; i++)
            count += Word(Geometry.BlkdevOffset(i)).State is ClaimState.Free or ClaimState.Active ? 0 : 1;
        for (int i = 0; i < Geometry.ChannelCount; i++)
            count += Word(Geometry.ChannelOffset(i)).State is ClaimState.Free or ClaimState.Attached ? 0 : 1;
        return count;
    }

    private void CheckNothingIsLeft()
    {
        var left = new List<string>();
        Look("host", Geometry.HostCount, Geometry.HostOffset);
        Look("backend", Geometry.BackendCount, Geometry.BackendOffset);
        Look("blkdev", Geometry.BlkdevCount, Geometry.BlkdevOffset);
        Look("channel", Geometry.ChannelCount, Geometry.ChannelOffset);
        for (int backend = 0; backend < Geometry.BackendCount; backend++)
        {
            var writer = new WriterWord(Region.Word(Geometry.BackendOffset(backend) + BackendEntry.WriterOffset));
            if (writer != WriterWord.None)
                left.Add($"writer word of backend {backend}: {writer}");
        }

        if (left.Count > 0)
            throw new SimulationException($"left behind: {string.Join("; ", left)}");

        void Look(string name, int count, Func<int, long> offsetOf)
        {
            for (int i = 0; i < count; i++)
            {
                ClaimWord word = Word(offsetOf(i));
                if (word.State != ClaimState.Free)
                    left.Add($"{name} {i}: {word}");
            }
        }
    }

    private void Await(string otherwise, Func<bool> done)
    {
        long limit = Region.Now + CalmMicroseconds;
        while (!done())
        {
            if (Region.Now > limit)
                throw new SimulationException($"{otherwise}, {CalmMicroseconds / 1000} ms after it should: {Describe()}");
            Step(faults: false);
        }
    }

    private string Describe()
    {
        var parts = new List<string>();
        foreach (SimulatedProcess<TPolicy> process in Living)
            parts.Add($"process {process.Number} (slot {process.Slot}) {process.Describe()} host {process.Host?.Host}, {process.PendingCommands} commands, backends [{string.Join(", ", process.Sessions.Select(s => $"{s.Backend}@{s.Epoch} {s.Life.Stage} of disk {s.Disk.Number}"))}], devices [{string.Join(", ", process.Devices.Select(d => $"{d.Blkdev} {d.Stage} {d.State?.Failure} lost {d.State?.IsBackendLost} {string.Join("/", d.Queues.Select(q => $"{q.Channel} {q.Phase} {q.InFlight}"))}"))}]");
        foreach (SharedDisk<TPolicy> disk in _disks)
            parts.Add($"disk {disk.Number}: loss pending {disk.IsLossPending}, users [{string.Join("; ", disk.Device?.Users.Select(u => u.Describe()) ?? [])}], held {disk.Device?.State?.IsHeld}");
        for (int i = 0; i < Geometry.HostCount; i++)
            Add("host", i, Geometry.HostOffset(i));
        for (int i = 0; i < Geometry.BackendCount; i++)
            Add("backend", i, Geometry.BackendOffset(i));
        for (int i = 0; i < Geometry.BlkdevCount; i++)
            Add("blkdev", i, Geometry.BlkdevOffset(i));
        for (int i = 0; i < Geometry.ChannelCount; i++)
            Add("channel", i, Geometry.ChannelOffset(i));
        if (Records is not null)
            parts.Add($"missing: {string.Join(", ", MissingThings())}; wanted: {string.Join(", ", Living.SelectMany(p => (p.Wanted?.Entries ?? []).Select(e => $"{p.Number}: {e} pending {e.IsPending} {e.Intent} {e.Failed} {e.Reason}")))}");
        parts.Add($"waited for: {_watch.Describe()}; {_ended.Count} lives not drained");
        return string.Join("\n    ", parts);

        void Add(string name, int index, long offset)
        {
            ClaimWord word = Word(offset);
            if (word.State != ClaimState.Free)
                parts.Add($"{name} {index}: {word}");
        }
    }
}
