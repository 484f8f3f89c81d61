using Cbd.Control;
using Cbd.Host.Wanted;
using Cbd.Protocol;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon.State;

/// <summary>The <see cref="WantedRecord{TPolicy}"/> of this daemon, for its threads. What cannot be written is said, once.</summary>
internal sealed class StateRecord
{
    private readonly object _gate = new();
    private readonly WantedRecord<SafePolicy> _record;
    private readonly ILogger _logger;
    private string? _trouble;

    /// <param name="file">Where it is kept.</param>
    /// <param name="logger">Says what cannot be kept.</param>
    /// <param name="loaded">What the file has.</param>
    public StateRecord(StateFile file, ILogger logger, IReadOnlyList<StateEntry> loaded)
    {
        _record = new WantedRecord<SafePolicy>(file, loaded);
        _logger = logger;
    }

    public IReadOnlyList<StateEntry> Entries => Do(r => r.Entries.ToArray());

    /// <summary>A change is not on the medium yet.</summary>
    public bool IsDirty => Do(r => r.IsDirty);

    public StateEntry? Find(int number) => Do(r => r.Find(number));

    public void Keep() => Do(r => r.Keep());

    public StateEntry? Match(StateEntry wanted, bool isRun, Predicate<int> isClaimed) => Do(r => r.Match(wanted, isRun, isClaimed));

    public void Claim(int number, StateEntry wanted, bool isRun)
    {
        if (Do(r => r.Claim(number, wanted, isRun)) is { } before)
            _logger.LogInformation("{What} runs with the options of the record; the ones asked for now hold from its next start on", before);
    }

    /// <summary>Only one tries to start a thing at a time. False after a timeout; with true, <see cref="EndAttempt"/> is called.</summary>
    public bool TryBeginAttempt(int number, int timeoutMs)
    {
        var limit = Environment.TickCount64 + timeoutMs;
        lock (_gate)
        {
            while (!_record.TryBeginAttempt(number))
            {
                var left = limit - Environment.TickCount64;
                if (left <= 0)
                    return false;
                Monitor.Wait(_gate, (int)left);
            }

            return true;
        }
    }

    public void EndAttempt(int number)
    {
        lock (_gate)
        {
            _record.EndAttempt(number);
            Monitor.PulseAll(_gate);
        }
    }

    public int BeginStart(StateEntry wanted) => Do(r => r.BeginStart(wanted));

    public void DropStart(int number) => Do(r => r.DropStart(number));

    public void ConfirmStart(int number, StateEntry started) => Do(r => r.ConfirmStart(number, started));

    public void BeginRestore(int number) => Do(r => r.BeginRestore(number));

    public void EndRestore(int number) => Do(r => r.EndRestore(number));

    public bool Confirm(int number, StateEntry started) => Do(r => r.Confirm(number, started));

    public bool Refuse(int number, Exception why) => Do(r => r.Refuse(number, why));

    public void SetReason(int number, string reason) => Do(r => r.SetReason(number, reason));

    public void SetFailed(string device, string reason) => Do(r => r.SetFailed(device, reason));

    public bool Forget(Predicate<StateEntry> which) => Do(r => r.Forget(which));

    /// <summary>Names of the devices that this machine's kernel gets, or may get.</summary>
    public IReadOnlyCollection<string> KernelNames() =>
        [.. Entries.Where(e => e.Device is { Name: not null } d && (d.Attach is null ? d.Nbd is null && d.Tls is null : d.Attach != AttachWords.None)).Select(e => e.Device!.Name!)];

    public bool IsNameReserved(string name) => Do(r => r.IsNameReserved(name));

    public void CheckLeave(string region) => Do(r => r.CheckLeave(region));

    public IReadOnlyList<int> BeginStop(Predicate<StateEntry> which) => Do(r => r.BeginStop(which));

    public void CancelStop(IReadOnlyList<int> numbers) => Do(r => r.CancelStop(numbers));

    public void EndStop(IReadOnlyList<int> numbers) => Do(r => r.EndStop(numbers));

    public void SetBackendPath(string region, int backend, string path) => Do(r => r.SetBackendPath(region, backend, path));

    public void SetPending(int number) => Do(r => r.SetPending(number));

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
            return answer;
        }
    }
}
