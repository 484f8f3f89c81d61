using Cbd.Control;
using Cbd.Control.Verbs;
using Cbd.Host;
using Cbd.Host.Logs;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Cbd.Memory.Store;
using Cbd.Programs.Daemon.Logs;
using Cbd.Programs.Daemon.Supervision;
using Cbd.Programs.Daemon.Upgrading;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon;

/// <summary>cbdd from its words to its exit code.</summary>
internal static class DaemonProgram
{
    public static int Run(string[] words, ProgramOutput output, Func<NodeOptions, GivenSockets, KeptSockets, INode> createNode)
    {
        var commandLine = new DaemonCommandLine();
        var line = commandLine.Parse(words);
        if (DaemonCommandLine.AsksForHelp(line))
            return output.PrintHelp(line);
        if (commandLine.AsksForVersion(line))
        {
            output.Results.Write($"cbdd {ProductVersion.Text}\n");
            return ErrorKinds.ExitSuccess;
        }

        var options = commandLine.Options(line);
        if (options.CheckStart)
        {
            var verbs = VerbSet.ForDaemon();
            foreach (var verb in options.RunLines)
                _ = verbs.ParseLine(verb);
            output.Results.Write(StartCheck.Text);
            return ErrorKinds.ExitSuccess;
        }

        if (options.Supervise && !SupervisorProgram.IsFromMemory)
            SupervisorProgram.MoveToMemory(words);
        using var logs = new LogQueue(new LogStream(StandardStream.Error, options.LogsAsJson).Write);
        try
        {
            if (options.Supervise)
                return SupervisorProgram.Run(words, options, logs.CreateLogger("supervisor"));
            var logger = logs.CreateLogger("cbdd");
            DescriptorStore? kept = null;
            using var manager = NotifySocket.TryFromEnvironment(() =>
            {
                if (Volatile.Read(ref kept) is not null)
                    logger.LogWarning("the supervisor or service manager of this process has ended: nothing is kept any more, and devices end with this process; restart cbdd when its devices may pause");
            });
            using var store = kept = DescriptorStore.TryFromEnvironment(manager, GivenDescriptors.TakeFromEnvironment(), out var others, line => logger.LogWarning("{Line}", line));
            using var given = GivenSockets.Own(others);
            using var sockets = new KeptSockets(store, line => logger.LogWarning("{Line}", line));
            return new Daemon(options, logs, new Inherited(given, sockets, store, manager, Watchdog.TakeFromEnvironment(), SupervisorWords.TakeFromEnvironment()), createNode).Run();
        }
        catch (CbdException e) when (options.LogsAsJson)
        {
            logs.CreateLogger("cbdd").LogCritical("{Reason}", e.Message);
            return ErrorKinds.ExitCodeOf(e);
        }
    }
}
