using Cbd.Control;
using Cbd.Host;
using Cbd.Host.Logs;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Cbd.Programs.Daemon.Logs;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon;

/// <summary>cbdd from its words to its exit code.</summary>
internal static class DaemonProgram
{
    public static int Run(string[] words, ProgramOutput output, Func<NodeOptions, GivenSockets, INode> createNode)
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
        using var logs = new LogQueue(new LogStream(StandardStream.Error, options.LogsAsJson).Write);
        try
        {
            using var given = GivenSockets.TakeFromEnvironment();
            return new Daemon(options, logs, given, createNode).Run();
        }
        catch (CbdException e) when (options.LogsAsJson)
        {
            logs.CreateLogger("cbdd").LogCritical("{Reason}", e.Message);
            return ErrorKinds.ExitCodeOf(e);
        }
    }
}
