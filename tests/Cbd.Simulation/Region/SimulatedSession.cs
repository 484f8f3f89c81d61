using Cbd.Host.Backends;
using Cbd.Host.Transports;
using Cbd.Memory;
using Cbd.Protocol.Backends;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;

namespace Cbd.Simulation.Region;

/// <summary>
/// Drives one life of a backend in a process, as the daemon's threads do: the disk's lock, the handlers, the end of what is
/// at the disk. Where it stands, and what it claims, is <see cref="BackendLife{TMemory, TPolicy}"/>'s.
/// </summary>
internal sealed class SimulatedSession<TPolicy> : IGrowingDisk
    where TPolicy : struct, IProtocolPolicy
{
    private readonly World<TPolicy> _world;
    private readonly SimulatedProcess<TPolicy> _process;
    private readonly long _limitMs;
    private readonly NativeBuffer _buffers;
    private readonly Queue<int> _offers = new();
    private HandlerGroup<SimulatedMemory, TPolicy>? _group;
    private bool _isDrainingGroup;
    private bool _isEnded;

    /// <param name="wish">What it is to be.</param>
    /// <param name="before">The session of this process whose disk it takes over, with its lock; null for none.</param>
    public SimulatedSession(World<TPolicy> world, SimulatedProcess<TPolicy> process, SharedDisk<TPolicy> disk, BackendWish wish, SimulatedSession<TPolicy>? before = null)
    {
        _world = world;
        _process = process;
        _buffers = world.TakeBuffer();
        Disk = disk;
        Identity = before?.Identity ?? disk.Open(process.Machine);
        _limitMs = process.Machine.NowMs + 3 * World<TPolicy>.DeadMs;
        Queue = new SimulatedDiskQueue(disk.Disk, world.Region, disk.LifeOn(process.Machine.BootId, Identity)) { Check = CheckDisk, Machine = process.Machine.Number };
        if (before is not null)
        {
            disk.PassLock(process.Machine.Number, before.Queue, Queue);
            HasLock = true;
        }

        Life = new BackendLife<SimulatedMemory, TPolicy>(process.Session, wish, process.Machine.NowMs);
    }

    public BackendLife<SimulatedMemory, TPolicy> Life { get; }

    public SharedDisk<TPolicy> Disk { get; }

    /// <summary>Which disk it is for those who compare.</summary>
    public string Identity { get; }

    /// <summary>What its daemon's record calls it; null without a record.</summary>
    public string? Name { get; init; }

    /// <summary>Under which path the disk was opened.</summary>
    public string? Path { get; init; }

    /// <summary>Why it came to nothing; null if it did not, or nobody knows.</summary>
    public CbdException? Trouble { get; private set; }

    public SimulatedDiskQueue Queue { get; }

    public BackendClaim<SimulatedMemory, TPolicy>? Claim => Life.Claim;

    public int Backend => Life.Claim?.Backend ?? -1;

    public ulong Epoch => Life.Epoch;

    public SimulatedProcess<TPolicy> Process => _process;

    /// <summary>It may take over a record, but has not claimed it, or not published yet.</summary>
    public bool IsTakeOver => Life.IsTakeOver;

    /// <summary>Nothing more is done for it.</summary>
    public bool IsOver => _isEnded || Life.IsOver;

    public bool IsServing => !_isEnded && Life.Stage == BackendStage.Serving;

    /// <summary>It could still send something to the disk.</summary>
    public bool MayTouchDisk => !_process.IsDead && !_isEnded && Life.MayTouchDisk;

    /// <summary>The disk's lock is this process's.</summary>
    public bool HasLock { get; private set; }

    /// <summary>This host was cleared; the disk is kept for the next claim.</summary>
    public bool IsHeld => !_isEnded && Life.Stage == BackendStage.Held;

    public int FlushErrorAtStart { get; private set; }

    /// <summary>In the middle of backend-clear: the entry may have the failure still, or not any more.</summary>
    public bool IsForgettingFlushError { get; private set; }

    /// <summary>Commands of a channel that are at the disk.</summary>
    public int OutstandingOn(int channel) => _group?.OutstandingOn(channel) ?? 0;

    public void Turn()
    {
        switch (Life.Stage)
        {
            case BackendStage.Opening:
                Open();
                break;
            case BackendStage.Claiming:
                TryClaim();
                break;
            case BackendStage.Serving when Life.Session.Condition.IsFenced:
                DrainFenced();
                break;
            case BackendStage.Serving:
                while (_offers.TryDequeue(out int channel))
                    _group!.TakeOffer(channel);
                _group!.Poll();
                break;
            case BackendStage.Draining when Life.Session.Condition.IsFenced:
                DrainFenced();
                break;
            case BackendStage.Draining:
                if (!_isDrainingGroup)
                    _group!.BeginStop();
                _isDrainingGroup = true;
                _group!.Poll();
                if (_group.Count == 0 && Queue.Outstanding == 0)
                    End();
                break;
            case BackendStage.Over:
                // Stopped before it had started: the disk is given back.
                Abandon();
                break;
        }
    }

    /// <summary>backend-stop.</summary>
    public void Stop(bool force)
    {
        if (Life.Stage is BackendStage.Opening or BackendStage.Claiming)
            Abandon();
        else
        {
            Life.BeginStop(force, leaves: false, _process.Machine.NowMs);
            _process.Machine.EndReservation(Life.Session.Geometry.RegionId, Backend);
        }
    }

    /// <summary>backend-clear of a latched failure.</summary>
    public void ClearFlushError()
    {
        if (!IsServing || Life.Served!.FlushError == 0)
            return;
        // Before it is stored: the process may die in the middle, with the entry cleared.
        IsForgettingFlushError = true;
        Disk.HasFailedFlush = false;
        Disk.ClearedAt = Disk.History.Begin();
        Disk.Forgive();
        Life.Served.ClearFlushError();
        Disk.HasFailedFlush = false;
        Disk.ClearedAt = Disk.History.Begin();
        Disk.Forgive();
        IsForgettingFlushError = false;
    }

    /// <summary>backend-resize.</summary>
    public void Grow(int blocks)
    {
        if (IsServing && !Life.Session.Condition.IsFenced)
            BackendGrowth.Grow(Life, this, (long)blocks * SimulatedDisk.BlockBytes);
    }

    /// <summary>Nothing more is done for it: the process is dead, or the start came to nothing.</summary>
    public void Abandon()
    {
        if (_isEnded)
            return;
        _isEnded = true;
        Disk.Disk.Abandon(Queue, cancel: _process.IsDead);
        if (HasLock)
            Disk.Unlock(Queue);
        _world.ReturnBuffer(_buffers);
        if (_process.IsDead)
            return;
        Life.EndStop(_process.Machine.NowMs);
        Life.Session.Remove(Life);
    }

    /// <summary>The next session of this process has the disk.</summary>
    public void PassOn()
    {
        _isEnded = true;
        _world.ReturnBuffer(_buffers);
    }

    long IGrowingDisk.MeasureBytes() => (long)Disk.Disk.SizeBlocks * SimulatedDisk.BlockBytes;

    void IGrowingDisk.Grow(long sizeBytes) => Disk.Disk.SizeBlocks = Math.Max(Disk.Disk.SizeBlocks, (int)(sizeBytes / SimulatedDisk.BlockBytes));

    int IGrowingDisk.Sync()
    {
        Disk.Disk.DurableBlocks = Disk.Disk.SizeBlocks;
        return 0;
    }

    void IGrowingDisk.Serve(long sizeBytes) => Queue.Serve(sizeBytes);

    string IGrowingDisk.PathAt(long sizeBytes) => Path ?? $"/disks/{Disk.Number}";

    private void Open()
    {
        if (HasLock || MutantPolicy.IgnoresDiskLock<TPolicy>() || Disk.TryLock(_process.Machine.Number, Queue))
        {
            HasLock = true;
            try
            {
                _world.CheckReservation(_process.Machine, Identity, Life.Session.Geometry.RegionId);
                Life.BeginClaim(Disk.Describe(Queue.Info.DurabilityId, Identity, Path), _process.Machine.NowMs);
            }
            catch (CbdException e)
            {
                Refuse(e);
            }
        }
        else if (_process.Machine.NowMs > _limitMs)
        {
            Abandon();
        }
        else
        {
            Life.AwaitDisk("the disk is in use", _process.Machine.NowMs);
        }
    }

    private void TryClaim()
    {
        try
        {
            if (!Life.TryClaim(_process.Machine.NowMs))
                return;
            // Before any blkdev can write to it, and wait for it.
            _process.Machine.Reserve(new DiskReservation(Identity, World<TPolicy>.MainRegion, Life.Session.Geometry.RegionId, Backend, _process.Name));
            FlushErrorAtStart = Claim!.Body.FlushError;
            Queue.Serve(Claim.Body.SizeBytes);
            _group = new HandlerGroup<SimulatedMemory, TPolicy>(_process.Memory, _process.Geometry, Life.MakeServed(Queue), Queue, _buffers);
            Life.BeginServing(_offers.Enqueue, _process.Machine.NowMs);
        }
        catch (CbdException e)
        {
            Refuse(e);
            return;
        }

        _world.Started(this);
    }

    private void Refuse(CbdException e)
    {
        _world.Trace($"process {_process.Number}: backend on disk {Disk.Number}: {e.Message}");
        Trouble = e;
        Abandon();
    }

    /// <summary>This host was cleared: what is at the disk ends, and nothing is stored into the region.</summary>
    private void DrainFenced()
    {
        Span<Blocks.BlockCompletion> completions = new Blocks.BlockCompletion[16];
        Queue.Poll(completions);
        if (Queue.Outstanding > 0)
            return;
        if (Life.Stage == BackendStage.Draining)
            End();
        else
            Life.Hold(_process.Machine.NowMs);
    }

    private void End()
    {
        Disk.Unlock(Queue);
        _isEnded = true;
        _world.ReturnBuffer(_buffers);
        Life.EndStop(_process.Machine.NowMs);
        Life.Session.Remove(Life);
    }

    private void CheckDisk()
    {
        if (!MayTouchDisk)
            throw new SimulationException($"disk {Disk.Number} got a request of a session that is over ({Life.Stage})");
    }
}
