using System.Text.RegularExpressions;

namespace Cbd.Tests.Architecture;

/// <summary>The sources that these tests were built from.</summary>
internal static partial class SourceTree
{
    public static string Root { get; } = FindRoot();

    public static string Source { get; } = Path.Combine(Root, "src");

    /// <summary>Files below a folder of <c>src</c>, build outputs left out.</summary>
    public static IEnumerable<string> Files(string folder, params string[] extensions) =>
        Directory.EnumerateFiles(Path.Combine(Source, folder), "*", SearchOption.AllDirectories)
            .Where(path => extensions.Contains(Path.GetExtension(path)) && !BuildOutput().IsMatch(path));

    /// <summary>The path below <c>src</c>.</summary>
    public static string Name(string path) => Path.GetRelativePath(Source, path);

    /// <summary>C# without comments and literals.</summary>
    public static string Code(string path) => CommentOrLiteral().Replace(File.ReadAllText(path), "\"\"");

    /// <summary>Files of a folder whose code has a match, each with the first one.</summary>
    public static string[] FilesWith(Regex pattern, string folder) =>
        [.. from path in Files(folder, ".cs")
            let match = pattern.Match(Code(path))
            where match.Success
            select $"{Name(path)}: {match.Value}"];

    private static string FindRoot()
    {
        for (DirectoryInfo? folder = new(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "Cbd.slnx")))
                return folder.FullName;
        }

        throw new InvalidOperationException($"no Cbd.slnx above {AppContext.BaseDirectory}: run the tests from the repository");
    }

    [GeneratedRegex("/(bin|obj)/")]
    private static partial Regex BuildOutput();

    // Comments first, then raw, verbatim and plain strings, then characters. What an interpolated string holds is left
    // out with it.
    [GeneratedRegex("""
        //[^\n]*|/\*.*?\*/|\x22{3,}.*?\x22{3,}|@\x22(?:[^\x22]|\x22\x22)*\x22|\x22(?:\\.|[^\x22\\\n])*\x22|'(?:\\.[^'\n]*|[^'\\\n])'
        """, RegexOptions.Singleline)]
    private static partial Regex CommentOrLiteral();
}
