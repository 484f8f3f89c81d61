using System.CommandLine;
using System.Diagnostics;

namespace Cbd.Control.Verbs;

/// <summary>wait: until what this host should have is there.</summary>
internal static class WaitVerb
{
    private const int DefaultTimeoutSeconds = 60;
    private const int PollMs = 100;

    public static Verb Make()
    {
        var device = VerbOptions.Text("--device", "-d", "wait for this device alone", "NAME");
        var all = VerbOptions.Flag("--all", "-a", "wait for all transports, backends and devices (the default)");
        var timeout = VerbOptions.NumberOr("--timeout", null, "seconds to wait", DefaultTimeoutSeconds);
        var command = new Command(Operations.ListWanted.Name, "Wait until what this host should have runs; names what does not") { device, all, timeout };
        return new Verb(command, (line, control, output) =>
        {
            var name = line.GetValue(device);
            var seconds = line.GetValue(timeout);
            if (name is not null && line.GetValue(all))
                throw Rules.Invalid("--device and --all: leave one of the two out");
            Rules.CheckName(name, "device");
            Rules.CheckRange(seconds, "the timeout in seconds", 0, 365 * 24 * 3600);
            Wait(control, output, name, seconds);
        });
    }

    private static void Wait(IControl control, VerbOutput output, string? name, int seconds)
    {
        var watch = Stopwatch.StartNew();
        while (true)
        {
            var wanted = control.Execute(Operations.ListWanted, new ControlRequest());
            IReadOnlyList<WantedThing> things = name is null ? wanted.Things : [.. wanted.Things.Where(t => t.Kind == WantedThing.Device && t.Name == name)];
            if (name is not null && things.Count == 0 && !wanted.Starting)
                throw new CbdException(CbdErrorKind.NotFound, $"no device '{name}' is wanted on this host: see dev-list");
            // Held things are not waited for, unless one is asked for by its name.
            List<WantedThing> away = [.. things.Where(t => t.State != WantedThing.Running && (name is not null || t.State != WantedThing.Held))];
            if (away.Count == 0 && !wanted.Starting)
                return;
            bool failed = away.Exists(t => t.State == WantedThing.Failed || (t.State == WantedThing.Held && !wanted.Starting));
            if (!failed && watch.Elapsed.TotalSeconds < seconds)
            {
                Thread.Sleep(PollMs);
                continue;
            }

            foreach (var thing in away)
                output.Line($"{thing.Kind} {thing.Name}: {thing.State}{(thing.Reason is null ? "" : $": {thing.Reason}")}");
            throw failed
                ? new CbdException(CbdErrorKind.Failed, $"{away.Count} of {things.Count} do not run, and not all of them come back by themselves")
                : new CbdException(CbdErrorKind.TimedOut, $"{away.Count} of {things.Count} do not run after {seconds} s{(wanted.Starting ? ", and the daemon still starts" : "")}");
        }
    }
}
