using Cbd.Protocol.Format;
using Cbd.Protocol.Records;

namespace Cbd.Simulation.Region;

/// <summary>Devices that outlive their processes, and what must hold of their claims.</summary>
internal sealed partial class World<TPolicy>
{
    private readonly List<KeptDevice<TPolicy>> _kept = [];

    /// <summary>The process in which an operator gives up an orphaned blkdev; 0 for none.</summary>
    internal int GivingUpDevice { get; set; }

    internal IReadOnlyList<KeptDevice<TPolicy>> KeptDevices => _kept;

    /// <summary>A process has stored into the record of a device: it may die here, too.</summary>
    internal void RecordStored(SimulatedProcess<TPolicy> process, bool isJudged)
    {
        if (!IsCalming && Chance(isJudged ? Math.Min(1, 20 * _scenario.RecordCrash) : _scenario.RecordCrash))
            Kill(process);
        BeforeAccess(process, MemoryAccess.Store);
    }

    /// <summary>The daemon has the record of an attachment that is to go on.</summary>
    internal bool KeepsLife(int slot, ulong life) =>
        _kept.Exists(k => k.Slot == slot && k.LifeId == life && (k.IsParked || k.Record.Body.State == DeviceRecordState.Serving));

    internal KeptDevice<TPolicy> Keep(SimulatedProcess<TPolicy> process, SharedDisk<TPolicy> disk, int backend, int queues)
    {
        var kept = new KeptDevice<TPolicy>(process.Slot, disk, NextLossPolicy(), new DeviceRecordBody
        {
            Life = (ulong)_random.NextInt64(1, long.MaxValue),
            RegionId = Geometry.RegionId,
            HostUuid = process.HostUuid,
            BackendId = backend,
            Queues = queues,
        });
        _kept.Add(kept);
        return kept;
    }

    /// <summary>Its process died, and its memory did not.</summary>
    internal void Parked(KeptDevice<TPolicy> kept)
    {
        Trace($"blkdev {kept.Record.Body.BlkdevId} of daemon {kept.Slot} on disk {kept.Disk.Number} waits for the next life of that");
        kept.IsParked = true;
        kept.Disk.Parked = kept;
    }

    /// <summary>A process has taken it up.</summary>
    internal void TakenUp(KeptDevice<TPolicy> kept, SimulatedDevice<TPolicy> device)
    {
        if (kept.Slot != device.Process.Slot)
            throw new SimulationException($"process {device.Process.Number} of daemon {device.Process.Slot} adopted a device of daemon {kept.Slot}");
        if (kept.Device is { IsOver: false } other && other != device)
            throw new SimulationException($"process {device.Process.Number} adopted a device that process {other.Process.Number} has");
        if (!device.Machine.HasClaim && !kept.MayBeGone)
            throw new SimulationException($"a device of daemon {kept.Slot} fails although nobody has given up its claim of blkdev {kept.Record.Body.BlkdevId}: {device.Machine.Record!.Body.Failure}");
        if (device.Machine.HasClaim && !Array.TrueForAll(kept.Channels, c => IsDrained(c.Channel, c.Epoch)))
            throw new SimulationException($"blkdev {device.Blkdev} was adopted while channels of the process before are not free: {string.Join(", ", kept.Channels.Select(c => $"{c.Channel} claimed in {c.Epoch} is {Word(Geometry.ChannelOffset(c.Channel))}"))}");
        kept.IsParked = false;
        kept.Device = device;
        kept.Record = device.Machine.Record!;
        if (kept.Disk.Parked == kept)
            kept.Disk.Parked = null;
    }

    /// <summary>Its life is over.</summary>
    internal void Drop(KeptDevice<TPolicy> kept)
    {
        _kept.Remove(kept);
        if (kept.Disk.Parked == kept)
            kept.Disk.Parked = null;
    }

    /// <summary>A machine is off: what was in its memory is gone, and so is the user.</summary>
    private void LoseKept(Machine machine)
    {
        foreach (KeptDevice<TPolicy> kept in _kept.Where(k => k.IsParked && _slots[k.Slot].Machine == machine.Number).ToArray())
        {
            Trace($"the record of blkdev {kept.Record.Body.BlkdevId} of daemon {kept.Slot} is lost");
            if (kept.Disk.Parked == kept && kept.Disk.Device is null)
                kept.Disk.Forgive();
            foreach (DeviceUser<TPolicy> user in kept.Users)
                user.Release();
            _ended.Add(new EndedLife(kept.Disk, kept.Record.Body.BackendId, kept.BackendLife, kept.Life, kept.Channels));
            Drop(kept);
        }
    }

    /// <summary>The claim of a device that goes on is nobody's to free.</summary>
    private void CheckKeptClaims(int process, long offset, ClaimWord before, ClaimWord after)
    {
        if (_kept.Count == 0 || !IsFormatted || offset < Geometry.BlkdevAreaOffset || offset >= Geometry.ChannelAreaOffset || !IsClaimWord(offset))
            return;
        int blkdev = (int)((offset - Geometry.BlkdevAreaOffset) / Geometry.BytesPerBlkdev);
        foreach (KeptDevice<TPolicy> kept in _kept)
        {
            DeviceRecordBody body = kept.Record.Body;
            if (kept.MayBeGone || body.State != DeviceRecordState.Serving || body.BlkdevId != blkdev || body.BlkdevEpoch > before.Epoch || body.RegionId != Geometry.RegionId)
                continue;
            if (after.State == ClaimState.Quarantined || (after.State == ClaimState.Clearing && before.State == ClaimState.Orphaned && process == GivingUpDevice))
                kept.MayBeGone = true;
            else if (after.State == ClaimState.Free || (after.State == ClaimState.Clearing && before.State == ClaimState.Orphaned))
                throw new SimulationException($"blkdev {blkdev} ({before} → {after}), whose device is to go on, was freed by process {process}");
        }
    }

    /// <summary>Nobody but the next process of its daemon gets the backend of a device that waits for that.</summary>
    private void CheckReserved(SimulatedDevice<TPolicy> device)
    {
        foreach (KeptDevice<TPolicy> kept in _kept)
        {
            if (kept.IsParked && kept != device.Kept && !kept.MayBeGone && kept.Record.Body.BackendId == device.Backend && kept.BackendLife == BackendLife(device.Backend) &&
                kept.Record.Body.RegionId == Geometry.RegionId)
                throw new SimulationException($"blkdev {device.Blkdev} of process {device.Process.Number} got the writer word of backend {device.Backend}, which is reserved for blkdev {kept.Record.Body.BlkdevId} of daemon {kept.Slot}");
        }
    }
}
