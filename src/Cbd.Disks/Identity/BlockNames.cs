using System.Globalization;
using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>Finds what names a block device, over boots if possible.</summary>
internal static class BlockNames
{
    /// <summary>A loop device may be on a file of a file system on a loop device.</summary>
    private const int MostLevels = 4;
    private const int LongestName = 64;

    /// <summary>The device of that number.</summary>
    /// <param name="major">Its number.</param>
    /// <param name="minor">Its number.</param>
    /// <param name="device">The device, if it is open.</param>
    /// <param name="level">How many loop devices stand on it.</param>
    public static BlockDiskName Find(uint major, uint minor, DiskFile? device = null, int level = 0)
    {
        string? node = FindNode(major, minor);
        bool isPartition = node is not null && File.Exists($"{node}/partition");
        string? disk = isPartition ? Directory.GetParent(node!)?.FullName : node;
        string partition = isPartition ? $"p{Read(node, "partition")}@{Read(node, "start")}" : DiskTextPart.Unknown;
        string name = FindName(disk, device, level) ?? $"{BlockDiskName.Number}{major},{minor},{FindSequence(disk, device)}";
        return new BlockDiskName(name, partition, MachineTags.Boot, MachineTags.Machine);
    }

    /// <summary>The device's folder in sysfs; null if it has none.</summary>
    public static string? FindNode(uint major, uint minor)
    {
        var link = new DirectoryInfo($"/sys/dev/block/{major}:{minor}");
        return link.Exists ? link.ResolveLinkTarget(returnFinalTarget: true)?.FullName : null;
    }

    /// <summary>An attribute in a folder of sysfs; empty if it has none.</summary>
    public static string Read(string? folder, string name) => folder is null ? "" : KernelText.Read($"{folder}/{name}");

    /// <summary>A name that the kernel gives, as a part of an identity.</summary>
    internal static string Clean(string name) =>
        name.Length <= LongestName && name.All(c => char.IsAsciiLetterOrDigit(c) || "._+=-".Contains(c, StringComparison.Ordinal)) ? name : $"~{DiskHash.Name(name)}";

    private static string? FindName(string? disk, DiskFile? device, int level)
    {
        if (disk is null)
            return null;
        // What is built upon other devices first: a name of one of these would not be its own.
        ReadOnlySpan<(string Kind, string Attribute)> attributes =
            [("dm", "dm/uuid"), ("md", "md/uuid"), ("wwid", "wwid"), ("wwid", "device/wwid"), ("serial", "serial"), ("serial", "device/serial")];
        foreach ((string kind, string attribute) in attributes)
        {
            if (Read(disk, attribute) is { Length: > 0 } text)
                return $"{kind}={Clean(text)}";
        }

        return Directory.Exists($"{disk}/loop") ? FindLoopName(disk, device, level) : null;
    }

    private static string FindSequence(string? disk, DiskFile? device)
    {
        if (device is not null && device.TryGetDiskSequence(out ulong sequence) == 0)
            return sequence.ToString(CultureInfo.InvariantCulture);
        return DiskTextPart.TryParse(Read(disk, "diskseq"), out ulong listed) ? listed.ToString(CultureInfo.InvariantCulture) : DiskTextPart.Unknown;
    }

    /// <summary>What names the file below a loop device, and which part of that it is; null if the file cannot be found.</summary>
    private static string? FindLoopName(string disk, DiskFile? device, int level)
    {
        if (level >= MostLevels)
            return null;
        DiskFile? opened = null, below = null;
        try
        {
            if (device is null && DiskFile.TryOpenForLook($"/dev/{Path.GetFileName(disk)}", out opened) != 0)
                return null;
            string path = Read(disk, "loop/backing_file");
            // The path is a hint: another name space may have another file there.
            if ((device ?? opened)!.TryGetLoopStatus(out LoopStatus loop) != 0 || FileStatus.TryGet(path, out FileStatus status) != 0 || !loop.IsOn(status))
                return null;
            string? name = null;
            if (status.Type == FileType.BlockDevice)
            {
                BlockDiskName lower = Find(status.NodeMajor, status.NodeMinor, level: level + 1);
                name = lower.IsNamed ? $"{lower.Name}:{lower.Partition}" : null;
            }
            else if (status.Type == FileType.Regular && DiskFile.TryOpenForLook(path, out below) == 0 && below!.TryGetStatus(out status) == 0 && loop.IsOn(status))
            {
                name = NameOver(FileNames.Find(below, status, level + 1));
            }

            return name is null ? null : $"loop={DiskHash.Name($"{name} {loop.OffsetBytes} {loop.LimitBytes}")}";
        }
        finally
        {
            opened?.Dispose();
            below?.Dispose();
        }
    }

    /// <summary>What of a file's identity lasts as long as the file; null if its inode may be another file's.</summary>
    private static string? NameOver(FileDiskName file)
    {
        if (file.Generation == DiskTextPart.Unknown && file.Birth == DiskTextPart.Unknown)
            return null;
        string medium = file.Medium[0] == 'n' ? "" : file.Medium;
        return $"{file.FileSystem}:{file.Inode}:{file.Generation}:{file.Birth}:{medium}{(file.FileSystem.Contains(',', StringComparison.Ordinal) ? file.Boot : "")}";
    }
}
