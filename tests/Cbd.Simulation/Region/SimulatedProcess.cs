using Cbd.Host.Backends;
using Cbd.Host.Devices;
using Cbd.Host.Sessions;
using Cbd.Host.Wanted;
using Cbd.Memory;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Protocol.Records;
using Cbd.Protocol.Transports;

namespace Cbd.Simulation.Region;

/// <summary>A process is killed here: thrown out of an access to the region.</summary>
internal sealed class CrashException : Exception
{
    public CrashException()
        : base("the process was killed")
    {
    }

    public CrashException(string message)
        : base(message)
    {
    }

    public CrashException(string message, Exception inner)
        : base(message, inner)
    {
    }
}

/// <summary>Something that the scheduler runs by itself: a process's housekeeping and handlers, or one of its queues.</summary>
internal sealed class SimulatedThread<TPolicy>(SimulatedProcess<TPolicy> process, Action turn)
    where TPolicy : struct, IProtocolPolicy
{
    public SimulatedProcess<TPolicy> Process => process;

    public bool IsRunning { get; set; }

    /// <summary>The kernel does not run it until then; other threads of its process go on.</summary>
    public long StalledUntil { get; set; }

    public void Turn() => turn();
}

/// <summary>
/// One life of a daemon, as its threads drive it: when the membership is stepped, when it beats and looks around, and what
/// the operator asks. All that is decided is the code of Cbd.Host.
/// </summary>
internal sealed class SimulatedProcess<TPolicy> : IHostLocks
    where TPolicy : struct, IProtocolPolicy
{
    private readonly World<TPolicy> _world;
    private readonly bool _format;
    private readonly RecordMedium? _medium;
    private readonly Queue<Action<SimulatedProcess<TPolicy>>> _commands = new();
    private readonly List<SimulatedSession<TPolicy>> _sessions = [];
    private readonly List<SimulatedDevice<TPolicy>> _devices = [];
    private readonly HostIdentity _identity;
    private Formatter<SimulatedMemory, TPolicy>? _formatter;
    private Membership<SimulatedMemory, TPolicy>? _membership;
    private long _nextBeatMs;
    private long _nextSampleMs;
    private long _nextStep;
    private long _leaveLimitMs;
    private (int Host, ulong Epoch) _freed = (-1, 0);
    private bool _hasSeenOthers;

    public SimulatedProcess(World<TPolicy> world, int slot, int number, Machine machine, string name, bool format, RecordMedium? medium = null, Guid? hostUuid = null)
    {
        _world = world;
        Name = name;
        _format = format;
        _medium = medium;
        Slot = slot;
        Number = number;
        Machine = machine;
        Memory = new SimulatedMemory(world.Region, number, access => world.BeforeAccess(this, access));
        Main = new SimulatedThread<TPolicy>(this, MainTurn);
        _identity = new HostIdentity
        {
            Name = name,
            BootId = machine.BootId,
            HostUuid = medium?.HostUuid ?? hostUuid ?? machine.HostUuid,
            Device = 5,
            Inode = 77,
            Pid = number,
            BeatMs = World<TPolicy>.BeatMs,
            DeadMs = World<TPolicy>.DeadMs,
        };
    }

    public int Slot { get; }

    public string Name { get; }

    /// <summary>Never used by another life.</summary>
    public int Number { get; }

    public Machine Machine { get; }

    public SimulatedMemory Memory { get; }

    public SimulatedThread<TPolicy> Main { get; }

    /// <summary>What it wants, with a record; null without one, or before it is read.</summary>
    public SimulatedWanted<TPolicy>? Wanted { get; private set; }

    public Guid HostUuid => _identity.HostUuid;

    public RegionGeometry Geometry => _membership!.Geometry;

    public bool IsDead { get; private set; }

    /// <summary>When it last published its body.</summary>
    public long LastBeat { get; private set; }

    /// <summary>It has ended by itself.</summary>
    public bool IsGone { get; private set; }

    public long PausedUntil { get; set; }

    /// <summary>Inside a step of clearing another host.</summary>
    public bool IsClearing { get; private set; }

    public bool IsFormatting => _formatter is not null;

    public bool IsLeaving => !IsGone && _membership is { Stage: MembershipStage.Leaving };

    /// <summary>Its host was cleared, and has no new claim yet.</summary>
    public bool IsRejoining => _membership is { HasSession: true, Stage: MembershipStage.Quieting or MembershipStage.EndingOldClaim or MembershipStage.Registering };

    public HostSession<SimulatedMemory, TPolicy> Session => _membership!.Session;

    public HostClaim<SimulatedMemory, TPolicy>? Host => _membership is { HasSession: true } ? _membership.Session.Claim : null;

    public IReadOnlyList<SimulatedSession<TPolicy>> Sessions => _sessions;

    public IReadOnlyList<SimulatedDevice<TPolicy>> Devices => _devices;

    public bool IsUp => !IsDead && _membership is { Stage: MembershipStage.Up };

    /// <summary>It has a claim of its own: neither dead nor fenced.</summary>
    public bool MayStore => !IsDead && !IsGone && _membership is { Stage: MembershipStage.Up or MembershipStage.Leaving } && (Host!.Host, Host.Epoch) != _freed;

    /// <summary>Threads of it may still believe that channels are theirs.</summary>
    public bool MayTouchChannels => !IsDead && !IsGone && _membership is { HasSession: true };

    public bool CanRun => !IsDead && PausedUntil <= _world.Region.Now && !Machine.IsSuspended;

    public int PendingCommands => _commands.Count;

    public IEnumerable<SimulatedThread<TPolicy>> Threads => _devices.SelectMany(d => d.Threads).Prepend(Main);

    public string Describe() => _formatter is not null ? "formatting" : _membership?.Stage.ToString() ?? "booting";

    /// <summary>It has freed its entry: it stores no more, however long it stands still before it ends.</summary>
    public void Freed(int host, ulong epoch) => _freed = (host, epoch);

    public void Ask(Action<SimulatedProcess<TPolicy>> command) => _commands.Enqueue(command);

    /// <summary>SIGKILL, or the end of its machine. What it stored is on its way; nothing more comes.</summary>
    /// <param name="keepsMemory">What another process keeps for it is there.</param>
    public void Die(bool keepsMemory = true)
    {
        IsDead = true;
        foreach (SimulatedDevice<TPolicy> device in _devices)
            device.Die(keepsMemory);
        foreach (SimulatedSession<TPolicy> session in _sessions)
            session.Abandon();
        Machine.ReleaseLocksOf(this);
    }

    bool IHostLocks.TryLock(int host) => Machine.TryLock(host, this);

    void IHostLocks.Unlock(int host) => Machine.Unlock(host, this);

    bool IHostLocks.IsHeld(int host, ulong device, ulong inode) => Machine.IsLocked(host);

    /// <summary>tp-unreg: stops what is there, then leaves.</summary>
    public void Leave()
    {
        if (!IsUp)
            return;
        _leaveLimitMs = Machine.NowMs + 4 * World<TPolicy>.DeadMs;
        _membership!.BeginLeave(Machine.NowMs);
    }

    public SimulatedSession<TPolicy> StartBackend(SharedDisk<TPolicy> disk, int? wanted, bool fenced, bool isConfirmed = true, string? name = null, string? path = null)
    {
        Session.CheckUsable();
        var session = new SimulatedSession<TPolicy>(_world, this, disk, new BackendWish(wanted, fenced, IsConfirmed: isConfirmed)) { Name = name, Path = path };
        _sessions.Add(session);
        return session;
    }

    public SimulatedDevice<TPolicy> StartDevice(SharedDisk<TPolicy> disk, int backend, string? name = null, string? identity = null)
    {
        Session.CheckUsable();
        SimulatedDevice<TPolicy> device;
        if (_world.Scenario.Keep > 0 && _world.Chance(_world.Scenario.Keep))
        {
            KeptDevice<TPolicy> kept = _world.Keep(this, disk, backend, SimulatedDevice<TPolicy>.QueueCount);
            device = new SimulatedDevice<TPolicy>(_world, this, disk, backend, kept.Loss, name, identity, kept);
        }
        else
        {
            device = new SimulatedDevice<TPolicy>(_world, this, disk, backend, _world.NextLossPolicy(), name, identity);
        }

        _devices.Add(device);
        return device;
    }

    /// <summary>Goes on with what an earlier process left, as the descriptors that it is given say.</summary>
    public void TakeUp(KeptDevice<TPolicy> kept)
    {
        Session.CheckUsable();
        var record = DeviceRecord.Open(kept.Memory);
        _devices.Add(new SimulatedDevice<TPolicy>(_world, this, kept.Disk, record.Body.BackendId, kept.Loss, kept: kept, record: record));
    }

    /// <summary>The entry of this host, claimed or on the way, is this process's.</summary>
    public bool Holds(int host) => !IsDead && Machine.LockedBy(host) == this;

    /// <summary>One step of host-clear.</summary>
    public ClearResult Clear(int host, ClearAuthority authority)
    {
        IsClearing = true;
        ClearResult result = _membership!.Clearing.Step(host, authority, Machine.NowMs);
        IsClearing = false;
        return result;
    }

    /// <summary>Called by the world when the process ends by itself.</summary>
    public void MarkGone() => IsGone = true;

    private void MainTurn()
    {
        if (_formatter is not null)
            Format();
        else if (_membership is null)
            Boot();
        else if (IsUp)
            Work();
        else if (IsLeaving)
            FinishLeaving();
        else if (IsRejoining)
            Rejoin();
        else
            Register();
    }

    private void Work()
    {
        if (_commands.TryDequeue(out Action<SimulatedProcess<TPolicy>>? command))
            Do(() => command(this));
        if (Wanted is not null)
            Do(Wanted.Turn);
        if (_world.KeptDevices.Count > 0)
            TakeUpWhatIsKept();
        KeepHouse();
        if (IsUp)
            TurnAll();
    }

    private void TakeUpWhatIsKept()
    {
        foreach (KeptDevice<TPolicy> kept in _world.KeptDevices.ToArray())
        {
            if (!kept.IsParked || _world.Region.Now < kept.NextTry || _devices.Exists(d => d.Kept == kept))
                continue;
            // Now and then it is given the descriptors of another daemon.
            if (kept.Slot != Slot && (_world.IsCalming || _hasSeenOthers || !_world.Chance(0.3)))
                continue;
            _hasSeenOthers |= kept.Slot != Slot;
            kept.NextTry = _world.Region.Now + 500;
            Do(() => TakeUp(kept));
        }
    }

    private void Do(Action command)
    {
        try
        {
            command();
        }
        catch (CbdException e)
        {
            // Refused: the operator reads why, and does something else.
            _world.Trace($"process {Number}: {e.Message}");
        }
    }

    private void Boot()
    {
        if (_world.Region.Now < _nextStep)
            return;
        if (_medium is not null && Wanted is null)
        {
            if (WantedRules<TPolicy>.FindForeign(Machine.Identity, _medium.Writer) is { } foreign)
            {
                _world.Trace($"process {Number}: its record is another machine's: {foreign}");
                _world.Exit(this);
                return;
            }

            Wanted = new SimulatedWanted<TPolicy>(_world, this, _medium);
        }

        try
        {
            if (_format)
                throw new CbdException(CbdErrorKind.Corrupt, "to be formatted");
            RegionGeometry geometry = TransportInfo.Read(Memory, Memory.SizeBytes).Geometry;
            Wanted?.CheckRegion(geometry.RegionId);
            _membership = new Membership<SimulatedMemory, TPolicy>("transport 0", Memory, geometry, _identity, this, World<TPolicy>.Times, () => new SessionCondition(), Machine.NowMs);
            if (_world.Scenario.Keep > 0)
                _membership.KeepsLife = life => _world.KeepsLife(Slot, life);
        }
        catch (CbdException e) when (e is OtherRegionException || (Wanted is { MayFormat: false } && !_format))
        {
            // It waits for the region that was there, or for an operator.
            _nextStep = _world.Region.Now + 2000;
        }
        catch (CbdException)
        {
            _formatter = new Formatter<SimulatedMemory, TPolicy>(Memory, _world.NewInfo(), _identity, this, force: true);
        }
    }

    private void Format()
    {
        if (_world.Region.Now < _nextStep)
            return;
        _nextStep = _world.Region.Now + 2000;
        try
        {
            if (_formatter!.Step(Machine.NowMs) != StepResult.Done)
                return;
            _world.Formatted(this);
        }
        catch (CbdException e)
        {
            _world.Trace($"process {Number}: format: {e.Message}");
        }

        _world.Exit(this);
    }

    private void Register()
    {
        if (_world.Region.Now < _nextStep)
            return;
        _nextStep = _world.Region.Now + 1000;
        IsClearing = true;
        try
        {
            if (_membership!.StepRegister(Machine.NowMs) != StepResult.Done)
                return;
        }
        catch (CbdException e)
        {
            _world.Trace($"process {Number}: register: {e.Message}");
            // Only an entry that became another's is of that kind.
            if (e.Kind == CbdErrorKind.Failed)
                _world.StraySeen = _world.Region.Now;
            _world.Exit(this);
            return;
        }
        finally
        {
            IsClearing = false;
        }

        _world.Registered(this, Name);
        Wanted?.Registered(Geometry.RegionId);
    }

    private void KeepHouse()
    {
        long now = Machine.NowMs;
        if (now >= _nextBeatMs)
        {
            _nextBeatMs = now + World<TPolicy>.BeatMs;
            IsClearing = true;
            bool isOurs = _membership!.Beat(now);
            IsClearing = false;
            LastBeat = _world.Region.Now;
            if (!isOurs)
            {
                Lose(now);
                return;
            }
        }

        bool sample = now >= _nextSampleMs;
        if (sample)
            _nextSampleMs = now + World<TPolicy>.BeatMs / 2;
        IsClearing = sample;
        Session.Look(sample, Machine.NowMicroseconds);
        IsClearing = false;
        foreach (SimulatedDevice<TPolicy> device in _devices)
            device.AfterLook();
    }

    /// <summary>This host was cleared by another: nothing is stored any more under the old claim.</summary>
    private void Lose(long now)
    {
        _world.Trace($"process {Number}: host {Host!.Host} was cleared");
        _membership!.Lose("this host was cleared by another", cleared: true, now);
        foreach (SimulatedDevice<TPolicy> device in _devices)
            device.Lost();
    }

    private void TurnAll()
    {
        foreach (SimulatedSession<TPolicy> session in _sessions.ToArray())
            session.Turn();
        _sessions.RemoveAll(s => s.IsOver && !s.IsHeld);
        foreach (SimulatedDevice<TPolicy> device in _devices.ToArray())
            Do(device.MainTurn);
        foreach (SimulatedDevice<TPolicy> device in _devices)
        {
            if (!device.IsDone)
                continue;
            _membership!.Forget(device.Machine);
            device.Release();
        }

        _devices.RemoveAll(d => d.IsDone);
    }

    private void Rejoin()
    {
        TurnAll();
        if (_world.Region.Now < _nextStep)
            return;
        _nextStep = _world.Region.Now + 1000;
        IsClearing = true;
        try
        {
            if (_membership!.StepRejoin(Machine.NowMs) != StepResult.Done)
                return;
        }
        catch (CbdException e)
        {
            // Another has the name, say: tried again, until an operator reads it and ends the process.
            _world.Trace($"process {Number}: register anew: {e.Message}");
            if (_world.IsCalming)
                _world.LeaveSoon(this);
            return;
        }
        finally
        {
            IsClearing = false;
        }

        _world.Registered(this, Name);
        foreach (SimulatedSession<TPolicy> held in _sessions.Where(s => s.IsHeld).ToArray())
        {
            _sessions.Add(new SimulatedSession<TPolicy>(_world, this, held.Disk, held.Life.WishAnew, held) { Name = held.Name, Path = held.Path });
            held.PassOn();
            _sessions.Remove(held);
        }
    }

    private void FinishLeaving()
    {
        long now = Machine.NowMs;
        bool done = _membership!.StepStop(now) == StepResult.Done;
        if (!done)
        {
            // The daemon beats until everything of this host has stopped.
            KeepHouse();
            if (!IsLeaving)
                return;
            TurnAll();
        }

        IsClearing = true;
        // A disk that does not finish: the end of the process is what the others wait for.
        if (_membership.StepLeave(now) == StepResult.Done || now > _leaveLimitMs)
        {
            IsClearing = false;
            _world.Exit(this);
        }

        IsClearing = false;
    }
}
