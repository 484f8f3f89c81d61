using Cbd.Blocks;
using Cbd.Host.Devices;
using Cbd.Host.Wanted;
using Cbd.Protocol;

namespace Cbd.Simulation.Region;

/// <summary>
/// Drives the record of one life of a daemon, as its reconciler and its verbs do. What is recorded when, what is due, and what it leads to is
/// the code of Cbd.Host.
/// </summary>
internal sealed partial class SimulatedWanted<TPolicy> : IRecordMedium
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

    /// <summary>The daemon has it, and it works.</summary>
    public bool Has(string name) => _record.Entries.Any(e => e is { IsPending: false, Intent: null } && e.Transport is null && NameOf(e) == name &&
        (e.Backend is not null ? SessionOf(name) is { IsServing: true } : _devices.GetValueOrDefault(e.Number) is { Stage: DeviceStage.Serving, HasFailed: false }));

    /// <summary>What the world calls it.</summary>
    public static string NameOf(StateEntry entry) => entry.Device?.Name ?? (entry.Backend is null ? "" : entry.Backend.Name ?? $"b{DiskOf(entry)}");

    /// <summary>Number of the disk that it was recorded on, or is wanted on.</summary>
    public static int DiskOf(StateEntry entry) =>
        (entry.Device?.DiskIdentity ?? entry.Backend?.DiskIdentity) is { } identity ? SharedDisk<TPolicy>.NumberOf(identity)
        : (entry.Backend?.Name ?? entry.Backend?.Path ?? "9")[^1] - '0';

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
