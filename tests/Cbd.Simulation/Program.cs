using System.Diagnostics;
using System.Globalization;
using Cbd.Channels;
using Cbd.Simulation;

// cbd-simulate [--seed N] [--count N] [--steps N] [--scenario NAME] [--mutant NAME]
long seed = 1;
int count = 20;
int steps = 20_000;
string scenario = "";
string mutant = "";
for (int i = 0; i + 1 < args.Length; i += 2)
{
    switch (args[i])
    {
        case "--seed": seed = long.Parse(args[i + 1], CultureInfo.InvariantCulture); break;
        case "--count": count = int.Parse(args[i + 1], CultureInfo.InvariantCulture); break;
        case "--steps": steps = int.Parse(args[i + 1], CultureInfo.InvariantCulture); break;
        case "--scenario": scenario = args[i + 1]; break;
        case "--mutant": mutant = args[i + 1]; break;
        default: Console.Error.WriteLine($"cbd-simulate: unknown option {args[i]}"); return 2;
    }
}

int failures = 0;
foreach ((string name, Scenario one) in Simulations.Scenarios)
{
    if (scenario.Length > 0 && scenario != name)
        continue;
    var watch = Stopwatch.StartNew();
    int requests = 0, errors = 0, resets = 0, lives = 0, failed = 0;
    for (long s = seed; s < seed + count; s++)
    {
        try
        {
            SimulationSummary run = Simulations.Run(mutant, s, one, steps);
            requests += run.Requests;
            errors += run.Errors;
            resets += run.Resets;
            lives += run.BackendLives + run.DeviceLives;
        }
        catch (SimulationException e)
        {
            failed++;
            if (failed <= 3)
                Console.WriteLine($"{name} seed {s}: {e.Message}");
        }
    }

    failures += failed;
    Console.WriteLine($"{name}: seeds {seed} to {seed + count - 1}: {failed} failed; {requests} requests, {errors} errors, {resets} resets, {lives} lives, {watch.Elapsed.TotalSeconds:F1} s");
}

return failures == 0 ? 0 : 1;
