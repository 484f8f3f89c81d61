namespace Cbd.Exports.Kernel;

/// <summary>
/// Small files and directories that others may remove at any time, as those of sysfs and procfs: what is not there, or
/// may not be read, is empty.
/// </summary>
internal static class KernelFiles
{
    internal static string[] Lines(string file)
    {
        try
        {
            return File.ReadAllLines(file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }

    /// <summary>The first line.</summary>
    internal static string Line(string file) => Lines(file).FirstOrDefault("");

    /// <summary>Names of what is in a directory.</summary>
    internal static List<string> Entries(string directory)
    {
        try
        {
            return [.. Directory.EnumerateFileSystemEntries(directory).Select(path => Path.GetFileName(path))];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }

    /// <summary>Where a link leads; null if it is none.</summary>
    internal static string? LinkOf(string path)
    {
        try
        {
            return new FileInfo(path).LinkTarget;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>Where a link leads in the end; null if there is nothing.</summary>
    internal static string? Resolve(string link)
    {
        try
        {
            return new FileInfo(link).ResolveLinkTarget(returnFinalTarget: true)?.FullName;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }
}
