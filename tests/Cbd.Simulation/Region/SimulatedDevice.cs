using Cbd.Blocks;
using Cbd.Host.Devices;
using Cbd.Memory;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Records;

namespace Cbd.Simulation.Region;

/// <summary>
/// Drives one device of a process, as the daemon's verbs and export do. While it serves, each of its queues is a thread of
/// its own, with a user. Where it stands, and what it claims, is <see cref="DeviceLife{TMemory, TPolicy}"/>'s.
/// </summary>
internal sealed class SimulatedDevice<TPolicy> : IDeviceObserver
    where TPolicy : struct, IProtocolPolicy
{
    public const int QueueCount = 2;

    private readonly World<TPolicy> _world;
    private readonly SimulatedProcess<TPolicy> _process;
    private DeviceUser<TPolicy>[] _users = [];
    private bool _isLifeEnded;
    private bool _isClaimed;

    /// <param name="kept">What outlives the process; null: it ends with that.</param>
    /// <param name="record">The record that an earlier process left, if it goes on with that.</param>
    public SimulatedDevice(
        World<TPolicy> world, SimulatedProcess<TPolicy> process, SharedDisk<TPolicy> disk, int backend, LossPolicy loss, string? name = null, string? identity = null,
        KeptDevice<TPolicy>? kept = null, DeviceRecord? record = null)
    {
        Kept = kept;
        IsAdoption = record is not null;
        record ??= kept?.Record;
        Guid judged = record?.Body.DurabilityId ?? Guid.Empty;
        record?.Stored = () =>
        {
            // Where a device goes to another durability id a death is of most interest.
            bool isNew = record.Body.State == DeviceRecordState.Serving && record.Body.DurabilityId != judged;
            judged = record.Body.DurabilityId;
            world.RecordStored(process, isNew);
        };
        if (IsAdoption)
            (BackendLife, BackendEnds) = (kept!.BackendLife, kept.BackendEnds);
        else
            kept?.Device = this;
        _world = world;
        _process = process;
        Disk = disk;
        Name = name;
        Machine = new DeviceLife<SimulatedMemory, TPolicy>(process.Session, new DeviceWish
        {
            Backend = backend,
            Identity = identity ?? disk.Identity,
            Queues = QueueCount,
            Loss = loss,
            Record = record,
            Adopts = IsAdoption,
            QueueOptions = new QueueOptions { DeadlineMicroseconds = 3000, PieceBytes = 1024 },
        }, process.Machine.NowMs)
        {
            Observer = this,
        };
    }

    /// <summary>What its daemon's record calls it; null without a record.</summary>
    public string? Name { get; }

    /// <summary>The state machine.</summary>
    public DeviceLife<SimulatedMemory, TPolicy> Machine { get; }

    public SharedDisk<TPolicy> Disk { get; }

    /// <summary>What outlives the process; null: it ends with that.</summary>
    public KeptDevice<TPolicy>? Kept { get; }

    /// <summary>It goes on with what an earlier process left.</summary>
    public bool IsAdoption { get; }

    /// <summary>What an earlier process had taken is not all answered yet.</summary>
    public bool IsRepeating => IsAdoption && Array.Exists(_users, u => u.IsRepeating);

    public int Backend => Machine.Backend;

    /// <summary>Which life of the backend's entry it is on.</summary>
    public int BackendLife { get; set; }

    /// <summary>How often the entry had been freed by the rules when it was claimed.</summary>
    public int BackendEnds { get; set; }

    public SimulatedProcess<TPolicy> Process => _process;

    public DeviceStage Stage => Machine.Stage;

    public BlkdevState? State => Machine.State;

    public int Blkdev => Machine.Blkdev;

    public ulong Epoch => Machine.Epoch;

    /// <summary>Number of its life in the disk's history.</summary>
    public int Life { get; private set; }

    public IReadOnlyList<SimulatedThread<TPolicy>> Threads { get; private set; } = [];

    public IReadOnlyList<Queue<SimulatedMemory, TPolicy>> Queues => Machine.Queues;

    public IReadOnlyList<DeviceUser<TPolicy>> Users => _users;

    public bool IsOver => _process.IsDead || _isLifeEnded || Machine.IsOver;

    /// <summary>Nothing of it is left for this process to do.</summary>
    public bool IsDone => Machine.IsOver && !IsBusy;

    /// <summary>It has the backend for itself, and not given it back.</summary>
    public bool IsActive => !IsOver && Stage is DeviceStage.Attaching or DeviceStage.Attached or DeviceStage.Serving or DeviceStage.EndingExport or DeviceStage.Closing;

    public bool HasFailed => State?.Failure is not null;

    /// <summary>One of its threads is in the middle of a turn.</summary>
    public bool IsBusy => Threads.Any(t => t.IsRunning);

    public bool IsQuiet => Stage == DeviceStage.Serving && !IsOver && !HasFailed && Array.TrueForAll(_users, u => u.IsIdle);

    /// <summary>Flushes of its users that failed.</summary>
    public int FailedFlushes => _users.Sum(u => u.FailedFlushes);

    public bool HasFlushInFlight => Array.Exists(_users, u => u.HasFlushInFlight);

    public Queue<SimulatedMemory, TPolicy>? QueueOn(int channel) => Array.Find(Machine.Queues, q => q.Channel == channel);

    /// <summary>Believes that it may store into the channel.</summary>
    public bool Uses(int channel) => _process.MayTouchChannels && !Machine.IsOver &&
        (Array.Exists(Machine.Queues, q => q.Channel == channel && q.Phase is not (QueuePhase.Closed or QueuePhase.Lost)) ||
        (Machine.Queues.Length == 0 && Machine.Channels.Any(c => c.Channel == channel)));

    /// <summary>dev-stop.</summary>
    public void Stop(bool force)
    {
        if (!IsOver)
            Machine.BeginStop(force, _process.Machine.NowMs);
    }

    /// <summary>The management thread's part.</summary>
    public void MainTurn()
    {
        if (IsBusy)
            return;
        long now = _process.Machine.NowMs;
        switch (Stage)
        {
            case DeviceStage.New:
                Start(now);
                break;
            case DeviceStage.Attached:
                Run(now);
                break;
            case DeviceStage.Serving:
                // A user who reads the error stops the device, looks at the data, and starts it again.
                if (HasFailed && !_process.IsRejoining && Name is null)
                    Machine.BeginStop(force: false, now);
                break;
            case DeviceStage.EndingExport:
                foreach (DeviceUser<TPolicy> user in _users)
                    user.Forget();
                if (Disk.Device == this && Life > 0)
                    Disk.Forgive();
                Machine.EndServing(now);
                break;
            case DeviceStage.Attaching or DeviceStage.Closing when Machine.Session.Condition.IsFenced:
                Machine.Step(_process.Machine.NowMicroseconds);
                break;
        }
    }

    /// <summary>After the process looked around.</summary>
    public void AfterLook()
    {
        if (State is null || IsOver)
            return;
        CheckBackend();
        if (Disk.Device == this && Disk.IsLossPending)
            LookForLoss();
        ClaimWord word = Machine.BackendWord;
        if (Stage == DeviceStage.Serving && Disk.Device is null && word.State == ClaimState.Active && word.Epoch == State.SessionEpoch)
        {
            // The disk was another backend's for a while, with another device, and has come back to this one.
            Disk.Device = this;
            Life = ++Disk.History.Life;
        }
    }

    /// <summary>The host was cleared: the users read errors from here on.</summary>
    public void Lost()
    {
        if (!Machine.IsOver && _isClaimed)
            EndLife();
    }

    /// <summary>The end of the process.</summary>
    /// <param name="keepsMemory">What another process keeps for it is there.</param>
    public void Die(bool keepsMemory)
    {
        if (keepsMemory && !_isLifeEnded && IsToGoOn)
        {
            Park();
            return;
        }

        // It never was this one's: its own daemon may come yet.
        if (Kept is { IsParked: true })
            return;
        EndLife();
        Release();
    }

    /// <summary>Nobody uses its memory any more.</summary>
    public void Release()
    {
        foreach (DeviceUser<TPolicy> user in _users)
            user.Release();
    }

    /// <summary>A successor takes it up: its start was done, and its stop has not begun.</summary>
    private bool IsToGoOn => Kept is { IsParked: false } kept && kept.Device == this && _users.Length > 0 && kept.Record.Body.State == DeviceRecordState.Serving;

    private void Park()
    {
        _isLifeEnded = true;
        if (Disk.Device == this)
            Disk.Device = null;
        _world.Over(this);
        KeptDevice<TPolicy> kept = Kept!;
        (kept.Life, kept.BackendLife, kept.BackendEnds, kept.Users) = (Life, BackendLife, BackendEnds, _users);
        if (Machine.HasClaim)
            kept.Channels = [.. Machine.Channels.Select(c => (c.Channel, c.Word.Epoch))];
        _world.Parked(kept);
    }

    void IDeviceObserver.EntryClaimed()
    {
        _isClaimed = true;
        if (IsAdoption)
            _world.TakenUp(Kept!, this);
        _world.Claimed(this);
    }

    void IDeviceObserver.ChannelClaimed(int channel, ClaimWord word) => _world.Claimed(this, channel, word);

    void IDeviceObserver.Activated() => _world.Activated(this);

    void IDeviceObserver.Ended() => EndLife();

    private void Start(long now)
    {
        try
        {
            if (Machine.HasToWait(now))
                return;
            Machine.Claim(now);
            if (IsAdoption && !_isClaimed)
            {
                // Its claim is gone: its users get errors.
                _isClaimed = true;
                _world.TakenUp(Kept!, this);
            }

            if (IsAdoption)
                (Life, _users) = (Kept!.Life, Kept.Users);
            Machine.Activate("nbd", now);
        }
        catch (CbdException e)
        {
            Machine.Cancel(e.Message, now);
            throw;
        }
    }

    private void Run(long now)
    {
        if (IsAdoption)
        {
            for (int i = 0; i < _users.Length; i++)
                _users[i].TakeUp(this, Machine.Queues[i]);
        }
        else
        {
            Life = ++Disk.History.Life;
            _users = [.. Machine.Queues.Select((q, i) => new DeviceUser<TPolicy>(_world, this, q, i))];
        }

        Machine.BeginServing(now);
        _world.Running(this);
        Threads = [.. _users.Select(u => new SimulatedThread<TPolicy>(_process, () => UserTurn(u)))];
    }

    /// <summary>As the export's thread and the device below it do it.</summary>
    private void UserTurn(DeviceUser<TPolicy> user)
    {
        if (Stage != DeviceStage.Serving)
            return;
        if (Machine.Session.Condition.IsFenced)
        {
            user.Forget();
            user.Fence();
        }
        else if (!_isLifeEnded)
        {
            user.Turn(_process.Machine.NowMicroseconds);
        }
    }

    private void EndLife()
    {
        if (_isLifeEnded || !_isClaimed)
            return;
        // An adoption that came to nothing, and is tried again.
        if (IsAdoption && Kept!.Record.Body.State == DeviceRecordState.Serving && !_process.IsDead && !Machine.Session.Condition.IsFenced)
        {
            Park();
            return;
        }

        _isLifeEnded = true;
        if (Kept is not null)
            _world.Drop(Kept);
        if (Disk.Device == this || (IsAdoption && Disk.Device is null))
        {
            Disk.Device = null;
            Disk.Forgive();
        }

        foreach (DeviceUser<TPolicy> user in _users)
            user.Forget();
        _world.Over(this);
        if (Life > 0)
            _world.Ended(this, IsAdoption && Machine.Channels.Count == 0 ? Kept!.Channels : [.. Machine.Channels.Select(c => (c.Channel, c.Word.Epoch))]);
    }

    /// <summary>A device that runs is on the disk on which it was started, whatever its backend's entry has become.</summary>
    private void CheckBackend()
    {
        if (HasFailed)
            return;
        foreach (SimulatedSession<TPolicy> session in _world.Sessions)
        {
            if (session.Backend == Backend && session.Epoch == State!.SessionEpoch && (session.Disk != Disk || (Disk.IsInMemory && session.Identity != Machine.Identity)) &&
                session.Life.Session.Geometry.RegionId == Machine.Session.Geometry.RegionId)
                throw new SimulationException($"blkdev {Blkdev} of process {_process.Number} on disk {Disk.Number} goes on with session {session.Epoch} of backend {Backend}, which is disk {session.Disk.Number} ({session.Identity}, was {Machine.Identity})");
        }
    }

    private void LookForLoss()
    {
        if (HasFailed)
            Disk.Forgive();
        else if (Disk.SessionAtLoss != State!.SessionEpoch && Array.TrueForAll(Machine.Queues, q => q.Phase == QueuePhase.Attached) && State.SessionEpoch == Machine.BackendWord.Epoch)
        {
            // A session that the device had not seen when it was lost, too, says nothing yet.
            if (Kept is not null && !_world.Sessions.Any(s => s.Disk == Disk && s.Epoch == State.SessionEpoch && !s.Process.IsDead))
                return;
            if (Kept is not null && Disk.IsOwedAtLoss)
                throw new SimulationException($"blkdev {Blkdev} of process {_process.Number} on disk {Disk.Number} goes on although writes were lost that it had acknowledged");
            Disk.IsLossPending = false;
        }
    }
}
