using Cbd.Control;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Cbd.Programs.Daemon.Logs;
using Cbd.Host;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon;

/// <summary>cbdd from its words to its exit code.</summary>
internal static class DaemonProgram
{
    public static async Task<int> RunAsync(string[] words, Func<NodeOptions, GivenSockets, INode> createNode)
    {
        var commandLine = new DaemonCommandLine();
        var line = commandLine.Parse(words);
        if (DaemonCommandLine.AsksForHelp(line))
            return await line.InvokeAsync();
        if (commandLine.AsksForVersion(line))
        {
            Console.Out.Write($"cbdd {ProductVersion.Text}\n");
            return ErrorKinds.ExitSuccess;
        }

        StderrLogs? logs = null;
        var asJson = false;
        try
        {
            var options = commandLine.Options(line);
            asJson = options.LogsAsJson;
            using (logs = new StderrLogs(Console.Error, asJson))
            using (var given = GivenSockets.TakeFromEnvironment())
                return await new Daemon(options, logs, given, createNode).RunAsync();
        }
        catch (CbdException e)
        {
            if (asJson)
                logs!.CreateLogger("cbdd").LogCritical("{Reason}", e.Message);
            else
                Console.Error.Write($"cbdd: {OneLine.From(e.Message)}\n");
            return ErrorKinds.ExitCode(e.Kind);
        }
    }
}
