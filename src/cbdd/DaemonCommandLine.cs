using System.CommandLine;
using System.CommandLine.Help;
using Cbd.Control.Api.Client;
using Cbd.Control.Verbs;
using Cbd.Memory;
using Cbd.Host;

namespace Cbd.Programs.Daemon;

/// <summary>cbdd's options. Nothing is taken from the environment but the XDG directories, HOME, and given sockets.</summary>
internal sealed class DaemonCommandLine
{
    private const int LeastBeatMs = 10;
    private const int MostMs = 3_600_000;
    private const int MostTransports = 1024;

    private readonly Option<string?> _runDirectory = VerbOptions.Text(
        "--run-dir", null, "lock, control socket and NBD sockets; by default /run/cbd for root, $XDG_RUNTIME_DIR/cbd for others", "DIR");
    private readonly Option<string?> _stateDirectory = VerbOptions.Text(
        "--state-dir", null, "host uuid and record; by default /var/lib/cbd for root, $XDG_STATE_HOME/cbd for others", "DIR");
    private readonly Option<string?> _disksDirectory = VerbOptions.Text(
        "--disks-dir", null, $"where daemons of this machine reserve their writable disks; by default {RunDirectories.DisksDirectory} for all", "DIR");
    private readonly Option<string?> _socketGroup = VerbOptions.Text(
        "--socket-group", null, "members of this group may use the control socket, too", "GROUP");
    private readonly Option<bool> _restore = VerbOptions.Flag(
        "--restore", null, "start again what the record in the state directory has; this is the default");
    private readonly Option<bool> _noRestore = VerbOptions.Flag(
        "--no-restore", null, "leave what the record has alone: it is listed by 'cbdctrl wait', and verbs start or forget it");
    private readonly Option<bool> _adoptRecord = VerbOptions.Flag(
        "--adopt-record", null, "the record was written by another machine, which is gone, and this one takes its place");
    private readonly Option<string[]> _run = new("--run")
    {
        Description = "do this verb of cbdctrl at start; it waits for what is not there yet, and any other error ends cbdd; may be given many times",
        HelpName = "'VERB …'",
        Arity = ArgumentArity.OneOrMore,
        AllowMultipleArgumentsPerToken = false,
    };
    private readonly Option<int> _beat = VerbOptions.NumberOr(
        "--beat-ms", null, "period of the heartbeat", NodeOptions.DefaultBeatMs);
    private readonly Option<int> _dead = VerbOptions.NumberOr(
        "--dead-ms", null, "a heartbeat that stands still this long is a dead host's", NodeOptions.DefaultDeadMs);
    private readonly Option<int> _fence = VerbOptions.NumberOr(
        "--fence-ms", null, "a host that could not beat for so long stores nothing before it has seen that its entry is still its own", NodeOptions.DefaultFenceMs);
    private readonly Option<int> _maxTransports = VerbOptions.NumberOr(
        "--max-transports", null, "transports at once", NodeOptions.DefaultMaxTransports);
    private readonly Option<string> _logFormat = VerbOptions.Choice(
        "--log-format", null, "how logs are written to stderr", "text", "text", "json");
    private readonly Option<bool> _version = VerbOptions.Flag("--version", null, "print the version");
    private readonly RootCommand _root = VerbSet.NewRoot(
        "The CBD daemon of one host: its transports, backends and block devices. Runs in the foreground; SIGTERM drains and ends it.");

    public DaemonCommandLine()
    {
        _root.Directives.Clear();
        foreach (var option in new Option[]
        {
            _runDirectory, _stateDirectory, _disksDirectory, _socketGroup, _restore, _noRestore, _adoptRecord, _run, _beat, _dead, _fence, _maxTransports, _logFormat, _version,
        })
            _root.Options.Add(option);
    }

    public ParseResult Parse(IReadOnlyList<string> words) =>
        _root.Parse(words, new ParserConfiguration { ResponseFileTokenReplacer = null });

    public static bool AsksForHelp(ParseResult line) => line.Action is HelpAction;

    public bool AsksForVersion(ParseResult line) => line.Errors.Count == 0 && line.GetValue(_version);

    /// <summary>The options, or <see cref="CbdException"/> with one line.</summary>
    public DaemonOptions Options(ParseResult line)
    {
        if (line.Errors.Count > 0)
            throw Invalid($"{line.Errors[0].Message.TrimEnd('.')}; see 'cbdd --help'");
        var options = new DaemonOptions
        {
            RunDirectory = FullPath(line.GetValue(_runDirectory), "--run-dir") ?? RunDirectories.DefaultRunDirectory(),
            StateDirectory = FullPath(line.GetValue(_stateDirectory), "--state-dir") ?? RunDirectories.DefaultStateDirectory(),
            DisksDirectory = FullPath(line.GetValue(_disksDirectory), "--disks-dir") ?? RunDirectories.DisksDirectory,
            SocketGroup = line.GetValue(_socketGroup),
            NoRestore = line.GetValue(_noRestore),
            AdoptRecord = line.GetValue(_adoptRecord),
            RunLines = line.GetValue(_run) ?? [],
            LogsAsJson = line.GetValue(_logFormat) == "json",
            BeatMs = line.GetValue(_beat),
            DeadMs = line.GetValue(_dead),
            FenceMs = line.GetValue(_fence),
            MaxTransports = line.GetValue(_maxTransports),
        };
        if (line.GetValue(_restore) && options.NoRestore)
            throw Invalid("--restore and --no-restore: leave one of the two out");
        CheckTimes(options);
        return options;
    }

    private static void CheckTimes(DaemonOptions options)
    {
        if (options.BeatMs is < LeastBeatMs or > MostMs)
            throw Invalid($"--beat-ms is {options.BeatMs}; it must be {LeastBeatMs} to {MostMs}");
        if (options.FenceMs <= options.BeatMs || options.FenceMs >= options.DeadMs)
            throw Invalid($"--fence-ms is {options.FenceMs}; it must be above --beat-ms {options.BeatMs} and below --dead-ms {options.DeadMs}");
        if (options.DeadMs < 4L * options.BeatMs || options.DeadMs > MostMs)
            throw Invalid($"--dead-ms is {options.DeadMs}; it must be at least four beats ({4L * options.BeatMs}) and at most {MostMs}");
        if (options.MaxTransports is < 1 or > MostTransports)
            throw Invalid($"--max-transports is {options.MaxTransports}; it must be 1 to {MostTransports}");
    }

    private static string? FullPath(string? path, string option)
    {
        if (path is null)
            return null;
        return path.Length > 0 && !path.Contains('\0', StringComparison.Ordinal)
            ? PathText.DirectoryFromCaller(path)
            : throw Invalid($"{option} is '{path}'; give a directory");
    }

    private static CbdException Invalid(string message) => new(CbdErrorKind.Invalid, message);
}
