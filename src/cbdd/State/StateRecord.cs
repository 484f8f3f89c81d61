using Cbd.Control;
using Cbd.Memory;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon.State;

/// <summary>
/// What is to be running: what this run has started, and what an earlier run had and this one could not start yet (pending). A
/// disk that is missing today is not forgotten. On the medium with every change. Thread-safe.
/// </summary>
/// <remarks>
/// Intent comes before effect, and effect before confirmation. A start is recorded as <see cref="StateIntent.Starting"/>, done,
/// then confirmed. A stop is recorded as <see cref="StateIntent.Stopping"/>, done, then removed. Who finds either in the record of
/// a daemon that died drops it: the start was not answered, and the stop was asked for.
/// </remarks>
internal sealed class StateRecord
{
    /// <summary>What was being started when the daemon died this often, one time after the other, is not started again.</summary>
    public const int MostDeaths = 3;

    private readonly Lock _gate = new();
    private readonly StateFile _file;
    private readonly ILogger _logger;
    private readonly List<StateEntry> _entries = [];
    private readonly HashSet<int> _beingTried = [];
    private int _lastNumber;
    private bool _isDirty;
    private string? _trouble;

    /// <param name="file">Where it is kept.</param>
    /// <param name="logger">Says what cannot be kept.</param>
    /// <param name="loaded">What the file has.</param>
    public StateRecord(StateFile file, ILogger logger, IReadOnlyList<StateEntry> loaded)
    {
        _file = file;
        _logger = logger;
        foreach (var entry in loaded.Where(e => e.Intent is null))
        {
            _entries.Add(entry with
            {
                Number = ++_lastNumber,
                Failed = entry.Failed ?? (entry.Deaths >= MostDeaths ? $"the daemon died {MostDeaths} times in a row while it started this" : null),
            });
        }
    }

    public IReadOnlyList<StateEntry> Entries
    {
        get
        {
            lock (_gate)
                return [.. _entries];
        }
    }

    /// <summary>The entry with a number, as it is now; null if it is wanted no more.</summary>
    public StateEntry? Find(int number)
    {
        lock (_gate)
            return _entries.Find(entry => entry.Number == number);
    }

    /// <summary>Writes it down as it is, with the machine that it is on now. What cannot be written is said.</summary>
    public void Keep()
    {
        lock (_gate)
            TrySave();
    }

    /// <summary>
    /// The thing of the record that a start asks for again: one that is not there yet, or one that this run has started by itself.
    /// Null if there is none. Throws Busy if it is not the same thing under that name, and Failed if it failed for good.
    /// </summary>
    /// <param name="wanted">What is asked for.</param>
    /// <param name="isRun">A <c>--run</c> line asks, which may ask for what is there.</param>
    /// <param name="isClaimed">Whether such a line has had that entry already.</param>
    public StateEntry? Match(StateEntry wanted, bool isRun, Predicate<int> isClaimed)
    {
        lock (_gate)
        {
            var named = wanted.Device?.Name is { } device ? _entries.Find(entry => entry.Device?.Name == device)
                : wanted.Backend?.Name is { } backend ? _entries.Find(entry => entry.Backend?.Name == backend && entry.Region == wanted.Region)
                : null;
            var found = named ?? _entries.Find(entry => IsFree(entry) && SameThing.Matches(entry, wanted, isRun));
            if (found is null || !IsFree(found))
                return null;
            if (found.Failed is { } failure)
                throw new FailedThingException($"{found} has failed: {failure}: {(found.Device is null ? "" : "check the data, ")}stop it with {found.StopVerb}, then start it");
            SameThing.Check(found, wanted);
            return found;
        }

        bool IsFree(StateEntry entry) => entry.Intent is null && !isClaimed(entry.Number) && (entry.IsPending || entry.IsUnclaimed || isRun);
    }

    /// <summary>What was started from the record is what a start asks for, with its other options from the next start on.</summary>
    public void Claim(int number, StateEntry wanted, bool isRun)
    {
        lock (_gate)
        {
            var place = _entries.FindIndex(entry => entry.Number == number);
            if (place < 0)
                return;
            var before = _entries[place];
            var now = SameThing.WithOptions(before, wanted);
            if (now != before)
                _logger.LogInformation("{What} runs with the options of the record; the ones asked for now hold from its next start on", before);
            _entries[place] = now with { IsUnclaimed = false, FromRun = before.FromRun == true && isRun ? true : null };
            if (_entries[place] with { IsUnclaimed = before.IsUnclaimed } != before)
                TrySave();
        }
    }

    /// <summary>Only one tries to start a thing at a time. False after a timeout; with true, <see cref="EndAttempt"/> is called.</summary>
    public bool TryBeginAttempt(int number, int timeoutMs)
    {
        var limit = Environment.TickCount64 + timeoutMs;
        lock (_beingTried)
        {
            while (!_beingTried.Add(number))
            {
                var left = limit - Environment.TickCount64;
                if (left <= 0)
                    return false;
                Monitor.Wait(_beingTried, (int)left);
            }

            return true;
        }
    }

