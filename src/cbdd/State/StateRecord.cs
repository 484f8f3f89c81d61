using Cbd.Control;
using Cbd.Memory;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon.State;

/// <summary>
/// What is to be running: what this run has started, and what an earlier run had and this one could not start yet
/// (pending: a disk that is missing today is not forgotten). Saved with every change. Thread-safe.
/// </summary>
internal sealed class StateRecord(StateFile file, ILogger logger, IReadOnlyList<StateEntry> loaded)
{
    private readonly Lock _gate = new();
    private readonly List<StateEntry> _entries = [.. loaded.Select((entry, i) => entry with { Number = i + 1 })];
    private int _lastNumber = loaded.Count;

    public IReadOnlyList<StateEntry> Entries
    {
        get
        {
            lock (_gate)
                return [.. _entries];
        }
    }

    /// <summary>Something was started. It takes the place of what was pending for the same region or disk.</summary>
    public void Add(StateEntry started)
    {
        lock (_gate)
        {
            var place = _entries.FindIndex(pending => pending.IsPending && IsSame(pending, started));
            if (place < 0)
                _entries.Add(started with { Number = ++_lastNumber });
            else
                Replace(place, started);
            Save();
        }
    }

    /// <summary>What was pending was started; false if it is wanted no more.</summary>
    public bool Confirm(int number, StateEntry started)
    {
        lock (_gate)
        {
            var place = _entries.FindIndex(entry => entry.Number == number && entry.IsPending);
            if (place < 0)
                return false;
            Replace(place, started);
            Save();
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

    /// <summary>What is pending is wanted no more; false if there is nothing of the kind.</summary>
    public bool Forget(Predicate<StateEntry> which)
    {
        lock (_gate)
        {
            if (_entries.RemoveAll(entry => entry.IsPending && which(entry)) == 0)
                return false;
            Save();
            return true;
        }
    }

    /// <summary>A device that is wanted and not there keeps its name.</summary>
    public bool IsNameReserved(string name)
    {
        lock (_gate)
            return _entries.Exists(entry => entry.IsPending && entry.Device?.Name == name);
    }

    /// <summary>Throws Busy if a device that is wanted, on another backend, and not there has that name.</summary>
    public void CheckName(string name, int backend)
    {
        lock (_gate)
        {
            if (_entries.Find(entry => entry.IsPending && entry.Device?.Name == name)?.Device is { } other && other.BackendId != backend)
                throw new CbdException(CbdErrorKind.Busy, $"device name '{name}' belongs to the device on backend {other.BackendId} ('{other.BackendPath}'), which could not be started again: give another --name");
        }
    }

    /// <summary>The transport is left: it and everything on its region goes, pending or not.</summary>
    public void RemoveRegion(string region) =>
        Remove(entry => entry.Region == region);

    public void RemoveBackend(string region, int backend) =>
        Remove(entry => !entry.IsPending && entry.Backend is { } b && b.Region == region && b.BackendId == backend);

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

            Save();
        }
    }

    public void RemoveDevice(string region, int device) =>
        Remove(entry => !entry.IsPending && entry.Device is { } d && d.Region == region && d.BlkdevId == device);

    private void Replace(int place, StateEntry started)
    {
        if (started.Backend is { } now && _entries[place].Backend is { } before)
            MoveDevices(before, now.BackendId);
        _entries[place] = started with { Number = _entries[place].Number };
    }

    private void Remove(Predicate<StateEntry> which)
    {
        lock (_gate)
        {
            if (_entries.RemoveAll(which) > 0)
                Save();
        }
    }

    private static bool IsSame(StateEntry pending, StateEntry started) => (pending, started) switch
    {
        ({ Transport: { } a }, { Transport: { } b }) => a.Region == b.Region,
        ({ Backend: { } a }, { Backend: { } b }) => a.Region == b.Region && (a.Path == b.Path || (a.BackendId == b.BackendId && IsSameDisk(a.Path, b.Path))),
        ({ Device: { } a }, { Device: { } b }) =>
            a.Region == b.Region && a.BackendId == b.BackendId && a.BackendPath == b.BackendPath && a.Nbd == b.Nbd && (a.Name is null || a.Name == b.Name),
        _ => false,
    };

    /// <summary>The same file or device, or the same kind of disk without a file, whose size may have changed.</summary>
    public static bool IsSameDisk(string a, string b) =>
        a == b || (StartBackendOptions.IsDiskScheme(a) && a.Split(':')[0] == b.Split(':')[0]);

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

    private void Save()
    {
        try
        {
            file.Write(_entries);
        }
        catch (CbdException e)
        {
            // The thing itself was done and is in use; undoing it would do more harm than an old record.
            logger.LogError("the state file is out of date, a restore would miss changes: {Reason}", e.Message);
        }
    }
}
