using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>
/// A file and a loop device on it are one disk with two caches. Who writes to the one must not write to the other, and no lock of the kernel
/// keeps them apart.
/// </summary>
internal static class LoopUse
{
    private const string Devices = "/sys/block";

    /// <summary>Who else has the disk that is about to be written, with the remedy; null if nobody is seen.</summary>
    /// <param name="disk">Open for writing.</param>
    /// <param name="isBlockDevice">Not a file.</param>
    public static string? Find(DiskFile disk, bool isBlockDevice) => isBlockDevice ? FindBelow(disk) : FindAbove(disk);

    /// <summary>A loop device that stands on the file.</summary>
    private static string? FindAbove(DiskFile disk)
    {
        if (disk.TryGetStatus(out FileStatus status) != 0)
            return null;
        foreach (string folder in Folders())
        {
            // A number without a file has no such folder, and is not opened: that costs a scan of its partitions.
            if (!Directory.Exists($"{folder}/loop"))
                continue;
            string device = $"/dev/{Path.GetFileName(folder)}";
            if (DiskFile.TryOpenForLook(device, out DiskFile? opened) != 0)
                continue;
            using (opened)
            {
                if (opened!.TryGetLoopStatus(out LoopStatus loop) == 0 && loop.IsOn(status))
                    return $"is already in use: the loop device {device} stands on it: unmount it and detach it (losetup -d {device}), or serve {device} itself";
            }
        }

        return null;
    }

    private static string[] Folders()
    {
        try
        {
            return Directory.GetDirectories(Devices, "loop*");
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // No /sys here: then nothing tells.
            return [];
        }
    }

    /// <summary>A program that has the file below the loop device locked, as a backend on that file has.</summary>
    private static string? FindBelow(DiskFile disk)
    {
        if (disk.TryGetLoopStatus(out LoopStatus loop) != 0 || disk.TryGetStatus(out FileStatus status) != 0)
            return null;
        string file = BlockNames.Read(BlockNames.FindNode(status.NodeMajor, status.NodeMinor), "loop/backing_file");
        // The path is a hint: another name space may have another file there.
        if (FileStatus.TryGet(file, out FileStatus below) != 0 || below.Type != FileType.Regular || !loop.IsOn(below) ||
            DiskFile.TryOpen(file, readOnly: false, exclusive: false, out DiskFile? opened) != 0)
            return null;
        using (opened)
        {
            if (opened!.TryGetStatus(out FileStatus now) != 0 || !now.IsSameFile(below))
                return null;
            bool isLocked = opened!.TryLock(write: true) is -Errno.EAGAIN or -Errno.EACCES;
            opened.Unlock();
            return !isLocked ? null : $"is already in use: a backend or another program has a lock on {file}, on which it stands: stop that first (lslocks), or serve the file itself";
        }
    }
}
