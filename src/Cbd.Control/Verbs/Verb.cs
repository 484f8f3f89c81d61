using System.CommandLine;
using Cbd.Host;

namespace Cbd.Control.Verbs;

/// <summary>One verb: its command line, and what it does to a node, here or at the other end of a control socket.</summary>
internal sealed record Verb(Command Command, Action<ParseResult, INode, VerbOutput> Execute);

/// <summary>A verb with its options, parsed and ready to be done.</summary>
internal sealed record ParsedVerb(Verb Verb, ParseResult Result)
{
    public string Name => Verb.Command.Name;

    public void Execute(INode node, VerbOutput output) => Verb.Execute(Result, node, output);
}
