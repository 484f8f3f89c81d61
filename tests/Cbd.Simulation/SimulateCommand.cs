using System.Diagnostics;
using System.Globalization;
using Cbd.Simulation.Region;

namespace Cbd.Simulation;

/// <summary>The command line of the simulator: fresh seeds, one seed again, the crash matrix, the mutation gate.</summary>
internal static class SimulateCommand
{
    private static readonly string s_usage = $"""
        simulate [--minutes N | --seeds N] [--from S] [--scenario NAME] [--steps N]
            fresh seeds (from S on; by default a number from the clock); then the cover of the crash matrix
        simulate --seed S [--scenario NAME] [--steps N] [--mutant RULE]
            one seed again, with every event and request; NAME@CELL aims at a cell of the crash matrix
        simulate --matrix
            a directed run for each cell of the crash matrix, and the cover
        simulate --gate [--seeds N] [--mutant RULE]
            each safety rule switched off, and the seed of the first N that notices
        Scenarios of a region with several hosts: {string.Join(", ", WorldScenario.All.Keys)};
        of one channel pair: {string.Join(", ", Simulations.Scenarios.Keys)}; none: everything, with others now and then.
        """;

    /// <summary>Runs it; 0 if nothing was wrong, 1 if something was, 2 if the command line is.</summary>
    public static int Run(string[] args, TextWriter output, TextWriter error)
    {
        var options = new Dictionary<string, string>();
        for (int i = 0; i < args.Length; i++)
        {
            string name = args[i];
            if (name is "--matrix" or "--gate" or "--help")
                options[name] = "";
            else if (name is "--minutes" or "--seeds" or "--seed" or "--from" or "--scenario" or "--steps" or "--mutant" && i + 1 < args.Length)
                options[name] = args[++i];
            else
                return Refuse($"'{name}' is no option, or lacks its value");
        }

        if (options.ContainsKey("--help"))
        {
            output.WriteLine(s_usage);
            return 0;
        }

        string scenario = options.GetValueOrDefault("--scenario", "");
        if (scenario.Length > 0 && !Simulations.IsScenario(scenario))
            return Refuse($"there is no scenario '{scenario}'");
        string mutant = options.GetValueOrDefault("--mutant", "");
        if (mutant.Length > 0 && !Simulations.Rules.Contains(mutant))
            return Refuse($"there is no rule '{mutant}'; there are {string.Join(", ", Simulations.Rules)}");
        foreach (string name in (string[])["--minutes", "--seeds", "--seed", "--from", "--steps"])
        {
            if (options.TryGetValue(name, out string? text) && !(long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out long value) && value > 0))
                return Refuse($"{name} is '{text}', not a number above 0");
        }

        int steps = (int)Number("--steps", Simulations.DefaultSteps);
        if (options.ContainsKey("--gate"))
            return MutationGate.Print(output, Number("--seeds", MutationGate.SeedCount), mutant) ? 0 : 1;
        if (options.ContainsKey("--matrix"))
        {
            int violations = 0;
            MatrixCover cover = DirectedRuns.Run(what =>
            {
                violations++;
                output.WriteLine(what);
            });
            cover.Print(output);
            return cover.IsWhole && violations == 0 ? 0 : 1;
        }

        if (options.ContainsKey("--seed"))
            return Replay(output, Number("--seed", 0), scenario.Length > 0 ? scenario : "everything", steps, mutant);
        long from = Number("--from", DateTime.UtcNow.Ticks / 10_000 % 1_000_000_000_000);
        return Fresh(output, from, Number("--minutes", 0), Number("--seeds", 0), scenario, steps);

        long Number(string name, long otherwise) =>
            options.TryGetValue(name, out string? text) ? long.Parse(text, CultureInfo.InvariantCulture) : otherwise;

        int Refuse(string why)
        {
            error.WriteLine($"simulate: {why}\n{s_usage}");
            return 2;
        }
    }

    private static int Replay(TextWriter output, long seed, string scenario, int steps, string mutant)
    {
        try
        {
            output.WriteLine($"seed {seed} of '{scenario}': {Simulations.RunAny(mutant, seed, scenario, steps, output.WriteLine)}");
            return 0;
        }
        catch (SimulationException e)
        {
            output.WriteLine($"seed {seed} of '{scenario}': {e.Message}");
            return 1;
        }
    }

    private static int Fresh(TextWriter output, long from, long minutes, long seeds, string scenario, int steps)
    {
        if (minutes == 0 && seeds == 0)
            seeds = 20;
        var watch = Stopwatch.StartNew();
        var cover = new MatrixCover();
        int failed = 0;
        long requests = 0, deaths = 0, count = 0;
        for (long seed = from; minutes > 0 ? watch.Elapsed.TotalMinutes < minutes : seed < from + seeds; seed++, count++)
        {
            string chosen = scenario.Length > 0 ? scenario : Simulations.ScenarioOf(seed);
            try
            {
                RunResult run = Simulations.RunAny("", seed, chosen, steps, null);
                requests += run.Requests;
                deaths += run.Deaths;
                cover.Add(run.Covered);
            }
            catch (SimulationException e)
            {
                failed++;
                output.WriteLine($"seed {seed} of '{chosen}': {e.Message.Split('\n')[0]}");
                output.WriteLine($"  again: scripts/simulate --seed {seed} --scenario {chosen} --steps {steps}");
            }
        }

        cover.Print(output);
        output.WriteLine($"{count} seeds from {from}: {failed} failed; {requests} requests, {deaths} deaths of processes, {watch.Elapsed.TotalSeconds:F0} s");
        return failed == 0 ? 0 : 1;
    }
}