    public void EndAttempt(int number)
    {
        lock (_beingTried)
        {
            _beingTried.Remove(number);
            Monitor.PulseAll(_beingTried);
        }
    }

    /// <summary>Something is about to be started. Throws, and nothing is to be started, if that cannot be recorded.</summary>
    /// <returns>The number of its entry.</returns>
    public int BeginStart(StateEntry wanted)
    {
        lock (_gate)
        {
            var entry = wanted with { Number = ++_lastNumber, Intent = StateIntent.Starting };
            _entries.Add(entry);
            try
            {
                Save();
            }
            catch (CbdException e)
            {
                _entries.Remove(entry);
                throw new CbdException(e.Kind, $"nothing is started, because it cannot be recorded: {e.Message}: make room there, or repair it", e);
            }

            return entry.Number;
        }
    }

    /// <summary>The start came to nothing.</summary>
    public void DropStart(int number)
    {
        lock (_gate)
        {
            // If this cannot be written, the next life drops it.
            if (_entries.RemoveAll(entry => entry.Number == number) > 0)
                TrySave();
        }
    }

    /// <summary>It was started. Throws if that cannot be recorded: it is to be stopped again then.</summary>
    public void ConfirmStart(int number, StateEntry started)
    {
        lock (_gate)
        {
            var own = _entries.FindIndex(entry => entry.Number == number);
            // Left with its transport meanwhile.
            if (own < 0)
                return;
            var before = _entries[own];
            _entries[own] = started with { Number = number, Failed = before.Failed };
            DropTwins(_entries[own]);
            try
            {
                Save();
            }
            catch (CbdException)
            {
                _entries[own] = before;
                throw;
            }
        }
    }

    /// <summary>
    /// What is pending is about to be tried for the first time in this run. If the daemon dies at that too often, it is not tried again.
    /// </summary>
    public void BeginRestore(int number) => Change(number, entry => entry with { Deaths = (entry.Deaths ?? 0) + 1 });

    /// <summary>The daemon has outlived the try.</summary>
    public void EndRestore(int number) => Change(number, entry => entry with { Deaths = null });

    /// <summary>What was pending was started; false if it is wanted no more.</summary>
    public bool Confirm(int number, StateEntry started)
    {
        lock (_gate)
        {
            var place = _entries.FindIndex(entry => entry.Number == number && entry is { IsPending: true, Intent: null });
            if (place < 0)
                return false;
            if (started.Backend is { } now && _entries[place].Backend is { } before)
                MoveDevices(before, now);
            _entries[place] = started with { Number = number, Failed = _entries[place].Failed };
            DropTwins(_entries[place]);
            TrySave();
            return true;
        }
    }

    /// <summary>Why something that is pending could not be started. True if that is another reason than before.</summary>
    /// <param name="number">Its number.</param>
    /// <param name="reason">In one line.</param>
    /// <param name="isBlocked">It does not pass by itself.</param>
    public bool SetReason(int number, string reason, bool isBlocked = false)
    {
        lock (_gate)
        {
            var place = _entries.FindIndex(entry => entry.Number == number && entry.IsPending);
            if (place < 0)
                return false;
            var isNew = _entries[place].Reason != reason;
            _entries[place] = _entries[place] with { Reason = reason, IsBlocked = isBlocked };
            return isNew;
        }
    }

    /// <summary>A device failed for good: no restart starts it again.</summary>
    public void SetFailed(string device, string reason)
    {
        lock (_gate)
        {
            var place = _entries.FindIndex(entry => entry.Device?.Name == device);
            if (place < 0 || _entries[place].Failed is not null)
                return;
            _entries[place] = _entries[place] with { Failed = reason };
            TrySave();
        }
    }

    /// <summary>What is pending is wanted no more; false if there is nothing of the kind.</summary>
    public bool Forget(Predicate<StateEntry> which)
    {
        lock (_gate)
        {
            var before = _entries.ToArray();
            if (_entries.RemoveAll(entry => entry.IsPending && which(entry)) == 0)
                return false;
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

            return true;
        }
    }

    /// <summary>Names of the devices that this machine's kernel gets, or may get.</summary>
    public IReadOnlyCollection<string> KernelNames()
    {
        lock (_gate)
            return [.. _entries.Where(e => e.Device is { Name: not null } d && (d.Attach is null ? d.Nbd is null : d.Attach != AttachWords.None)).Select(e => e.Device!.Name!)];
    }

    /// <summary>A device that is wanted and not there keeps its name.</summary>
    public bool IsNameReserved(string name)
    {
        lock (_gate)
            return _entries.Exists(entry => entry.IsPending && entry.Device?.Name == name);
    }

    /// <summary>
    /// Throws Busy, with their names, if something is wanted on a region and is not there: a transport is left after everything on it.
    /// </summary>
    public void CheckLeave(string region)
    {
        lock (_gate)
        {
            var wanted = _entries.Where(entry => entry.Region == region && entry.Transport is null && entry.IsPending).Select(entry => $"{entry}").ToList();
            if (wanted.Count > 0)
                throw new CbdException(CbdErrorKind.Busy, $"{string.Join(", ", wanted)} {(wanted.Count == 1 ? "is" : "are")} wanted on '{region}': stop {(wanted.Count == 1 ? "it" : "them")} first (dev-stop -d NAME, backend-stop -b PATH)");
        }
    }

