using System.Text.RegularExpressions;

namespace Cbd.Exports.Kernel;

/// <summary>Where attached devices are named on this machine. The directories are shared by all daemons.</summary>
/// <remarks>
/// The registry has <c>NAME.lock</c>, locked by the daemon that has the name and empty unless the name is in use
/// (<see cref="NameRecord"/>); <c>by-node/NODE</c> with the name and the region of the device that is this node, "NAME
/// REGION", for udev's rule and for <see cref="StackedDisk"/>; and <c>registry</c>, locked for the moment in which names
/// are taken or leftovers removed.
/// </remarks>
internal sealed partial record AttachPlaces
{
    /// <summary>Where the links are made.</summary>
    public string Nodes { get; init; } = "/dev";

    /// <summary>Who has which name. Made if it is not there; udev's rule reads it.</summary>
    public string Registry { get; init; } = "/run/cbd-nodes";

    internal string RegistryLock => Path.Combine(Registry, "registry");

    internal string Entries => Path.Combine(Registry, "by-node");

    /// <summary>Names are made by daemons alone; everything else that is found is left alone.</summary>
    internal static bool IsName(string text) => NamePattern().IsMatch(text);

    internal string LinkOf(string name) => Path.Combine(Nodes, name);

    internal string LockOf(string name) => Path.Combine(Registry, $"{name}.lock");

    internal string EntryOf(string kernelName) => Path.Combine(Entries, kernelName);

    /// <summary>The words of a node's entry, "NAME REGION"; empty if there is none.</summary>
    internal string[] EntryAt(string kernelName) =>
        KernelFiles.Lines(EntryOf(kernelName)).FirstOrDefault("").Split(' ', StringSplitOptions.RemoveEmptyEntries);

    /// <summary>The name in a node's entry; empty if there is none, or none that a daemon gives.</summary>
    internal string NameAt(string kernelName) => EntryAt(kernelName).FirstOrDefault("") is var name && IsName(name) ? name : "";

    /// <summary>The nodes whose entries have that name.</summary>
    internal IEnumerable<string> NodesOf(string name) => KernelFiles.Entries(Entries).Where(node => NameAt(node) == name);

    /// <summary>All names that the registry knows of, in use or not.</summary>
    internal IEnumerable<string> Names() =>
        KernelFiles.Entries(Registry).Where(file => file.EndsWith(".lock", StringComparison.Ordinal)).Select(file => file[..^5])
            .Concat(KernelFiles.Entries(Entries).Select(NameAt))
            .Where(IsName).Distinct();

    /// <summary>The names whose links lead to a node.</summary>
    internal IEnumerable<string> LinksTo(string kernelName) =>
        KernelFiles.Entries(Nodes).Where(IsName).Where(name => Path.GetFileName(KernelFiles.LinkOf(LinkOf(name))) == kernelName);

    [GeneratedRegex(@"^cbd[0-9]+(\.[0-9]+)?\z")]
    private static partial Regex NamePattern();
}
