using System.Text.RegularExpressions;
using Cbd.Memory;

namespace Cbd.Exports.Kernel;

/// <summary>Where attached devices are named on this machine. The directories are shared by all daemons.</summary>
/// <remarks>
/// Names that daemons give by themselves have their links in the directory of nodes, <c>/dev/cbd0</c>. Names that users give have
/// theirs in one of its own, <c>/dev/cbd/data</c>, so that no name can be that of a node of the kernel or a link of other software.
/// The registry has <c>NAME.lock</c>, locked by the daemon that has the name and empty unless the name is in use
/// (<see cref="NameRecord"/>); <c>by-node/NODE</c> with the link, as udev names it, and the region of the device that is this node, "cbd0
/// REGION" or "cbd/data REGION", for udev's rule and for <see cref="StackedDisk"/>; and <c>registry</c>, locked for the moment in which names
/// are taken or leftovers removed.
/// </remarks>
internal sealed partial record AttachPlaces
{
    /// <summary>Where the links are made.</summary>
    public string Nodes { get; init; } = "/dev";

    /// <summary>Who has which name. Made if it is not there; udev's rule reads it.</summary>
    public string Registry { get; init; } = "/run/cbd-nodes";

    /// <summary>Whose directory the registry may be.</summary>
    public OwnerTrust Trust { get; init; } = OwnerTrust.Default;

    internal string RegistryLock => Path.Combine(Registry, "registry");

    internal string Entries => Path.Combine(Registry, "by-node");

    /// <summary>The directory under <see cref="Nodes"/> of the links of names that users give.</summary>
    private const string Given = "cbd";

    /// <summary>What can be the name of a device; everything else that is found is left alone.</summary>
    internal static bool IsName(string text) => NamePattern().IsMatch(text);

    internal string LinkOf(string name) => Path.Combine(Nodes, RelativeLinkOf(name));

    /// <summary>The link as udev names it, from <see cref="Nodes"/> on.</summary>
    internal static string RelativeLinkOf(string name) => DefaultPattern().IsMatch(name) ? name : $"{Given}/{name}";

    /// <summary>Makes the link of a name. Another daemon may remove the directory, as an empty one, just before.</summary>
    internal void MakeLink(string name, string node)
    {
        for (int tries = 0; ; tries++)
        {
            Directory.CreateDirectory(Path.GetDirectoryName(LinkOf(name))!);
            try
            {
                File.CreateSymbolicLink(LinkOf(name), node);
                return;
            }
            catch (DirectoryNotFoundException) when (tries < 10)
            {
            }
        }
    }

    /// <summary>Removes the directory of names that users give, if none is left.</summary>
    internal void RemoveEmpty()
    {
        try
        {
            Directory.Delete(Path.Combine(Nodes, Given));
        }
        catch (IOException)
        {
            // It is not there, or not empty.
        }
    }

    internal string LockOf(string name) => Path.Combine(Registry, $"{name}.lock");

    internal string EntryOf(string kernelName) => Path.Combine(Entries, kernelName);

    /// <summary>The words of a node's entry, "LINK REGION"; empty if there is none.</summary>
    internal string[] EntryAt(string kernelName) =>
        KernelFiles.Lines(EntryOf(kernelName)).FirstOrDefault("").Split(' ', StringSplitOptions.RemoveEmptyEntries);

    /// <summary>The name in a node's entry; empty if there is none, or none that a daemon gives.</summary>
    internal string NameAt(string kernelName)
    {
        string link = EntryAt(kernelName).FirstOrDefault("");
        string name = Path.GetFileName(link);
        return IsName(name) && link == RelativeLinkOf(name) ? name : "";
    }

    /// <summary>The nodes whose entries have that name.</summary>
    internal IEnumerable<string> NodesOf(string name) => KernelFiles.Entries(Entries).Where(node => NameAt(node) == name);

    /// <summary>All names that the registry knows of, in use or not.</summary>
    internal IEnumerable<string> Names() =>
        KernelFiles.Entries(Registry).Where(file => file.EndsWith(".lock", StringComparison.Ordinal)).Select(file => file[..^5])
            .Concat(KernelFiles.Entries(Entries).Select(NameAt))
            .Where(IsName).Distinct();

    /// <summary>The names whose links lead to a node.</summary>
    internal IEnumerable<string> LinksTo(string kernelName) =>
        KernelFiles.Entries(Nodes).Where(name => DefaultPattern().IsMatch(name))
            .Concat(KernelFiles.Entries(Path.Combine(Nodes, Given)).Where(name => IsName(name) && !DefaultPattern().IsMatch(name)))
            .Where(name => Path.GetFileName(KernelFiles.LinkOf(LinkOf(name))) == kernelName);

    [GeneratedRegex(@"^cbd[0-9]+(\.[0-9]+)?\z")]
    private static partial Regex DefaultPattern();

    [GeneratedRegex(@"^[A-Za-z][A-Za-z0-9._-]{0,30}\z")]
    private static partial Regex NamePattern();
}
