using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;

namespace Cbd.Simulation.Region;

internal enum DeviceStage
{
    Claiming,
    Attaching,
    Running,
    Closing,
    Over,
}

/// <summary>
/// One device of a process, from its claim to the end of it, in the order of the daemon's dev-start and dev-stop. While
/// it runs, each of its queues is a thread of its own, with a user.
/// </summary>
internal sealed class SimulatedDevice<TPolicy>
    where TPolicy : struct, IProtocolPolicy
{
    private const int QueueCount = 2;

    private readonly World<TPolicy> _world;
    private readonly SimulatedProcess<TPolicy> _process;
    private readonly List<(int Channel, ClaimWord Word)> _claimed = [];
    private BlkdevClaim<SimulatedMemory, TPolicy>? _claim;
    private BackendWatch<SimulatedMemory, TPolicy>? _watch;
    private Queue<SimulatedMemory, TPolicy>[] _queues = [];
    private DeviceUser<TPolicy>[] _users = [];
    private bool _stopAsked;
    private bool _force;
    private long _limitMs;

    public SimulatedDevice(World<TPolicy> world, SimulatedProcess<TPolicy> process, SharedDisk<TPolicy> disk, int backend)
    {
        _world = world;
        _process = process;
        Disk = disk;
        Backend = backend;
    }

    public SharedDisk<TPolicy> Disk { get; }

    public int Backend { get; }

    /// <summary>Which life of the backend's entry it is on.</summary>
    public int BackendLife { get; set; }

    /// <summary>How often the entry had been freed by the rules when it was claimed.</summary>
    public int BackendEnds { get; set; }

    public SimulatedProcess<TPolicy> Process => _process;

    public DeviceStage Stage { get; private set; } = DeviceStage.Claiming;

    public BlkdevState? State { get; private set; }

    public int Blkdev => _claim?.Blkdev ?? -1;

    public ulong Epoch => _claim?.Epoch ?? 0;

    /// <summary>Number of its life in the disk's history.</summary>
    public int Life { get; private set; }

    public IReadOnlyList<SimulatedThread<TPolicy>> Threads { get; private set; } = [];

    public IReadOnlyList<Queue<SimulatedMemory, TPolicy>> Queues => _queues;

    public IReadOnlyList<DeviceUser<TPolicy>> Users => _users;

    public bool IsOver => Stage == DeviceStage.Over;

    /// <summary>It has the backend for itself, and not given it back.</summary>
    public bool IsActive => Stage is DeviceStage.Attaching or DeviceStage.Running or DeviceStage.Closing;

    public bool HasFailed => State?.Failure is not null;

    /// <summary>One of its threads is in the middle of a turn.</summary>
    public bool IsBusy => Threads.Any(t => t.IsRunning);

    public bool IsQuiet => Stage == DeviceStage.Running && !HasFailed && Array.TrueForAll(_users, u => u.IsIdle);

    /// <summary>Flushes of its users that failed.</summary>
    public int FailedFlushes => _users.Sum(u => u.FailedFlushes);

    public bool HasFlushInFlight => Array.Exists(_users, u => u.HasFlushInFlight);

    public Queue<SimulatedMemory, TPolicy>? QueueOn(int channel) => Array.Find(_queues, q => q.Channel == channel);

    /// <summary>Believes that it may store into the channel.</summary>
    public bool Uses(int channel) => _process.MayStore && !IsOver &&
        (Array.Exists(_queues, q => q.Channel == channel && q.Phase is not (QueuePhase.Closed or QueuePhase.Lost)) ||
        (_queues.Length == 0 && _claimed.Exists(c => c.Channel == channel)));

    public void Beat() => _claim?.Beat();

    /// <summary>dev-start up to the offers; throws what the daemon would answer.</summary>
    public void Start()
    {
        try
        {
            _claim = _process.Blkdevs.Claim(Backend, readOnly: false);
        }
        catch (CbdException)
        {
            Stage = DeviceStage.Over;
            throw;
        }

        _world.Claimed(this);
        try
        {
            while (_claimed.Count < QueueCount)
            {
                if (!ChannelClaims<SimulatedMemory, TPolicy>.TryClaim(_process.Memory, _process.Geometry, _process.Host!.Host, out int channel, out ClaimWord word))
                    throw new CbdException(CbdErrorKind.Exhausted, "no free channel");
                _world.Claimed(this, channel, word);
                _claimed.Add((channel, word));
            }

            _claim.Activate([.. _claimed.Select(c => c.Channel)], "nbd");
            _world.Activated(this);
            string identity = _process.Backends.ReadRecord(Backend).Identity;
            if (identity != Disk.Identity)
                throw new CbdException(CbdErrorKind.Busy, $"backend {Backend} is {identity}");
        }
        catch (CbdException)
        {
            foreach ((int channel, ClaimWord word) in _claimed)
                ChannelClaims<SimulatedMemory, TPolicy>.Release(_process.Memory, _process.Geometry, channel, word);
            _claim.End();
            Stage = DeviceStage.Over;
            _world.Over(this);
            throw;
        }

        State = new BlkdevState(_claim.Blkdev, _claim.Epoch, Backend, _claim.Session, QueueCount);
        _watch = new BackendWatch<SimulatedMemory, TPolicy>(_process.Memory, _process.Geometry, Backend);
        var options = new QueueOptions { DeadlineMicroseconds = 3000, PieceBytes = 1024 };
        _queues = [.. _claimed.Select((c, i) => new Queue<SimulatedMemory, TPolicy>(_process.Memory, _process.Geometry, c.Channel, c.Word, State, i, options, _process.Host!.AnnounceChange))];
        _limitMs = _process.Machine.NowMs + World<TPolicy>.DeadMs;
        Stage = DeviceStage.Attaching;
        foreach (Queue<SimulatedMemory, TPolicy> queue in _queues)
            queue.Offer();
    }

    /// <summary>dev-stop.</summary>
    public void Stop(bool force)
    {
        _stopAsked = true;
        _force |= force;
    }

    /// <summary>The management thread's part.</summary>
    public void MainTurn()
    {
        if (IsBusy)
            return;
        switch (Stage)
        {
            case DeviceStage.Attaching:
                Poll();
                if (_stopAsked || HasFailed || _process.Machine.NowMs > _limitMs)
                    BeginClose();
                else if (Array.TrueForAll(_queues, q => q.Phase == QueuePhase.Attached))
                    Run();
                break;
            case DeviceStage.Running:
                // A user who reads the error stops the device, looks at the data, and starts it again.
                if (_stopAsked || HasFailed)
                    BeginClose();
                break;
            case DeviceStage.Closing:
                Poll();
                FinishClose();
                break;
        }
    }

    /// <summary>Looks at the backend, as the daemon's housekeeping does.</summary>
    public void Watch()
    {
        if (_watch is null || State is null || IsOver)
            return;
        if (_watch.TryRefresh(out BackendSession session))
        {
            if (_watch.Body!.Identity != Disk.Identity)
                State.Fail($"backend {Backend} is another disk now ({_watch.Body.Identity})");
            else
                State.Adopt(session);
        }

        ClaimWord word = _watch.Word;
        bool served = word.State == ClaimState.Active && word.Epoch == State.SessionEpoch;
        bool dead = word.State is ClaimState.Free or ClaimState.Orphaned || word.Epoch > State.SessionEpoch ||
            (_watch.Body is { } body && _process.Tracker.Of(body.HostId, body.HostEpoch) == Liveness.Dead);
        State.IsBackendOver = dead;
        State.IsBackendLost = dead || (!served && word.State != ClaimState.Closing);
        if (Disk.Device == this && Disk.IsLossPending)
            LookForLoss();
        if (Stage == DeviceStage.Running && Disk.Device is null && served)
        {
            // The disk was another backend's for a while, with another device, and has come back to this one.
            Disk.Device = this;
            Life = ++Disk.History.Life;
        }
    }

    /// <summary>The host was cleared: nothing of it is stored to any more.</summary>
    public void Fence()
    {
        State?.Fail("this host was cleared by another");
        Die();
    }

    /// <summary>The end of the process, or of its use of the region.</summary>
    public void Die()
    {
        if (IsOver)
            return;
        EndLife();
        Stage = DeviceStage.Over;
    }

    private void Run()
    {
        Stage = DeviceStage.Running;
        Life = ++Disk.History.Life;
        _world.Running(this);
        _users = [.. _queues.Select((q, i) => new DeviceUser<TPolicy>(_world, this, q, i))];
        Threads = [.. _users.Select(u => new SimulatedThread<TPolicy>(_process, () => UserTurn(u)))];
    }

    private void UserTurn(DeviceUser<TPolicy> user)
    {
        if (Stage == DeviceStage.Running)
            user.Turn(_process.Machine.NowMicroseconds);
    }

    private void Poll()
    {
        Span<Blocks.BlockCompletion> completions = new Blocks.BlockCompletion[16];
        foreach (Queue<SimulatedMemory, TPolicy> queue in _queues)
            queue.Poll(_process.Machine.NowMicroseconds, completions);
    }

    private void BeginClose()
    {
        _limitMs = _process.Machine.NowMs + 2 * World<TPolicy>.DeadMs;
        Stage = DeviceStage.Closing;
        foreach (DeviceUser<TPolicy> user in _users)
            user.Forget();
        if (Disk.Device == this && Life > 0)
            Disk.Forgive();
        foreach (Queue<SimulatedMemory, TPolicy> queue in _queues)
            queue.BeginClose();
    }

    private void FinishClose()
    {
        if (Array.TrueForAll(_queues, q => q.Phase is QueuePhase.Closed or QueuePhase.Lost))
        {
            EndLife();
            Stage = DeviceStage.Over;
            // This host was cleared: what it had is given back by who clears.
            if (!Array.Exists(_queues, q => q.Phase == QueuePhase.Lost))
                _claim!.End();
            return;
        }

        if (_process.Machine.NowMs < _limitMs || !(_force || Life == 0))
            return;
        foreach (Queue<SimulatedMemory, TPolicy> queue in _queues)
        {
            if (queue.Phase == QueuePhase.Closing)
                queue.Quarantine();
        }

        EndLife();
        _claim!.Quarantine();
        Stage = DeviceStage.Over;
    }

    private void EndLife()
    {
        if (Disk.Device == this)
        {
            Disk.Device = null;
            Disk.Forgive();
        }

        foreach (DeviceUser<TPolicy> user in _users)
            user.Release();
        _world.Over(this);
        if (Life > 0)
            _world.Ended(this, [.. _claimed]);
    }

    private void LookForLoss()
    {
        if (HasFailed)
            Disk.Forgive();
        else if (Disk.SessionAtLoss != State!.SessionEpoch && Array.TrueForAll(_queues, q => q.Phase == QueuePhase.Attached) && State.SessionEpoch == _watch!.Word.Epoch)
            Disk.IsLossPending = false;
    }
}
