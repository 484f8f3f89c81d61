using System.CommandLine;
using System.Diagnostics;
using System.Globalization;
using Cbd.Control.Api.Client;

namespace Cbd.Control.Verbs;

/// <summary>daemon: looks at the process that answers, and puts another program in its place.</summary>
internal static class DaemonVerb
{
    private const int DefaultTimeoutSeconds = 60;
    private const int PollMs = 20;

    public static Verb Make()
    {
        var what = new Argument<string>("WHAT") { Description = "info: describe it; upgrade: put another program in its place, while its devices stay" };
        var program = VerbOptions.Text("--program", null, "with upgrade: the program; by default the one that the supervisor was started from", "PATH");
        var force = CommonOptions.Force("with upgrade: also if disks in memory begin anew");
        var timeout = VerbOptions.NumberOr("--timeout", null, "with upgrade: seconds to wait until the new program is ready", DefaultTimeoutSeconds);
        var command = new Command("daemon", "Describe or upgrade the daemon") { what, program, force, timeout };
        return new Verb(command, (line, control, output) =>
        {
            var seconds = line.GetValue(timeout);
            Rules.CheckRange(seconds, "the timeout in seconds", 1, 3600);
            switch (line.GetValue(what))
            {
                case "info":
                    Print(output, control.Execute(Operations.GetDaemon, new ControlRequest()));
                    break;
                case "upgrade":
                    var path = line.GetValue(program);
                    Upgrade(control, output, new UpgradeRequest { Program = path is null ? null : PathText.FromCaller(path), Force = line.GetValue(force) }, seconds);
                    break;
                default:
                    throw Rules.Invalid($"'{line.GetValue(what)}' is neither info nor upgrade; see 'cbdctrl daemon --help'");
            }
        });
    }

    private static void Upgrade(IControl control, VerbOutput output, UpgradeRequest request, int seconds)
    {
        var watch = Stopwatch.StartNew();
        var before = control.Execute(Operations.UpgradeDaemon, request);
        while (watch.Elapsed.TotalSeconds < seconds)
        {
            if (TryDescribe(control) is { } now && now.Pid != before.Pid && now.Ready)
            {
                if (now.UpgradeFailure is { } failure)
                    throw new CbdException(CbdErrorKind.Failed, $"the new program was taken back, and the old one goes on as pid {now.Pid}: {failure}");
                Print(output, now);
                return;
            }

            Thread.Sleep(PollMs);
        }

        throw new CbdException(CbdErrorKind.TimedOut, $"no new program answers after {seconds} s: see cbdctrl daemon info, and the log of the daemon");
    }

    /// <summary>Null while no process answers.</summary>
    private static DaemonDescription? TryDescribe(IControl control)
    {
        try
        {
            return control.Execute(Operations.GetDaemon, new ControlRequest());
        }
        catch (NoDaemonException)
        {
            return null;
        }
        catch (CbdException e) when (e.Kind is CbdErrorKind.Failed or CbdErrorKind.Corrupt)
        {
            // It ended while it answered.
            return null;
        }
    }

    private static void Print(VerbOutput output, DaemonDescription daemon) => output.Line(string.Create(
        CultureInfo.InvariantCulture,
        $"cbdd {daemon.Version} pid {daemon.Pid}{(daemon.Supervised ? $" supervised, restarts {daemon.Restarts}" : "")}{(daemon.UpgradeFailure is { } failure ? $"; the last upgrade was taken back: {failure}" : "")}"));
}
