using Cbd.Memory;

namespace Cbd.Exports.Kernel;

/// <summary>
/// Finds out whether a disk lies on a device of the same transport: its requests would come back to the transport that
/// they came from, and wait for themselves.
/// </summary>
internal static class StackedDisk
{
    private const int MaxDepth = 16;

    /// <summary>Throws Invalid if the path is, or lies on, a device of that region on this machine.</summary>
    internal static void Refuse(string path, Guid region, AttachPlaces places)
    {
        if (NumberOf(path, out bool isNode) is not { } number)
            return;
        if (Find(number, kernelName => NameOf(kernelName, region, places), MaxDepth) is { } name)
        {
            throw new CbdException(
                CbdErrorKind.Invalid,
                $"'{path}' {(isNode ? "is" : "lies on")} the device {name} of this transport: a disk cannot be stacked on a device that it may serve; use another disk, or another transport");
        }
    }

    /// <summary>Whether the path is, or lies on, a node of the kernel.</summary>
    internal static bool LiesOn(string path, string node)
    {
        string wanted = Path.GetFileName(node);
        return wanted.Length > 0 && NumberOf(path, out _) is { } number &&
            Find(number, kernelName => kernelName == wanted ? kernelName : null, MaxDepth) is not null;
    }

    /// <summary>Number of the block device that the path is, or whose file system it is on; null if there is no such path.</summary>
    private static string? NumberOf(string path, out bool isNode)
    {
        isNode = false;
        if (FileStatus.TryGet(path, out FileStatus status) != 0)
            return null;
        isNode = status.Type == FileType.BlockDevice;
        return isNode ? $"{status.NodeMajor}:{status.NodeMinor}" : $"{status.DeviceMajor}:{status.DeviceMinor}";
    }

    /// <summary>The device that is looked for and which the block device is, is a part of, or is made of; null if none is.</summary>
    private static string? Find(string number, Func<string, string?> nameOf, int depth)
    {
        string? folder = KernelFiles.Resolve($"/sys/dev/block/{number}");
        if (folder is null || depth == 0)
            return null;
        string whole = File.Exists($"{folder}/partition") ? Path.GetDirectoryName(folder)! : folder;
        if (nameOf(Path.GetFileName(whole)) is { } name)
            return name;
        var below = new List<string>();
        foreach (string slave in KernelFiles.Entries($"{folder}/slaves").Concat(KernelFiles.Entries($"{whole}/slaves")))
            below.AddRange(KernelFiles.Lines($"/sys/class/block/{slave}/dev"));
        foreach (string file in KernelFiles.Lines($"{whole}/loop/backing_file"))
        {
            if (FileStatus.TryGet(file, out FileStatus status) == 0)
                below.Add(status.Type == FileType.BlockDevice ? $"{status.NodeMajor}:{status.NodeMinor}" : $"{status.DeviceMajor}:{status.DeviceMinor}");
        }

        return below.Distinct().Select(next => Find(next, nameOf, depth - 1)).FirstOrDefault(found => found is not null);
    }

    private static string? NameOf(string kernelName, Guid region, AttachPlaces places)
    {
        string[] words = places.EntryAt(kernelName);
        return words.Length == 2 && Guid.TryParse(words[1], out Guid its) && its == region ? Path.GetFileName(words[0]) : null;
    }
}
