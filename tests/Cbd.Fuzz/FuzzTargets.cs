namespace Cbd.Fuzz;

/// <summary>
/// One parser, or one side of the protocol, with bytes from outside. Whatever the bytes are, it returns; an exception that
/// leaves it is a finding, and so are an end that does not come and a broken check of its own.
/// </summary>
internal interface IFuzzTarget
{
    void Run(ReadOnlySpan<byte> input);
}

/// <summary>All targets by name; each has a corpus in tests/fuzz/corpus.</summary>
internal static class FuzzTargets
{
    public static readonly IReadOnlyDictionary<string, Func<IFuzzTarget>> All = new SortedDictionary<string, Func<IFuzzTarget>>(StringComparer.Ordinal)
    {
        ["command-line"] = () => new CommandLineTarget(),
        ["commands"] = () => new CommandsTarget(),
        ["completions"] = () => new CompletionsTarget(),
        ["control"] = () => new ControlTarget(),
        ["fuse"] = () => new FuseTarget(),
        ["header"] = () => new HeaderTarget(),
        ["nbd"] = () => new NbdTarget(),
        ["region"] = () => new RegionTarget(),
        ["state-file"] = () => new StateFileTarget(),
    };

    /// <summary>Stops at a broken promise.</summary>
    public static void Check(bool holds, string promise)
    {
        if (!holds)
            throw new FindingException(promise);
    }
}

/// <summary>A target's own check failed.</summary>
internal sealed class FindingException(string promise) : Exception($"broken: {promise}");
