using Cbd.Channels;

namespace Cbd.Simulation;

/// <summary>The named scenarios, and runs of them with the shipped policy or a mutant of it.</summary>
public static class Simulations
{
    public static IReadOnlyDictionary<string, Scenario> Scenarios { get; } = new Dictionary<string, Scenario>
    {
        ["calm"] = Scenario.Calm,
        ["rough"] = Scenario.Rough,
        ["crashing"] = Scenario.Crashing,
        ["slow-disk"] = Scenario.SlowDisk,
        ["growing"] = Scenario.Growing,
        ["rivals"] = Scenario.Rivals,
        ["no-payload-crc"] = Scenario.SlowDisk with { PayloadCrc = false, Visibility = VisibilityFaults.None, Pause = 0.001 },
    };

    /// <summary>Safety rules that can be switched off, by name.</summary>
    public static IReadOnlyList<string> MutantNames { get; } = ["sequence", "crc", "epoch", "credits", "single-copy", "claim-swap", "drain"];

    /// <summary>Runs one seed; an empty <paramref name="mutant"/> is the shipped policy.</summary>
    public static SimulationSummary Run(string mutant, long seed, Scenario scenario, int steps) => mutant switch
    {
        "" => new Simulator<SafePolicy>(seed, scenario).Run(steps),
        "sequence" => new Simulator<Mutants.NoSequenceCheck>(seed, scenario).Run(steps),
        "crc" => new Simulator<Mutants.NoCrcCheck>(seed, scenario).Run(steps),
        "epoch" => new Simulator<Mutants.NoEpochCheck>(seed, scenario).Run(steps),
        "credits" => new Simulator<Mutants.NoCredits>(seed, scenario).Run(steps),
        "single-copy" => new Simulator<Mutants.NoSingleCopy>(seed, scenario).Run(steps),
        "claim-swap" => new Simulator<Mutants.NoClaimSwap>(seed, scenario).Run(steps),
        "drain" => new Simulator<Mutants.NoDrain>(seed, scenario).Run(steps),
        _ => throw new ArgumentException($"there is no safety rule '{mutant}'; there are {string.Join(", ", MutantNames)}", nameof(mutant)),
    };
}
