using System.Globalization;
using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>Finds what names a file, over boots if possible.</summary>
internal static class FileNames
{
    private const string UuidLinks = "/dev/disk/by-uuid";

    /// <summary>An open file.</summary>
    /// <param name="file">The file.</param>
    /// <param name="status">What it is.</param>
    /// <param name="level">How many loop devices stand on it.</param>
    public static FileDiskName Find(DiskFile file, in FileStatus status, int level = 0) => new(
        FindFileSystem(file, status),
        status.Inode,
        file.TryGetGeneration(out uint generation) == 0 ? generation.ToString("x8", CultureInfo.InvariantCulture) : DiskTextPart.Unknown,
        status.BirthNanoseconds is { } birth ? DiskHash.Tag(birth.ToString(CultureInfo.InvariantCulture)) : DiskTextPart.Unknown,
        FindMedium(status, level),
        MachineTags.Boot,
        MachineTags.Machine);

    /// <summary>
    /// The UUID that udev has found on a block device; null if there is none. Older kernels do not tell it of all file systems.
    /// </summary>
    /// <param name="major">Number of the device.</param>
    /// <param name="minor">Number of the device.</param>
    /// <param name="folder">The folder with udev's links.</param>
    internal static Guid? FindLinkedUuid(uint major, uint minor, string folder)
    {
        if (!Directory.Exists(folder))
            return null;
        foreach (string link in Directory.EnumerateFileSystemEntries(folder))
        {
            if (Guid.TryParseExact(Path.GetFileName(link), "D", out Guid uuid) && FileStatus.TryGet(link, out FileStatus node) == 0 &&
                node.Type == FileType.BlockDevice && node.NodeMajor == major && node.NodeMinor == minor)
                return uuid;
        }

        return null;
    }

    private static string FindFileSystem(DiskFile file, in FileStatus status)
    {
        if (file.TryGetFileSystemUuid(out Guid uuid) != 0)
        {
            if (FindLinkedUuid(status.DeviceMajor, status.DeviceMinor, UuidLinks) is not { } linked)
                return string.Create(CultureInfo.InvariantCulture, $"{status.DeviceMajor},{status.DeviceMinor}");
            uuid = linked;
        }

        ulong? subvolume = status.Subvolume ?? (file.TryGetBtrfsSubvolume(out ulong number) == 0 ? number : null);
        return string.Create(CultureInfo.InvariantCulture, $"{uuid:N}{(subvolume is { } own ? $"/{own}" : "")}");
    }

    /// <summary>A copy of the whole file system lies on another device, and has other names.</summary>
    private static string FindMedium(in FileStatus status, int level)
    {
        // Numbers with major 0 are no devices.
        if (status.DeviceMajor == 0)
            return DiskTextPart.Unknown;
        BlockDiskName device = BlockNames.Find(status.DeviceMajor, status.DeviceMinor, level: level);
        string tag = DiskHash.Tag(device.IsNamed ? $"{device.Name}:{device.Partition}" : $"{device.Name}:{device.Boot}");
        return $"{(!device.IsNamed ? 'n' : device.IsUniqueEverywhere ? 'w' : 's')}{tag}";
    }
}
