using Cbd.Blocks;
using Cbd.Host.Devices;
using Cbd.Host.Wanted;

namespace Cbd.Simulation.Region;

/// <summary>Starts, of verbs and of the reconciler.</summary>
internal sealed partial class SimulatedWanted<TPolicy>
{
    /// <summary>A start that goes on.</summary>
    /// <param name="Number">Of its entry.</param>
    /// <param name="IsNew">The record has only the intent.</param>
    /// <param name="IsVerb">An operator waits for the answer.</param>
    private sealed record Attempt(int Number, bool IsNew, bool IsVerb, SimulatedSession<TPolicy>? Session, SimulatedDevice<TPolicy>? Device, OfferedBackend On, long LimitMs);

    /// <summary>backend-start.</summary>
    /// <param name="disk">Its disk.</param>
    /// <param name="confirmed">With -b: the entry whose disk it is, as the operator says; null without.</param>
    public void StartBackend(SharedDisk<TPolicy> disk, int? confirmed = null)
    {
        if (Watch.PathOf(_process.Machine, disk) is not { } path)
            return;
        string name = $"b{disk.Number}";
        Start(name, disk.Number, new StateEntry
        {
            // A link is given without a name: the record finds the thing by its path or disk.
            Backend = new BackendEntry { Region = Region, BackendId = -1, Name = path.StartsWith("/links", StringComparison.Ordinal) ? null : name, Path = path, Handlers = 1, ReadOnly = false, Engine = "direct" },
        }, confirmed);
    }

    /// <summary>dev-start.</summary>
    public void StartDevice(string name, SharedDisk<TPolicy> disk)
    {
        OfferedBackend on = Offered().FirstOrDefault(b => SharedDisk<TPolicy>.NumberOf(b.Identity) == disk.Number, new OfferedBackend(-1, "", "", false));
        if (on.Id < 0)
            throw new CbdException(CbdErrorKind.NotFound, $"disk {disk.Number} is no backend");
        Start(name, disk.Number, new StateEntry
        {
            Device = new DeviceEntry { Region = Region, BlkdevId = -1, Name = name, BackendId = on.Id, BackendPath = on.Path, DiskIdentity = on.Identity, Insecure = false, ReadOnly = false },
        });
    }

    private void Start(string name, int disk, StateEntry wanted, int? confirmed = null)
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
            Begin(_record.Find(known.Number)!, isNew: false, isVerb: true, wanted, confirmed);
            return;
        }

        if (_record.Entries.Any(e => e.Transport is null && !WantedRules<TPolicy>.IsToFinish(e) && NameOf(e) == name))
            throw new CbdException(CbdErrorKind.Busy, $"'{name}' is taken");
        int number = _record.BeginStart(wanted);
        Watch.Asked(Slot, name, disk);
        try
        {
            Begin(_record.Find(number)!, isNew: true, isVerb: true, wanted, confirmed);
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

    private void Begin(StateEntry entry, bool isNew, bool isVerb, StateEntry wanted, int? confirmed = null)
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
            _attempts.Add(entry.Backend is null ? BeginDevice(entry, isNew, isVerb, wanted.Device!) : BeginBackend(entry, isNew, isVerb, wanted.Backend!.Path, confirmed));
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

    private Attempt BeginBackend(StateEntry entry, bool isNew, bool isVerb, string path, int? confirmed)
    {
        OfferedBackend? left = isVerb ? null : WantedRules<TPolicy>.FindLeft(entry.Backend!, Offered());
        path = left?.Path ?? path;
        SharedDisk<TPolicy> disk = Watch.OpenPath(_process.Machine, path);
        SimulatedSession<TPolicy> session = _process.StartBackend(disk, isVerb ? confirmed : left?.Id, fenced: false, isConfirmed: isVerb, isVerb ? $"b{disk.Number}" : NameOf(entry), path);
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
        SharedDisk<TPolicy> disk = _world.Disks.FirstOrDefault(d => d.Number == SharedDisk<TPolicy>.NumberOf(on.Identity ?? "")) ?? throw new CbdException(CbdErrorKind.NotFound, $"backend {on.Id} cannot be read");
        SimulatedDevice<TPolicy> device = _process.StartDevice(disk, on.Id, entry.Device!.Name, on.Identity);
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
}
