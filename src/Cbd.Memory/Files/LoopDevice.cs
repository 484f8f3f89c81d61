using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// Loop devices (linux/loop.h): a file as a block device. The calls wait for whoever serves that file, so its server
/// must not make them. Members throw <see cref="CbdException"/>.
/// </summary>
public static unsafe class LoopDevice
{
    /// <summary>What gives out the numbers of loop devices.</summary>
    public const string ControlPath = "/dev/loop-control";

    /// <summary>Other programs may take the free number first, this often.</summary>
    private const int Tries = 64;

    /// <summary>
    /// Makes a block device of an open file, with direct I/O if the kernel can, and returns its path. Linux 5.8.
    /// </summary>
    /// <param name="file">Open for writing too, unless <paramref name="readOnly"/>.</param>
    /// <param name="blockBytes">Logical block, 512 to the page size.</param>
    /// <param name="readOnly">Nothing can be written.</param>
    public static string Configure(FileDescriptor file, int blockBytes, bool readOnly)
    {
        using FileDescriptor control = FileDescriptor.Open(ControlPath, OpenFlags.ReadWrite);
        for (int attempt = 0; attempt < Tries; attempt++)
        {
            int number = LibC.Ioctl(control, IoctlLoopGetFree, null);
            if (number < 0)
                throw SystemCallException.Last("ioctl LOOP_CTL_GET_FREE", ControlPath);
            string path = $"/dev/loop{number}";
            using FileDescriptor device = FileDescriptor.Open(path, readOnly ? OpenFlags.ReadOnly : OpenFlags.ReadWrite);
            // SAFETY: the structure lives on this stack frame for the length of the call; what is not named is zero.
            var configuration = new LibC.LoopConfiguration
            {
                Descriptor = (uint)file.Number,
                BlockBytes = (uint)blockBytes,
                Flags = LoopDirectIo | LoopPartitions | (readOnly ? LoopReadOnly : 0),
            };
            if (LibC.Ioctl(device, IoctlLoopConfigure, &configuration) == 0)
                return path;
            if (LibC.LastErrno != EBUSY)
                throw SystemCallException.Last("ioctl LOOP_CONFIGURE", path);
        }

        throw new CbdException(CbdErrorKind.Busy, $"no loop device could be taken in {Tries} tries: other programs took each first; try again");
    }

    /// <summary>
    /// Ends a loop device, or, while others have it open, lets it end when they close it. Nothing if it has another file
    /// or none: its number was given to somebody else.
    /// </summary>
    /// <param name="path">The device.</param>
    /// <param name="file">The file that it must have, as <see cref="FileOf"/> has it.</param>
    /// <param name="exclusive">
    /// Throws Busy, and changes nothing, while it is mounted or held otherwise.
    /// </param>
    public static void Clear(string path, string file, bool exclusive)
    {
        int error = FileDescriptor.TryOpen(path, OpenFlags.ReadOnly | (exclusive ? OpenFlags.Exclusive : 0), 0, out FileDescriptor? device);
        using FileDescriptor? opened = device;
        if (opened is null)
            throw new SystemCallException("open", -error, path);
        // As long as this descriptor is open, nobody ends the device and gives its number another file.
        if (TryGetFile(path) is not { } there)
            throw new CbdException(CbdErrorKind.Failed, $"the file of {path} cannot be read in /sys, so it is left: raise the limit of open files (ulimit -n), then try again");
        if (there != file)
            return;
        if (LibC.Ioctl(opened, IoctlLoopClear, null) < 0 && LibC.LastErrno != ENXIO)
            throw SystemCallException.Last("ioctl LOOP_CLR_FD", path);
    }

    /// <summary>The path of the file below a loop device, from the root of its file system; empty if it has none, or if that cannot be read.</summary>
    public static string FileOf(string path) => TryGetFile(path) ?? "";

    /// <summary>The same, and null if nothing tells: no descriptor can be had for a look, say.</summary>
    public static string? TryGetFile(string path)
    {
        try
        {
            return File.ReadAllText($"/sys/block/{Path.GetFileName(path)}/loop/backing_file").TrimEnd('\n');
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            return "";
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }

    /// <summary>The file has another size: the device gets it too, also while it is in use.</summary>
    public static void UpdateSize(string path)
    {
        using FileDescriptor device = FileDescriptor.Open(path, OpenFlags.ReadOnly);
        if (LibC.Ioctl(device, IoctlLoopSetCapacity, null) < 0)
            throw SystemCallException.Last("ioctl LOOP_SET_CAPACITY", path);
    }
}
