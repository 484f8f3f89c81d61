using Cbd.Control;
using Cbd.Control.Api.Client;
using Cbd.Control.Verbs;
using Cbd.Memory;
using Cbd.Programs.Ctrl.Bench;

namespace Cbd.Programs.Ctrl;

internal static class Program
{
    private static int Main(string[] words)
    {
        // With its first output .NET's console puts the terminal's keypad into application mode; without TERM it cannot.
        Environment.SetEnvironmentVariable("TERM", null);
        var root = VerbSet.NewRoot("Control a CBD daemon. Exit codes: 0 done, 2 wrong argument, 3 not found, 4 busy, "
            + "5 nothing free, 6 not allowed, 7 corrupt, 8 failed, 9 no answer in time, 10 cannot be done here, 11 no daemon.");
        var runDirectory = VerbOptions.Text("--run-dir", null,
            "the daemon to talk to; by default $CBD_RUN_DIR, /run/cbd for root, $XDG_RUNTIME_DIR/cbd for others", "DIR");
        runDirectory.Recursive = true;
        var version = VerbOptions.Flag("--version", null, "print the version");
        root.Options.Add(runDirectory);
        root.Options.Add(version);
        var verbs = new VerbSet(root, "cbdctrl", WaitVerb.Make(), BenchVerb.Create());
        try
        {
            var line = verbs.Parse(words);
            if (line.CommandResult.Command == root && line.UnmatchedTokens.Count == 0 && line.GetValue(version))
            {
                Console.Out.Write($"cbdctrl {ProductVersion.Text}\n");
                return ErrorKinds.ExitSuccess;
            }

            if (verbs.Select(line) is not { } verb)
                return line.Invoke();
            var socket = Path.Combine(RunDirectories.ForClient(line.GetValue(runDirectory)), RunDirectories.SocketName);
            verb.Execute(new ControlClient(socket), new VerbOutput(Console.Out, toTerminal: !Console.IsOutputRedirected, Note));
            return ErrorKinds.ExitSuccess;
        }
        catch (NoDaemonException e)
        {
            return Fail(e.Message, ErrorKinds.ExitNoDaemon);
        }
        catch (CbdException e)
        {
            return Fail(e.Message, ErrorKinds.ExitCode(e.Kind));
        }
        catch (Exception e) when (e is not OutOfMemoryException)
        {
            return Fail($"this is a bug, please report it: {e.GetType().Name}: {e.Message}", ErrorKinds.ExitBug);
        }
    }

    private static void Note(string message) => Console.Error.Write($"cbdctrl: note: {OneLine.From(message)}\n");

    private static int Fail(string message, int exitCode)
    {
        Console.Error.Write($"cbdctrl: {OneLine.From(message)}\n");
        return exitCode;
    }
}
