using Cbd.Memory;

namespace Cbd.Host.Attachments;

/// <summary>Which kind of attachment a device gets: what was asked for, or the best that this kernel has.</summary>
internal sealed class AttachChoice
{
    /// <summary>The best that there is, or none.</summary>
    public const string Auto = "auto";

    /// <summary>NBD over a socket: no node.</summary>
    public const string None = "none";

    /// <summary>The kinds by name, the best first.</summary>
    public static readonly IReadOnlyList<string> Order = ["ublk", "nbd", "fuse"];

    private readonly IReadOnlyList<IAttachKind> _kinds;

    /// <param name="kinds">Those that this program has, in any order.</param>
    public AttachChoice(IReadOnlyList<IAttachKind> kinds)
    {
        if (kinds.FirstOrDefault(kind => !Order.Contains(kind.Name)) is { } unknown)
            throw new ArgumentException($"'{unknown.Name}' is not in the order of kinds", nameof(kinds));
        _kinds = [.. kinds.OrderBy(kind => Order.TakeWhile(name => name != kind.Name).Count())];
    }

    /// <summary>
    /// The kind for what was asked for; null for NBD over a socket, with a note for the user if that is not what was
    /// asked for by name. Throws Unsupported if a kind that was asked for by name cannot be had.
    /// </summary>
    public (IAttachKind? Kind, string Note) Choose(string asked)
    {
        if (asked == None)
            return (null, "");
        var reasons = new List<string>();
        foreach (string name in Order.Where(name => asked == Auto || asked == name))
        {
            string whyNot = "this program does not have it";
            if (_kinds.FirstOrDefault(kind => kind.Name == name) is { } kind && kind.IsAvailable(out whyNot))
                return (kind, "");
            reasons.Add($"{name}: {whyNot}");
        }

        return asked == Auto
            ? (null, $"no block device, NBD only ({string.Join("; ", reasons)})")
            : throw new CbdException(CbdErrorKind.Unsupported, $"--attach {asked} is not possible here ({string.Join("; ", reasons)}); --attach auto takes {Best()}");
    }

    /// <summary>
    /// Removes what killed daemons left, of all kinds: first the names of their devices, then the devices. A device whose
    /// name cannot be removed stays, because the name would lead to whatever gets its number next.
    /// </summary>
    public void CleanUp(AttachPlaces places, Action<string> log)
    {
        IAttachKind[] kinds = [.. _kinds.Where(kind => kind.IsAvailable(out _))];
        if (kinds.Length == 0)
            return;
        var names = new NameRegistry(places);
        names.ForgetLeftovers(log);
        foreach (KernelLeftover leftover in kinds.SelectMany(kind => kind.FindLeftovers(log)))
        {
            if (names.TryForgetNode(leftover.Node, log))
                log(leftover.Remove());
        }
    }

    private string Best() => _kinds.FirstOrDefault(kind => kind.IsAvailable(out _)) is { } best ? best.Name : "NBD over a socket";
}
