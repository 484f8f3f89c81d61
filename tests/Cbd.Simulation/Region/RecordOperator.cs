using Cbd.Host.Wanted;
using Cbd.Protocol.Format;

namespace Cbd.Simulation.Region;

/// <summary>
/// Who manages daemons with records: starts and stops things by their names, moves disks, replaces regions, copies state directories; and puts
/// in order what no daemon may decide when the faults stop. What is wanted comes back without him.
/// </summary>
internal sealed class RecordOperator<TPolicy>(World<TPolicy> world, Operator<TPolicy> other)
    where TPolicy : struct, IProtocolPolicy
{
    private long _nextRepair;

    private Random Random => world.Random;

    /// <summary>One operation, or an attempt.</summary>
    public void Act()
    {
        world.Other?.Act();
        switch (Random.Next(40))
        {
            case 0:
                world.CopyRecord();
                return;
            case 1:
                if (Random.Next(3) == 0)
                    world.RemoveCopies();
                return;
            case 2:
                if (Random.Next(12) == 0)
                    world.LoseRegion();
                return;
            case 3:
                if (Random.Next(6) == 0)
                    world.ReplaceRegion();
                return;
            case < 7:
                world.Records!.MoveDisks();
                return;
            case < 9:
                ConfirmRegions();
                return;
            case 9:
                if (Random.Next(3) == 0)
                    world.Records!.ChangeDeadly();
                return;
            case < 12:
                RebootBelowADevice();
                return;
        }

        SimulatedProcess<TPolicy>[] up = [.. world.Living.Where(p => p.IsUp && p.PendingCommands < 2)];
        if (up.Length == 0)
            return;
        if (FindUncertain() is { } uncertain && Random.Next(3) == 0)
        {
            StartBackend(uncertain, up, confirms: true);
            return;
        }

        SimulatedProcess<TPolicy> process = up[Random.Next(up.Length)];
        SharedDisk<TPolicy> disk = world.Disks[Random.Next(world.Disks.Count)];
        switch (Random.Next(12))
        {
            case < 4:
                StartBackend(disk, up, confirms: Random.Next(3) == 0);
                break;
            case < 8:
                process.Ask(p => p.Wanted!.StartDevice(NameOn(p), disk));
                break;
            case 8:
                Stop(process);
                break;
            case 9:
                process.Ask(p => p.Leave());
                break;
            default:
                world.Kill(process);
                break;
        }
    }

    /// <summary>A disk for which a record waits, and nothing but an operator tells that it is that disk; null if there is none.</summary>
    private SharedDisk<TPolicy>? FindUncertain() => world.Disks.FirstOrDefault(d => !d.IsInMemory &&
        other.FindRecord(d, out ClaimWord word) is >= 0 and var entry && word.State == ClaimState.Orphaned &&
        EntryBodies<SimulatedMemory>.TryReadBackendRecord(world.Inspection, world.Geometry, entry, word.Epoch, out BackendBody record, out _, out _) &&
        d.Machines.All(m => !SameThing.IsSameDisk(record.Identity, d.Open(world.Machines[m]))));

    /// <summary>The machine of a disk loses its power, and a device on another machine waits for it.</summary>
    private void RebootBelowADevice()
    {
        if (world.Sessions.LastOrDefault(s => s.IsServing && s.Disk.Device is { IsOver: false } device && device.Process.Machine != s.Process.Machine) is not { } session)
            return;
        world.Trace($"the machine of disk {session.Disk.Number}, on which a device is elsewhere, is switched off");
        world.PowerOff(session.Process.Machine, world.Region.Now + Random.Next(500, 5000));
    }

    /// <summary>Called in each step after the faults have stopped.</summary>
    public void Repair()
    {
        if (world.Region.Now < _nextRepair)
            return;
        _nextRepair = world.Region.Now + 2000;
        world.RemoveCopies();
        ConfirmRegions();
        world.FormatWhereNobodyMay();
        // Daemons that hold things are started again, and hold nothing then.
        foreach (SimulatedProcess<TPolicy> process in world.Living.Where(p => p.Wanted?.Entries.Any(e => e.Held is not null) == true).ToArray())
            world.Kill(process);
        SimulatedProcess<TPolicy>[] up = [.. world.Living.Where(p => p.IsUp && p.PendingCommands == 0)];
        foreach (SimulatedProcess<TPolicy> process in up)
        {
            foreach (StateEntry entry in process.Wanted!.Entries)
            {
                if (entry.Transport is null && (entry.Failed is not null || IsTaken(entry, process)))
                    process.Ask(p => p.Wanted!.StopThing(entry, force: true));
            }
        }

        if (up.Length > 0)
            up[Random.Next(up.Length)].Ask(other.ClearDead);
        foreach (SimulatedSession<TPolicy> session in up.SelectMany(p => p.Sessions))
        {
            if (session.IsServing && other.IsQuarantinedWith(session))
                session.Process.Ask(p => StopNamed(p, session.Name!));
        }

        if (up.Length < world.DaemonCount)
            return;
        foreach (SharedDisk<TPolicy> disk in world.Disks)
        {
            if (!Wants(up, disk, isBackend: true))
                StartBackend(disk, up, confirms: true);
            else if (!Wants(up, disk, isBackend: false))
                up[Random.Next(up.Length)].Ask(p => p.Wanted!.StartDevice(NameOn(p), disk));
        }
    }

    private static void StopNamed(SimulatedProcess<TPolicy> process, string name)
    {
        if (process.Wanted!.Entries.FirstOrDefault(e => e.Backend is not null && SimulatedWanted<TPolicy>.NameOf(e) == name) is { } entry)
            process.Wanted.StopThing(entry, force: true);
    }

    private string NameOn(SimulatedProcess<TPolicy> process) => $"d{Random.Next(3)}{process.Name}";

    /// <param name="confirms">Where the region has an entry of the disk, he names it.</param>
    private void StartBackend(SharedDisk<TPolicy> disk, SimulatedProcess<TPolicy>[] up, bool confirms)
    {
        SimulatedProcess<TPolicy>[] able = [.. up.Where(p => disk.Machines.Contains(p.Machine.Number))];
        if (able.Length == 0)
            return;
        SimulatedProcess<TPolicy> chosen = able[Random.Next(able.Length)];
        Ask(chosen);
        // Operators of two machines begin with their disk at the same moment.
        if (Random.Next(4) == 0 && able.FirstOrDefault(p => p.Machine != chosen.Machine) is { } rival)
            Ask(rival);

        void Ask(SimulatedProcess<TPolicy> process) => process.Ask(p => p.Wanted!.StartBackend(disk, (confirms || disk.IsInMemory) && other.FindRecord(disk, out _) is >= 0 and var entry ? entry : null));
    }

    private void Stop(SimulatedProcess<TPolicy> process)
    {
        StateEntry[] things = [.. process.Wanted!.Entries.Where(e => e.Transport is null)];
        if (things.Length == 0)
            return;
        StateEntry entry = things[Random.Next(things.Length)];
        bool force = Random.Next(2) == 0;
        process.Ask(p => p.Wanted!.StopThing(entry, force));
    }

    private void ConfirmRegions()
    {
        foreach (SimulatedProcess<TPolicy> process in world.Living)
        {
            if (process.Wanted is { IsBlocked: true } wanted)
                wanted.ConfirmRegion();
        }
    }

    /// <summary>Another daemon has the disk of a thing that waits, or it is elsewhere, or uncertain: only an operator can say what is to be.</summary>
    private bool IsTaken(StateEntry entry, SimulatedProcess<TPolicy> process)
    {
        int number = SimulatedWanted<TPolicy>.DiskOf(entry);
        if (!IsCertain(entry, process, world.Disks[number]))
            return true;
        if (!entry.IsPending)
            return false;
        return entry.Backend is { } backend
            ? world.Records!.DiskAt(process.Machine, backend.Path) != number || world.Living.Any(p => p != process && p.Sessions.Any(s => s.Disk.Number == number && s.IsServing))
            : world.Disks.Any(d => d.Number == number && d.Device is { IsOver: false } device && (device.Process != process || device.Name != entry.Device!.Name));
    }

    /// <summary>False if nothing tells that what waits is the disk that is there, or if that was in memory and is another one now.</summary>
    private bool IsCertain(StateEntry entry, SimulatedProcess<TPolicy> process, SharedDisk<TPolicy> disk)
    {
        SimulatedSession<TPolicy>? served = world.Living.SelectMany(p => p.Sessions).FirstOrDefault(s => s.Disk == disk && s.IsServing);
        if (!entry.IsPending)
            return !disk.IsInMemory || entry.Device is not { } started || served is null || served.Backend == started.BackendId;
        string? there = entry.Device is not null ? served?.Identity : disk.IsInMemory ? null : disk.Open(process.Machine);
        return there is null || (entry.Device?.DiskIdentity ?? entry.Backend?.DiskIdentity) is not { } wanted || SameThing.IsSameDisk(wanted, there);
    }

    private static bool Wants(SimulatedProcess<TPolicy>[] up, SharedDisk<TPolicy> disk, bool isBackend) =>
        up.Any(p => p.Wanted!.Entries.Any(e => e.Transport is null && !WantedRules<TPolicy>.IsToFinish(e) && e.Backend is not null == isBackend && SimulatedWanted<TPolicy>.DiskOf(e) == disk.Number));
}
