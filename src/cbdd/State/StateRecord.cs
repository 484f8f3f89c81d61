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
    private int _lastNumber;

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

    /// <summary>
    /// It was started. It takes the place of what was pending for the same region or disk. Throws if that cannot be recorded: it is
    /// to be stopped again then.
    /// </summary>
    public void ConfirmStart(int number, StateEntry started)
    {
        lock (_gate)
        {
            var own = _entries.FindIndex(entry => entry.Number == number);
            // Left with its transport meanwhile.
            if (own < 0)
                return;
            var before = _entries.ToArray();
            var place = _entries.FindIndex(pending => pending.IsPending && IsSame(pending, started));
            if (place >= 0)
            {
                Replace(place, started);
                _entries.RemoveAt(own);
            }
            else
            {
                _entries[own] = started with { Number = number, Failed = _entries[own].Failed };
            }

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
            var place = _entries.FindIndex(entry => entry.Number == number && entry.IsPending);
            if (place < 0)
                return false;
            Replace(place, started);
            TrySave();
            return true;
        }
    }

    /// <summary>Why something that is pending could not be started. True if that is another reason than before.</summary>
    public bool SetReason(int number, string reason)
    {
        lock (_gate)
        {
            var place = _entries.FindIndex(entry => entry.Number == number && entry.IsPending);
            if (place < 0 || _entries[place].Reason == reason)
                return false;
            _entries[place] = _entries[place] with { Reason = reason };
            return true;
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

    /// <summary>A device that is wanted and not there keeps its name.</summary>
    public bool IsNameReserved(string name)
    {
        lock (_gate)
            return _entries.Exists(entry => entry.IsPending && entry.Device?.Name == name);
    }

    /// <summary>
    /// Throws Busy if a device that is wanted, on another backend, and not there has the name that is asked for; Failed if it is the
    /// same device, and failed for good.
    /// </summary>
    /// <param name="region">Its region.</param>
    /// <param name="start">What is asked for.</param>
    /// <param name="disk">The path of the backend's disk.</param>
    /// <returns>The name of the device that is wanted and not there, if this is the same one; null if there is none.</returns>
    public string? CheckStart(string region, StartDeviceOptions start, string disk)
    {
        lock (_gate)
        {
            string? name = null;
            foreach (var entry in _entries.Where(entry => entry.IsPending && entry.Device is not null))
            {
                var other = entry.Device!;
                var isSame = other.Region == region && other.BackendId == start.Backend && IsSameDisk(other.BackendPath, disk) && other.Nbd == start.Nbd;
                if (isSame && (start.Name ?? other.Name) == other.Name)
                    name ??= other.Name;
                if (isSame && entry.Failed is { } failure && (start.Name ?? other.Name) == other.Name)
                    throw new CbdException(CbdErrorKind.Failed, $"device '{other.Name}' has failed: {failure}: check the data, forget the device with dev-stop -d {other.Name}, then start it");
                if (!isSame && start.Name is { } asked && other.Name == asked)
                    throw new CbdException(CbdErrorKind.Busy, $"device name '{asked}' belongs to the device on backend {other.BackendId} ('{other.BackendPath}'), which is not there now: stop that with dev-stop -d {asked}, or give another --name");
            }

            return name;
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

    /// <summary>The transport was left: everything on its region goes with it.</summary>
    public void EndStopOfRegion(string region, IReadOnlyList<int> numbers) =>
        EndStop([.. numbers, .. Entries.Where(entry => entry.Region == region).Select(entry => entry.Number)]);

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
                throw new CbdException(e.Kind, $"it is stopped, but that is not recorded: {e.Message}: the next cbdd --restore starts it again, unless another change is recorded first", e);
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
            for (var i = 0; i < _entries.Count; i++)
            {
                if (_entries[i].Device is { } device && device.Region == region && device.BackendId == backend && device.BackendPath == before.Path)
                    _entries[i] = _entries[i] with { Device = device with { BackendPath = path } };
            }

            TrySave();
        }
    }

    /// <summary>The same file or device, or the same kind of disk without a file, whose size may have changed.</summary>
    public static bool IsSameDisk(string a, string b) =>
        a == b || (StartBackendOptions.IsDiskScheme(a) && a.Split(':')[0] == b.Split(':')[0]);

    private static bool IsSame(StateEntry pending, StateEntry started) => (pending, started) switch
    {
        ({ Transport: { } a }, { Transport: { } b }) => a.Region == b.Region,
        ({ Backend: { } a }, { Backend: { } b }) => a.Region == b.Region && (a.Path == b.Path || (a.BackendId == b.BackendId && IsSameDisk(a.Path, b.Path))),
        ({ Device: { } a }, { Device: { } b }) =>
            a.Region == b.Region && a.BackendId == b.BackendId && a.BackendPath == b.BackendPath && a.Nbd == b.Nbd && (a.Name is null || a.Name == b.Name),
        _ => false,
    };

    private void Replace(int place, StateEntry started)
    {
        if (started.Backend is { } now && _entries[place].Backend is { } before)
            MoveDevices(before, now.BackendId);
        _entries[place] = started with { Number = _entries[place].Number, Failed = _entries[place].Failed };
    }

    /// <summary>Pending devices follow their backend to its new id.</summary>
    private void MoveDevices(BackendEntry before, int nowId)
    {
        for (var i = 0; i < _entries.Count; i++)
        {
            if (_entries[i] is { IsPending: true, Device: { } device }
                && device.Region == before.Region && device.BackendId == before.BackendId && device.BackendPath == before.Path)
                _entries[i] = _entries[i] with { Device = device with { BackendId = nowId } };
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

    private void Save() => _file.Write(_entries);

    private void TrySave()
    {
        try
        {
            Save();
        }
        catch (CbdException e)
        {
            // The thing itself was done and is in use; undoing it would do more harm than an old record.
            _logger.LogError("the record is out of date, a restart would miss changes: {Reason}", e.Message);
        }
    }
}
