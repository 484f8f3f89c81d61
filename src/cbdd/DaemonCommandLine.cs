using System.CommandLine;
using System.CommandLine.Help;
using Cbd.Control.Api.Client;
using Cbd.Control.Verbs;
using Cbd.Memory;
using Cbd.Host;
using Cbd.Programs.Daemon.Supervision;
using Cbd.Programs.Daemon.Upgrading;

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
    private readonly Option<string?> _observeGroup = VerbOptions.Text(
        "--observe-group", null, "members of this group may use the verbs that only list and look", "GROUP");
    private readonly Option<string[]> _allowPath = VerbOptions.Texts(
        "--allow-path", "members of --socket-group may open this file, or what is below this directory, with the daemon's rights, and nothing else; may be given many times; by default what they may open themselves", "PATH");
    private readonly Option<string[]> _trustOwner = new("--trust-owner")
    {
        Description = "use directories, regions and keys of this user, whatever their modes are; may be given many times; without USER those of all users. By default root's and the daemon's user's, that others cannot write",
        HelpName = "USER",
        Arity = ArgumentArity.ZeroOrMore,
        AllowMultipleArgumentsPerToken = false,
    };
    private readonly Option<string?> _regionMode = VerbOptions.Text(
        "--region-mode", null, "mode of region files that are formatted, octal; by default 0600", "MODE");
    private readonly Option<string?> _regionGroup = VerbOptions.Text(
        "--region-group", null, "group of region files that are formatted", "GROUP");
    private readonly Option<string?> _socketMode = VerbOptions.Text(
        "--socket-mode", null, "mode of NBD sockets, octal; by default 0600", "MODE");
    private readonly Option<string?> _socketOwner = VerbOptions.Text(
        "--socket-owner", null, "owner of NBD sockets; by default who asks for the device", "USER[:GROUP]");
    private readonly Option<bool> _supervise = VerbOptions.Flag(
        SupervisorProgram.Option, null, "run the daemon as a child that is started again when it dies, and keep its devices and sockets meanwhile");
    private readonly Option<bool> _checkStart = VerbOptions.Flag(
        StartCheck.Option, null, "check the other options and --run lines, print the versions of records that this program reads, and end");
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
        "--fence-ms", null, "after a stall this long, a host checks that it still owns its entry before it writes", NodeOptions.DefaultFenceMs);
    private readonly Option<int> _maxTransports = VerbOptions.NumberOr(
        "--max-transports", null, "transports at once", NodeOptions.DefaultMaxTransports);
    private readonly Option<string> _logFormat = VerbOptions.Choice(
        "--log-format", null, "how logs are written to stderr", "text", "text", "json");
    private readonly Option<bool> _version = VerbOptions.Flag("--version", null, "print the version");
    private readonly RootCommand _root = VerbSet.NewRoot(
        "The CBD daemon of one host: its transports, backends and block devices. Runs in the foreground; SIGTERM drains and ends it, or its supervisor.");

    public DaemonCommandLine()
    {
        _root.Directives.Clear();
        foreach (var option in new Option[]
        {
            _runDirectory, _stateDirectory, _disksDirectory, _socketGroup, _observeGroup, _allowPath, _trustOwner,
            _regionMode, _regionGroup, _socketMode, _socketOwner, _supervise, _checkStart, _restore, _noRestore, _adoptRecord, _run, _beat, _dead, _fence, _maxTransports, _logFormat, _version,
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
            ObserveGroup = line.GetValue(_observeGroup),
            AllowedPaths = [.. (line.GetValue(_allowPath) ?? []).Select(path => FullPath(path, "--allow-path")!)],
            TrustOwners = line.GetResult(_trustOwner) is { Implicit: false } given ? [.. given.Tokens.Select(token => token.Value)] : null,
            RegionMode = Mode(line.GetValue(_regionMode), "--region-mode") ?? AccessOptions.OwnerOnly,
            RegionGroup = line.GetValue(_regionGroup),
            SocketMode = Mode(line.GetValue(_socketMode), "--socket-mode"),
            SocketOwner = line.GetValue(_socketOwner),
            Supervise = line.GetValue(_supervise),
            CheckStart = line.GetValue(_checkStart),
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

    /// <summary>Permission bits in octal digits. The owner always reads and writes: nobody else could do anything with it else.</summary>
    private static uint? Mode(string? text, string option)
    {
        const uint owner = AccessOptions.OwnerOnly, all = 0x1b6; // 0600 and 0666
        if (text is null)
            return null;
        uint mode = 0;
        bool isOctal = text.Length is > 0 and <= 4 && text.All(c => c is >= '0' and <= '7');
        foreach (char digit in isOctal ? text : "")
            mode = (mode << 3) | (uint)(digit - '0');
        return isOctal && (mode & owner) == owner && (mode & ~all) == 0
            ? mode
            : throw Invalid($"{option} is '{text}'; give four octal digits from 0600 to 0666, such as 0660");
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
