using Cbd.Memory;
using Cbd.Programs.Daemon;

return await DaemonProgram.RunAsync(
    args,
    static options => throw new CbdException(CbdErrorKind.Unsupported, $"this build has no node to run on '{options.RunDirectory}'"));
