using Cbd.Exports.Nbd;
using Cbd.Programs.Daemon;
using Cbd.Runtime;
using Microsoft.Extensions.Logging;

return await DaemonProgram.RunAsync(
    args,
    static options => new Node(options, new NbdExportFactory(line => options.Logger.LogInformation("{Line}", line))));
