using System.Collections.Concurrent;
using Cbd.Control;
using Cbd.Host.Wanted;
using Cbd.Memory;
using Cbd.Protocol;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon.State;

/// <summary>The <see cref="WantedRecord{TPolicy}"/> of this daemon, for its threads. What cannot be written is said, once.</summary>
internal sealed class StateRecord
{
    private const int CancelLookMs = 50;

    private readonly object _gate = new();
    private readonly WantedRecord<SafePolicy> _record;
    private readonly ILogger _logger;

    /// <summary>Of the starts that are under way, by their entries.</summary>
    private readonly ConcurrentDictionary<int, StartLimit> _limits = [];

    /// <summary>Since when entries are not there, and in which state.</summary>
    private readonly Dictionary<int, (string State, DateTime Since)> _away = [];
    private string? _trouble;
    private int _waiterCount;

    // What lists show: they do not wait for the disk of the record.
    private volatile IReadOnlyList<StateEntry> _entriesNow = [];
    private volatile IReadOnlyList<AwayThing> _awayNow = [];

    /// <param name="medium">Where it is kept.</param>
    /// <param name="logger">Says what cannot be kept.</param>
    /// <param name="loaded">What is there.</param>
    public StateRecord(IRecordMedium medium, ILogger logger, IReadOnlyList<StateEntry> loaded)
    {
        _record = new WantedRecord<SafePolicy>(medium, loaded);
        _logger = logger;
        Publish();
    }

    /// <summary>As they were after the last change that is over.</summary>
    public IReadOnlyList<StateEntry> Entries => _entriesNow;

    /// <summary>Verbs that wait for another one now. Any thread.</summary>
    public int WaiterCount => Volatile.Read(ref _waiterCount);

    /// <summary>A change is not on the medium yet.</summary>
    public bool IsDirty => Read(r => r.IsDirty);

    public StateEntry? Find(int number) => Read(r => r.Find(number));

    public void Keep() => Do(r => r.Keep());

    /// <inheritdoc cref="WantedRecord{TPolicy}.Match"/>
    /// <param name="wanted">What is asked for.</param>
    /// <param name="isRun">A line of the command line asks.</param>
    /// <param name="isClaimed">Whether such a line has had that entry already.</param>
    /// <param name="caller">Who asks. Only for root and the daemon's user are paths looked at, to see whether two of them are one file.</param>
    public StateEntry? Match(StateEntry wanted, bool isRun, Predicate<int> isClaimed, Caller? caller)
    {
        // A file system may hang: it is looked at without the lock, and the record is asked again then.
        var known = new Dictionary<(string, string), bool>();
        while (true)
        {
            (string, string)? open = null;
            try
            {
                return Do(r => r.Match(wanted, isRun, isClaimed, caller, caller is not null ? null : (a, b) =>
                {
                    if (known.TryGetValue((a, b), out var isSame))
                        return isSame;
                    open = (a, b);
                    return false;
                }));
            }
            catch (CbdException) when (open is not null)
            {
                known[open.Value] = IsSameFile(open.Value.Item1, open.Value.Item2);
            }
        }
    }

    private static bool IsSameFile(string a, string b) =>
        FileStatus.TryGet(a, out var first) == 0 && FileStatus.TryGet(b, out var second) == 0 && first.Type == second.Type &&
        (first.Type == FileType.BlockDevice ? (first.NodeMajor, first.NodeMinor) == (second.NodeMajor, second.NodeMinor) : (first.Device, first.Inode) == (second.Device, second.Inode));

    public void Claim(int number, StateEntry wanted, bool isRun)
    {
        if (Do(r => r.Claim(number, wanted, isRun)) is { } before)
            _logger.LogInformation("{What} runs with the options of the record; the ones asked for now hold from its next start on", before);
    }

    /// <summary>Only one tries to start a thing at a time. False after a timeout; with true, <see cref="EndAttempt"/> is called.</summary>
    /// <param name="number">Of its entry.</param>
    /// <param name="timeoutMs">Longest wait for another attempt.</param>
    /// <param name="limit">What a stop cancels while this attempt goes on.</param>
    public bool TryBeginAttempt(int number, int timeoutMs, StartLimit limit)
    {
        var end = Environment.TickCount64 + timeoutMs;
        lock (_gate)
        {
            while (!_record.TryBeginAttempt(number))
            {
                if (!WaitForChange(end, limit))
                    return false;
            }

            _limits[number] = limit;
            return true;
        }
    }

