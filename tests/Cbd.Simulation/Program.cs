using System.Diagnostics;
using System.Globalization;
using Cbd;
using Cbd.Simulation;
using Cbd.Simulation.Region;

string scenario = "everything", mutant = "";
long seed = 1, count = 1;
int steps = 60000;
for (int i = 0; i + 1 < args.Length; i += 2)
{
    switch (args[i])
    {
        case "--scenario": scenario = args[i + 1]; break;
        case "--mutant": mutant = args[i + 1]; break;
        case "--seed": seed = long.Parse(args[i + 1], CultureInfo.InvariantCulture); break;
        case "--count": count = long.Parse(args[i + 1], CultureInfo.InvariantCulture); break;
        case "--steps": steps = int.Parse(args[i + 1], CultureInfo.InvariantCulture); break;
    }
}
int failed = 0;
var covered = new Dictionary<string, int>();
MatrixCell? target = scenario.Contains('/') ? CrashMatrix.Cells.First(c => c.Name == scenario) : null;
for (long s = seed; s < seed + count; s++)
{
    var watch = Stopwatch.StartNew();
    try
    {
        WorldScenario chosen = target is null ? WorldScenario.All[scenario] : WorldScenario.Directed;
        MutantPolicy.Off = mutant.Length > 0 ? mutant : null;
        WorldSummary run = mutant.Length > 0 ? new World<MutantPolicy>(s, chosen, target).Run(steps) : new World<SafePolicy>(s, chosen, target).Run(steps);
        foreach ((string name, int n) in run.Covered)
            covered[name] = covered.GetValueOrDefault(name) + n;
        if (count <= 10)
            Console.WriteLine($"seed {s}: {run.Requests} requests {run.Errors} errors {run.Deaths} deaths {run.Devices} devices {run.Sessions} sessions {run.Accesses} accesses {watch.ElapsedMilliseconds} ms");
    }
    catch (SimulationException e)
    {
        failed++;
        if (failed <= 5) Console.WriteLine($"seed {s}: {(count > 10 ? e.Message.Split('\n')[0] : e.Message + "\n" + e.InnerException?.StackTrace)}");
    }
}
Console.WriteLine($"{scenario} {mutant}: {failed} of {count} failed");
foreach (MatrixCell cell in CrashMatrix.Cells)
    Console.Write($"{cell.Name} {covered.GetValueOrDefault(cell.Name)}; ");
Console.WriteLine();
return failed == 0 ? 0 : 1;
