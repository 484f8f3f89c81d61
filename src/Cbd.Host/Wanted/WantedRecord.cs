using Cbd.Memory;

namespace Cbd.Host.Wanted;

/// <summary>
/// What is to be running: what this run has started, and what an earlier run had and this one could not start yet (pending). A
/// disk that is missing today is not forgotten. On the medium with every change. A state machine without threads and clocks; one
/// thread at a time.
/// </summary>
/// <remarks>
/// Intent comes before effect, and effect before confirmation. A start is recorded as <see cref="StateIntent.Starting"/>, done,
/// then confirmed. A stop is recorded as <see cref="StateIntent.Stopping"/>, done, then removed. Who finds a start in the record of
/// a daemon that died drops it: it was not answered. A stop is finished: a device and a transport are gone with their daemon, and what
/// is left of a backend is for <see cref="WantedRules{TPolicy}.FindStopStep"/>.
/// </remarks>
internal sealed class WantedRecord<TPolicy>
    where TPolicy : struct, IProtocolPolicy
{
    /// <summary>What was being started when the daemon died this often, one time after the other, is not started again.</summary>
    public const int MostDeaths = 3;

    /// <summary>The same of what an earlier process served already: its users lose it then, and somebody may have ended the daemon on purpose.</summary>
    public const int MostDeathsOfKept = 10;

    private static readonly string s_deadly = $"the daemon died {MostDeaths} times in a row while it started this";

    private readonly IRecordMedium _medium;
    private readonly List<StateEntry> _entries = [];
    private readonly HashSet<int> _beingTried = [];

    /// <summary>What this run has tried to start from the record.</summary>
    private readonly HashSet<int> _tried = [];
    private int _lastNumber;

    /// <param name="medium">Where it is kept.</param>
    /// <param name="loaded">What is there.</param>
    public WantedRecord(IRecordMedium medium, IReadOnlyList<StateEntry> loaded)
    {
        _medium = medium;
        foreach (StateEntry entry in loaded)
        {
            bool isStop = entry.Intent == StateIntent.Stopping && TPolicy.FinishStops;
            if ((entry.Intent == StateIntent.Starting && TPolicy.UndoStarts) || (isStop && entry.Backend is null))
                continue;
            string? failed = entry.Failed ?? (TPolicy.GiveUpDeadly && !isStop && entry.Deaths >= MostDeaths ? s_deadly : null);
            _entries.Add(entry with { Number = ++_lastNumber, Intent = isStop ? StateIntent.Stopping : null, IsCut = isStop, Forced = isStop ? entry.Forced : null, IsPending = true, Failed = TPolicy.KeepFailed ? failed : null });
        }
    }

    /// <summary>What is wanted, in the order of the first start.</summary>
    public IReadOnlyList<StateEntry> Entries => _entries;

    /// <summary>A change is not on the medium yet.</summary>
    public bool IsDirty { get; private set; }

    /// <summary>Why a change that was made all the same could not be written; null when everything is on the medium.</summary>
    public string? Trouble { get; private set; }

    /// <summary>The entry with a number, as it is now; null if it is wanted no more.</summary>
    public StateEntry? Find(int number) => _entries.Find(entry => entry.Number == number);

    /// <summary>Writes it down as it is, with the machine that it is on now.</summary>
    public void Keep() => TrySave();

    /// <summary>
    /// The thing of the record that a start asks for again: one that is not there yet, or one that this run has started by itself.
    /// Null if there is none. Throws Busy if it is not the same thing under that name, and Failed if it failed for good.
    /// </summary>
    /// <param name="wanted">What is asked for.</param>
    /// <param name="isRun">A <c>--run</c> line asks, which may ask for what is there.</param>
    /// <param name="isClaimed">Whether such a line has had that entry already.</param>
    /// <param name="caller">Who asks; null: root or the daemon's user. Throws Denied if what has that name or path is wanted by another one.</param>
    /// <param name="isSameFile">Whether two paths lead to one file or device now; null: nobody can tell.</param>
    public StateEntry? Match(StateEntry wanted, bool isRun, Predicate<int> isClaimed, Caller? caller = null, Func<string, string, bool>? isSameFile = null)
    {
        StateEntry? named = wanted.Device?.Name is { } device ? _entries.Find(entry => entry.Device?.Name == device)
            : wanted.Backend?.Name is { } backend ? _entries.Find(entry => entry.Backend?.Name == backend && entry.Region == wanted.Region)
            : null;
        // Of like things, one that this caller asked for comes first.
        StateEntry? found = named ?? _entries.Where(entry => IsFree(entry) && SameThing.Matches(entry, wanted, isRun) && SameThing.MayHave(entry, caller))
            .MinBy(entry => SameThing.CallerOf(entry)?.UserId == caller?.UserId ? 0 : 1);
        // What is away under another name, or for another user, keeps its disk and its region.
        StateEntry? rival = found ?? _entries.Find(entry => entry is { IsPending: true, Intent: null } && SameThing.IsOneQueue(entry, wanted));
        if (rival is not null && (rival == found ? IsFree(rival) : !isRun || !isClaimed(rival.Number)))
            SameThing.CheckCaller(rival, caller);
        if (rival is not null && rival != found && (!isRun || !isClaimed(rival.Number)))
            SameThing.Check(rival, wanted, isSameFile);
        if (found is null || !IsFree(found))
            return null;
        if (found.Failed is { } failure)
            throw new FailedThingException($"{found} has failed: {failure}: {(found.Device is null ? "" : "check the data, ")}stop it with {found.StopVerb}, then start it");
        SameThing.Check(found, wanted, isSameFile);
        return found;

        bool IsFree(StateEntry entry) => entry.Intent is null &&
            // What a line has had, and is not there any more, is not for the next line like it.
            (entry.IsPending ? !isRun || !isClaimed(entry.Number) : !isClaimed(entry.Number) && (entry.IsUnclaimed || isRun));
    }

    /// <summary>
    /// The thing that a start asks for, if a verb is starting or stopping it just now: it has one queue, and who comes second waits. Null
    /// if there is none. Throws Busy if it is not the same thing under that name.
    /// </summary>
    public StateEntry? FindUnderWay(StateEntry wanted)
    {
        StateEntry? found = _entries.Find(entry => entry is { Intent: not null, IsPending: false } && SameThing.IsOneQueue(entry, wanted));
        if (found is { Intent: StateIntent.Starting })
            SameThing.Check(found, wanted);
        return found;
    }

    /// <summary>What was started from the record is what a start asks for, with its other options from the next start on.</summary>
    /// <returns>What runs with options that were not asked for; null if it has none.</returns>
    public StateEntry? Claim(int number, StateEntry wanted, bool isRun)
    {
        int place = PlaceOf(number);
        if (place < 0)
            return null;
        StateEntry before = _entries[place];
        StateEntry now = SameThing.WithOptions(before, wanted);
        _entries[place] = now with { IsUnclaimed = false, FromRun = before.FromRun == true && isRun ? true : null };
        if (_entries[place] with { IsUnclaimed = before.IsUnclaimed } != before)
            TrySave();
        return now != before ? before : null;
    }

    /// <summary>Only one tries to start a thing at a time. With true, <see cref="EndAttempt"/> is called.</summary>
    public bool TryBeginAttempt(int number) => _beingTried.Add(number);

    /// <summary>The next one may try.</summary>
    public void EndAttempt(int number) => _beingTried.Remove(number);

    /// <summary>Something is about to be started. Throws, and nothing is to be started, if that cannot be recorded.</summary>
    /// <returns>The number of its entry.</returns>
    public int BeginStart(StateEntry wanted)
    {
        StateEntry entry = wanted with { Number = ++_lastNumber, Intent = StateIntent.Starting };
        _entries.Add(entry);
        try
        {
            Save();
        }
        catch (CbdException e)
        {
            _entries.Remove(entry);
            throw new CbdException(e.Kind, $"nothing is started, because it cannot be recorded: {e.Message}{(e.Kind == CbdErrorKind.Exhausted ? "" : ": make the state directory writable, or start cbdd with another --state-dir")}", e);
        }

        return entry.Number;
    }

    /// <summary>The start came to nothing.</summary>
    public void DropStart(int number)
    {
        // If this cannot be written, the next life drops it.
        if (_entries.RemoveAll(entry => entry.Number == number) > 0)
            TrySave();
    }

    /// <summary>
    /// It was started. False if it is wanted no more, because its transport was left meanwhile: it is to be stopped again then. So it is if
    /// this throws, because it cannot be recorded, or because its disk is wanted under another name or by another user.
    /// </summary>
    public bool ConfirmStart(int number, StateEntry started)
    {
        int own = PlaceOf(number);
        if (own < 0)
            return false;
        if (_entries.Find(entry => IsTwin(entry, started with { Number = number }) && !MayReplace(entry, started)) is { } twin)
            throw new CbdException(CbdErrorKind.Busy, $"{twin} is on the same disk, and is wanted: start it under that name, or stop it first ({twin.StopVerb})");
        StateEntry[] before = [.. _entries];
        _entries[own] = started with { Number = number, Failed = before[own].Failed };
        DropTwins(_entries[own]);
        if (TPolicy.AnswerOnlyRecorded)
            SaveOrReturnTo(before);
        else
            TrySave();
        return true;
    }

    /// <summary>
    /// What is pending is about to be tried. If the daemon dies too often at the first try of a run, it is not tried again.
    /// </summary>
    public void BeginRestore(int number)
    {
        if (_tried.Add(number))
            Change(number, entry => entry with { Deaths = (entry.Deaths ?? 0) + 1 });
    }

    /// <summary>A device that an earlier process served is tried more often before it is given up.</summary>
    public void TryKeptAgain(string device)
    {
        string? region = _entries.Find(entry => entry.Device?.Name == device)?.Region;
        for (int i = 0; i < _entries.Count; i++)
        {
            StateEntry entry = _entries[i];
            // Without its transport it cannot come.
            if (entry.Failed == s_deadly && entry.Deaths < MostDeathsOfKept && (entry.Device?.Name == device || (entry.Transport is not null && entry.Region == region)))
                _entries[i] = entry with { Failed = null };
        }
    }

    /// <summary>The daemon has outlived the try.</summary>
    public void EndRestore(int number) => Change(number, entry => entry with { Deaths = null });

    /// <summary>
    /// What was pending was started; false if it is wanted no more, and is to be stopped again.
    /// </summary>
    public bool Confirm(int number, StateEntry started)
    {
        int place = _entries.FindIndex(entry => entry.Number == number && entry is { IsPending: true, Intent: null });
        if (place < 0)
            return false;
        if (started.Backend is { } now && _entries[place].Backend is { } before)
            MoveDevices(before, now);
        _entries[place] = started with { Number = number, Failed = _entries[place].Failed };
        DropTwins(_entries[place]);
        TrySave();
        return true;
    }

    /// <summary>A try of what is pending came to nothing. True if that is to be said: it is another reason than before.</summary>
    public bool Refuse(int number, Exception why)
    {
        EndRestore(number);
        if (why is FailedThingException && Find(number)?.Device?.Name is { } name)
        {
            SetFailed(name, why.Message);
            return true;
        }

        return SetReason(number, why.Message, isBlocked: why is OtherRegionException);
    }

    /// <summary>Why something that is pending could not be started. True if that is another reason than before.</summary>
    /// <param name="number">Its number.</param>
    /// <param name="reason">In one line.</param>
    /// <param name="isBlocked">It does not pass by itself.</param>
    public bool SetReason(int number, string reason, bool isBlocked = false)
    {
        int place = _entries.FindIndex(entry => entry.Number == number && entry.IsPending);
        if (place < 0)
            return false;
        bool isNew = _entries[place].Reason != reason;
        _entries[place] = _entries[place] with { Reason = reason, IsBlocked = isBlocked };
        return isNew;
    }

    /// <summary>A device failed for good: no restart starts it again.</summary>
    public void SetFailed(string device, string reason)
    {
        int place = _entries.FindIndex(entry => entry.Device?.Name == device);
        if (place < 0 || _entries[place].Failed is not null)
            return;
        _entries[place] = _entries[place] with { Failed = reason };
        TrySave();
    }

    /// <summary>What is pending is wanted no more; false if there is nothing of the kind. A stop that is to be finished goes on.</summary>
    public bool Forget(Predicate<StateEntry> which)
    {
        StateEntry[] before = [.. _entries];
        if (_entries.RemoveAll(entry => entry.IsPending && (entry.Intent is null || entry.Failed is not null) && which(entry)) == 0)
            return _entries.Exists(entry => entry.IsPending && which(entry));
        SaveOrReturnTo(before);
        return true;
    }

    /// <summary>A device that is wanted and not there keeps its name.</summary>
    public bool IsNameReserved(string name) => _entries.Exists(entry => entry.IsPending && entry.Device?.Name == name);

    /// <summary>
    /// Throws Busy, with their names, if something is wanted on a region and is not there: a transport is left after everything on it.
    /// </summary>
    public void CheckLeave(string region)
    {
        List<string> wanted = [.. _entries.Where(entry => entry is { IsPending: true, Transport: null, Intent: null } && entry.Region == region).Select(entry => $"{entry}")];
        if (wanted.Count > 0)
            throw new CbdException(CbdErrorKind.Busy, $"{string.Join(", ", wanted)} {(wanted.Count == 1 ? "is" : "are")} wanted on '{region}': stop {(wanted.Count == 1 ? "it" : "them")} first (dev-stop -d NAME, backend-stop -b PATH)");
    }

    /// <summary>
    /// What is there is about to be stopped. It is done all the same if that cannot be recorded; the caller of <see cref="EndStop"/>
    /// learns it then.
    /// </summary>
    /// <param name="which">What stops.</param>
    /// <param name="isForced">Whoever uses it.</param>
    /// <returns>Numbers of the entries that go with it.</returns>
    public IReadOnlyList<int> BeginStop(Predicate<StateEntry> which, bool isForced = false)
    {
        List<int> numbers = [];
        for (int i = 0; i < _entries.Count; i++)
        {
            if (_entries[i].Intent is not null || !which(_entries[i]))
                continue;
            numbers.Add(_entries[i].Number);
            _entries[i] = _entries[i] with { Intent = StateIntent.Stopping, Forced = isForced ? true : null };
        }

        if (numbers.Count > 0)
            TrySave();
        return numbers;
    }

    /// <summary>The stop was refused: what it was for is wanted still.</summary>
    public void CancelStop(IReadOnlyList<int> numbers)
    {
        for (int i = 0; i < _entries.Count; i++)
        {
            if (numbers.Contains(_entries[i].Number))
                _entries[i] = _entries[i] with { Intent = null, Forced = null, IsCut = false };
        }

        if (numbers.Count > 0)
            TrySave();
    }

    /// <summary>It was stopped, or stops. Throws if the record keeps it.</summary>
    public void EndStop(IReadOnlyList<int> numbers)
    {
        if (_entries.RemoveAll(entry => numbers.Contains(entry.Number)) == 0)
            return;
        try
        {
            Save();
        }
        catch (CbdException e) when (TPolicy.WarnOfKeptStops)
        {
            throw new CbdException(CbdErrorKind.Failed, $"it is stopped, but that is not recorded: {e.Message}: the next cbdd starts it again, unless another change is recorded first", e);
        }
        catch (CbdException)
        {
            // Nobody is told.
        }
    }

    /// <summary>The disk of a started backend has another path now; devices on it follow.</summary>
    public void SetBackendPath(string region, int backend, string path)
    {
        int place = _entries.FindIndex(e => !e.IsPending && e.Backend is { } b && b.Region == region && b.BackendId == backend);
        if (place < 0 || path.Length == 0 || _entries[place].Backend!.Path == path)
            return;
        // The path is from the region, where others may write: it says no more than another size.
        if (!SameThing.IsSamePath(_entries[place].Backend!.Path, path))
            return;
        BackendEntry before = _entries[place].Backend!;
        _entries[place] = _entries[place] with { Backend = before with { Path = path } };
        MoveDevices(before, _entries[place].Backend!);
        TrySave();
    }

    /// <summary>What this run had started is not there any more, without a stop: it is started again.</summary>
    public void SetPending(int number, string reason = "it is not there any more")
    {
        int place = PlaceOf(number);
        if (place >= 0 && _entries[place].Intent is null)
            _entries[place] = _entries[place] with { IsPending = true, IsUnclaimed = false, Reason = reason };
    }

    /// <summary>The same of a backend that this run served.</summary>
    public void SetBackendPending(string region, int backend, string reason)
    {
        if (_entries.Find(e => !e.IsPending && e.Backend is { } b && b.Region == region && b.BackendId == backend) is { } entry)
            SetPending(entry.Number, reason);
    }

    private int PlaceOf(int number) => _entries.FindIndex(entry => entry.Number == number);

    /// <summary>One disk is one backend: what waits for the same disk under another path is this one.</summary>
    private void DropTwins(StateEntry started)
    {
        _entries.RemoveAll(entry => IsTwin(entry, started) && MayReplace(entry, started));
    }

    private static bool IsTwin(StateEntry entry, StateEntry started) =>
        entry.Number != started.Number && entry.IsPending && entry.Region == started.Region &&
        entry.Backend is { DiskIdentity: { } waiting } && started.Backend is { DiskIdentity: { } served } && SameThing.IsSameDisk(served, waiting);

    private static bool MayReplace(StateEntry twin, StateEntry started) =>
        SameThing.MayHave(twin, SameThing.CallerOf(started)) && (twin.Backend!.Name is null || started.Backend!.Name is null || twin.Backend.Name == started.Backend.Name);

    /// <summary>Devices on a backend of this host follow it to its new id or path.</summary>
    private void MoveDevices(BackendEntry before, BackendEntry now)
    {
        for (int i = 0; i < _entries.Count; i++)
        {
            if (_entries[i].Device is { } device && device.Region == before.Region && device.BackendId == before.BackendId && device.BackendPath == before.Path)
                _entries[i] = _entries[i] with { Device = device with { BackendId = now.BackendId, BackendPath = now.Path } };
        }
    }

    private void Change(int number, Func<StateEntry, StateEntry> change)
    {
        int place = _entries.FindIndex(entry => entry.Number == number && entry.IsPending);
        if (place < 0 || change(_entries[place]) is var next && next == _entries[place])
            return;
        _entries[place] = next;
        TrySave();
    }

    private void Save()
    {
        IsDirty = true;
        _medium.Write(_entries);
        IsDirty = false;
        Trouble = null;
    }

    private void SaveOrReturnTo(StateEntry[] before)
    {
        try
        {
            Save();
        }
        catch (CbdException)
        {
            _entries.Clear();
            _entries.AddRange(before);
            throw;
        }
    }

    private void TrySave()
    {
        try
        {
            Save();
        }
        catch (CbdException e)
        {
            // The thing itself was done and is in use; undoing it would do more harm than an old record.
            Trouble = e.Message;
        }
    }
}
