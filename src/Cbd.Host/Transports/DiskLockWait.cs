using Cbd.Disks;
using Cbd.Memory;

namespace Cbd.Host.Transports;

/// <summary>
/// Opens a disk that somebody else may still have locked: a daemon that was killed, whose last I/O the kernel still holds,
/// or one that stops. Says meanwhile who has it.
/// </summary>
/// <param name="options">The disk, and how it is served.</param>
/// <param name="regions">Files that are refused as disks.</param>
/// <param name="describeHolder">Names who has a disk that is in use, as the rest of a sentence; null if that is not known.</param>
/// <param name="rights">Whose rights it is opened with; null: those of this process.</param>
/// <param name="nowMs">A monotonic clock; null: this process's.</param>
internal sealed class DiskLockWait(StartBackendOptions options, IReadOnlyList<FileIdentity> regions, Func<string, string?> describeHolder, PathRights? rights = null, Func<long>? nowMs = null)
{
    private const int TakeOverWaitMs = 10_000;
    private const int StartWaitMs = 1_000;
    private const int PollIntervalMs = 20;

    /// <summary>To find who has it, the descriptors of all processes are looked at.</summary>
    private const int HolderIntervalMs = 1_000;

    private readonly Func<long> _nowMs = nowMs ?? (static () => MonotonicClock.Milliseconds);

    /// <summary>Opens it, or throws: Busy, with who has it, when it is not free in time.</summary>
    /// <param name="waits">Called while it is in use; throws to give up.</param>
    public Disk Open(Action<string> waits)
    {
        int waitMs = options.Backend is null ? StartWaitMs : TakeOverWaitMs;
        if (options.Limit is { } given)
            waitMs = given.IsGiven ? given.LeftMs : Math.Min(waitMs, given.LeftMs);
        long limit = _nowMs() + waitMs;
        long nextHolder = long.MinValue;
        string holder = "";
        while (true)
        {
            options.Limit?.Check($"disk {options.Path} is being opened");
            try
            {
                return Disk.Open(new DiskOptions
                {
                    Path = options.Path,
                    ReadOnly = options.ReadOnly,
                    Rights = rights,
                    Engine = DiskOptions.ParseEngine(options.Engine),
                    LogicalBlockBytes = options.BlockBytes,
                    Regions = regions,
                    MemoryLimitBytes = static () => MachineMemory.LimitBytes,
                    Faults = options.Faults is { } faults ? new FaultSet(FaultSpec.ParseAll(faults)) : null,
                });
            }
            catch (DiskInUseException e)
            {
                bool isOver = _nowMs() >= limit;
                if (isOver || _nowMs() >= nextHolder)
                {
                    holder = describeHolder(options.Path) is { } known ? $": {known}" : "";
                    nextHolder = _nowMs() + HolderIntervalMs;
                }

                if (isOver)
                    throw new CbdException(CbdErrorKind.Busy, holder.Length == 0 ? e.Message : $"disk {options.Path} is already in use{holder}; stop that first", e) { MayPass = !holder.Contains(" of this daemon", StringComparison.Ordinal) };
                waits($"disk {options.Path} is in use{holder}");
            }

            Thread.Sleep(PollIntervalMs);
        }
    }
}