    public void EndAttempt(int number) => Do(r =>
    {
        r.EndAttempt(number);
        _limits.TryRemove(number, out _);
    });

    /// <summary>Records that something is being started; null if a verb is starting or stopping it already (<see cref="FindUnderWay"/>).</summary>
    public int? BeginStart(StateEntry wanted, StartLimit limit) => Do<int?>(r =>
    {
        if (r.FindUnderWay(wanted) is not null)
            return null;
        var number = r.BeginStart(wanted);
        _limits[number] = limit;
        return number;
    });

    public StateEntry? FindUnderWay(StateEntry wanted) => Read(r => r.FindUnderWay(wanted));

    /// <summary>Waits until no verb is starting or stopping a thing any more; false after a timeout.</summary>
    public bool AwaitVerb(int number, int timeoutMs, StartLimit? limit = null)
    {
        var end = Environment.TickCount64 + timeoutMs;
        lock (_gate)
        {
            while (_record.Find(number) is { Intent: not null })
            {
                if (!WaitForChange(end, limit))
                    return false;
            }

            return true;
        }
    }

    /// <summary>
    /// Waits until the record has what is to be stopped: its start is on its way from effect to confirmation. That takes a moment, and no
    /// longer than <paramref name="timeoutMs"/> is waited.
    /// </summary>
    public void AwaitConfirmed(Predicate<StateEntry> which, Predicate<StateEntry> mayBecome, int timeoutMs)
    {
        var end = Environment.TickCount64 + timeoutMs;
        lock (_gate)
        {
            while (!_record.Entries.Any(entry => which(entry)) && _record.Entries.Any(entry => entry.Intent == StateIntent.Starting && mayBecome(entry)) && WaitForChange(end, null))
            {
            }
        }
    }

    /// <summary>Stops what was started and is not wanted any more; if it cannot be, that is said.</summary>
    /// <param name="what">It, in words.</param>
    /// <param name="stop">Stops it.</param>
    public void TakeBack(string what, Action stop)
    {
        try
        {
            stop();
        }
        catch (CbdException e)
        {
            _logger.LogError("{What} is not wanted any more, and cannot be stopped: {Reason}", what, e.Message);
        }
    }

    /// <summary>Tells those who are starting such things to give up.</summary>
    /// <returns>Numbers of the entries that verbs are starting.</returns>
    public IReadOnlyList<int> CancelStarts(Func<StateEntry, bool> which) => Do(r =>
    {
        List<int> starting = [];
        foreach (var entry in r.Entries.Where(which))
        {
            if (_limits.TryGetValue(entry.Number, out var limit))
                limit.TryCancel(new CbdException(CbdErrorKind.Failed, $"{entry} was stopped while it was started"));
            if (entry.Intent == StateIntent.Starting)
                starting.Add(entry.Number);
        }

        return starting;
    });

    /// <summary>What the start of a thing that is under way waits for, in words; null if it does not say.</summary>
    public string? WaitsOf(int number) => _limits.GetValueOrDefault(number)?.Waits;

    /// <summary>Waits for a change of the record, under its lock; false after <paramref name="endMs"/>.</summary>
    private bool WaitForChange(long endMs, StartLimit? limit)
    {
        limit?.Check();
        var left = endMs - Environment.TickCount64;
        if (left <= 0)
            return false;
        // Who is cancelled is not told.
        _waiterCount++;
        Monitor.Wait(_gate, (int)Math.Min(left, CancelLookMs));
        _waiterCount--;
        return true;
    }

    public void DropStart(int number) => Do(r =>
    {
        r.DropStart(number);
        _limits.TryRemove(number, out _);
    });

    public bool ConfirmStart(int number, StateEntry started) => Do(r =>
    {
        var isWanted = r.ConfirmStart(number, started);
        _limits.TryRemove(number, out _);
        return isWanted;
    });

    public void TryKeptAgain(string device) => Do(r => r.TryKeptAgain(device));

