namespace Cbd.Simulation.Region;

/// <summary>What may go wrong in a run of a <see cref="World{TPolicy}"/>; probabilities, times in microseconds.</summary>
internal sealed record WorldScenario
{
    public VisibilityFaults Visibility { get; init; } = VisibilityFaults.None;

    /// <summary>Per store into the region: the process dies before it.</summary>
    public double Crash { get; init; }

    /// <summary>Per step: a machine loses its power, with what its caches and its disks' caches hold.</summary>
    public double MachineCrash { get; init; }

    /// <summary>Per access: the process stands still, up to four dead-times.</summary>
    public double Pause { get; init; }

    /// <summary>Per access: the thread alone stands still, up to two dead-times.</summary>
    public double Stall { get; init; }

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

    /// <summary>Per turn of a user: it sends something.</summary>
    public double Submit { get; init; } = 0.67;

    /// <summary>Share of flushes in what users send.</summary>
    public double FlushShare { get; init; } = 0.08;

    /// <summary>Share of devices that do not wait for a backend that is away, or not for ever.</summary>
    public double Impatience { get; init; }

    /// <summary>Share of the operator's chances to make a backend larger that he takes.</summary>
    public double Grow { get; init; }

    /// <summary>Share of the records that an operator thinks of giving up that he gives up, with the blkdevs on them.</summary>
    public double GiveUp { get; init; } = 0.25;

    /// <summary>
    /// The operator clears hosts by force. A channel that is cleared so after it was claimed and before it was offered stays quarantined
    /// for good if its owner dies then: no line says that it never had a handler.
    /// </summary>
    public bool ClearForced { get; init; } = true;

    /// <summary>Share of forced clearings that are aimed at a host that stands still.</summary>
    public double ClearSilent { get; init; }

    /// <summary>Blocks by which a disk can grow.</summary>
    public int SpareBlocks { get; init; }

    /// <summary>The first disk is in the memory of the process that serves it.</summary>
    public bool IsInMemory { get; init; }

    /// <summary>Share of the runs in which it is, where that is not always so.</summary>
    public double MemoryShare { get; init; }

    /// <summary>Daemons keep a record of what is wanted, and start again with it; operators start and stop things by their names.</summary>
    public bool HasRecords { get; init; }

    /// <summary>Per write of a record: the process dies before it, or after it.</summary>
    public double RecordCrash { get; init; }

    /// <summary>Per write of a record: the disk that it is on is full from now on, for a while.</summary>
    public double RecordFull { get; init; }

    /// <summary>Share of the lives of a daemon that hold what they find in the record.</summary>
    public double Hold { get; init; }

    /// <summary>Share of the devices that outlive their processes.</summary>
    public double Keep { get; init; }

    public bool PayloadCrc { get; init; } = true;
    public int Blocks { get; init; } = 24;

    /// <summary>Every fault at once: what the shown runs have.</summary>
    public static WorldScenario Everything { get; } = new()
    {
        Visibility = new VisibilityFaults { Delay = 0.1, Tear = 0.5, Drop = 0.001, Flicker = 0.01, Evict = 0.05 },
        Crash = 0.00001,
        MachineCrash = 0.00002,
        Pause = 0.000003,
        Stall = 0.000003,
        Suspend = 0.00003,
        Operate = 0.004,
        DiskFail = 0.002,
        FlushFail = 0.005,
        DiskDelay = 4000,
        SlowShare = 0.05,
        Impatience = 0.2,
        Grow = 0.5,
        SpareBlocks = 4,
    };

    /// <summary>No fault but what the operator does, lines that are lost, and the death that a directed run aims at.</summary>
    public static WorldScenario Directed { get; } = new() { Visibility = new VisibilityFaults { Drop = 0.003 }, Operate = 0.004, FlushFail = 0.03, DiskDelay = 2000, SlowShare = 0.1, Preemption = 0.02 };

    /// <summary>Management operations race, and processes stand still in the middle of them.</summary>
    public static WorldScenario Management { get; } = new() { Operate = 0.03, Preemption = 0.05, Pause = 0.00002, Crash = 0.00003, MachineCrash = 0.00005 };

    /// <summary>Machines lose their power while slow disks hold what was not flushed.</summary>
    public static WorldScenario PowerCuts { get; } = new() { Operate = 0.003, MachineCrash = 0.0003, Crash = 0.00001, DiskDelay = 3000, SlowShare = 0.2, Blocks = 8 };

    /// <summary>The same with threads that stand still while the others of their process go on.</summary>
    public static WorldScenario Stalls { get; } = new() { Operate = 0.03, MachineCrash = 0.0002, Stall = 0.0001, DiskDelay = 4000, SlowShare = 0.5, Blocks = 3, Submit = 0.3, FlushShare = 0.5 };

    /// <summary>The same with users who send little and flush much: what is uncovered is one write, or none.</summary>
    public static WorldScenario SparsePowerCuts { get; } = new() { Operate = 0.03, MachineCrash = 0.0002, DiskDelay = 8000, SlowShare = 0.7, Blocks = 3, Submit = 0.1, FlushShare = 0.5 };

    /// <summary>Disk operations outlive their hosts and the clearing of them.</summary>
    public static WorldScenario SlowDisks { get; } = new() { Operate = 0.01, Crash = 0.00005, DiskDelay = 40_000, SlowShare = 0.3, Blocks = 6 };

    /// <summary>Machines go and come back, and others take over, while users read and write few blocks.</summary>
    public static WorldScenario TakeOvers { get; } = new() { Operate = 0.03, MachineCrash = 0.00015, DiskDelay = 500, Blocks = 4, Submit = 0.3, FlushShare = 0.02 };

