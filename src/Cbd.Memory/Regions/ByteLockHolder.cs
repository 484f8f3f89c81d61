using System.Globalization;

namespace Cbd.Memory;

/// <summary>
/// Finds the process of this machine that holds a <see cref="RegionByteLock"/>. F_OFD_GETLK names nobody, but
/// /proc/PID/fdinfo/N lists the locks of the very open file description that descriptor N stands for (proc(5)).
/// </summary>
public static class ByteLockHolder
{
    /// <summary>
    /// The process that holds the byte at <paramref name="offset"/> of the file, as a descriptor that names it for good: it
    /// was opened before the lock was seen, so it is that process, or one that has ended. Null if none is found: it is of
    /// another user, in a process namespace that is not seen from here, or nobody holds the byte.
    /// </summary>
    /// <param name="likelyProcessId">Looked at first; need not be right.</param>
    public static ProcessDescriptor? TryOpen(int likelyProcessId, ulong device, ulong inode, long offset)
    {
        if (likelyProcessId > 0 && TryOpenIfHolds(likelyProcessId, device, inode, offset) is { } likely)
            return likely;
        foreach (string path in Directory.EnumerateDirectories("/proc"))
        {
            if (int.TryParse(Path.GetFileName(path), NumberStyles.None, CultureInfo.InvariantCulture, out int process) &&
                TryOpenIfHolds(process, device, inode, offset) is { } found)
                return found;
        }

        return null;
    }

    private static ProcessDescriptor? TryOpenIfHolds(int process, ulong device, ulong inode, long offset)
    {
        ProcessDescriptor? descriptor = null;
        try
        {
            descriptor = ProcessDescriptor.TryOpen(process);
            if (descriptor is null || !descriptor.IsInProc(process) || !Holds(process, device, inode, offset))
            {
                descriptor?.Dispose();
                return null;
            }

            return descriptor;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or SystemCallException)
        {
            // It ended meanwhile, is not ours to look at, or is a thread's number.
            descriptor?.Dispose();
            return null;
        }
    }

    private static bool Holds(int process, ulong device, ulong inode, long offset)
    {
        foreach (string path in Directory.EnumerateFileSystemEntries($"/proc/{process}/fd"))
        {
            if (FileStatus.TryGet(path, out FileStatus status) != 0 || status.Device != device || status.Inode != inode)
                continue;
            foreach (string line in File.ReadLines($"/proc/{process}/fdinfo/{Path.GetFileName(path)}"))
            {
                if (IsExclusiveLock(line, inode, offset))
                    return true;
            }
        }

        return false;
    }

    /// <summary>A line as <c>lock: 1: OFDLCK ADVISORY WRITE -1 00:1b:42 4096 4096</c>, whose range has the byte.</summary>
    internal static bool IsExclusiveLock(string line, ulong inode, long offset)
    {
        string[] words = line.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries);
        return words is ["lock:", _, "OFDLCK", _, "WRITE", _, var file, var first, var last] &&
            file.EndsWith($":{inode.ToString(CultureInfo.InvariantCulture)}", StringComparison.Ordinal) &&
            long.TryParse(first, NumberStyles.None, CultureInfo.InvariantCulture, out long from) &&
            (last == "EOF" || (long.TryParse(last, NumberStyles.None, CultureInfo.InvariantCulture, out long to) && offset <= to)) &&
            offset >= from;
    }
}
