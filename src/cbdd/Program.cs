using Cbd.Exports.Fuse;
using Cbd.Exports.Kernel;
using Cbd.Exports.KernelNbd;
using Cbd.Exports.Nbd;
using Cbd.Exports.Ublk;
using Cbd.Programs.Daemon;
using Cbd.Host;
using Microsoft.Extensions.Logging;

if (args is [LoopProgram.Verb, ..])
    return LoopProgram.Run(args.AsSpan(1), Console.Out);
MemoryPressure.BecomeIoFlusher(args);
// With its first output .NET's console puts the terminal's keypad into application mode; without TERM it cannot.
Environment.SetEnvironmentVariable("TERM", null);
return await DaemonProgram.RunAsync(args, static (options, given) =>
{
    MemoryPressure.Prepare(options.Logger);
    var sockets = new NbdExportFactory(line => options.Logger.LogInformation("{Line}", line), given);
    return new Node(options, sockets, new KernelExports(new AttachPlaces(), new UblkAttachKind(), new KernelNbdAttachKind(), new FuseAttachKind()));
});
