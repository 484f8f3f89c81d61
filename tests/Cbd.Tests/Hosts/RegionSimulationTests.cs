using System.Text.RegularExpressions;
using Cbd.Simulation;
using Cbd.Simulation.Region;
using Cbd.Tests.Architecture;
using Xunit;

namespace Cbd.Tests.Hosts;

/// <summary>Fixed seeds of a whole region with several hosts, and the crash matrix, cell by cell.</summary>
public partial class RegionSimulationTests
{
    public static TheoryData<string> Scenarios => [.. WorldScenario.All.Keys];

    public static TheoryData<string> Cells => [.. CrashMatrix.Cells.Select(c => c.Name)];

    [Theory]
    [MemberData(nameof(Scenarios))]
    public void Nothing_is_lost_or_had_twice_and_everything_comes_back(string scenario)
    {
        int requests = 0;
        for (long seed = 1; seed <= 3; seed++)
            requests += Simulations.Run("", seed, WorldScenario.All[scenario], Simulations.DefaultSteps).Requests;
        // Some hundreds where disks are slow, thousands elsewhere.
        Assert.True(requests > 200, $"the users sent {requests} requests only");
    }

    [Theory]
    [MemberData(nameof(Cells))]
    public void A_death_in_each_state_has_the_outcome_of_the_crash_matrix(string name)
    {
        MatrixCell cell = CrashMatrix.Cells.Single(c => c.Name == name);
        Assert.True(DirectedRuns.Cover(cell) > 0, $"no run came to the state of {name}, or its outcome {cell.Outcome} was never seen");
    }

    [Fact]
    public void A_seed_replays_the_same_run()
    {
        var first = new List<string>();
        var second = new List<string>();
        Simulations.Run("", 5, WorldScenario.Everything, 10_000, first.Add);
        Simulations.Run("", 5, WorldScenario.Everything, 10_000, second.Add);
        Assert.True(first.Count > 500);
        Assert.Equal(first, second);
    }

    /// <summary>The tables of the document and the data that the simulator counts are one.</summary>
    [Fact]
    public void The_crash_matrix_of_the_document_is_the_one_that_is_simulated()
    {
        string text = File.ReadAllText(Path.Combine(SourceTree.Root, "docs", "protocol.md"));
        var expected = CrashMatrix.Cells.Select(c => $"{c.Row} | {c.Column} | {c.Text}").Distinct().Order(StringComparer.Ordinal).ToList();
        var found = new List<string>();
        foreach (string section in text[text.IndexOf("\n## Crash matrix", StringComparison.Ordinal)..].Split("\n### ")[1..])
        {
            string[][] rows = [.. section.Split('\n').Where(l => l.StartsWith('|') && !Rule().IsMatch(l)).Select(l => l.Trim('|', ' ').Split(" | ").Select(c => c.Trim()).ToArray())];
            string[] header = rows[0];
            int keys = header.Length == 4 ? 1 : 2;
            string first = "";
            foreach (string[] raw in rows[1..])
            {
                // An entry's name stands in its first row only.
                string[] row = raw.Length < header.Length || raw[0].Length == 0 ? [first, .. raw.Where(c => c.Length > 0)] : raw;
                first = row[0].TrimStart('|', ' ');
                row[0] = first;
                for (int column = keys; column < header.Length; column++)
                    found.Add($"{string.Join(" | ", row[..keys])} | {header[column]} | {row[column]}");
            }
        }

        Assert.Equal(expected, found.Distinct().Order(StringComparer.Ordinal));
    }

    [GeneratedRegex(@"^\|[-| ]+\|$")]
    private static partial Regex Rule();
}
