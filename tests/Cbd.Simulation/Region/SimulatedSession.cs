using Cbd.Protocol.Backends;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;

namespace Cbd.Simulation.Region;

internal enum SessionStage
{
    Opening,
    Claiming,
    Serving,
    Draining,
    Over,
}

/// <summary>One life of a backend in a process: from the disk's lock to the end of its claim, as the daemon does it.</summary>
internal sealed class SimulatedSession<TPolicy>
    where TPolicy : struct, IProtocolPolicy
{
    private readonly World<TPolicy> _world;
    private readonly SimulatedProcess<TPolicy> _process;
    private readonly int? _wanted;
    private readonly bool _fenced;
    private readonly long _limitMs;
    private readonly NativeBuffer _buffers;
    private readonly BackendBody _body;
    private ServedBackend? _served;
    private HandlerGroup<SimulatedMemory, TPolicy>? _group;

    /// <param name="wanted">The backend to take over; null: a new one.</param>
    public SimulatedSession(World<TPolicy> world, SimulatedProcess<TPolicy> process, SharedDisk<TPolicy> disk, int? wanted, bool fenced)
    {
        _world = world;
        _process = process;
        _wanted = wanted;
        _fenced = fenced;
        _buffers = world.TakeBuffer();
        Disk = disk;
        _limitMs = process.Machine.NowMs + 3 * World<TPolicy>.DeadMs;
        // Boot id and disk, as the daemon makes it.
        Span<byte> id = stackalloc byte[16];
        process.Machine.BootId.TryWriteBytes(id);
        id[0] ^= (byte)(disk.Number + 1);
        _body = disk.Describe(new Guid(id));
        Queue = new SimulatedDiskQueue(disk.Disk, world.Region, _body.DurabilityId) { Check = CheckDisk, Machine = process.Machine.Number };
    }

    public SharedDisk<TPolicy> Disk { get; }

    public SimulatedDiskQueue Queue { get; }

    public SessionStage Stage { get; private set; } = SessionStage.Opening;

    public BackendClaim<SimulatedMemory, TPolicy>? Claim { get; private set; }

    public int Backend => Claim?.Backend ?? -1;

    public ulong Epoch => Claim?.Session ?? 0;

    public SimulatedProcess<TPolicy> Process => _process;

    /// <summary>It may take over a record, but has not claimed it, or not published yet.</summary>
    public bool IsTakeOver => _wanted is not null;

    /// <summary>It could still send something to the disk.</summary>
    public bool MayTouchDisk => !_process.IsDead && Stage is SessionStage.Serving or SessionStage.Draining;

    /// <summary>Commands of a channel that are at the disk.</summary>
    public int OutstandingOn(int channel) => _group?.OutstandingOn(channel) ?? 0;

    public int FlushErrorAtStart { get; private set; }

    public void Beat() => Claim?.Beat();

    public void Turn()
    {
        switch (Stage)
        {
            case SessionStage.Opening:
                Open();
                break;
            case SessionStage.Claiming:
                TryClaim();
                break;
            case SessionStage.Serving:
                LookForOffers();
                _group!.Poll();
                break;
            case SessionStage.Draining:
                _group!.Poll();
                if (_group.Count == 0 && Queue.Outstanding == 0)
                    EndClose();
                break;
        }
    }

    /// <summary>backend-stop.</summary>
    public void Stop(bool force)
    {
        if (Stage is SessionStage.Opening or SessionStage.Claiming)
        {
            Abandon();
            return;
        }

        if (Stage != SessionStage.Serving)
            return;
        Claim!.BeginClose(force);
        _group!.BeginStop();
        Stage = SessionStage.Draining;
    }

    /// <summary>backend-clear of a latched failure.</summary>
    public void ClearFlushError()
    {
        if (Stage != SessionStage.Serving || _served!.FlushError == 0)
            return;
        // Before it is stored: the process may die in the middle, with the entry cleared.
        Disk.HasFailedFlush = false;
        Disk.ClearedAt = Disk.History.Begin();
        Disk.Forgive();
        _served.ClearFlushError();
        Disk.HasFailedFlush = false;
        Disk.ClearedAt = Disk.History.Begin();
        Disk.Forgive();
    }

    /// <summary>Nothing more is done for it: the process is dead, or its host was cleared.</summary>
    public void Abandon()
    {
        if (Stage == SessionStage.Over)
            return;
        Stage = SessionStage.Over;
        Disk.Disk.Abandon(Queue, cancel: _process.IsDead);
        Disk.Unlock(Queue);
        _world.ReturnBuffer(_buffers);
    }

    private void Open()
    {
        if (MutantPolicy.IgnoresDiskLock<TPolicy>() || Disk.TryLock(_process.Machine.Number, Queue))
            Stage = SessionStage.Claiming;
        else if (_process.Machine.NowMs > _limitMs)
            Abandon();
    }

    private void TryClaim()
    {
        BackendRegistry<SimulatedMemory, TPolicy> registry = _process.Backends;
        try
        {
            BackendClaim<SimulatedMemory, TPolicy>? claim = null;
            if (_wanted is not { } backend)
            {
                claim = registry.Start(_body);
            }
            else if (registry.TakeOver(backend, _body, _fenced, _process.Machine.NowMs, out claim) == StepResult.Again)
            {
                if (_process.Machine.NowMs > _limitMs)
                    Abandon();
                return;
            }

            Claim = claim!;
        }
        catch (CbdException e)
        {
            _world.Trace($"process {_process.Number}: backend on disk {Disk.Number}: {e.Message}");
            Abandon();
            return;
        }

        FlushErrorAtStart = Claim.Body.FlushError;
        _served = new ServedBackend(Claim.Backend, Claim.Session, Queue, Claim.Body.FlushError, error => Claim.StoreFlushError(error), IsEntitled);
        _group = new HandlerGroup<SimulatedMemory, TPolicy>(_process.Memory, _process.Geometry, _served, Queue, _buffers);
        Stage = SessionStage.Serving;
        _world.Started(this);
    }

    private bool IsEntitled(int blkdev, ulong epoch) =>
        BlkdevRegistry<SimulatedMemory, TPolicy>.IsEntitled(_process.Memory, _process.Geometry, Backend, backendReadOnly: false, blkdev, epoch);

    private void LookForOffers()
    {
        for (int channel = 0; channel < _process.Geometry.ChannelCount; channel++)
        {
            if (_group!.Serves(channel))
                continue;
            ClaimWord word = ClaimOperations<SimulatedMemory, TPolicy>.Read(_process.Memory, _process.Geometry.ChannelOffset(channel));
            if (word.State == ClaimState.Offered &&
                BlkdevCtrlLine.TryLoad(_process.Memory, _process.Geometry, channel, word.Epoch, out BlkdevCtrlLine offer) &&
                offer.Backend == Backend && offer.Session == Epoch)
                _group.TryAttach(channel);
            else if (word.State == ClaimState.Quarantined)
                _group.ReportDrained(channel);
        }
    }

    private void EndClose()
    {
        Disk.Unlock(Queue);
        Stage = SessionStage.Over;
        _world.ReturnBuffer(_buffers);
        Claim!.EndClose();
    }

    private void CheckDisk()
    {
        if (!MayTouchDisk)
            throw new SimulationException($"disk {Disk.Number} got a request of a session that is over ({Stage})");
    }
}
