using System.Text.RegularExpressions;
using Xunit;

namespace Cbd.Tests.Architecture;

/// <summary>
/// Which folder of the project Cbd.Protocol knows which. Hosts, and Transports above it, know nothing of the channels' life
/// cycle, backends or blkdevs, nor do channels know who claims what; Backends and Blkdevs do not know each other.
/// </summary>
public sealed class FoldersOfTheProtocolTests
{
    /// <summary>In their order: each knows only what is listed, which stands above it. "" is the project's own folder.</summary>
    private static readonly (string Folder, string[] Knows)[] s_folders =
    [
        ("Format", []),
        ("", ["Format"]),
        ("Records", ["Format"]),
        ("Channels", ["Format", "Records"]),
        ("Hosts", ["Format"]),
        ("Transports", ["Format", "Hosts"]),
        ("Backends", ["Format", "Hosts"]),
        ("Blkdevs", ["Format", "Channels", "Hosts"]),
    ];

    [Fact]
    public void Know_only_folders_above_them()
    {
        var above = new HashSet<string>();
        foreach ((string folder, string[] knows) in s_folders)
        {
            Assert.Subset(above, knows.ToHashSet());
            above.Add(folder);
        }
    }

    [Fact]
    public void Are_all_in_the_order() =>
        Assert.Equal(
            s_folders.Select(folder => folder.Folder).Order(StringComparer.Ordinal),
            SourceTree.Files("Cbd.Protocol", ".cs").Select(FolderOf).Distinct().Order(StringComparer.Ordinal));

    [Fact]
    public void Are_namespaces() =>
        Assert.All(SourceTree.Files("Cbd.Protocol", ".cs"), path =>
        {
            string folder = FolderOf(path);
            string wanted = folder.Length == 0 ? "namespace Cbd.Protocol;" : $"namespace Cbd.Protocol.{folder};";
            Assert.True(File.ReadLines(path).Contains(wanted), $"{SourceTree.Name(path)} has no '{wanted}'");
        });

    [Fact]
    public void Refer_to_no_folder_that_they_do_not_know()
    {
        string names = string.Join('|', s_folders.Select(folder => folder.Folder).Where(folder => folder.Length > 0));
        // A using, or a name that is qualified by the namespace.
        var reference = new Regex($@"\busing (?:static )?Cbd\.Protocol\.({names})\b|(?<![\w.])(?:global::)?Cbd\.Protocol\.({names})\.|(?<![\w.])({names})\.(?=[A-Z]\w*[<.(])");
        int found = 0;
        foreach ((string folder, string[] knows) in s_folders)
        {
            foreach (string path in SourceTree.Files("Cbd.Protocol", ".cs").Where(path => FolderOf(path) == folder))
            {
                foreach (Match match in reference.Matches(SourceTree.Code(path)))
                {
                    string other = match.Groups.Values.Skip(1).First(group => group.Success).Value;
                    Assert.True(other == folder || knows.Contains(other), $"{SourceTree.Name(path)}: '{match.Value}': {folder} must not know {other}");
                    found++;
                }
            }
        }

        Assert.NotEqual(0, found);
    }

    private static string FolderOf(string path) => Path.GetDirectoryName(Path.GetRelativePath(Path.Combine(SourceTree.Source, "Cbd.Protocol"), path))!;
}