    public void BeginRestore(int number) => Do(r => r.BeginRestore(number));

    public void EndRestore(int number) => Do(r => r.EndRestore(number));

    public bool Confirm(int number, StateEntry started) => Do(r => r.Confirm(number, started));

    public bool Refuse(int number, Exception why) => Do(r => r.Refuse(number, why));

    public bool SetReason(int number, string reason) => Do(r => r.SetReason(number, reason));

    public void SetFailed(string device, string reason) => Do(r => r.SetFailed(device, reason));

    public bool Forget(Predicate<StateEntry> which) => Do(r => r.Forget(which));

    /// <summary>Names of the devices that this machine's kernel gets, or may get.</summary>
    public IReadOnlyCollection<string> KernelNames() =>
        [.. Entries.Where(e => e.Device is { Name: not null } d && d.ToOptions().AskedAttach != AttachWords.None).Select(e => e.Device!.Name!)];

    /// <summary>Whether a device of that name, whose socket was kept, is still to be started.</summary>
    /// <param name="name">Of the device.</param>
    /// <param name="areLinesDone">What only a line of the command line wanted is not wanted without that line.</param>
    public bool Wants(string name, bool areLinesDone) =>
        Entries.Any(e => e.Device?.Name == name && e.Failed is null && e.Intent != StateIntent.Stopping && (e.Held is null || (e.FromRun == true && !areLinesDone)) &&
            // Without its transport it never comes back.
            Entries.Any(t => t.Transport?.Region == e.Region && t.Failed is null));

    public bool IsNameReserved(string name) => Read(r => r.IsNameReserved(name));

    public void CheckLeave(string region) => Do(r => r.CheckLeave(region));

    public IReadOnlyList<int> BeginStop(Predicate<StateEntry> which, bool isForced) => Do(r => r.BeginStop(which, isForced));

    public void CancelStop(IReadOnlyList<int> numbers) => Do(r => r.CancelStop(numbers));

    public void EndStop(IReadOnlyList<int> numbers) => Do(r => r.EndStop(numbers));

    public void SetBackendPath(string region, int backend, string path) => Do(r => r.SetBackendPath(region, backend, path));

    public void SetPending(int number) => Do(r => r.SetPending(number));

    public void SetBackendPending(string region, int backend, string reason) => Do(r => r.SetBackendPending(region, backend, reason));

    /// <summary>What is wanted and not there, how it stands, and since when.</summary>
    public IReadOnlyList<AwayThing> Away() => _awayNow;

    private void Publish()
    {
        NoteStates();
        _entriesNow = [.. _record.Entries];
        _awayNow = [.. _record.Entries.Where(e => _away.ContainsKey(e.Number)).Select(e => new AwayThing(e, _away[e.Number].State, _away[e.Number].Since))];
    }

    private void NoteStates()
    {
        foreach (var entry in _record.Entries)
        {
            if (entry is not { IsPending: true, Intent: null })
                _away.Remove(entry.Number);
            else if (WantedList.StateOf(entry) is var state && (!_away.TryGetValue(entry.Number, out var known) || known.State != state))
                _away[entry.Number] = (state, DateTime.UtcNow);
        }

        if (_away.Count > _record.Entries.Count)
        {
            foreach (var number in _away.Keys.Except(_record.Entries.Select(e => e.Number)).ToList())
                _away.Remove(number);
        }
    }

    private T Read<T>(Func<WantedRecord<SafePolicy>, T> look)
    {
        lock (_gate)
            return look(_record);
    }

    private void Do(Action<WantedRecord<SafePolicy>> step) => Do(r =>
    {
        step(r);
        return true;
    });

    private T Do<T>(Func<WantedRecord<SafePolicy>, T> step)
    {
        lock (_gate)
        {
            var answer = step(_record);
            if (_record.Trouble is { } trouble && trouble != _trouble)
                _logger.LogError("the record is out of date, a restart would miss changes: {Reason}; it is tried again", trouble);
            else if (_record.Trouble is null && _trouble is not null)
                _logger.LogInformation("the record is up to date again");
            _trouble = _record.Trouble;
            Publish();
            Monitor.PulseAll(_gate);
            return answer;
        }
    }
}
