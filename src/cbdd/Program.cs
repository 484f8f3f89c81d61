using Cbd.Exports.Nbd;
using Cbd.Programs.Daemon;
using Cbd.Runtime;
using Microsoft.Extensions.Logging;

// With its first output .NET's console puts the terminal's keypad into application mode; without TERM it cannot.
Environment.SetEnvironmentVariable("TERM", null);
return await DaemonProgram.RunAsync(
    args,
    static options => new Node(options, new NbdExportFactory(line => options.Logger.LogInformation("{Line}", line))));
