using Cbd.Simulation.Region;

namespace Cbd.Simulation;

/// <summary>What one run did, whichever model it was of.</summary>
internal sealed record RunResult(int Requests, int Errors, int Deaths, IReadOnlyDictionary<string, int> Covered)
{
    public override string ToString() => $"{Requests} requests, {Errors} errors, {Deaths} deaths, {Covered.Count} cells of the crash matrix";
}

/// <summary>The named scenarios of both models, and runs of them with the shipped policy or a mutant of it.</summary>
internal static class Simulations
{
    /// <summary>Steps of a run of a region.</summary>
    public const int DefaultSteps = 25_000;

    private const int ChannelSteps = 20_000;

    /// <summary>One or two pairs of hosts and their channels: dense faults on the lines.</summary>
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
    public static IReadOnlyList<string> Rules { get; } = [.. typeof(IProtocolPolicy).GetProperties().Select(p => p.Name), MutantPolicy.DiskLock];

    /// <summary>Whether it is a scenario; one of a region may have an @ and the cell of the crash matrix that it aims at.</summary>
    public static bool IsScenario(string name) =>
        Scenarios.ContainsKey(name) || (WorldScenario.All.ContainsKey(name.Split('@')[0]) && (!name.Contains('@', StringComparison.Ordinal) || CellOf(name) is not null));

    /// <summary>Which scenario a fresh seed runs: all faults, and of every eight one that leans on some.</summary>
    public static string ScenarioOf(long seed) => (seed % 8) switch
    {
        0 => "management",
        1 => "power-cuts",
        2 => "failing-flushes",
        3 => "pauses",
        4 => "adoptions",
        _ => "everything",
    };

    /// <summary>Runs one seed of a channel scenario; an empty <paramref name="mutant"/> is the shipped policy.</summary>
    public static SimulationSummary Run(string mutant, long seed, Scenario scenario, int steps) => With(mutant,
        () => new Simulator<SafePolicy>(seed, scenario).Run(steps),
        () => new Simulator<MutantPolicy>(seed, scenario).Run(steps));

    /// <summary>Runs one seed of a region; an empty <paramref name="mutant"/> is the shipped policy.</summary>
    public static WorldSummary Run(string mutant, long seed, WorldScenario scenario, int steps, Action<string>? log = null, MatrixCell? target = null) => With(mutant,
        () => new World<SafePolicy>(seed, scenario, target) { Log = log }.Run(steps),
        () => new World<MutantPolicy>(seed, scenario, target) { Log = log }.Run(steps));

    /// <summary>Runs one seed of any scenario.</summary>
    public static RunResult RunAny(string mutant, long seed, string scenario, int steps, Action<string>? log)
    {
        if (WorldScenario.All.TryGetValue(scenario.Split('@')[0], out WorldScenario? region))
        {
            WorldSummary run = Run(mutant, seed, region, steps, log, CellOf(scenario));
            return new RunResult(run.Requests, run.Errors, run.Deaths, run.Covered);
        }

        SimulationSummary channels = Run(mutant, seed, Scenarios[scenario], Math.Min(steps, ChannelSteps));
        return new RunResult(channels.Requests, channels.Errors, channels.BackendLives + channels.DeviceLives, new Dictionary<string, int>());
    }

    private static MatrixCell? CellOf(string scenario) => CrashMatrix.Cells.FirstOrDefault(c => scenario.EndsWith('@' + c.Name, StringComparison.Ordinal));

    private static T With<T>(string mutant, Func<T> safe, Func<T> mutated)
    {
        if (mutant.Length == 0)
            return safe();
        if (!Rules.Contains(mutant))
            throw new ArgumentException($"there is no safety rule '{mutant}'; there are {string.Join(", ", Rules)}", nameof(mutant));
        MutantPolicy.Off = mutant;
        try
        {
            return mutated();
        }
        finally
        {
            MutantPolicy.Off = null;
        }
    }
}
