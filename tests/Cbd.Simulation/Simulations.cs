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
        ["rivals"] = Scenario.Rivals,
        ["no-payload-crc"] = Scenario.SlowDisk with { PayloadCrc = false, Visibility = VisibilityFaults.None, Pause = 0.001 },
    };

    /// <summary>Safety rules that can be switched off, by name.</summary>
    public static IReadOnlyList<string> Rules { get; } = [.. typeof(IProtocolPolicy).GetProperties().Select(p => p.Name)];

    /// <summary>Runs one seed; an empty <paramref name="mutant"/> is the shipped policy.</summary>
    public static SimulationSummary Run(string mutant, long seed, Scenario scenario, int steps)
    {
        if (mutant.Length == 0)
            return new Simulator<SafePolicy>(seed, scenario).Run(steps);
        if (!Rules.Contains(mutant))
            throw new ArgumentException($"there is no safety rule '{mutant}'; there are {string.Join(", ", Rules)}", nameof(mutant));
        MutantPolicy.Off = mutant;
        try
        {
            return new Simulator<MutantPolicy>(seed, scenario).Run(steps);
        }
        finally
        {
            MutantPolicy.Off = null;
        }
    }
}
