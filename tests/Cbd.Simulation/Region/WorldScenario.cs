namespace Cbd.Simulation.Region;

/// <summary>What may go wrong in a run of a <see cref="World{TPolicy}"/>; probabilities, times in microseconds.</summary>
public sealed record WorldScenario
{
    public VisibilityFaults Visibility { get; init; } = VisibilityFaults.None;

    /// <summary>Per store into the region: the process dies before it.</summary>
    public double Crash { get; init; }

    /// <summary>Per step: a machine loses its power, with what its caches and its disks' caches hold.</summary>
    public double MachineCrash { get; init; }

    /// <summary>Per access: the process stands still, up to four dead-times.</summary>
    public double Pause { get; init; }

    /// <summary>Per step: a machine is suspended, and its clock with it.</summary>
    public double Suspend { get; init; }

    /// <summary>Per access: another thread, of whichever process, runs first.</summary>
    public double Preemption { get; init; } = 0.01;

    /// <summary>Per step: the operator does something.</summary>
    public double Operate { get; init; }

    public double DiskFail { get; init; }
    public double FlushFail { get; init; }

    /// <summary>Longest time of one disk operation, in each of its halves.</summary>
    public int DiskDelay { get; init; } = 60;

    /// <summary>Share of the disk's operations that take that long.</summary>
    public double SlowShare { get; init; } = 0.2;

    public bool PayloadCrc { get; init; } = true;
    public int Blocks { get; init; } = 24;

    /// <summary>Every fault at once: what the shown runs have.</summary>
    public static WorldScenario Everything { get; } = new()
    {
        Visibility = new VisibilityFaults { Delay = 0.1, Tear = 0.5, Drop = 0.001, Flicker = 0.01, Evict = 0.05 },
        Crash = 0.00001,
        MachineCrash = 0.00002,
        Pause = 0.000003,
        Suspend = 0.00003,
        Operate = 0.004,
        DiskFail = 0.002,
        FlushFail = 0.005,
        DiskDelay = 4000,
        SlowShare = 0.05,
    };

    /// <summary>No fault but what the operator does, and the deaths that a directed run aims at.</summary>
    public static WorldScenario Directed { get; } = new() { Operate = 0.004, FlushFail = 0.002, DiskDelay = 2000, SlowShare = 0.1, Preemption = 0.02 };

    /// <summary>Management operations race, and processes stand still in the middle of them.</summary>
    public static WorldScenario Management { get; } = new() { Operate = 0.03, Preemption = 0.05, Pause = 0.00002, Crash = 0.00003, MachineCrash = 0.00005 };

    /// <summary>Machines lose their power while slow disks hold what was not flushed.</summary>
    public static WorldScenario PowerCuts { get; } = new() { Operate = 0.003, MachineCrash = 0.0003, Crash = 0.00001, DiskDelay = 3000, SlowShare = 0.2, Blocks = 8 };

    /// <summary>Flushes fail, and processes die while they do.</summary>
    public static WorldScenario FailingFlushes { get; } = new() { Operate = 0.004, FlushFail = 0.1, Crash = 0.00005, DiskDelay = 2000, SlowShare = 0.5, Blocks = 8 };

    /// <summary>Processes stand still past every lease, on disks that two machines share.</summary>
    public static WorldScenario Pauses { get; } = new() { Operate = 0.01, Pause = 0.00003, Suspend = 0.0001, DiskDelay = 3000, SlowShare = 0.2 };

    public static IReadOnlyDictionary<string, WorldScenario> All { get; } = new Dictionary<string, WorldScenario>
    {
        ["everything"] = Everything,
        ["management"] = Management,
        ["power-cuts"] = PowerCuts,
        ["failing-flushes"] = FailingFlushes,
        ["pauses"] = Pauses,
        ["directed"] = Directed,
    };
}
