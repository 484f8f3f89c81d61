using System.CommandLine;
using System.Text;
using Cbd.Control.Server;
using Cbd.Control.Verbs;
using Cbd.Disks;
using Cbd.Exports.Nbd;
using Cbd.Memory;
using Cbd.Programs.Daemon;
using Cbd.Tests.Control;

namespace Cbd.Fuzz;

/// <summary>
/// Words as a shell would give them, separated by NUL: verbs of cbdctrl, options of cbdd, a line of <c>--run</c>, the adm
/// attribute, sizes, addresses. What is not right is refused with one line.
/// </summary>
internal sealed class CommandLineTarget : IFuzzTarget
{
    private readonly VerbSet _verbs = VerbSet.ForDaemon();
    private readonly DaemonCommandLine _daemon = new();

    public void Run(ReadOnlySpan<byte> input)
    {
        var fields = new FuzzInput(input);
        byte mode = fields.Byte();
        string text = Encoding.UTF8.GetString(fields.Rest());
        string[] words = text.Split('\0');
        try
        {
            switch (mode % 6)
            {
                case 0:
                    if (_verbs.Select(_verbs.Parse(words)) is { } verb)
                        Execute(verb);
                    break;
                case 1:
                    Execute(_verbs.ParseLine(text));
                    break;
                case 2:
                    ParseResult line = _daemon.Parse(words);
                    if (!DaemonCommandLine.AsksForHelp(line) && !_daemon.AsksForVersion(line))
                        _daemon.Options(line);
                    break;
                case 3:
                    AdmCommand.Parse(text).Execute(Node(), 0);
                    break;
                case 4:
                    FuzzTargets.Check(!SizeText.TryParse(text, out long bytes, out _) || bytes >= 0, "a size is not negative");
                    break;
                default:
                    NbdAddress.Parse(text, insecure: (mode & 128) != 0);
                    break;
            }
        }
        catch (CbdException e)
        {
            FuzzTargets.Check(e.Message.Length > 0, "a refusal has words");
        }
    }

    private static void Execute(ParsedVerb verb) =>
        verb.Execute(Node(), new VerbOutput(TextWriter.Null, toTerminal: false, _ => { }));

    private static CheckedControl Node() => new(new ListedNode());
}
