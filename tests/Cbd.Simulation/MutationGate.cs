namespace Cbd.Simulation;

/// <summary>Where a safety rule shows: the scenario whose fixed seeds notice that it is off.</summary>
/// <param name="Rule">Name of the rule.</param>
/// <param name="Scenario">A scenario of <see cref="Simulations"/>; behind an @ the cell of the crash matrix that is aimed at.</param>
/// <param name="FirstSeed">Where to begin; seeds before it do not notice.</param>
internal sealed record GateEntry(string Rule, string Scenario, long FirstSeed = 1);

/// <summary>
/// The mutation gate: each safety rule is switched off, one at a time, and must be noticed by one of a few fixed seeds.
/// </summary>
internal static class MutationGate
{
    /// <summary>Seeds that are tried from an entry's first on.</summary>
    public const int SeedCount = 30;

    private const int ChannelSteps = 20_000;
    private const int RegionSteps = 40_000;

    public static IReadOnlyList<GateEntry> Entries { get; } =
    [
        new("CheckSequence", "calm"),
        new("CheckCrc", "rough"),
        new("CheckEpoch", "rough", 2),
        new("KeepCredits", "calm"),
        new("CopyOnce", "rough"),
        new("ClaimBySwap", "rivals", 5),
        new("WaitForDrain", "slow-disk", 2),
        new("RaiseEpoch", "crashing", 22),
        new("HoldWhileReissuing", "everything"),
        new("CoverOnlyEarlierWrites", "sparse-power-cuts", 2),
        new("CheckDurabilityId", "take-overs", 280),
        new("EnterTogether", "stalls", 96),
        new("LatchFailedFlush", "failing-flushes"),
        new("LatchBeforeCompletion", "failing-flushes", 48),
        new("FailBufferedFlush", "directed@BackendFlushingBuffered/Owner", 439),
        new("FreeOnlyDrained", "slow-disks", 11),
        new("QuarantineWithoutProof", "pauses", 6),
        new("TakeOverNeedsProof", "pauses", 10),
        new("OneWriter", "management"),
        new("FreeWriterAfterChannels", "slow-disks", 12),
        new("KeepNewestBody", "failing-flushes", 13),
        new("KeepRecord", "take-overs", 82),
        new("RefuseStaleBody", "take-overs"),
        new("LookAtBackendAfterActive", "clearings", 183),
        new("LookAtHostAfterClaim", "clearings", 80),
        new("LookAtNames", "management"),
        new("RefuseOtherDisk", "give-ups", 86),
        new("RefuseMemoryAnew", "memory"),
        new("RefuseMemoryAnew", "records"),
        new("EndClaimingWithProof", "pauses", 353),
        new("GrowDiskFirst", "growths"),
        new("QuietBeforeRejoin", "rejoins", 101),
        new("StopBeforeLeave", "slow-disks", 2),
        new("DrainGivenUp", "losses", 259),
        new("KeepLatchAnew", "everything", 901),
        new("TakeOverOwnRecord", "everything", 2),
        new("LookForTwins", "records"),
        new("LookForRivals", "records", 60),
        new("FollowDisk", "records"),
        new("OpenWantedDiskOnly", "records"),
        new("RefuseOtherRegion", "records"),
        new("RefuseForeignRecord", "records"),
        new("UndoStarts", "records"),
        new("FinishStops", "records"),
        new("KeepFailed", "records"),
        new("TryWantedAgain", "records"),
        new("KeepHeld", "records"),
        new("AnswerOnlyRecorded", "records", 85),
        new("WarnOfKeptStops", "records"),
        new("GiveUpDeadly", "records"),
        new("ConfirmUncertain", "records"),
        new("FinishForcedStops", "records", 37),
        new("KeepDiskInRegion", "records"),
        new("KeepOrphan", "adoptions"),
        new("AdoptMovesWriter", "adoptions"),
        new("WaitForOwnDead", "adoptions"),
        new("JudgeBeforeStore", "adoption-power-cuts", 207),
        new("AdoptOnlyOwnUuid", "adoptions"),
        new(MutantPolicy.DiskLock, "slow-disks", 33),
    ];

    /// <summary>
    /// The seed that notices that a rule is off, and how; 0 if none does. With all rules the same seed must be clean.
    /// </summary>
    public static long Find(GateEntry entry, out string how, long seeds = SeedCount)
    {
        for (long seed = entry.FirstSeed; seed < entry.FirstSeed + seeds; seed++)
        {
            try
            {
                Run(entry, seed);
            }
            catch (SimulationException e)
            {
                try
                {
                    Run(entry with { Rule = "" }, seed);
                }
                catch (SimulationException own)
                {
                    throw new InvalidOperationException($"seed {seed} of '{entry.Scenario}' is not clean with all rules: {own.Message}", own);
                }

                how = e.Message.Split('\n')[0];
                return seed;
            }
        }

        how = "";
        return 0;
    }

    /// <summary>Prints the table; false if a rule is not noticed.</summary>
    /// <param name="output">Where to.</param>
    /// <param name="seeds">Seeds that are tried.</param>
    /// <param name="rule">One rule; empty: all.</param>
    public static bool Print(TextWriter output, long seeds = SeedCount, string rule = "")
    {
        bool whole = true;
        foreach (GateEntry entry in Entries)
        {
            if (rule.Length > 0 && entry.Rule != rule)
                continue;
            long seed = Find(entry, out string how, seeds);
            whole &= seed != 0;
            output.WriteLine($"{entry.Rule,-26} {entry.Scenario,-24} {(seed == 0 ? "NOT NOTICED" : $"seed {seed}"),-12} {how}");
        }

        return whole;
    }

    private static void Run(GateEntry entry, long seed) =>
        Simulations.RunAny(entry.Rule, seed, entry.Scenario, Simulations.Scenarios.ContainsKey(entry.Scenario) ? ChannelSteps : RegionSteps, null);
}
