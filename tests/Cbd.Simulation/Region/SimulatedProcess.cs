using Cbd.Protocol.Backends;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;
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

internal enum ProcessStage
{
    Booting,
    Formatting,
    Registering,
    Up,
    Leaving,
    Gone,
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
/// One life of a daemon: registers its host, beats, clears the dead, runs its backends and devices, and does what the
/// operator asks, through the protocol code of the product. What the daemon does around it is done here in its order.
/// </summary>
internal sealed class SimulatedProcess<TPolicy> : IHostLocks
    where TPolicy : struct, IProtocolPolicy
{
    private readonly World<TPolicy> _world;
    private readonly bool _format;
    private readonly Queue<Action<SimulatedProcess<TPolicy>>> _commands = new();
    private readonly List<SimulatedSession<TPolicy>> _sessions = [];
    private readonly List<SimulatedDevice<TPolicy>> _devices = [];
    private HostIdentity _identity;
    private Formatter<SimulatedMemory, TPolicy>? _formatter;
    private HostRegistration<SimulatedMemory, TPolicy>? _registration;
    private LivenessTracker<SimulatedMemory, TPolicy>? _tracker;
    private long _nextBeatMs;
    private long _nextSampleMs;
    private long _nextStep;
    private long _leaveLimitMs;

    public SimulatedProcess(World<TPolicy> world, int slot, int number, Machine machine, string name, bool format)
    {
        _world = world;
        Name = name;
        _format = format;
        Slot = slot;
        Number = number;
        Machine = machine;
        Memory = new SimulatedMemory(world.Region, number, access => world.BeforeAccess(this, access));
        Main = new SimulatedThread<TPolicy>(this, MainTurn);
        _identity = null!;
    }

    public int Slot { get; }

    public string Name { get; }

    /// <summary>Never used by another life.</summary>
    public int Number { get; }

    public Machine Machine { get; }

    public SimulatedMemory Memory { get; }

    public SimulatedThread<TPolicy> Main { get; }

    public RegionGeometry Geometry { get; private set; } = null!;

    public ProcessStage Stage { get; private set; } = ProcessStage.Booting;

    public bool IsDead { get; private set; }

    public long PausedUntil { get; set; }

    /// <summary>Inside a step of clearing another host.</summary>
    public bool IsClearing { get; private set; }

    public HostClaim<SimulatedMemory, TPolicy>? Host { get; private set; }

    public Clearing<SimulatedMemory, TPolicy>? Clearing { get; private set; }

    public BackendRegistry<SimulatedMemory, TPolicy> Backends { get; private set; } = null!;

    public BlkdevRegistry<SimulatedMemory, TPolicy> Blkdevs { get; private set; } = null!;

    public LivenessTracker<SimulatedMemory, TPolicy> Tracker => _tracker!;

    public IReadOnlyList<SimulatedSession<TPolicy>> Sessions => _sessions;

    public IReadOnlyList<SimulatedDevice<TPolicy>> Devices => _devices;

    public bool IsUp => Stage == ProcessStage.Up && !IsDead;

    /// <summary>It may store into the region: neither dead nor fenced.</summary>
    public bool MayStore => !IsDead && Stage is ProcessStage.Up or ProcessStage.Leaving;

    public bool CanRun => !IsDead && PausedUntil <= _world.Region.Now && !Machine.IsSuspended;

    public int PendingCommands => _commands.Count;

    public IEnumerable<SimulatedThread<TPolicy>> Threads => _devices.SelectMany(d => d.Threads).Prepend(Main);

    public void Ask(Action<SimulatedProcess<TPolicy>> command) => _commands.Enqueue(command);

    /// <summary>SIGKILL, or the end of its machine. What it stored is on its way; nothing more comes.</summary>
    public void Die()
    {
        IsDead = true;
        foreach (SimulatedDevice<TPolicy> device in _devices)
            device.Die();
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
        if (Stage != ProcessStage.Up)
            return;
        foreach (SimulatedDevice<TPolicy> device in _devices)
            device.Stop(force: true);
        _leaveLimitMs = Machine.NowMs + 4 * World<TPolicy>.DeadMs;
        Stage = ProcessStage.Leaving;
    }

    public SimulatedSession<TPolicy> StartBackend(SharedDisk<TPolicy> disk, int? wanted, bool fenced)
    {
        var session = new SimulatedSession<TPolicy>(_world, this, disk, wanted, fenced);
        _sessions.Add(session);
        return session;
    }

    public void StartDevice(SharedDisk<TPolicy> disk, int backend)
    {
        var device = new SimulatedDevice<TPolicy>(_world, this, disk, backend);
        _devices.Add(device);
        device.Start();
    }

    /// <summary>The entry of this host, claimed or on the way, is this process's.</summary>
    public bool Holds(int host) => !IsDead && Machine.LockedBy(host) == this;

    /// <summary>One step of host-clear.</summary>
    public ClearResult Clear(int host, ClearAuthority authority)
    {
        IsClearing = true;
        ClearResult result = Clearing!.Step(host, authority, Machine.NowMs);
        IsClearing = false;
        return result;
    }

    private void MainTurn()
    {
        switch (Stage)
        {
            case ProcessStage.Booting:
                Boot();
                break;
            case ProcessStage.Formatting:
                Format();
                break;
            case ProcessStage.Registering:
                Register();
                break;
            case ProcessStage.Up:
                if (_commands.TryDequeue(out Action<SimulatedProcess<TPolicy>>? command))
                    Do(command);
                KeepHouse();
                TurnAll();
                break;
            case ProcessStage.Leaving:
                FinishLeaving();
                break;
        }
    }

    private void Do(Action<SimulatedProcess<TPolicy>> command)
    {
        try
        {
            command(this);
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
        _identity = new HostIdentity
        {
            Name = Name,
            BootId = Machine.BootId,
            HostUuid = Machine.HostUuid,
            Device = 5,
            Inode = 77,
            Pid = Number,
            BeatMs = World<TPolicy>.BeatMs,
            DeadMs = World<TPolicy>.DeadMs,
        };
        try
        {
            if (_format)
                throw new CbdException(CbdErrorKind.Corrupt, "to be formatted");
            Geometry = TransportInfo.Read(Memory, Memory.SizeBytes).Geometry;
        }
        catch (CbdException)
        {
            _formatter = new Formatter<SimulatedMemory, TPolicy>(Memory, _world.NewInfo(), _identity, this, force: true);
            Stage = ProcessStage.Formatting;
            return;
        }

        _tracker = new LivenessTracker<SimulatedMemory, TPolicy>(Memory, Geometry, _identity, this);
        Clearing = new Clearing<SimulatedMemory, TPolicy>(Memory, Geometry, _tracker);
        _registration = new HostRegistration<SimulatedMemory, TPolicy>(Memory, Geometry, _identity, this, _tracker, Clearing);
        Stage = ProcessStage.Registering;
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
            _formatter = null;
            _world.Exit(this);
        }
        catch (CbdException e)
        {
            _world.Trace($"process {Number}: format: {e.Message}");
            _world.Exit(this);
        }
    }

    private void Register()
    {
        if (_world.Region.Now < _nextStep)
            return;
        _nextStep = _world.Region.Now + 1000;
        IsClearing = true;
        try
        {
            if (_registration!.Step(Machine.NowMs) != StepResult.Done)
                return;
        }
        catch (CbdException e)
        {
            _world.Trace($"process {Number}: register: {e.Message}");
            _world.Exit(this);
            return;
        }
        finally
        {
            IsClearing = false;
        }

        Host = _registration.Claim!;
        Backends = new BackendRegistry<SimulatedMemory, TPolicy>(Memory, Host, _tracker!);
        Blkdevs = new BlkdevRegistry<SimulatedMemory, TPolicy>(Memory, Host, _tracker!);
        Stage = ProcessStage.Up;
        _world.Registered(this, Name);
    }

    private void KeepHouse()
    {
        long now = Machine.NowMs;
        if (now >= _nextBeatMs)
        {
            _nextBeatMs = now + World<TPolicy>.BeatMs;
            if (!Host!.Beat())
            {
                Fence();
                return;
            }

            foreach (SimulatedSession<TPolicy> session in _sessions)
                session.Beat();
            foreach (SimulatedDevice<TPolicy> device in _devices)
                device.Beat();
            IsClearing = true;
            Clearing!.Sweep(now);
            IsClearing = false;
        }

        if (now >= _nextSampleMs)
        {
            _nextSampleMs = now + World<TPolicy>.BeatMs / 2;
            IsClearing = true;
            Clearing!.ClearDeadHosts(now);
            IsClearing = false;
        }

        foreach (SimulatedDevice<TPolicy> device in _devices)
            device.Watch();
    }

    private void TurnAll()
    {
        for (int i = _sessions.Count - 1; i >= 0 && Stage != ProcessStage.Gone; i--)
        {
            _sessions[i].Turn();
            if (_sessions[i].Stage == SessionStage.Over)
                _sessions.RemoveAt(i);
        }

        for (int i = _devices.Count - 1; i >= 0 && Stage != ProcessStage.Gone; i--)
        {
            _devices[i].MainTurn();
            if (_devices[i].IsOver && !_devices[i].IsBusy)
                _devices.RemoveAt(i);
        }
    }

    /// <summary>This host was cleared by another: nothing is stored any more; the process registers anew.</summary>
    private void Fence()
    {
        _world.Trace($"process {Number}: host {Host!.Host} was cleared");
        foreach (SimulatedDevice<TPolicy> device in _devices)
            device.Fence();
        foreach (SimulatedSession<TPolicy> session in _sessions)
            session.Abandon();
        _world.Exit(this);
    }

    private void FinishLeaving()
    {
        KeepHouseWhileLeaving();
        if (Stage == ProcessStage.Gone)
            return;
        TurnAll();
        if (_devices.Count > 0)
            return;
        foreach (SimulatedSession<TPolicy> session in _sessions)
        {
            if (session.Stage != SessionStage.Draining)
                session.Stop(force: true);
        }

        if (_sessions.Count > 0)
        {
            // A disk that does not finish: the end of the process is what the others wait for.
            if (Machine.NowMs > _leaveLimitMs)
                _world.Exit(this);
            return;
        }

        IsClearing = true;
        bool done = Host!.Leave(Clearing!, Machine.NowMs) == StepResult.Done || Machine.NowMs > _leaveLimitMs;
        IsClearing = false;
        if (done)
            _world.Exit(this);
    }

    private void KeepHouseWhileLeaving()
    {
        // The daemon beats until everything of this host has stopped.
        if (_devices.Count > 0 || _sessions.Count > 0)
            KeepHouse();
    }

    /// <summary>Called by the world when the process ends by itself.</summary>
    public void MarkGone() => Stage = ProcessStage.Gone;
}
