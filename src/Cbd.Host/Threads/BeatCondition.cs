using Cbd.Host.Sessions;
using Cbd.Memory;

namespace Cbd.Host.Threads;

/// <summary>
/// The condition of a session as threads need it: it also knows how long ago the last heartbeat was. Written by the
/// housekeeping thread, read by all.
/// </summary>
/// <param name="fenceMs">A host that did not beat for longer stores nothing before it has looked at its own entry.</param>
internal sealed class BeatCondition(int fenceMs) : SessionCondition
{
    private volatile bool _overdue;
    private long _beatMs = MonotonicClock.Milliseconds;
    private long _beatBootNs = KernelClock.BootTimeNs;

    /// <summary>
    /// This host did not beat for the fence time, so that others may be about to clear it: nothing may be stored until its
    /// housekeeping has seen that the entry is still its own. For each turn of a thread: reads the coarse clock only.
    /// </summary>
    public bool IsOverdue => IsOverdueAt(MonotonicClock.Milliseconds);

    /// <summary>As <see cref="IsOverdue"/>, where the coarse clock has been read already.</summary>
    public bool IsOverdueAt(long nowMs) => _overdue || nowMs - Volatile.Read(ref _beatMs) > fenceMs;

    /// <summary>As <see cref="IsOverdue"/>, on CLOCK_BOOTTIME, which counts time in suspend: for after a sleep.</summary>
    public bool IsOverdueAfterSleep
    {
        get
        {
            if (SinceBeatMs > fenceMs)
                _overdue = true;
            return IsOverdue;
        }
    }

    /// <summary>Time since the last beat, suspend included, ms.</summary>
    public long SinceBeatMs => (KernelClock.BootTimeNs - Volatile.Read(ref _beatBootNs)) / 1_000_000;

    /// <summary>Whoever has something for a thread of this process that sleeps on a doorbell there can wake it.</summary>
    public bool CanBeWoken(MappedMemory memory) => memory.Wakes && !HasRemoteHosts;

    /// <summary>
    /// A beat was published, and the entry was this host's afterwards. The times are those from before it: it may have
    /// taken long.
    /// </summary>
    public void NoteBeat(long startedMs, long startedBootNs)
    {
        Volatile.Write(ref _beatMs, startedMs);
        Volatile.Write(ref _beatBootNs, startedBootNs);
        _overdue = false;
    }
}
