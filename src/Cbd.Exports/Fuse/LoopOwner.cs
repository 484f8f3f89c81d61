using System.Globalization;
using System.Text.RegularExpressions;

namespace Cbd.Exports.Fuse;

/// <summary>
/// Whose a loop device is: the name of its file, which the kernel shows in sysfs, names the process that serves it, so
/// that what a killed daemon left can be told from what a living one uses. A process is its number, the time it began
/// (clock ticks since boot) and the namespace of process numbers (inode).
/// </summary>
internal sealed partial record LoopOwner(string Name, int ProcessId, long StartTicks, ulong Namespace)
{
    /// <summary>The file that this process serves as the device <paramref name="name"/>.</summary>
    internal static LoopOwner Self(string name) =>
        new(name, Environment.ProcessId, StartOf(Environment.ProcessId) ?? 0, OwnNamespace());

    internal string FileName => string.Create(CultureInfo.InvariantCulture, $"{Name}.cbdd-{ProcessId}-{StartTicks}-{Namespace}");

    /// <summary>Reads the path of a loop device's file; null if the device is none of CBD's.</summary>
    internal static LoopOwner? TryParse(string path)
    {
        Match match = Pattern().Match(path);
        if (!match.Success ||
            !int.TryParse(match.Groups[2].Value, NumberStyles.None, CultureInfo.InvariantCulture, out int process) ||
            !long.TryParse(match.Groups[3].Value, NumberStyles.None, CultureInfo.InvariantCulture, out long start) ||
            !ulong.TryParse(match.Groups[4].Value, NumberStyles.None, CultureInfo.InvariantCulture, out ulong space))
            return null;
        return new LoopOwner(match.Groups[1].Value, process, start, space);
    }

    /// <summary>Proven: its process would be seen here if it lived.</summary>
    internal bool IsDead() => Namespace == OwnNamespace() && StartOf(ProcessId) != StartTicks;

    /// <summary>When a process began, clock ticks since boot; null if there is none of that number.</summary>
    private static long? StartOf(int process)
    {
        try
        {
            // Field 2 is the name in parentheses, which may hold anything; field 22 is the time.
            string text = File.ReadAllText($"/proc/{process}/stat");
            string[] fields = text[(text.LastIndexOf(')') + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
            return long.Parse(fields[19], CultureInfo.InvariantCulture);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    private static ulong OwnNamespace()
    {
        string text = new FileInfo("/proc/self/ns/pid").LinkTarget ?? "";
        return ulong.TryParse(text.AsSpan(Math.Min(5, text.Length)).TrimEnd(']'), NumberStyles.None, CultureInfo.InvariantCulture, out ulong inode) ? inode : 0;
    }

    [GeneratedRegex(@"^/?(cbd[0-9.]*[0-9])\.cbdd-([0-9]+)-([0-9]+)-([0-9]+)$")]
    private static partial Regex Pattern();
}
