using Cbd.Host.Backends;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;

namespace Cbd.Simulation.Region;

/// <summary>The part that looks at hosts, backends and blkdevs.</summary>
internal sealed partial class CrashWatch<TPolicy>
{
    private void FindEntries(List<Expectation> found, SimulatedProcess<TPolicy> process)
    {
        FindHost(found, process);
        FindClearer(found, process);
        if (process.Host is null || !process.MayStore)
            return;
        int host = process.Host.Host;
        for (int backend = 0; backend < world.Geometry.BackendCount; backend++)
        {
            ClaimWord word = world.Word(world.Geometry.BackendOffset(backend));
            if (word.Host == host && word.State is not (ClaimState.Free or ClaimState.Orphaned or ClaimState.Quarantined))
                FindBackend(found, process, backend, word);
        }

        for (int blkdev = 0; blkdev < world.Geometry.BlkdevCount; blkdev++)
        {
            long offset = world.Geometry.BlkdevOffset(blkdev);
            ClaimWord word = world.Word(offset);
            MatrixState? state = word.Host != host ? null : word.State switch
            {
                ClaimState.Claiming => MatrixState.BlkdevClaiming,
                ClaimState.Active => IsKept(blkdev, word) ? MatrixState.BlkdevKept : MatrixState.BlkdevActive,
                ClaimState.Adopting => MatrixState.BlkdevAdopting,
                ClaimState.Closing => MatrixState.BlkdevClosing,
                _ => null,
            };
            int id = blkdev;
            if (state is MatrixState.BlkdevKept or MatrixState.BlkdevAdopting)
                Add(found, state.Value, MatrixDeath.Owner, offset, word, e => IsBlkdevOrphaned(e, id));
            else if (state is { } known)
                Add(found, known, MatrixDeath.Owner, offset, word, e => e.IsOver ? !HasWriter(id, e.Word.Epoch) : IsLost(e));
        }
    }

    private bool IsKept(int blkdev, ClaimWord word) =>
        world.Scenario.Keep > 0 && EntryBodies<SimulatedMemory>.IsKept(world.Inspection, world.Geometry, blkdev, word.Epoch);

    private bool? IsBlkdevOrphaned(Expectation e, int blkdev)
    {
        if (!e.SawOrphaned)
            return e.IsOver ? false : IsLost(e);
        return e.Latest.State is not (ClaimState.Orphaned or ClaimState.Adopting) ||
            (EntryBodies<SimulatedMemory>.TryReadBlkdevRecord(world.Inspection, world.Geometry, blkdev, e.Latest.Epoch, out BlkdevBody record, out _, out _) && record.IsKept)
            ? true : throw new SimulationException($"the record of blkdev {blkdev} ({e.Latest}) is lost");
    }

    private bool HasWriter(int blkdev, ulong epoch)
    {
        for (int backend = 0; backend < world.Geometry.BackendCount; backend++)
        {
            if (world.Region.Word(world.Geometry.BackendOffset(backend) + BackendEntry.WriterOffset) == new WriterWord(blkdev, epoch).Raw)
                return true;
        }

        return false;
    }

    private void FindHost(List<Expectation> found, SimulatedProcess<TPolicy> process)
    {
        for (int host = 0; host < world.Geometry.HostCount; host++)
        {
            long offset = world.Geometry.HostOffset(host);
            ClaimWord word = world.Word(offset);
            if (word.State == ClaimState.Free || !process.Holds(host) || _claimers.GetValueOrDefault(offset) != process.Number)
                continue;
            switch (word.State)
            {
                case ClaimState.Claiming:
                    Add(found, MatrixState.HostClaiming, MatrixDeath.Owner, offset, word, e => e.IsOver ? true : null);
                    break;
                case ClaimState.Registering:
                    Add(found, MatrixState.HostRegistering, MatrixDeath.Owner, offset, word, e => e.IsOver ? true : IsLost(e));
                    break;
                case ClaimState.Active:
                    Add(found, MatrixState.HostActive, MatrixDeath.Owner, offset, word, e => e.IsOver ? e.SawClearing : IsLost(e));
                    break;
                case ClaimState.Closing:
                    Add(found, MatrixState.HostClosing, MatrixDeath.Owner, offset, word, e => e.IsOver ? e.SawClearing : IsLost(e));
                    Add(found, MatrixState.Leaver, MatrixDeath.Owner, offset, word, e => e.IsOver ? true : IsLost(e));
                    break;
                case ClaimState.Clearing when process.IsLeaving:
                    Add(found, MatrixState.Leaver, MatrixDeath.Owner, offset, word, e => e.IsOver ? true : IsLost(e));
                    break;
            }
        }
    }

