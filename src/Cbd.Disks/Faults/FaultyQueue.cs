using System.Diagnostics;
using Cbd.Blocks;

namespace Cbd.Disks;

/// <summary>
/// A queue in front of another: lets requests through, fails them, or holds them back, as the faults in force say.
/// Single-threaded but for <see cref="Interrupt"/>; allocates nothing per request.
/// </summary>
internal sealed class FaultyQueue : IBlockQueue
{
    private readonly IBlockQueue _queue;
    private readonly FaultSet _faults;

    /// <summary>Held back, in the order in which they came.</summary>
    private readonly Held[] _held;

    /// <summary>Failed here, not reported yet.</summary>
    private readonly BlockCompletion[] _failed;
    private FaultRule[] _rules;
    private int _heldCount;
    private int _failedCount;

    private struct Held
    {
        public BlockRequest Request;

        /// <summary>When it goes on, in ticks of the stopwatch; never for one that is stuck.</summary>
        public long DueAt;

        /// <summary>What it then fails with, or 0.</summary>
        public int Error;
    }

    public FaultyQueue(IBlockQueue queue, FaultSet faults, int depth)
    {
        _queue = queue;
        _faults = faults;
        _rules = faults.Rules;
        _held = new Held[depth];
        _failed = new BlockCompletion[depth];
        faults.Add(this);
    }

    public int Outstanding => _queue.Outstanding + _heldCount + _failedCount;

    public bool TrySubmit(in BlockRequest request)
    {
        if (Outstanding >= _held.Length)
            return false;
        TakeChange();
        int error = 0;
        long delayMs = 0;
        bool stuck = false;
        foreach (FaultRule rule in _rules)
        {
            if (rule.Spec.Kind == FaultKind.Short || !rule.Strikes(request.Operation, request.Offset, request.Length))
                continue;
            if (rule.Spec.Kind == FaultKind.Delay)
            {
                delayMs += rule.Spec.DelayMs;
                continue;
            }

            stuck = rule.Spec.Kind == FaultKind.Stuck;
            error = stuck ? 0 : rule.Spec.Errno;
            break;
        }

        if (stuck || delayMs > 0)
        {
            long dueAt = stuck ? long.MaxValue : Stopwatch.GetTimestamp() + delayMs * Stopwatch.Frequency / 1000;
            _held[_heldCount++] = new Held { Request = request, DueAt = dueAt, Error = error };
            return true;
        }

        if (error == 0)
            return _queue.TrySubmit(request);
        _failed[_failedCount++] = new BlockCompletion(request.Cookie, error, 0);
        return true;
    }

    public int Poll(Span<BlockCompletion> completions)
    {
        TakeChange();
        if (_heldCount > 0)
            LetGo(Stopwatch.GetTimestamp());
        int count = Math.Min(_failedCount, completions.Length);
        _failed.AsSpan(0, count).CopyTo(completions);
        _failed.AsSpan(count, _failedCount - count).CopyTo(_failed);
        _failedCount -= count;
        return count + _queue.Poll(completions[count..]);
    }

    public void Wait(int timeoutMicroseconds)
    {
        if (_failedCount > 0 || _rules != _faults.Rules)
            return;
        long dueAt = long.MaxValue;
        for (int i = 0; i < _heldCount; i++)
            dueAt = Math.Min(dueAt, _held[i].DueAt);
        if (dueAt != long.MaxValue)
        {
            long left = Math.Max(0, dueAt - Stopwatch.GetTimestamp());
            timeoutMicroseconds = (int)Math.Min(timeoutMicroseconds, left * 1_000_000.0 / Stopwatch.Frequency + 1);
        }

        _queue.Wait(timeoutMicroseconds);
    }

    public void Interrupt() => _queue.Interrupt();

    /// <summary>What is held back has not reached the disk, and does not any more.</summary>
    public void Dispose()
    {
        _faults.Remove(this);
        _queue.Dispose();
    }

    /// <summary>Other faults are in force: what those before held back goes on now.</summary>
    private void TakeChange()
    {
        FaultRule[] rules = _faults.Rules;
        if (rules == _rules)
            return;
        _rules = rules;
        for (int i = 0; i < _heldCount; i++)
            _held[i].DueAt = 0;
    }

    private void LetGo(long now)
    {
        int kept = 0;
        for (int i = 0; i < _heldCount; i++)
        {
            ref Held held = ref _held[i];
            if (held.DueAt > now || (held.Error == 0 && !_queue.TrySubmit(held.Request)))
                _held[kept++] = held;
            else if (held.Error != 0)
                _failed[_failedCount++] = new BlockCompletion(held.Request.Cookie, held.Error, 0);
        }

        _held.AsSpan(kept, _heldCount - kept).Clear();
        _heldCount = kept;
    }
}
