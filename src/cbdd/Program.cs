using Cbd.Control;
using Cbd.Exports.Fuse;
using Cbd.Exports.Kernel;
using Cbd.Exports.KernelNbd;
using Cbd.Exports.Nbd;
using Cbd.Exports.Ublk;
using Cbd.Memory;
using Cbd.Programs.Daemon;
using Cbd.Programs.Daemon.Supervision;
using Cbd.Host;
using Microsoft.Extensions.Logging;

// Nobody may read what a daemon says: its end does not wait for that.
var output = new ProgramOutput("cbdd", patienceMs: 1_000);
if (args is [LoopProgram.Verb, ..])
    return output.Run(() => LoopProgram.Run(args.AsSpan(1), output.Results));
MemoryPressure.BecomeIoFlusher(args);
if (SupervisorProgram.IsFromMemory)
    ProcessMemory.SetName("cbdd");
// Help is formatted for a width that .NET's console is asked for, which puts the terminal's keypad into application mode; without
// TERM it cannot.
Environment.SetEnvironmentVariable("TERM", null);
return output.Run(() => DaemonProgram.Run(args, output, static (options, given, kept) =>
{
    MemoryPressure.Prepare(options.Logger);
    var sockets = new NbdExportFactory(line => options.Logger.LogInformation("{Line}", line), given, kept);
    return new Node(options, sockets, new KernelExports(new AttachPlaces { Trust = options.Access.Trust }, new UblkAttachKind(options.Kept?.Attachments), new KernelNbdAttachKind(options.Kept?.Attachments), new FuseAttachKind(lives: options.Kept?.Attachments)));
}));
