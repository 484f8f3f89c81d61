namespace Cbd.Exports.Kernel;

/// <summary>Who uses a block device of this machine, or a partition of it: what stopping it would hurt.</summary>
internal static class NodeUsers
{
    /// <summary>Most users that an error names.</summary>
    private const int MaxNamed = 4;

    /// <summary>
    /// The users in words: "mounted on /mnt, open in fio (pid 7)"; null if there seem to be none. Other mount and
    /// process namespaces are seen as far as this process may.
    /// </summary>
    internal static string? Describe(string node)
    {
        List<string> devices = WithPartitions(Path.GetFileName(node));
        var found = new List<string>();
        found.AddRange(Holders(devices));
        found.AddRange(Swaps(devices));
        found.AddRange(Loops(devices));
        (List<string> mounts, List<string> openers) = Processes(devices);
        found.AddRange(mounts);
        found.AddRange(openers);
        if (found.Count == 0)
            return null;
        string more = found.Count > MaxNamed ? $" and {found.Count - MaxNamed} more" : "";
        return string.Join(", ", found.Take(MaxNamed)) + more;
    }

    /// <summary>Kernel names of the device and its partitions.</summary>
    private static List<string> WithPartitions(string device)
    {
        var names = new List<string> { device };
        names.AddRange(KernelFiles.Entries($"/sys/class/block/{device}").Where(entry => File.Exists($"/sys/class/block/{device}/{entry}/partition")));
        return names;
    }

    private static IEnumerable<string> Holders(List<string> devices) =>
        from device in devices
        from holder in KernelFiles.Entries($"/sys/class/block/{device}/holders")
        select $"part of {holder}";

    private static IEnumerable<string> Swaps(List<string> devices) =>
        from line in KernelFiles.Lines("/proc/swaps")
        where devices.Any(device => line.StartsWith($"/dev/{device} ", StringComparison.Ordinal) || line.StartsWith($"/dev/{device}\t", StringComparison.Ordinal))
        select "swapped to";

    private static IEnumerable<string> Loops(List<string> devices) =>
        from loop in KernelFiles.Entries("/sys/block")
        from file in KernelFiles.Lines($"/sys/block/{loop}/loop/backing_file")
        where devices.Any(device => file == $"/dev/{device}")
        select $"the disk of {loop}";

    /// <summary>Mounts in every mount namespace, and open descriptors.</summary>
    private static (List<string> Mounts, List<string> Openers) Processes(List<string> devices)
    {
        HashSet<string> nodes = [.. devices.Select(device => $"/dev/{device}")];
        HashSet<string> numbers = [.. devices.SelectMany(device => KernelFiles.Lines($"/sys/class/block/{device}/dev"))];
        var mounts = new List<string>();
        var openers = new List<string>();
        var namespaces = new HashSet<string>();
        foreach (string process in KernelFiles.Entries("/proc"))
        {
            if (!process.All(char.IsAsciiDigit))
                continue;
            if (KernelFiles.LinkOf($"/proc/{process}/ns/mnt") is { } space && namespaces.Add(space))
                AddMounts(process, nodes, numbers, mounts);
            foreach (string descriptor in KernelFiles.Entries($"/proc/{process}/fd"))
            {
                if (KernelFiles.LinkOf($"/proc/{process}/fd/{descriptor}") is { } target && nodes.Contains(target))
                {
                    openers.Add($"open in {KernelFiles.Lines($"/proc/{process}/comm").FirstOrDefault("?")} (pid {process})");
                    break;
                }
            }
        }

        return (mounts, openers);
    }

    /// <summary>
    /// A line of mountinfo: id, parent, major:minor, root, mount point, options, more, "-", type, source, options. btrfs
    /// has device numbers of its own, so the source is looked at, too.
    /// </summary>
    private static void AddMounts(string process, HashSet<string> nodes, HashSet<string> numbers, List<string> mounts)
    {
        foreach (string line in KernelFiles.Lines($"/proc/{process}/mountinfo"))
        {
            string[] fields = line.Split(' ');
            int dash = Array.IndexOf(fields, "-");
            if (fields.Length < 5 || dash < 0 || dash + 2 >= fields.Length)
                continue;
            string source = Unescape(fields[dash + 2]);
            bool isHere = numbers.Contains(fields[2]) || nodes.Contains(source) ||
                (source.StartsWith("/dev/cbd", StringComparison.Ordinal) && nodes.Contains(KernelFiles.Resolve(source) ?? source));
            string mount = $"mounted on {Unescape(fields[4])}";
            if (isHere && !mounts.Contains(mount))
                mounts.Add(mount);
        }
    }

    /// <summary>Blanks and the like are written as backslash and three octal digits.</summary>
    private static string Unescape(string text)
    {
        int escape = text.IndexOf('\\', StringComparison.Ordinal);
        while (escape >= 0 && escape + 3 < text.Length)
        {
            string digits = text.Substring(escape + 1, 3);
            if (digits.All(digit => digit is >= '0' and <= '7'))
                text = text[..escape] + (char)Convert.ToInt32(digits, 8) + text[(escape + 4)..];
            escape = text.IndexOf('\\', escape + 1);
        }

        return text;
    }
}
