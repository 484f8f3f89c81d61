using Cbd.Protocol.Channels;

namespace Cbd.Simulation.Region;

/// <summary>Lives of daemons, and what outlives them.</summary>
internal sealed partial class World<TPolicy>
{
    /// <summary>Where a daemon runs, and which life of it is there.</summary>
    private sealed class ProcessSlot(int number, int machine, string name)
    {
        public int Number => number;
        public int Machine => machine;
        public string Name => name;
        public SimulatedProcess<TPolicy>? Process { get; set; }
        public long StartAt { get; set; }
        public bool Format { get; set; }

        /// <summary>Its state directory; null if daemons have no records.</summary>
        public RecordMedium? Medium { get; set; }

        /// <summary>Its host uuid in all its lives; null where those of one machine share theirs.</summary>
        public Guid? HostUuid { get; set; }
    }

    internal void Exit(SimulatedProcess<TPolicy> process)
    {
        process.Die();
        process.MarkGone();
        Forget(process);
    }

    internal void Kill(params ReadOnlySpan<SimulatedProcess<TPolicy>> processes)
    {
        // The kernel takes a process off its CPU, which drains its stores, before it lets go of the locks that prove its death.
        foreach (SimulatedProcess<TPolicy> process in processes)
            Region.Fence(process.Number);
        End(keepsMemory: true, processes);
    }

    /// <param name="keepsMemory">The machine lives: what other processes keep for these is there.</param>
    private void End(bool keepsMemory, params ReadOnlySpan<SimulatedProcess<TPolicy>> processes)
    {
        _watch.BeforeDeath(processes);
        foreach (SimulatedProcess<TPolicy> process in processes)
        {
            Trace($"process {process.Number} ('{process.Slot}', {process.Describe()}, host {process.Host?.Host}) is killed");
            _deaths++;
            process.Die(keepsMemory);
            Forget(process);
        }

        CheckBodies();
    }

    internal void PowerOff(Machine machine, long backAt)
    {
        if (!machine.IsUp)
            return;
        SimulatedProcess<TPolicy>[] processes = [.. Living.Where(p => p.Machine == machine)];
        Trace($"machine {machine.Number} loses power");
        End(keepsMemory: false, processes);
        LoseKept(machine);
        if (Other?.Machine == machine)
        {
            Other.End();
            Other = null;
        }

        machine.PowerOff(backAt);
        foreach (SimulatedProcess<TPolicy> process in processes)
            Region.LoseStores(process.Number);
        foreach (SharedDisk<TPolicy> disk in _disks)
            disk.LosePower(machine.Number);
    }

    /// <summary>The state directory of some daemon is copied to another machine.</summary>
    internal void CopyRecord()
    {
        ProcessSlot from = _slots[_random.Next(_slots.Length)];
        ProcessSlot to = _slots[_random.Next(_slots.Length)];
        if (from.Machine == to.Machine || from.Medium!.IsCopy || _slots.Any(s => s.Medium!.IsCopy))
            return;
        if (to.Process is { } process)
            Kill(process);
        bool isKnown = _random.Next(2) == 0;
        to.Medium!.CopyFrom(from.Medium, from.Machine, isKnown);
        Trace($"daemon {to.Number} gets the state directory of {from.Number}{(isKnown ? "" : ", which does not say whose it is")}");
        Records!.Replaced(to.Number, to.Medium.OwnerMachine < 0 ? from.Number : -1);
    }

    internal int DaemonCount => _slots.Length;

    /// <summary>An operator removes the state directory that is a copy.</summary>
    internal void RemoveCopies()
    {
        foreach (ProcessSlot slot in _slots.Where(s => s.Medium!.IsCopy))
        {
            if (slot.Process is { } process)
                Kill(process);
            slot.Medium!.Remove(Machine.NewId(_random));
            Records!.Replaced(slot.Number, -1);
        }
    }

    internal void LeaveSoon(SimulatedProcess<TPolicy> process)
    {
        if (process.IsUp)
            process.Leave();
        else if (!process.IsLeaving)
            Exit(process);
    }

    internal bool HasOwnName(SimulatedProcess<TPolicy> process) => process.Name == _slots[process.Slot].Name;

    /// <summary>The process that had this host entry last is dead, and its machine is off.</summary>
    internal bool IsMachineOffOf(int host) => _lastOn.TryGetValue(host, out SimulatedProcess<TPolicy>? process) && process.IsDead && !process.Machine.IsUp;

    /// <summary>The process that had this host entry last is dead, and nothing of it can reach a disk.</summary>
    internal bool IsProcessDeadOf(int host) => _lastOn.TryGetValue(host, out SimulatedProcess<TPolicy>? process) && process.IsDead && !Living.Any(p => p.Holds(host)) && _disks.All(d => !d.Disk.HasLeftovers);

    private static void ThrowIfDead(SimulatedProcess<TPolicy> process)
    {
        if (process.IsDead)
            throw new CrashException();
    }

    private void Forget(SimulatedProcess<TPolicy> process)
    {
        ProcessSlot slot = _slots[process.Slot];
        if (slot.Process != process)
            return;
        slot.Process = null;
        Records?.Died(slot.Number);
        slot.StartAt = Region.Now + _random.Next(500, DeadMicroseconds / 2);
    }

    private void Start(ProcessSlot slot)
    {
        // Now and then a daemon is given another's name, by mistake.
        string name = Records is null && !IsCalming && _random.Next(8) == 0 ? _slots[_random.Next(_slots.Length)].Name : slot.Name;
        slot.Process = new SimulatedProcess<TPolicy>(this, slot.Number, ++_nextProcess, _machines[slot.Machine], name, slot.Format && (!IsCalming || Records is not null), slot.Medium, slot.HostUuid);
        slot.Format = false;
        Trace($"process {_nextProcess} ('{slot.Number}') starts");
    }
}