    /// <summary>
    /// What is there is about to be stopped. It is done all the same if that cannot be recorded; the caller of <see cref="EndStop"/>
    /// learns it then.
    /// </summary>
    /// <returns>Numbers of the entries that go with it.</returns>
    public IReadOnlyList<int> BeginStop(Predicate<StateEntry> which)
    {
        lock (_gate)
        {
            var numbers = new List<int>();
            for (var i = 0; i < _entries.Count; i++)
            {
                if (_entries[i].Intent is not null || !which(_entries[i]))
                    continue;
                numbers.Add(_entries[i].Number);
                _entries[i] = _entries[i] with { Intent = StateIntent.Stopping };
            }

            if (numbers.Count > 0)
                TrySave();
            return numbers;
        }
    }

    /// <summary>The stop was refused: what it was for is wanted still.</summary>
    public void CancelStop(IReadOnlyList<int> numbers)
    {
        lock (_gate)
        {
            for (var i = 0; i < _entries.Count; i++)
            {
                if (numbers.Contains(_entries[i].Number))
                    _entries[i] = _entries[i] with { Intent = null };
            }

            if (numbers.Count > 0)
                TrySave();
        }
    }

    /// <summary>It was stopped, or stops. Throws if the record keeps it.</summary>
    public void EndStop(IReadOnlyList<int> numbers)
    {
        lock (_gate)
        {
            if (_entries.RemoveAll(entry => numbers.Contains(entry.Number)) == 0)
                return;
            try
            {
                Save();
            }
            catch (CbdException e)
            {
                throw new CbdException(e.Kind, $"it is stopped, but that is not recorded: {e.Message}: the next cbdd starts it again, unless another change is recorded first", e);
            }
        }
    }

    /// <summary>The disk of a started backend has another path now; devices on it follow.</summary>
    public void SetBackendPath(string region, int backend, string path)
    {
        lock (_gate)
        {
            var place = _entries.FindIndex(e => !e.IsPending && e.Backend is { } b && b.Region == region && b.BackendId == backend);
            if (place < 0 || path.Length == 0 || _entries[place].Backend!.Path == path)
                return;
            var before = _entries[place].Backend!;
            _entries[place] = _entries[place] with { Backend = before with { Path = path } };
            MoveDevices(before, _entries[place].Backend!);
            TrySave();
        }
    }

    /// <summary>One disk is one backend: what waits for the same disk under another path is this one.</summary>
    private void DropTwins(StateEntry started)
    {
        if (started.Backend is { DiskIdentity: { } identity } backend)
            _entries.RemoveAll(e => e.Number != started.Number && e.IsPending && e.Backend is { DiskIdentity: { } other } b && b.Region == backend.Region && SameThing.IsSameDisk(identity, other));
    }

    /// <summary>What this run had started is not there any more, without a stop: it is started again.</summary>
    public void SetPending(int number)
    {
        lock (_gate)
        {
            var place = _entries.FindIndex(entry => entry.Number == number);
            if (place >= 0)
                _entries[place] = _entries[place] with { IsPending = true, IsUnclaimed = false, Reason = "it is not there any more" };
        }
    }

    /// <summary>Devices on a backend of this host follow it to its new id or path.</summary>
    private void MoveDevices(BackendEntry before, BackendEntry now)
    {
        for (var i = 0; i < _entries.Count; i++)
        {
            if (_entries[i].Device is { } device && device.Region == before.Region && device.BackendId == before.BackendId && device.BackendPath == before.Path)
                _entries[i] = _entries[i] with { Device = device with { BackendId = now.BackendId, BackendPath = now.Path } };
        }
    }

    private void Change(int number, Func<StateEntry, StateEntry> change)
    {
        lock (_gate)
        {
            var place = _entries.FindIndex(entry => entry.Number == number && entry.IsPending);
            if (place < 0 || change(_entries[place]) is var next && next == _entries[place])
                return;
            _entries[place] = next;
            TrySave();
        }
    }

    /// <summary>A change is not on the medium yet.</summary>
    public bool IsDirty
    {
        get
        {
            lock (_gate)
                return _isDirty;
        }
    }

    private void Save()
    {
        _isDirty = true;
        _file.Write(_entries);
        _isDirty = false;
    }

    private void TrySave()
    {
        try
        {
            Save();
            if (_trouble is not null)
                _logger.LogInformation("the record is up to date again");
            _trouble = null;
        }
        catch (CbdException e)
        {
            // The thing itself was done and is in use; undoing it would do more harm than an old record.
            if (_trouble != e.Message)
                _logger.LogError("the record is out of date, a restart would miss changes: {Reason}; it is tried again", e.Message);
            _trouble = e.Message;
        }
    }
}

/// <summary>A thing of the record failed for good: nothing starts it again but its stop and a new start.</summary>
internal sealed class FailedThingException(string message) : CbdException(CbdErrorKind.Failed, message);