    /// <summary>Processes stand still in the middle of management, and are cleared meanwhile.</summary>
    public static WorldScenario Clearings { get; } = new() { Operate = 0.05, Pause = 0.0001, Submit = 0.05, Blocks = 8 };

    /// <summary>Flushes fail, and processes die while they do.</summary>
    public static WorldScenario FailingFlushes { get; } = new() { Operate = 0.004, FlushFail = 0.1, Crash = 0.00005, DiskDelay = 2000, SlowShare = 0.5, Blocks = 8 };

    /// <summary>Processes stand still past every lease, on disks that two machines share.</summary>
    public static WorldScenario Pauses { get; } = new() { Operate = 0.01, Pause = 0.00003, Suspend = 0.0001, DiskDelay = 3000, SlowShare = 0.2 };

    /// <summary>Backends go and come back while devices do not wait for them, and slow disks still hold what was given up.</summary>
    public static WorldScenario Losses { get; } = new() { Operate = 0.01, Crash = 0.00002, Pause = 0.00015, Suspend = 0.0003, Stall = 0.0003, DiskDelay = 30_000, SlowShare = 0.8, Impatience = 1, Blocks = 2, Submit = 0.9, FlushShare = 0.02, ClearForced = false };

    /// <summary>Disks grow while machines lose their power.</summary>
    public static WorldScenario Growths { get; } = new() { Operate = 0.05, MachineCrash = 0.00015, Crash = 0.00003, Grow = 1, Blocks = 24, SpareBlocks = 20, DiskDelay = 500 };

    /// <summary>Processes stand still, are cleared by force, and register anew with slow disks.</summary>
    public static WorldScenario Rejoins { get; } = new() { Operate = 0.05, Pause = 0.0001, Suspend = 0.0001, DiskDelay = 60_000, SlowShare = 0.6, Blocks = 6, ClearSilent = 0.9 };

    /// <summary>Operators give up records while the processes of their devices stand still, and the entries go to other disks.</summary>
    public static WorldScenario GiveUps { get; } = new() { Operate = 0.08, Pause = 0.0003, Crash = 0.0001, Blocks = 6, GiveUp = 1 };

    /// <summary>A disk in memory begins anew under its id, while its users flush what they write.</summary>
    public static WorldScenario Memory { get; } = new() { Operate = 0.03, Crash = 0.00005, Blocks = 3, Submit = 0.1, FlushShare = 0.5, IsInMemory = true };

    /// <summary>
    /// Daemons with records die between intent, effect and confirmation; regions, disks and state directories are moved, replaced and copied
    /// meanwhile. No process stands still: what does so while its state directory is copied cannot be told from an earlier life of the copy.
    /// </summary>
    public static WorldScenario Records { get; } = new() { Operate = 0.03, MachineCrash = 0.0001, Crash = 0.00001, RecordCrash = 0.03, RecordFull = 0.01, Hold = 0.1, MemoryShare = 0.5, DiskDelay = 500, Blocks = 6, Submit = 0.2, HasRecords = true };

    /// <summary>Processes of devices that outlive them die at any store, with their backends or without, and machines lose their power.</summary>
    public static WorldScenario Adoptions { get; } = new() { Operate = 0.01, Crash = 0.0001, MachineCrash = 0.00005, DiskDelay = 3000, SlowShare = 0.2, Blocks = 6, FlushShare = 0.15, Submit = 0.4, Grow = 0.3, SpareBlocks = 4, Impatience = 0.1, Keep = 0.9, ClearForced = false };

    /// <summary>The machines of the disks lose their power, and processes of devices die where they have just stored into a record.</summary>
    public static WorldScenario AdoptionPowerCuts { get; } = Adoptions with { Operate = 0.03, MachineCrash = 0.0002, Crash = 0.00001, RecordCrash = 0.03, Blocks = 4, SpareBlocks = 0, Grow = 0, FlushShare = 0.03, Submit = 0.6, Impatience = 0, Keep = 1 };

    /// <summary>Such devices with lines that come late, in parts or never, and with processes that stand still and are cleared by force.</summary>
    public static WorldScenario RoughAdoptions { get; } = Everything with { Crash = 0.00005, Keep = 0.9 };

    /// <summary>For a directed run of a state that only such devices have.</summary>
    public static WorldScenario DirectedAdoptions { get; } = Directed with { Keep = 1, Crash = 0.00003 };

    public static IReadOnlyDictionary<string, WorldScenario> All { get; } = new Dictionary<string, WorldScenario>
    {
        ["everything"] = Everything,
        ["management"] = Management,
        ["power-cuts"] = PowerCuts,
        ["stalls"] = Stalls,
        ["sparse-power-cuts"] = SparsePowerCuts,
        ["slow-disks"] = SlowDisks,
        ["take-overs"] = TakeOvers,
        ["clearings"] = Clearings,
        ["failing-flushes"] = FailingFlushes,
        ["pauses"] = Pauses,
        ["directed"] = Directed,
        ["losses"] = Losses,
        ["growths"] = Growths,
        ["rejoins"] = Rejoins,
        ["give-ups"] = GiveUps,
        ["memory"] = Memory,
        ["records"] = Records,
        ["adoptions"] = Adoptions,
        ["adoption-power-cuts"] = AdoptionPowerCuts,
        ["rough-adoptions"] = RoughAdoptions,
        ["directed-adoptions"] = DirectedAdoptions,
    };
}
