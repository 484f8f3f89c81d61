using System.CommandLine;
using Cbd.Control;
using Cbd.Control.Api.Client;
using Cbd.Control.Verbs;
using Cbd.Programs.Ctrl.Bench;

namespace Cbd.Programs.Ctrl;

internal static class Program
{
    private static int Main(string[] words)
    {
        // Help is formatted for a width that .NET's console is asked for, which puts the terminal's keypad into application mode; without
        // TERM it cannot.
        Environment.SetEnvironmentVariable("TERM", null);
        var output = new ProgramOutput("cbdctrl");
        return output.Run(() => Run(words, output));
    }

    private static int Run(string[] words, ProgramOutput output)
    {
        var root = VerbSet.NewRoot("Control a CBD daemon. Exit codes: 0 done, 2 wrong argument, 3 not found, 4 busy, "
            + "5 nothing free, 6 not allowed, 7 corrupt, 8 failed, 9 no answer in time, 10 cannot be done here, 11 no daemon.");
        var runDirectory = VerbOptions.Text("--run-dir", null,
            "the daemon to talk to; by default $CBD_RUN_DIR, /run/cbd for root, $XDG_RUNTIME_DIR/cbd for others", "DIR");
        runDirectory.Recursive = true;
        var version = VerbOptions.Flag("--version", null, "print the version");
        root.Options.Add(runDirectory);
        root.Options.Add(version);
        var verbs = new VerbSet(root, "cbdctrl", WaitVerb.Make(), DaemonVerb.Make(), BenchVerb.Create());
        var line = verbs.Parse(words);
        if (line.CommandResult.Command == root && line.UnmatchedTokens.Count == 0 && line.GetValue(version))
        {
            output.Results.Write($"cbdctrl {ProductVersion.Text}\n");
            return ErrorKinds.ExitSuccess;
        }

        if (verbs.Select(line) is not { } verb)
            return output.PrintHelp(line);
        var socket = Path.Combine(RunDirectories.ForClient(line.GetValue(runDirectory)), RunDirectories.SocketName);
        verb.Execute(new ControlClient(socket), new VerbOutput(output.Results, output.IsToTerminal, output.Note, output.Progress));
        return ErrorKinds.ExitSuccess;
    }
}
