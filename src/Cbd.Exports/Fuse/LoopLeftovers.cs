using Cbd.Memory;

namespace Cbd.Exports.Fuse;

/// <summary>Loop devices that a killed daemon left: their file system has ended with it, they themselves have not.</summary>
internal static class LoopLeftovers
{
    private const string Devices = "/sys/block";

    /// <summary>Ends them; one line to <paramref name="log"/> for each.</summary>
    internal static void CleanUp(LoopProcess loop, Action<string> log)
    {
        foreach (string device in LoopDevices())
        {
            string node = $"/dev/{device}";
            if (LoopOwner.TryParse(FileOf(node)) is not { } owner || !owner.IsDead())
                continue;
            try
            {
                loop.Clear(node, exclusive: false);
                string left = FileOf(node).Length > 0 ? "; it goes when those who still use it, with errors, let it go" : "";
                log($"{node} was left by a killed cbdd (pid {owner.ProcessId}, {owner.Name}) and is removed{left}");
            }
            catch (CbdException e)
            {
                log($"{node} was left by a killed cbdd (pid {owner.ProcessId}, {owner.Name}) and cannot be removed: {e.Message}");
            }
        }
    }

    /// <summary>The file below a loop device, as sysfs shows it; empty if it has none.</summary>
    internal static string FileOf(string node)
    {
        try
        {
            return File.ReadAllText($"{Devices}/{Path.GetFileName(node)}/loop/backing_file").TrimEnd('\n');
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }

    private static List<string> LoopDevices()
    {
        try
        {
            return [.. Directory.EnumerateFileSystemEntries(Devices, "loop*").Select(path => Path.GetFileName(path))];
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }
}
