using Cbd.Host.Backends;
using Cbd.Host.Devices;
using Cbd.Memory;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;

namespace Cbd.Host.Sessions;

/// <summary>How far the registration of this host on a region has come.</summary>
internal enum MembershipStage
{
    /// <summary>It claims an entry.</summary>
    Registering = 0,

    /// <summary>There is a session.</summary>
    Up,

    /// <summary>The claim was cleared by another host: what was under it ends storing.</summary>
    Quieting,

    /// <summary>What is left of the old claim is given back.</summary>
    EndingOldClaim,

    /// <summary>This host leaves: its devices and backends stop, then its entry is given back.</summary>
    Leaving,

    Gone,
}

/// <summary>
/// This host on one region, from the first registration to leaving, over any number of sessions: a host that was asleep, or
/// cut off, and was cleared by others registers anew by itself. A state machine without threads, clocks and waiting; one
/// thread at a time.
/// </summary>
internal sealed class Membership<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    private readonly string _name;
    private readonly TMemory _memory;
    private readonly RegionGeometry _geometry;
    private readonly HostIdentity _identity;
    private readonly IHostLocks _locks;
    private readonly HostTimes _times;
    private readonly Func<SessionCondition> _newCondition;
    private readonly LifeCycle _life;
    private readonly List<DeviceLife<TMemory, TPolicy>> _lostDevices = [];
    private HostRegistration<TMemory, TPolicy>? _registration;
    private HostSession<TMemory, TPolicy>? _session;
    private long _limitMs;

    /// <param name="name">What messages call it: "transport 0".</param>
    /// <param name="memory">The region.</param>
    /// <param name="geometry">Its validated geometry.</param>
    /// <param name="identity">Who registers.</param>
    /// <param name="locks">The locks of the region's file.</param>
    /// <param name="times">How long is waited for what.</param>
    /// <param name="newCondition">Makes the condition of a session.</param>
    /// <param name="nowMs">This host's monotonic clock.</param>
    public Membership(
        string name, TMemory memory, RegionGeometry geometry, HostIdentity identity, IHostLocks locks, HostTimes times, Func<SessionCondition> newCondition, long nowMs)
    {
        _name = name;
        _memory = memory;
        _geometry = geometry;
        _identity = identity;
        _locks = locks;
        _times = times;
        _newCondition = newCondition;
        _life = new LifeCycle(nowMs);
        Tracker = new LivenessTracker<TMemory, TPolicy>(memory, geometry, identity, locks);
        Clearing = new Clearing<TMemory, TPolicy>(memory, geometry, Tracker);
    }

    public RegionGeometry Geometry => _geometry;

    public LivenessTracker<TMemory, TPolicy> Tracker { get; }

    public Clearing<TMemory, TPolicy> Clearing { get; }

    public MembershipStage Stage { get; private set; }

    /// <summary>Where it stands. Any thread.</summary>
    public LifeStatus Status => _life.Status;

    /// <summary>The present session, or the last one while there is none. Throws before the first.</summary>
    public HostSession<TMemory, TPolicy> Session => _session ?? throw new InvalidOperationException("this host has not registered yet");

    public bool HasSession => _session is not null;

    /// <summary>See <see cref="HostSession{TMemory, TPolicy}.KeepsLife"/>: for all sessions.</summary>
    public Func<ulong, bool>? KeepsLife
    {
        get;
        set
        {
            field = value;
            _session?.KeepsLife = value;
        }
    }

    /// <summary>Devices of sessions that were cleared: they answer with EIO until they are stopped.</summary>
    public IReadOnlyList<DeviceLife<TMemory, TPolicy>> LostDevices => _lostDevices;

    /// <summary>One step of the first registration. Throws if it cannot be.</summary>
    public StepResult StepRegister(long nowMs)
    {
        _life.Go(LifeState.Starting, "it registers", nowMs);
        return Register(nowMs);
    }

    /// <summary>Gives up a registration that is not done.</summary>
    public void CancelRegistration()
    {
        _registration?.Cancel();
        _registration = null;
    }

    /// <summary>The heartbeat. False if the entry is not this host's any more: call <see cref="Lose"/> then.</summary>
    public bool Beat(long nowMs) => Session.Beat(nowMs);

    /// <summary>The session has failed. If it was cleared, this host may register anew: see <see cref="StepRejoin"/>.</summary>
    public bool Lose(string why, bool cleared, long nowMs)
    {
        if (!Session.Fail(why, cleared, nowMs))
            return false;
        if (cleared && Stage == MembershipStage.Up)
            Stage = MembershipStage.Quieting;
        if (_life.State != LifeState.Stopping)
            _life.Go(cleared ? LifeState.Waiting : LifeState.Failed, why, nowMs);
        return true;
    }

    /// <summary>A step towards the next session failed for now, or one of the things it waits for does not end.</summary>
    public void NoteTrouble(string why, bool forGood, long nowMs)
    {
        if (_life.State == LifeState.Waiting)
            _life.Go(forGood ? LifeState.Failed : LifeState.Waiting, why, nowMs);
    }

    /// <summary>
    /// One step towards the next session after this host was cleared: all of the old one stops storing; what is left of
    /// the old claim is given back; another entry is claimed. Disks stay open, and locked. Done when there is a new session.
    /// </summary>
    public StepResult StepRejoin(long nowMs)
    {
        if (Stage == MembershipStage.Quieting)
        {
            if (TPolicy.QuietBeforeRejoin && !IsQuiet())
                return StepResult.Again;
            _lostDevices.AddRange(Session.OwnDevices.Where(d => !d.IsOver));
            _limitMs = nowMs + _times.RejoinMs;
            Stage = MembershipStage.EndingOldClaim;
        }

        if (Stage == MembershipStage.EndingOldClaim)
        {
            // What is left of the old claim, in quarantine perhaps: this process knows best that it stores there no more.
            if (Session.Claim.Leave(Clearing, nowMs) == StepResult.Again && nowMs < _limitMs)
                return StepResult.Again;
            Session.Claim.GiveUp();
            Tracker.OwnHost = -1;
            Tracker.OwnHostHasStopped = false;
            Stage = MembershipStage.Registering;
        }

        return Stage switch
        {
            MembershipStage.Registering => Register(nowMs),
            MembershipStage.Up => StepResult.Done,
            // This host is being left.
            _ => StepResult.Again,
        };
    }

    /// <summary>A device that was stopped is not listed any more.</summary>
    public void Forget(DeviceLife<TMemory, TPolicy> device)
    {
        _lostDevices.Remove(device);
        device.Session.Remove(device);
    }

    /// <summary>Leaving begins. The driver ends what <see cref="StepStop"/> tells to stop.</summary>
    public void BeginLeave(long nowMs)
    {
        if (Stage is MembershipStage.Leaving or MembershipStage.Gone)
            return;
        CancelRegistration();
        Stage = MembershipStage.Leaving;
        _life.Go(LifeState.Stopping, "its devices and backends stop", nowMs);
    }

    /// <summary>
    /// One step of stopping all that is left: devices first, then backends. Goes on beating meanwhile. Done when nothing
    /// but what was abandoned is left.
    /// </summary>
    public StepResult StepStop(long nowMs)
    {
        bool done = true;
        _limitMs = nowMs + _times.LeaveMs;
        foreach (DeviceLife<TMemory, TPolicy> device in Session.OwnDevices.Concat(_lostDevices))
        {
            device.BeginStop(force: true, nowMs);
            done &= device.IsOver;
        }

        if (!done)
            return StepResult.Again;
        foreach (BackendLife<TMemory, TPolicy> backend in Session.OwnBackends)
        {
            backend.BeginStop(force: true, leaves: true, nowMs);
            done &= backend.IsOver;
        }

        return done ? StepResult.Done : StepResult.Again;
    }

    /// <summary>
    /// One step of giving the entry back, after <see cref="StepStop"/> was done and no heartbeat is stored any more. What
    /// another host does not let go of in time is left to be cleared.
    /// </summary>
    public StepResult StepLeave(long nowMs)
    {
        if (TPolicy.StopBeforeLeave && !IsAllOver())
            return StepResult.Again;
        if (Session.OwnBackends.Any(b => b.Stage == BackendStage.Abandoned))
        {
            // Threads still use the mapping, and the entries are not free: the end of this process is what others wait for.
            Stage = MembershipStage.Gone;
        }
        else if (Session.Condition.IsFenced)
        {
            Session.Claim.GiveUp();
            Stage = MembershipStage.Gone;
        }
        else if (Session.Claim.Leave(Clearing, nowMs) == StepResult.Done)
        {
            Session.AnnounceChange();
            Stage = MembershipStage.Gone;
        }
        else if (nowMs > _limitMs)
        {
            IsEntryLeft = true;
            Stage = MembershipStage.Gone;
        }

        if (Stage != MembershipStage.Gone)
            return StepResult.Again;
        _life.Go(LifeState.Gone, "", nowMs);
        return StepResult.Done;
    }

    /// <summary>Another host did not let go of a channel in time: the entry is left to be cleared.</summary>
    public bool IsEntryLeft { get; private set; }

    private StepResult Register(long nowMs)
    {
        _registration ??= new HostRegistration<TMemory, TPolicy>(_memory, _geometry, _identity, _locks, Tracker, Clearing);
        try
        {
            if (_registration.Step(nowMs) == StepResult.Again)
                return StepResult.Again;
        }
        catch (CbdException)
        {
            _registration = null;
            throw;
        }

        _session = new HostSession<TMemory, TPolicy>(_name, _lostDevices, _memory, _registration.Claim!, Tracker, Clearing, _newCondition(), _times) { KeepsLife = KeepsLife };
        _registration = null;
        Stage = MembershipStage.Up;
        _life.Go(LifeState.Running, "", nowMs);
        return StepResult.Done;
    }

    private bool IsAllOver() =>
        Session.OwnBackends.All(b => b.IsOver) && Session.OwnDevices.All(d => d.IsOver) && _lostDevices.TrueForAll(d => d.IsOver);

    private bool IsQuiet()
    {
        foreach (BackendLife<TMemory, TPolicy> backend in Session.OwnBackends)
        {
            if (!backend.IsQuiet)
                return false;
        }

        foreach (DeviceLife<TMemory, TPolicy> device in Session.OwnDevices)
        {
            if (!device.IsQuiet)
                return false;
        }

        return true;
    }
}