    private void FindClearer(List<Expectation> found, SimulatedProcess<TPolicy> process)
    {
        if (!process.IsClearing)
            return;
        for (int host = 0; host < world.Geometry.HostCount; host++)
        {
            long offset = world.Geometry.HostOffset(host);
            ClaimWord word = world.Word(offset);
            if (word.State == ClaimState.Clearing && !process.Holds(host) && _clearers.GetValueOrDefault(offset) == process.Number)
                Add(found, MatrixState.Clearer, MatrixDeath.Owner, offset, word, e => e.IsOver ? true : IsLost(e));
        }
    }

    private void FindBackend(List<Expectation> found, SimulatedProcess<TPolicy> process, int backend, ClaimWord word)
    {
        long offset = world.Geometry.BackendOffset(backend);
        bool used = References<SimulatedMemory, TPolicy>.BlkdevsOf(world.Inspection, world.Geometry, backend).Count > 0;
        SimulatedSession<TPolicy>? session = process.Sessions.FirstOrDefault(s => s.Backend == backend && s.Epoch == word.Epoch);
        switch (word.State)
        {
            case ClaimState.Claiming when process.Sessions.Any(s => s.Life.Stage == BackendStage.Claiming && s.IsTakeOver) && used:
                Add(found, MatrixState.BackendTakingOver, MatrixDeath.Owner, offset, word, IsOrphaned);
                break;
            case ClaimState.Claiming when !used:
                Add(found, MatrixState.BackendClaiming, MatrixDeath.Owner, offset, word, IsFreed);
                break;
            case ClaimState.Active:
                Add(found, used ? MatrixState.BackendActiveUsed : MatrixState.BackendActive, MatrixDeath.Owner, offset, word, used ? IsOrphaned : IsFreed);
                break;
            case ClaimState.Closing:
                Add(found, used ? MatrixState.BackendClosingUsed : MatrixState.BackendClosing, MatrixDeath.Owner, offset, word, used ? IsOrphaned : IsFreed);
                break;
        }

        if (session?.Disk.Device is not { IsOver: false } device || device.Process == process || device.Backend != backend)
            return;
        FindFlush(found, session, device);
    }

    private void FindFlush(List<Expectation> found, SimulatedSession<TPolicy> session, SimulatedDevice<TPolicy> device)
    {
        bool latched = session.Claim!.Body.FlushError != 0;
        if (latched && session.FlushErrorAtStart == 0 && !session.Disk.HasFailedFlush && !session.IsForgettingFlushError)
        {
            // Stored, and no user knows yet.
            long cleared = session.Disk.ClearedAt;
            Add(found, MatrixState.BackendLatched, MatrixDeath.Owner, -1, default, _ =>
                NextSession(session) is not { } next ? device.IsOver ? false : null
                : !next.IsTakeOver || next.Backend != session.Backend || session.Disk.ClearedAt != cleared ? false
                : next.FlushErrorAtStart != 0 ? true
                : throw new SimulationException($"the flush failure of backend {session.Backend} that was latched in session {session.Epoch} is lost"));
        }

        if (!device.HasFlushInFlight || session.Disk.Disk.FlushesOf(session.Queue) == 0)
            return;
        int failed = device.FailedFlushes;
        if (session.Disk.Disk.IsBuffered)
            Add(found, MatrixState.BackendFlushingBuffered, MatrixDeath.Owner, -1, default, _ => device.FailedFlushes > failed ? true : device.IsOver ? false : null);
        else
            // Given up while the backend is away, it has failed and is not issued again.
            Add(found, MatrixState.BackendFlushingDirect, MatrixDeath.Owner, -1, default, _ => NextSession(session) is { Queue.Flushes: > 0 } ? true : device.IsOver || device.FailedFlushes > failed ? false : null);
    }

    private SimulatedSession<TPolicy>? NextSession(SimulatedSession<TPolicy> session)
    {
        bool passed = false;
        foreach (SimulatedSession<TPolicy> other in world.Sessions)
        {
            if (passed && other.Disk == session.Disk)
                return other;
            passed |= other == session;
        }

        return null;
    }

    private bool? IsOrphaned(Expectation e)
    {
        if (!e.SawOrphaned)
            return e.IsOver ? false : IsLost(e);
        return e.Latest.State != ClaimState.Orphaned ||
            EntryBodies<SimulatedMemory>.TryReadBackendRecord(world.Inspection, world.Geometry, BackendAt(e.Offset), e.Latest.Epoch, out _, out _, out _)
            ? true : throw new SimulationException($"the record of backend {BackendAt(e.Offset)} is lost");
    }

    private bool? IsFreed(Expectation e) => e.IsOver ? true : e.SawOrphaned ? false : IsLost(e);

    private int BackendAt(long offset) => (int)((offset - world.Geometry.BackendAreaOffset) / world.Geometry.BytesPerBackend);
}
