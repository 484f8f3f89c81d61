using System.Text.RegularExpressions;
using Cbd.Host;
using Cbd.Host.Attachments;
using Cbd.Memory;

namespace Cbd.Exports.Kernel;

/// <summary>The kinds of attachment of a program: which a device gets, and what of killed daemons is removed.</summary>
internal sealed partial class KernelExports : IKernelExports
{
    private readonly AttachPlaces _places;
    private readonly IReadOnlyList<IAttachKind> _kinds;

    /// <param name="places">Where devices get their names.</param>
    /// <param name="kinds">Those that this program has, in any order.</param>
    public KernelExports(AttachPlaces places, params IReadOnlyList<IAttachKind> kinds)
    {
        if (kinds.FirstOrDefault(kind => !AttachChoice.Order.Contains(kind.Name)) is { } unknown)
            throw new ArgumentException($"'{unknown.Name}' is not in the order of kinds", nameof(kinds));
        _places = places;
        _kinds = [.. kinds.OrderBy(kind => AttachChoice.Order.TakeWhile(name => name != kind.Name).Count())];
    }

    /// <inheritdoc/>
    public (string? Kind, string Note) Choose(string asked)
    {
        if (asked == AttachChoice.None)
            return (null, "");
        var reasons = new List<string>();
        foreach (string name in AttachChoice.Order.Where(name => asked == AttachChoice.Auto || asked == name))
        {
            string whyNot = "this program does not have it";
            if (Find(name) is { } kind && kind.IsAvailable(out whyNot))
                return (name, "");
            reasons.Add($"{name}: {whyNot}");
        }

        return asked == AttachChoice.Auto
            ? (null, $"no block device, NBD only ({string.Join("; ", reasons)})")
            : throw new CbdException(CbdErrorKind.Unsupported, $"--attach {asked} is not possible here ({string.Join("; ", reasons)}); --attach auto takes {Best()}");
    }

    /// <inheritdoc/>
    public bool Outlives(string kind) => Find(kind) is { Outlives: true };

    /// <inheritdoc/>
    public IExport Open(string kind, KernelExportOptions options)
    {
        IAttachKind found = Find(kind) ?? throw new ArgumentException($"there is no kind '{kind}'", nameof(kind));
        if (PartitionPattern().IsMatch(options.Name))
            throw new CbdException(CbdErrorKind.Invalid, $"device name '{options.Name}' ends as that of a partition does: udev would give /dev/cbd/{options.Name} to a partition of another device, too; give another --name");
        return AttachedExport.Open(found, options, _places);
    }

    [GeneratedRegex("p[0-9]+$")]
    private static partial Regex PartitionPattern();

    /// <summary>
    /// Removes what killed daemons left, of all kinds: first the names of their devices, then the devices. A device whose
    /// name cannot be removed stays, because the name would lead to whatever gets its number next.
    /// </summary>
    public void CleanUp(Action<string> log, Predicate<string>? isKept = null)
    {
        IAttachKind[] kinds = [.. _kinds.Where(kind => kind.IsAvailable(out _))];
        if (kinds.Length == 0)
            return;
        var names = new NameRegistry(_places);
        names.ForgetLeftovers(log, isKept, node => kinds.Any(kind => kind.GoesOn(node)));
        foreach (KernelLeftover leftover in kinds.SelectMany(kind => kind.FindLeftovers(log)))
        {
            if (names.TryForgetNode(leftover.Node, log))
                log(leftover.Remove());
        }
    }

    /// <inheritdoc/>
    public void RefuseStacked(string path, Guid region) => StackedDisk.Refuse(path, region, _places);

    /// <inheritdoc/>
    public bool LiesOn(string path, string node) => StackedDisk.LiesOn(path, node);

    /// <inheritdoc/>
    public bool IsNameWanted(string name, string owner) => new NameReservations(_places, owner).OtherOwnerOf(name) is not null;

    /// <inheritdoc/>
    public void ReserveName(string name, string owner) => new NameReservations(_places, owner).Reserve(name);

    /// <inheritdoc/>
    public void KeepNames(IReadOnlyCollection<string> names, string owner) => new NameReservations(_places, owner).Keep(names);

    private IAttachKind? Find(string name) => _kinds.FirstOrDefault(kind => kind.Name == name);

    private string Best() => _kinds.FirstOrDefault(kind => kind.IsAvailable(out _)) is { } best ? best.Name : "NBD over a socket";
}
