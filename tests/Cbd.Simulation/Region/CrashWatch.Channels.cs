using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;

namespace Cbd.Simulation.Region;

/// <summary>The part that looks at channels.</summary>
internal sealed partial class CrashWatch<TPolicy>
{
    private void FindChannel(List<Expectation> found, SimulatedProcess<TPolicy>[] dying, int channel)
    {
        long offset = world.Geometry.ChannelOffset(channel);
        ClaimWord word = world.Word(offset);
        if (word.State is ClaimState.Free or ClaimState.Quarantined)
            return;
        SimulatedDevice<TPolicy>? device = DeviceOn(channel, word);
        SimulatedSession<TPolicy>? session = SessionOn(channel, word, device, out bool mayBeDraining);
        bool blkdevDies = Array.Exists(dying, p => IsHost(p, word.Host));
        bool backendDies = session is not null && dying.Contains(session.Process);
        if (!blkdevDies && !backendDies)
            return;
        bool backendDead = session is null || session.Process.IsDead || session.IsOver;
        bool blkdevDead = !blkdevDies && (device is null || device.Process.IsDead);
        MatrixDeath death = (blkdevDies, backendDies) switch
        {
            (true, true) => MatrixDeath.Both,
            (true, false) => backendDead && word.State is not (ClaimState.Claimed or ClaimState.Detached) ? MatrixDeath.Both : MatrixDeath.Blkdev,
            _ => blkdevDead ? MatrixDeath.Both : MatrixDeath.Backend,
        };
        foreach (MatrixState state in StatesOf(channel, word, device, mayBeDraining))
        {
            MatrixOutcome? outcome = CrashMatrix.Find(state, death)?.Outcome;
            if (outcome is null)
                continue;
            Add(found, state, death, offset, word, outcome.Value switch
            {
                MatrixOutcome.Freed => e => e.IsOver ? true : e.Latest.State == ClaimState.Attached && e.Latest.Epoch > e.Word.Epoch ? false : IsLost(e),
                MatrixOutcome.DrainedAndFreed => e => e.IsOver ? e.SawClosing && e.SawDetached : IsLost(e),
                MatrixOutcome.ClosedAndFreed => e => e.IsOver ? e.SawClosing : IsLost(e),
                _ => e => e.Latest.State == ClaimState.Attached && e.Latest.Epoch > e.Word.Epoch ? true : e.IsOver ? false : IsLost(e),
            });
        }
    }

    /// <summary>Without proof: another row of the rules, not of the matrix.</summary>
    private static bool? IsLost(Expectation e) => e.Latest.State == ClaimState.Quarantined ? false : null;

    private static bool IsHost(SimulatedProcess<TPolicy> process, int host) => process.MayStore && process.Host!.Host == host;

    private SimulatedDevice<TPolicy>? DeviceOn(int channel, ClaimWord word)
    {
        foreach (SimulatedDevice<TPolicy> device in world.Devices)
        {
            if (IsHost(device.Process, word.Host) && device.Uses(channel))
                return device;
        }

        return null;
    }

    private SimulatedSession<TPolicy>? SessionOn(int channel, ClaimWord word, SimulatedDevice<TPolicy>? device, out bool mayBeDraining)
    {
        int backend = device?.Backend ?? -1;
        ulong epoch = 0;
        mayBeDraining = false;
        if (BlkdevCtrlLine.TryLoadLatest(world.Inspection, world.Geometry, channel, word.Epoch, out BlkdevCtrlLine line))
        {
            (backend, epoch) = (line.Backend, line.Session);
            mayBeDraining = line.MayBeDraining;
        }

        SimulatedSession<TPolicy>? newest = null;
        foreach (SimulatedSession<TPolicy> session in world.Sessions)
        {
            if (session.Backend == backend && (epoch == 0 || session.Epoch == epoch))
                newest = session;
        }

        return newest;
    }

    private List<MatrixState> StatesOf(int channel, ClaimWord word, SimulatedDevice<TPolicy>? device, bool mayBeDraining)
    {
        switch (word.State)
        {
            case ClaimState.Claimed:
                return [MatrixState.ChannelClaimed];
            case ClaimState.Offered:
                return [mayBeDraining ? MatrixState.ChannelOfferedAgain : MatrixState.ChannelOffered];
            case ClaimState.Closing:
                return [MatrixState.ChannelClosing];
            case ClaimState.Detached:
                return [MatrixState.ChannelDetached];
            case ClaimState.Attached when device?.QueueOn(channel) is { Phase: QueuePhase.Attached } queue:
                return Attached(channel, word, queue);
            default:
                return [];
        }
    }

    /// <summary>What is on its way, from the rings and the handler's own count.</summary>
    private List<MatrixState> Attached(int channel, ClaimWord word, Queue<SimulatedMemory, TPolicy> queue)
    {
        if (queue.InFlight == 0)
            return [MatrixState.ChannelIdle];
        var layout = new ChannelLayout(world.Geometry, channel);
        ulong sent = Newest(layout.CommandRingOffset, new LineSeal(world.Geometry.RegionId, channel, LineKind.Command, word.Epoch), word.Epoch);
        ulong posted = Newest(layout.CompletionRingOffset, new LineSeal(world.Geometry.RegionId, channel, LineKind.Completion, word.Epoch), word.Epoch);
        ulong fetched = HandlerCtrlLine.TryLoad(world.Inspection, world.Geometry, channel, word.Epoch, out HandlerCtrlLine ctrl) ? Math.Max(ctrl.Fetched, posted) : posted;
        var states = new List<MatrixState>();
        if (fetched > posted)
            states.Add(MatrixState.ChannelFetched);
        if (sent > fetched)
            states.Add(MatrixState.ChannelNotFetched);
        if (posted + (ulong)queue.InFlight > sent && posted > 0)
            states.Add(MatrixState.ChannelNotCopied);
        return states;
    }

    private ulong Newest(long ring, LineSeal seal, ulong epoch)
    {
        ulong newest = 0;
        for (uint slot = 0; slot < world.Geometry.RingSlots; slot++)
        {
            world.Inspection.ReadLine(ring + slot * 64L, out Memory.Line line);
            if ((line.Word1 & ClaimWord.MaxEpoch) == epoch && seal.Holds(line, slot))
                newest = Math.Max(newest, line.Word0);
        }

        return newest;
    }
}
