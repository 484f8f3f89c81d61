using Cbd.Fuzz;
using SharpFuzz;

// Cbd.Fuzz list                      the targets
// Cbd.Fuzz instrument DIRECTORY      makes the assemblies of the product there count what they do
// Cbd.Fuzz fuzz TARGET               serves afl-fuzz, which starts it
// Cbd.Fuzz replay TARGET FILE...     gives the target each file once; an exception ends it
switch (args)
{
    case ["list"]:
        foreach (string name in FuzzTargets.All.Keys)
            Console.WriteLine(name);
        return 0;
    case ["instrument", var directory]:
        foreach (string file in Directory.EnumerateFiles(directory, "*.dll"))
        {
            string name = Path.GetFileNameWithoutExtension(file);
            if (name is "Cbd" or "Cbd.Blocks" or "Cbd.Protocol" or "Cbd.Memory" or "Cbd.Disks" or "Cbd.Host" or "Cbd.Exports" or "Cbd.Control.Api" or "Cbd.Control" or "cbdd")
                Console.WriteLine($"{name}: {Fuzzer.Instrument(file, _ => true, Options.Value).Count()} types");
        }

        return 0;
    case ["fuzz", var name] when FuzzTargets.All.TryGetValue(name, out Func<IFuzzTarget>? make):
        // Made in the first run: what counts branches is not there before.
        IFuzzTarget? fuzzed = null;
        var buffer = new byte[1 << 20];
        Fuzzer.Run(stream => (fuzzed ??= make()).Run(buffer.AsSpan(0, stream.ReadAtLeast(buffer, buffer.Length, throwOnEndOfStream: false))));
        return 0;
    case ["replay", var name, .. var files] when FuzzTargets.All.TryGetValue(name, out Func<IFuzzTarget>? make):
        IFuzzTarget target = make();
        foreach (string file in files)
        {
            Console.WriteLine(file);
            target.Run(File.ReadAllBytes(file));
        }

        return 0;
    default:
        Console.Error.WriteLine($"usage: Cbd.Fuzz list | instrument DIRECTORY | fuzz TARGET | replay TARGET FILE...; the targets are {string.Join(", ", FuzzTargets.All.Keys)}");
        return 2;
}
