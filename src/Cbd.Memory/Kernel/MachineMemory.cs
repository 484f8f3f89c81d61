using System.Globalization;

namespace Cbd.Memory;

/// <summary>How much memory this process may use at most.</summary>
public static class MachineMemory
{
    private const string Groups = "/sys/fs/cgroup";

    /// <summary>
    /// Bytes: what the machine has, or the smallest limit of the control groups that this process is in. Null if neither can be read.
    /// Asked anew each time: limits of control groups change.
    /// </summary>
    public static long? LimitBytes => Smallest(ReadMachine(Lines("/proc/meminfo")), ReadGroups(Lines("/proc/self/cgroup"), Groups));

    /// <summary>MemTotal of /proc/meminfo, bytes.</summary>
    internal static long? ReadMachine(IEnumerable<string> meminfo)
    {
        foreach (string line in meminfo)
        {
            string[] words = line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
            if (words is ["MemTotal:", var size, "kB"] && Number(size) is { } kilobytes)
                return kilobytes * 1024;
        }

        return null;
    }

    /// <summary>The smallest limit of the groups in /proc/self/cgroup and of all above them, of both versions.</summary>
    internal static long? ReadGroups(IEnumerable<string> membership, string root)
    {
        long? least = null;
        foreach (string line in membership)
        {
            string[] parts = line.Split(':', 3);
            if (parts.Length < 3)
                continue;
            bool isSecond = parts[1].Length == 0;
            if (!isSecond && !parts[1].Split(',').Contains("memory"))
                continue;
            string file = isSecond ? "memory.max" : "memory.limit_in_bytes";
            string top = isSecond ? root : $"{root}/memory";
            // In a namespace the path may lead above the root of what is mounted here; the root itself is looked at in any case.
            for (string? path = parts[2]; ; path = Path.GetDirectoryName(path))
            {
                least = Smallest(least, Lines($"{top}{(path is null or "/" ? "" : path)}/{file}").Select(Number).FirstOrDefault());
                if (path is null or "/" or "")
                    break;
            }
        }

        return least;
    }

    private static long? Smallest(long? one, long? other) => one is { } a && other is { } b ? Math.Min(a, b) : one ?? other;

    /// <summary>A number; null for "max", and for what is no limit in version 1 (about 2^63).</summary>
    private static long? Number(string text) => long.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out long number) ? number : null;

    private static string[] Lines(string path)
    {
        try
        {
            return File.ReadAllLines(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return [];
        }
    }
}
