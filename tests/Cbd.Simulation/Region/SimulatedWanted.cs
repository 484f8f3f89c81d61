using Cbd.Blocks;
using Cbd.Host.Devices;
using Cbd.Host.Wanted;
using Cbd.Protocol;

namespace Cbd.Simulation.Region;

/// <summary>
/// Drives the record of one life of a daemon, as its reconciler and its verbs do. What is recorded when, what is due, and what it leads to is
/// the code of Cbd.Host.
/// </summary>
internal sealed class SimulatedWanted<TPolicy> : IRecordMedium
    where TPolicy : struct, IProtocolPolicy
{
    private const string Region = "/region";
    private const int PatienceMs = 5;

    /// <summary>Longest time for which a record cannot be written.</summary>
    private const int FullMicroseconds = 60_000;

    private readonly World<TPolicy> _world;
    private readonly SimulatedProcess<TPolicy> _process;
    private readonly RecordMedium _medium;
    private readonly WantedRecord<TPolicy> _record;
    private readonly RetryPauses _pauses = new(2, 40, 5);
    private readonly List<Attempt> _attempts = [];
    private readonly List<Stop> _stops = [];
    private readonly Dictionary<int, SimulatedDevice<TPolicy>> _devices = [];
    private bool _isRegionConfirmed;

    /// <summary>A start that goes on.</summary>
    /// <param name="Number">Of its entry.</param>
    /// <param name="IsNew">The record has only the intent.</param>
    /// <param name="IsVerb">An operator waits for the answer.</param>
    private sealed record Attempt(int Number, bool IsNew, bool IsVerb, SimulatedSession<TPolicy>? Session, SimulatedDevice<TPolicy>? Device, OfferedBackend On, long LimitMs);

    private sealed record Stop(IReadOnlyList<int> Numbers, Func<bool> IsOver)
    {
        /// <summary>Once it is over: something was stopped. If not, it is tried again.</summary>
        public Func<bool> HasEffect { get; init; } = static () => true;

        /// <summary>What an operator had asked to stop; null for a stop of an earlier life.</summary>
        public string? Name { get; init; }
    }

    /// <summary>Reads the record, and writes it as it is from now on.</summary>
    public SimulatedWanted(World<TPolicy> world, SimulatedProcess<TPolicy> process, RecordMedium medium)
    {
        _world = world;
        _process = process;
        _medium = medium;
        bool holds = !world.IsCalming && world.Chance(world.Scenario.Hold);
        _record = new WantedRecord<TPolicy>(this, [.. medium.Entries.Select(e => holds && e.Transport is null ? e with { Held = "not now" } : e)]);
        foreach (StateEntry entry in _record.Entries.Where(e => e.Failed is not null))
            Watch.Failed(process.Slot, NameOf(entry));
        foreach (StateEntry entry in _record.Entries.Where(e => e.Held is not null))
            Watch.Hold(process.Slot, NameOf(entry), isHeld: true);
        _record.Keep();
    }

    private RecordWatch<TPolicy> Watch => _world.Records!;

    private int Slot => _process.Slot;

    private StateEntry? Transport => _record.Entries.FirstOrDefault(e => e.Transport is not null);

    private Guid? ExpectedRegion => _isRegionConfirmed || Transport?.Transport is not { } wanted ? null
        : WantedRules<TPolicy>.ExpectRegion(wanted, _process.Machine.BootId, isVolatile: true);

    /// <summary>It was told to format an empty region, or has no region yet.</summary>
    public bool MayFormat => ExpectedRegion is null;

    /// <summary>An operator has to confirm the region.</summary>
    public bool IsBlocked => Transport is { IsPending: true, IsBlocked: true };

    public IReadOnlyList<StateEntry> Entries => _record.Entries;

    void IRecordMedium.Write(IReadOnlyList<StateEntry> entries)
    {
        DieAtTimes();
        if (!_world.IsCalming && _world.Chance(_world.Scenario.RecordFull))
            _medium.FullUntil = _world.Region.Now + _world.Random.Next(1, FullMicroseconds);
        if (!_world.IsCalming && _world.Region.Now < _medium.FullUntil)
            throw new CbdException(CbdErrorKind.Exhausted, "no space");
        _medium.Write(entries, _process.Machine.Identity);
        DieAtTimes();
    }

    /// <summary>tp-reg by hand: the region that is there is the one.</summary>
    public void ConfirmRegion() => _isRegionConfirmed = true;

    /// <summary>Throws if the record wants another region than the one that is there.</summary>
    public void CheckRegion(Guid found)
    {
        try
        {
            WantedRules<TPolicy>.CheckRegion(ExpectedRegion, found, Region, _process.Name);
        }
        catch (CbdException e)
        {
            _record.Refuse(Transport!.Number, e);
            throw;
        }
    }

    /// <summary>The host is registered.</summary>
    public void Registered(Guid region)
    {
        Watch.Registered(_process, _medium, region, _isRegionConfirmed || Transport is null);
        int number = Transport?.Number ?? BeginTransport();
        StateEntry entry = _record.Find(number)!;
        var started = WantedRules<TPolicy>.Started(entry) with { Intent = null, Transport = entry.Transport! with { Uuid = region, BootId = _process.Machine.BootId } };
        if (entry.IsPending)
            _record.Confirm(number, started);
        else
            ConfirmTransport(number, started);
        if (!_record.IsDirty)
            Watch.RecordedRegion(_process, region);
    }

    private int BeginTransport()
    {
        try
        {
            return _record.BeginStart(new StateEntry { Transport = new TransportEntry { Region = Region, Host = _process.Name } });
        }
        catch (CbdException)
        {
            throw GiveUp();
        }
    }

    private void ConfirmTransport(int number, StateEntry started)
    {
        try
        {
            _record.ConfirmStart(number, started);
        }
        catch (CbdException)
        {
            throw GiveUp();
        }
    }

    /// <summary>The registration cannot be recorded, and is over.</summary>
    private CrashException GiveUp()
    {
        _world.Kill(_process);
        return new CrashException();
    }

    /// <summary>One turn of the reconciler, and of the verbs that wait.</summary>
    public void Turn()
    {
        foreach (Attempt attempt in _attempts.ToArray())
            Follow(attempt);
        foreach (Stop stop in _stops.ToArray())
            Follow(stop);
        NoteFailures();
        long now = _process.Machine.NowMs;
        if (now < _pauses.NextMs)
            return;
        foreach (StateEntry stop in _record.Entries.Where(WantedRules<TPolicy>.IsToFinish).ToArray())
            FinishStop(stop);
        foreach (int number in _record.Entries.Where(WantedRules<TPolicy>.IsDue).Select(e => e.Number).ToArray())
            Try(number);
        _pauses.Passed(_record.Entries.Count(e => WantedRules<TPolicy>.IsDue(e) || WantedRules<TPolicy>.IsToFinish(e)), _record.IsDirty, now);
    }

    /// <summary>An earlier life died while it stopped a backend.</summary>
    private void FinishStop(StateEntry stop)
    {
        if (_stops.Exists(s => s.Numbers.Contains(stop.Number)))
            return;
        string name = NameOf(stop);
        switch (WantedRules<TPolicy>.FindStopStep(stop, Offered()))
        {
            case StopStep.Over:
                _record.EndStop([stop.Number]);
                break;
            case StopStep.Refused:
                Watch.Asked(Slot, name, DiskOf(stop));
                Watch.Open(Slot, name);
                _record.CancelStop([stop.Number]);
                if (!_record.IsDirty)
                    Watch.Answered(Slot, name);
                break;
            default:
                BeginToFinish(stop);
                break;
        }
    }

    /// <summary>It is taken over, under no name, and stopped.</summary>
    private void BeginToFinish(StateEntry stop)
    {
        try
        {
            OfferedBackend? left = WantedRules<TPolicy>.FindLeft(stop.Backend!, Offered());
            string path = left?.Path ?? stop.Backend!.Path;
            SharedDisk<TPolicy> disk = Watch.OpenPath(_process.Machine, path);
            SimulatedSession<TPolicy> session = _process.StartBackend(disk, left?.Id, fenced: false, isConfirmed: false, name: null, path);
            if (stop.Backend!.DiskIdentity is { } wanted && wanted != session.Identity)
            {
                session.Abandon();
                return;
            }

            bool isStopped = false;
            _stops.Add(new Stop([stop.Number], () =>
            {
                if (session.IsServing && !isStopped)
                {
                    isStopped = true;
                    session.Stop(force: true);
                }

                return session.IsOver;
            })
            { HasEffect = () => isStopped });
        }
        catch (CbdException e)
        {
            _record.SetReason(stop.Number, e.Message);
        }
    }

    /// <summary>backend-start.</summary>
    public void StartBackend(SharedDisk<TPolicy> disk)
    {
        if (Watch.PathOf(_process.Machine, disk) is not { } path)
            return;
        string name = $"b{disk.Number}";
        Start(name, disk.Number, new StateEntry
        {
            // A link is given without a name: the record finds the thing by its path or disk.
            Backend = new BackendEntry { Region = Region, BackendId = -1, Name = path.StartsWith("/links", StringComparison.Ordinal) ? null : name, Path = path, Handlers = 1, ReadOnly = false, Engine = "direct" },
        });
    }

    /// <summary>dev-start.</summary>
    public void StartDevice(string name, SharedDisk<TPolicy> disk)
    {
        OfferedBackend on = Offered().FirstOrDefault(b => b.Identity == disk.Identity, new OfferedBackend(-1, "", "", false));
        if (on.Id < 0)
            throw new CbdException(CbdErrorKind.NotFound, $"disk {disk.Number} is no backend");
        Start(name, disk.Number, new StateEntry
        {
            Device = new DeviceEntry { Region = Region, BlkdevId = -1, Name = name, BackendId = on.Id, BackendPath = on.Path, DiskIdentity = on.Identity, Insecure = false, ReadOnly = false },
        });
    }

    /// <summary>backend-stop or dev-stop of one thing, whether it is there or not.</summary>
    public void StopThing(StateEntry entry, bool force)
    {
        if (_record.Find(entry.Number) is not { Intent: null } found || _attempts.Exists(a => a.Number == entry.Number))
            return;
        string name = NameOf(found);
        if (found.IsPending)
        {
            // Where it cannot be written, both are right.
            Watch.Open(Slot, name);
            _record.Forget(e => e.Number == found.Number);
            Watch.Remove(Slot, name);
            return;
        }

        SimulatedSession<TPolicy>? session = found.Backend is null ? null : SessionOf(name);
        SimulatedDevice<TPolicy>? device = _devices.GetValueOrDefault(found.Number);
        Watch.Open(Slot, name);
        IReadOnlyList<int> numbers = _record.BeginStop(e => e.Number == found.Number, force);
        if (!_record.IsDirty)
            Watch.Remove(Slot, name);
        try
        {
            session?.Stop(force);
            device?.Stop(force);
        }
        catch (CbdException)
        {
            Watch.Asked(Slot, name, DiskOf(found));
            Watch.Open(Slot, name);
            _record.CancelStop(numbers);
            if (!_record.IsDirty)
                Watch.Answered(Slot, name);
            throw;
        }

        _stops.Add(new Stop(numbers, () => session?.IsOver ?? device?.IsOver ?? true) { Name = name });
    }

    /// <summary>The daemon has it, and it works.</summary>
    public bool Has(string name) => _record.Entries.Any(e => e is { IsPending: false, Intent: null } && e.Transport is null && NameOf(e) == name &&
        (e.Backend is not null ? SessionOf(name) is { IsServing: true } : _devices.GetValueOrDefault(e.Number) is { Stage: DeviceStage.Serving, HasFailed: false }));

    /// <summary>What the world calls it.</summary>
    public static string NameOf(StateEntry entry) => entry.Device?.Name ?? (entry.Backend is null ? "" : entry.Backend.Name ?? $"b{DiskOf(entry)}");

    /// <summary>Number of the disk that it was recorded on, or is wanted on.</summary>
    public static int DiskOf(StateEntry entry) =>
        (entry.Device?.DiskIdentity ?? entry.Backend?.DiskIdentity ?? entry.Backend?.Name ?? entry.Backend?.Path ?? "9")[^1] - '0';

    private void Start(string name, int disk, StateEntry wanted)
    {
        if (_record.Match(wanted, isRun: false, _ => false) is { } known)
        {
            if (!known.IsPending && Has(NameOf(known)))
            {
                _record.Claim(known.Number, wanted, isRun: false);
                return;
            }

            if (!known.IsPending)
                _record.SetPending(known.Number);
            Begin(_record.Find(known.Number)!, isNew: false, isVerb: true, wanted);
            return;
        }

        if (_record.Entries.Any(e => e.Transport is null && !WantedRules<TPolicy>.IsToFinish(e) && NameOf(e) == name))
            throw new CbdException(CbdErrorKind.Busy, $"'{name}' is taken");
        int number = _record.BeginStart(wanted);
        Watch.Asked(Slot, name, disk);
        try
        {
            Begin(_record.Find(number)!, isNew: true, isVerb: true, wanted);
        }
        catch (CbdException)
        {
            Watch.Remove(Slot, name);
            _record.DropStart(number);
            throw;
        }
    }

    private void Try(int number)
    {
        StateEntry entry = _record.Find(number)!;
        if (entry.Transport is not null)
            return;
        try
        {
            Begin(entry, isNew: false, isVerb: false, entry);
        }
        catch (CbdException e) when (_record.Find(number) is not null)
        {
            if (_record.Refuse(number, e))
                _world.Trace($"process {_process.Number}: not restored: {entry}: {e.Message}");
            if (e is FailedThingException && !_record.IsDirty)
                Watch.Failed(Slot, NameOf(entry));
        }
    }

    private void Begin(StateEntry entry, bool isNew, bool isVerb, StateEntry wanted)
    {
        if (!_record.TryBeginAttempt(entry.Number))
        {
            if (isVerb)
                throw new CbdException(CbdErrorKind.Busy, $"{entry} is being started");
            return;
        }

        try
        {
            if (isVerb)
                Watch.Hold(Slot, NameOf(entry), isHeld: false);
            else
                BeginRestore(entry);
            _attempts.Add(entry.Backend is null ? BeginDevice(entry, isNew, isVerb, wanted.Device!) : BeginBackend(entry, isNew, isVerb, wanted.Backend!.Path));
        }
        catch
        {
            _record.EndAttempt(entry.Number);
            throw;
        }
    }

    private void BeginRestore(StateEntry entry)
    {
        _record.BeginRestore(entry.Number);
        if (_record.Find(entry.Number)!.Deaths > WantedRecord<TPolicy>.MostDeaths)
            throw new SimulationException($"process {_process.Number} starts '{NameOf(entry)}' again, of which its daemon has died {WantedRecord<TPolicy>.MostDeaths} times in a row");
        if (_world.IsCalming || !Watch.IsDeadly(Slot, NameOf(entry)))
            return;
        _world.Trace($"process {_process.Number} dies of '{NameOf(entry)}'");
        _world.Kill(_process);
        throw new CrashException();
    }

    private Attempt BeginBackend(StateEntry entry, bool isNew, bool isVerb, string path)
    {
        OfferedBackend? left = isVerb ? null : WantedRules<TPolicy>.FindLeft(entry.Backend!, Offered());
        path = left?.Path ?? path;
        SharedDisk<TPolicy> disk = Watch.OpenPath(_process.Machine, path);
        SimulatedSession<TPolicy> session = _process.StartBackend(disk, left?.Id, fenced: false, isConfirmed: isVerb, isVerb ? $"b{disk.Number}" : NameOf(entry), path);
        try
        {
            if (!isVerb)
                WantedRules<TPolicy>.CheckDisk(entry.Backend!.DiskIdentity, new DiskIdentity(session.Identity), path, left?.Id);
        }
        catch (CbdException)
        {
            session.Abandon();
            throw;
        }

        return new Attempt(entry.Number, isNew, isVerb, session, null, default, _process.Machine.NowMs + PatienceMs);
    }

    private Attempt BeginDevice(StateEntry entry, bool isNew, bool isVerb, DeviceEntry wanted)
    {
        OfferedBackend on = isVerb ? Offered().FirstOrDefault(b => b.Id == wanted.BackendId) : WantedRules<TPolicy>.FindBackend(wanted, Offered());
        SharedDisk<TPolicy> disk = _world.Disks.FirstOrDefault(d => d.Identity == on.Identity) ?? throw new CbdException(CbdErrorKind.NotFound, $"backend {on.Id} cannot be read");
        SimulatedDevice<TPolicy> device = _process.StartDevice(disk, on.Id, entry.Device!.Name);
        return new Attempt(entry.Number, isNew, isVerb, null, device, on, _process.Machine.NowMs + PatienceMs);
    }

    private void Follow(Attempt attempt)
    {
        bool isUp = attempt.Session is { } session ? session.IsServing || session.IsHeld : attempt.Device!.Stage is DeviceStage.Serving;
        bool isOver = attempt.Session?.IsOver ?? attempt.Device!.IsOver;
        if (!isUp && !isOver)
        {
            // One that waits for others is not what the daemon may die of.
            if (!attempt.IsVerb && _process.Machine.NowMs > attempt.LimitMs)
                _record.EndRestore(attempt.Number);
            return;
        }

        _attempts.Remove(attempt);
        _record.EndAttempt(attempt.Number);
        if (!isUp)
        {
            Refuse(attempt);
            return;
        }

        Confirm(attempt);
        _pauses.Told(_process.Machine.NowMs);
    }

    private void Confirm(Attempt attempt)
    {
        if (_record.Find(attempt.Number) is not { } entry)
        {
            TakeBack(attempt);
            return;
        }

        string name = NameOf(entry);
        StateEntry started = WantedRules<TPolicy>.Started(entry) with { Intent = null, Held = null, IsUnclaimed = !attempt.IsVerb };
        started = attempt.Session is { } session
            ? started with { Backend = entry.Backend! with { BackendId = session.Backend, Path = session.Path!, DiskIdentity = WantedRules<TPolicy>.Lasting(session.Identity) ?? entry.Backend.DiskIdentity } }
            : started with { Device = entry.Device! with { BlkdevId = attempt.Device!.Blkdev, BackendId = attempt.On.Id, BackendPath = attempt.On.Path, DiskIdentity = attempt.On.Identity } };
        if (attempt.Device is { } device)
            _devices[attempt.Number] = device;
        if (attempt.IsNew)
        {
            Watch.Open(Slot, name);
            try
            {
                _record.ConfirmStart(attempt.Number, started);
            }
            catch (CbdException)
            {
                TakeBack(attempt);
                _record.DropStart(attempt.Number);
                Watch.Remove(Slot, name);
                throw;
            }

            Watch.Answered(Slot, name);
        }
        else if (!_record.Confirm(attempt.Number, started))
        {
            TakeBack(attempt);
        }
    }

    private void Refuse(Attempt attempt)
    {
        if (_record.Find(attempt.Number) is not { } entry)
            return;
        if (attempt.IsNew)
        {
            Watch.Remove(Slot, NameOf(entry));
            _record.DropStart(attempt.Number);
        }
        else if (_record.Refuse(attempt.Number, attempt.Session?.Trouble ?? new CbdException(CbdErrorKind.TimedOut, "it did not start in time")))
        {
            _world.Trace($"process {_process.Number}: not restored: {entry}: {attempt.Session?.Trouble?.Message}");
        }
    }

    private static void TakeBack(Attempt attempt)
    {
        attempt.Session?.Stop(force: true);
        attempt.Device?.Stop(force: true);
    }

    private void Follow(Stop stop)
    {
        if (!stop.IsOver())
            return;
        _stops.Remove(stop);
        if (stop.HasEffect())
        {
            // If it throws, the operator learns that the thing may return.
            _record.EndStop(stop.Numbers);
            if (stop.Name is { } name)
                Watch.Remove(Slot, name);
        }

        _pauses.Told(_process.Machine.NowMs);
    }

    /// <summary>As the thread of a device does it: what failed for good is recorded.</summary>
    private void NoteFailures()
    {
        foreach ((int number, SimulatedDevice<TPolicy> device) in _devices)
        {
            if (!device.HasFailed || _record.Find(number) is not { Failed: null, Device.Name: { } name })
                continue;
            _record.SetFailed(name, device.State!.Failure!);
            if (!_record.IsDirty)
                Watch.Failed(Slot, name);
        }
    }

    private IReadOnlyList<OfferedBackend> Offered() =>
        [.. _process.Session.Backends.List().Select(b => new OfferedBackend(b.Backend, b.Body?.Path ?? "", b.Body?.Identity ?? "", b.Liveness == Cbd.Protocol.Hosts.Liveness.Alive, b.Blkdevs.Count > 0, b.Body?.IsStopped ?? false))];

    private SimulatedSession<TPolicy>? SessionOf(string name) => _process.Sessions.FirstOrDefault(s => s.Name == name && (!s.IsOver || s.IsHeld));

    /// <summary>A process may die before and after what it writes.</summary>
    private void DieAtTimes()
    {
        if (_world.IsCalming || !_world.Chance(_world.Scenario.RecordCrash))
            return;
        _world.Kill(_process);
        throw new CrashException();
    }
}
