using System.CommandLine;
using System.CommandLine.Help;
using Cbd.Memory;

namespace Cbd.Control.Verbs;

/// <summary>
/// All verbs under one root command: what cbdctrl parses, and each <c>cbdd --run</c> line. Names and options are those
/// of cbd-utils where it has them.
/// </summary>
internal sealed class VerbSet
{
    private static readonly ParserConfiguration Configuration = new()
    {
        // '@' is a character of a path, not a file of more arguments.
        ResponseFileTokenReplacer = null,
    };

    private readonly RootCommand _root;
    private readonly Dictionary<Command, Verb> _verbs = [];

    /// <summary>Adds every verb to <paramref name="root"/>, which the program has given its own options.</summary>
    /// <param name="root">The root command.</param>
    /// <param name="programName">Name of the program, for errors.</param>
    /// <param name="own">Verbs of this program alone.</param>
    public VerbSet(RootCommand root, string programName, params Verb[] own)
    {
        ProgramName = programName;
        _root = root;
        root.Directives.Clear();
        foreach (var verb in TransportVerbs.All().Concat(BackendVerbs.All()).Concat(DeviceVerbs.All()).Concat(own))
        {
            root.Subcommands.Add(verb.Command);
            _verbs.Add(verb.Command, verb);
        }
    }

    public string ProgramName { get; }

    public IEnumerable<string> Names => _verbs.Keys.Select(command => command.Name);

    /// <summary>A root command without options and with nothing else that System.CommandLine adds by itself.</summary>
    public static RootCommand NewRoot(string description)
    {
        var root = new RootCommand(description);
        foreach (var option in root.Options.OfType<VersionOption>().ToList())
            root.Options.Remove(option);
        return root;
    }

    /// <summary>The verbs for a line given to a daemon.</summary>
    public static VerbSet ForDaemon() => new(NewRoot("verbs that cbdd --run takes"), "cbdctrl");

    public ParseResult Parse(IReadOnlyList<string> words) => _root.Parse(words, Configuration);

    /// <summary>
    /// The verb of a parsed line. Throws <see cref="CbdException"/> with one line if the line is not right; null if it
    /// asks for help, which is to be printed with <see cref="ParseResult.Invoke"/>.
    /// </summary>
    public ParsedVerb? Select(ParseResult result)
    {
        var command = result.CommandResult.Command;
        if (result.Action is HelpAction)
            return null;
        var line = command is RootCommand ? ProgramName : $"{ProgramName} {command.Name}";
        if (result.UnmatchedTokens.Count > 0)
        {
            var word = result.UnmatchedTokens[0];
            var what = command is RootCommand ? "verb" : word.StartsWith('-') ? "option" : "argument";
            throw Wrong($"'{word}' is not a known {what}", line);
        }

        if (command is RootCommand && result.Errors.Count <= 1)
            throw Wrong("no verb given", line);
        if (result.Errors.Count > 0)
            throw Wrong(result.Errors[0].Message.TrimEnd('.'), line);
        return new ParsedVerb(_verbs[command], result);
    }

    /// <summary>Parses one line of words that must be a verb.</summary>
    public ParsedVerb ParseLine(string line)
    {
        var result = Parse(CommandWords.Split(line));
        return Select(result) ?? throw Wrong($"'{line}' asks for help, which has no place there", ProgramName);
    }

    private static CbdException Wrong(string what, string line) =>
        new(CbdErrorKind.Invalid, $"{what}; see '{line} --help'");
}
