using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;

namespace Cbd.Simulation.Region;

/// <summary>
/// Who manages the hosts: starts and stops what there is at random while faults last, always lawfully (vouches for a
/// machine only when it is off), and puts everything in order when they stop.
/// </summary>
internal sealed class Operator<TPolicy>(World<TPolicy> world)
    where TPolicy : struct, IProtocolPolicy
{
    private long _nextRepair;

    private Random Random => world.Random;

    /// <summary>One management operation, or an attempt.</summary>
    public void Act()
    {
        SimulatedProcess<TPolicy>[] up = [.. world.Living.Where(p => p.IsUp && p.PendingCommands < 2)];
        if (up.Length == 0)
            return;
        SimulatedProcess<TPolicy> process = up[Random.Next(up.Length)];
        SharedDisk<TPolicy> disk = world.Disks[Random.Next(world.Disks.Count)];
        if (disk.Parked is { } parked && Random.Next(16) == 0)
            process.Ask(p => GiveUp(p, parked));
        switch (Random.Next(16))
        {
            case < 4:
                Serve(disk, up);
                break;
            case < 8:
                process.Ask(p => StartDevice(p, disk));
                break;
            case 8:
                Stop(disk, Random.Next(2) == 0);
                break;
            case 9:
                StopBackend(disk, Random.Next(3) == 0);
                break;
            case 10:
                if (Random.Next(3) == 0)
                    process.Ask(p => p.Leave());
                break;
            case 11:
                if (world.Scenario.ClearForced)
                    ForceClear(process);
                break;
            case 12:
                if (Random.Next(4) == 0)
                    PowerOffAndFence(up);
                break;
            case 13:
                ClearBackend(disk, process);
                break;
            case 14:
                Rival(disk, up);
                break;
            case 15 when world.Scenario.Grow > Random.NextDouble():
                Grow(disk);
                break;
            default:
                if (Random.Next(8) == 0)
                    world.FormatSoon();
                break;
        }
    }

    /// <summary>Called in each step after the faults have stopped.</summary>
    public void Repair()
    {
        if (world.Region.Now < _nextRepair || _isDown)
            return;
        _nextRepair = world.Region.Now + 2000;
        SimulatedProcess<TPolicy>[] up = [.. world.Living.Where(p => p.IsUp && p.PendingCommands == 0)];
        if (up.Length == 0)
            return;
        foreach (SimulatedProcess<TPolicy> process in up)
        {
            // Given another's name by mistake, which keeps that one out.
            if (!world.HasOwnName(process))
                process.Ask(p => p.Leave());
        }

        foreach (SharedDisk<TPolicy> disk in world.Disks)
        {
            SimulatedSession<TPolicy>? session = SessionOf(disk);
            if (session is null)
                Serve(disk, up);
            else if (session.IsServing && session.Claim!.Body.FlushError != 0)
                session.Process.Ask(_ => session.ClearFlushError());
            else if (session.IsServing && IsQuarantinedWith(session))
                session.Process.Ask(_ => session.Stop(force: true));
            else if (session.IsServing && disk.Device is null && disk.Parked is null && !up.Any(p => p.Devices.Any(d => d.Disk == disk && !d.IsOver)))
                up[Random.Next(up.Length)].Ask(p => StartDevice(p, disk));
        }
    }

    private bool _isDown;

    /// <summary>A quarantined channel of a blkdev that is gone is given back when the session that served it is over.</summary>
    public bool IsQuarantinedWith(SimulatedSession<TPolicy> session)
    {
        for (int channel = 0; channel < world.Geometry.ChannelCount; channel++)
        {
            ClaimWord word = world.Word(world.Geometry.ChannelOffset(channel));
            if (word.State == ClaimState.Quarantined &&
                BlkdevCtrlLine.TryLoadLatest(world.Inspection, world.Geometry, channel, word.Epoch, out BlkdevCtrlLine line) &&
                line.Backend == session.Backend && line.Session == session.Epoch)
                return true;
        }

        return false;
    }

    /// <summary>Everything is stopped in order.</summary>
    public void TakeDown()
    {
        _isDown = true;
        foreach (SimulatedProcess<TPolicy> process in world.Living)
            world.LeaveSoon(process);
    }

    /// <summary>backend-start, with -b where there is a record of the disk.</summary>
    private void Serve(SharedDisk<TPolicy> disk, SimulatedProcess<TPolicy>[] up)
    {
        if (SessionOf(disk) is not null)
            return;
        SimulatedProcess<TPolicy>[] able = [.. up.Where(p => disk.Machines.Contains(p.Machine.Number) && p.PendingCommands == 0)];
        if (able.Length == 0)
            return;
        able[Random.Next(able.Length)].Ask(process =>
        {
            if (SessionOf(disk) is not null)
                return;
            int record = FindRecord(disk, out ClaimWord word);
            // Without the id the record is found, unless the disk was in memory: it is another one then, and nobody goes on with the record.
            bool forgets = record >= 0 && !disk.IsInMemory && Random.Next(2) == 0;
            process.StartBackend(disk, record < 0 || forgets ? null : record, fenced: record >= 0 && !forgets && IsOff(word.Host));
        });
    }

    private void StartDevice(SimulatedProcess<TPolicy> process, SharedDisk<TPolicy> disk)
    {
        int backend = FindRecord(disk, out _);
        if (backend >= 0)
            process.StartDevice(disk, backend);
    }

    private static void Stop(SharedDisk<TPolicy> disk, bool force)
    {
        if (disk.Device is { IsOver: false } device && device.Process.IsUp)
            device.Process.Ask(_ => device.Stop(force));
    }

    /// <summary>backend-resize.</summary>
    private void Grow(SharedDisk<TPolicy> disk)
    {
        if (SessionOf(disk) is { IsServing: true } session)
            session.Process.Ask(_ => session.Grow(Math.Min(disk.Disk.SizeBlocks + 1 + Random.Next(3), disk.Disk.BlockCount)));
    }

    private void StopBackend(SharedDisk<TPolicy> disk, bool force)
    {
        if (SessionOf(disk) is { } session)
            session.Process.Ask(_ => session.Stop(force));
    }

    /// <summary>host-clear --force of whichever host: refused, or it leaves a quarantine.</summary>
    private void ForceClear(SimulatedProcess<TPolicy> process)
    {
        int host = Random.Next(world.Geometry.HostCount);
        SimulatedProcess<TPolicy>[] silent = world.Scenario.ClearSilent > Random.NextDouble() ? [.. world.Living.Where(p => p.MayStore && !p.CanRun)] : [];
        if (silent.Length > 0)
            host = silent[Random.Next(silent.Length)].Host!.Host;
        process.Ask(p => ClearUntil(p, host, ClearAuthority.Forced, 6));
    }

    /// <summary>host-clear --fenced: the machine is switched off first.</summary>
    private void PowerOffAndFence(SimulatedProcess<TPolicy>[] up)
    {
        Machine machine = world.Machines[Random.Next(world.Machines.Count)];
        SimulatedProcess<TPolicy>? survivor = up.FirstOrDefault(p => p.Machine != machine);
        if (survivor is null)
            return;
        int[] hosts = [.. world.Living.Where(p => p.Machine == machine && p.MayStore).Select(p => p.Host!.Host)];
        ulong[] epochs = [.. hosts.Select(h => world.Word(world.Geometry.HostOffset(h)).Epoch)];
        world.PowerOff(machine, world.Region.Now + Random.Next(World<TPolicy>.DeadMs * 1000, World<TPolicy>.DeadMs * 4000));
        for (int i = 0; i < hosts.Length; i++)
        {
            (int host, ulong epoch) = (hosts[i], epochs[i]);
            survivor.Ask(p => ClearFenced(p, host, epoch, 30));
        }
    }

    /// <summary>host-clear --fenced of a host whose process is dead, and of which nobody has proof: its host uuid is gone.</summary>
    public void ClearDead(SimulatedProcess<TPolicy> process)
    {
        for (int host = 0; host < world.Geometry.HostCount; host++)
        {
            if (world.IsProcessDeadOf(host) && world.Word(world.Geometry.HostOffset(host)).State is not ClaimState.Free and not ClaimState.Claiming)
                process.Clear(host, ClearAuthority.Fenced);
        }
    }

    private void ClearFenced(SimulatedProcess<TPolicy> process, int host, ulong epoch, int times)
    {
        // He vouches for that claim; what comes after it is another matter.
        if (world.Word(world.Geometry.HostOffset(host)).Epoch == epoch && process.Clear(host, ClearAuthority.Fenced) == ClearResult.Again && times > 0)
            process.Ask(p => ClearFenced(p, host, epoch, times - 1));
    }

    private static void ClearUntil(SimulatedProcess<TPolicy> process, int host, ClearAuthority authority, int times)
    {
        if (host != process.Host!.Host && process.Clear(host, authority) == ClearResult.Again && times > 0)
            process.Ask(p => ClearUntil(p, host, authority, times - 1));
    }

    /// <summary>backend-clear: of a latched failure, or of a record whose blkdevs are given up.</summary>
    private void ClearBackend(SharedDisk<TPolicy> disk, SimulatedProcess<TPolicy> process)
    {
        if (SessionOf(disk) is { } session)
        {
            session.Process.Ask(_ => session.ClearFlushError());
            return;
        }

        process.Ask(p =>
        {
            int backend = FindRecord(disk, out ClaimWord word);
            if (backend >= 0 && word.State == ClaimState.Orphaned && Random.NextDouble() < world.Scenario.GiveUp)
            {
                world.GivingUp = p.Number;
                try
                {
                    p.Session.ClearBackend(backend, force: true, fenced: false, p.Machine.NowMs);
                }
                finally
                {
                    world.GivingUp = 0;
                }
            }
        });
    }

    /// <summary>dev-clear of a device whose daemon is away.</summary>
    private void GiveUp(SimulatedProcess<TPolicy> process, KeptDevice<TPolicy> kept)
    {
        int blkdev = kept.Record.Body.BlkdevId;
        if (!kept.IsParked || kept.MayBeGone)
            return;
        world.GivingUpDevice = process.Number;
        try
        {
            process.Session.Clearing.ReleaseOrphan(blkdev, world.Word(process.Geometry.BlkdevOffset(blkdev)));
        }
        finally
        {
            world.GivingUpDevice = 0;
        }
    }

    /// <summary>backend-start -b of a backend that is served, by another process: has to be refused while that may live.</summary>
    private void Rival(SharedDisk<TPolicy> disk, SimulatedProcess<TPolicy>[] up)
    {
        if (SessionOf(disk) is not { IsServing: true } session)
            return;
        foreach (SimulatedProcess<TPolicy> other in up)
        {
            if (other != session.Process && disk.Machines.Contains(other.Machine.Number))
            {
                int backend = session.Backend;
                other.Ask(p => p.StartBackend(disk, backend, fenced: false));
                return;
            }
        }
    }

    /// <summary>Who serves the disk, or is about to.</summary>
    private SimulatedSession<TPolicy>? SessionOf(SharedDisk<TPolicy> disk)
    {
        foreach (SimulatedProcess<TPolicy> process in world.Living)
        {
            foreach (SimulatedSession<TPolicy> session in process.Sessions)
            {
                if (session.Disk == disk && (!session.IsOver || session.IsHeld))
                    return session;
            }
        }

        return null;
    }

    public int FindRecord(SharedDisk<TPolicy> disk, out ClaimWord word)
    {
        for (int backend = 0; backend < world.Geometry.BackendCount; backend++)
        {
            word = world.Word(world.Geometry.BackendOffset(backend));
            if (word.State != ClaimState.Free &&
                EntryBodies<SimulatedMemory>.TryReadBackendRecord(world.Inspection, world.Geometry, backend, word.Epoch, out BackendBody body, out _, out _) &&
                disk.IsOf(body))
                return backend;
        }

        word = default;
        return -1;
    }

    /// <summary>Whoever had this host entry last is on no machine that runs.</summary>
    private bool IsOff(int host) => world.IsMachineOffOf(host);
}
