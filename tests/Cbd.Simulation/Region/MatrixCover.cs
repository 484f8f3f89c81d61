namespace Cbd.Simulation.Region;

/// <summary>How often each cell of the crash matrix was seen, with its outcome.</summary>
internal sealed class MatrixCover
{
    private readonly Dictionary<string, int> _seen = [];

    /// <summary>Every cell was seen at least once.</summary>
    public bool IsWhole => CrashMatrix.Cells.All(c => CountOf(c) > 0);

    public int CountOf(MatrixCell cell) => _seen.GetValueOrDefault(cell.Name);

    public void Add(IReadOnlyDictionary<string, int> covered)
    {
        foreach ((string name, int count) in covered)
            _seen[name] = _seen.GetValueOrDefault(name) + count;
    }

    /// <summary>The matrix as a table.</summary>
    public void Print(TextWriter output)
    {
        output.WriteLine($"{"cell",-36} {"seen",7}  outcome");
        foreach (MatrixCell cell in CrashMatrix.Cells)
            output.WriteLine($"{cell.Name,-36} {CountOf(cell),7}  {cell.Outcome}");
        output.WriteLine($"crash matrix: {CrashMatrix.Cells.Count(c => CountOf(c) > 0)} of {CrashMatrix.Cells.Count} cells covered");
    }
}

/// <summary>Runs that aim at one cell each: processes die in that state, and only there.</summary>
internal static class DirectedRuns
{
    private const int MaxSeeds = 40;
    private const int Steps = 40_000;

    /// <summary>Runs seeds for each cell until it was seen; returns what was.</summary>
    /// <param name="failures">Gets what a run violated.</param>
    public static MatrixCover Run(Action<string>? failures = null)
    {
        var cover = new MatrixCover();
        foreach (MatrixCell cell in CrashMatrix.Cells)
        {
            for (long seed = 1; seed <= MaxSeeds && cover.CountOf(cell) == 0; seed++)
            {
                try
                {
                    cover.Add(Run(cell, seed).Covered);
                }
                catch (SimulationException e)
                {
                    failures?.Invoke(e.Message.Split('\n')[0]);
                }
            }
        }

        return cover;
    }

    /// <summary>Runs seeds for one cell until it was seen; how often it was.</summary>
    public static int Cover(MatrixCell cell)
    {
        int seen = 0;
        for (long seed = 1; seed <= MaxSeeds && seen == 0; seed++)
            seen = Run(cell, seed).Covered.GetValueOrDefault(cell.Name);
        return seen;
    }

    private static WorldScenario ScenarioOf(MatrixCell cell) =>
        cell.State is MatrixState.BlkdevKept or MatrixState.BlkdevAdopting ? WorldScenario.DirectedAdoptions : WorldScenario.Directed;

    /// <summary>One seed aimed at one cell.</summary>
    public static WorldSummary Run(MatrixCell cell, long seed, Action<string>? log = null)
    {
        try
        {
            return new World<SafePolicy>(seed, ScenarioOf(cell), cell) { Log = log }.Run(Steps);
        }
        catch (SimulationException e)
        {
            throw new SimulationException($"seed {seed} of 'directed@{cell.Name}', {Steps} steps: {e.Message}", e);
        }
    }
}
