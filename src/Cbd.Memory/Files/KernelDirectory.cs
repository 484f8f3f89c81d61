namespace Cbd.Memory;

/// <summary>
/// Directories whose files are the kernel's: <c>/dev</c>, <c>/proc</c> and <c>/sys</c>. A file that is made among devices, because one
/// of them is missing or its name is wrong, lies in this machine's memory and is gone after a boot.
/// </summary>
public static class KernelDirectory
{
    /// <summary>Whether no file of ours belongs into this directory. What cannot be looked at counts as usual. Any thread.</summary>
    /// <param name="directory">A path, of a directory or not.</param>
    public static bool Is(string directory)
    {
        if (FileStatus.TryGet(directory, out FileStatus status) != 0)
            return false;
        if (IsIn("/proc", status) || IsIn("/sys", status))
            return true;
        if (!IsIn("/dev", status))
            return false;
        // Without a mount of its own /dev/shm is on the same file system, and is as good a place as ever.
        return IsSame("/dev", status) || FileStatus.TryGet("/dev/shm", out FileStatus shared) != 0 || shared.Device != status.Device;
    }

    private static bool IsIn(string mount, in FileStatus status) =>
        FileStatus.TryGet(mount, out FileStatus top) == 0 && top.Device == status.Device &&
        // Where nothing is mounted there, it is a directory as any other.
        FileStatus.TryGet("/", out FileStatus root) == 0 && root.Device != top.Device;

    private static bool IsSame(string path, in FileStatus status) =>
        FileStatus.TryGet(path, out FileStatus other) == 0 && other.Device == status.Device && other.Inode == status.Inode;
}
