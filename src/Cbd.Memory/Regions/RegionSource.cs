using System.Runtime.InteropServices;
using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// What a region's path names, opened and checked, before anything of it is mapped. Not thread-safe. The mappings made
/// of it hold their own reference on the open file; dispose it when it is not needed any more.
/// </summary>
public sealed class RegionSource : IDisposable
{
    private RegionSource(string path, FileDescriptor descriptor, FileStatus status, RegionKind kind, long sizeBytes, int pageBytes, bool created)
    {
        Path = path;
        Descriptor = descriptor;
        Kind = kind;
        SizeBytes = sizeBytes;
        PageBytes = pageBytes;
        Created = created;
        Device = status.Device;
        Inode = status.Inode;
    }

    public string Path { get; }

    public RegionKind Kind { get; }

    /// <summary>Bytes that are there.</summary>
    public long SizeBytes { get; private set; }

    /// <summary>Unit of mappings: the page, the huge page, or the device's alignment, bytes. A power of two.</summary>
    public int PageBytes { get; }

    /// <summary>Opening it created the file: who fails afterwards calls <see cref="DeleteIfCreated"/>.</summary>
    public bool Created { get; private set; }

    /// <summary>
    /// Other kernels may store here, so the operator must say how the memory stays coherent (<c>--coherence</c>) at
    /// format.
    /// </summary>
    public bool RequiresCoherence => Kind is RegionKind.DevDax or RegionKind.PciBar;

    /// <summary>The size is chosen by who creates it, and space must be reserved.</summary>
    public bool IsFile => Kind is RegionKind.File or RegionKind.SharedMemory or RegionKind.HugePages or RegionKind.FsDax;

    /// <summary>Number of the file system's device; with <see cref="Inode"/> the identity of the region on this kernel.</summary>
    public ulong Device { get; }

    public ulong Inode { get; }

    /// <summary>Open for reading and writing; the OFD locks of this host belong to it.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>
    /// Opens a region. A missing file is created (mode 0600, all space reserved) if
    /// <paramref name="createSizeBytes"/> is given, which an existing one is not measured by: see
    /// <see cref="Grow"/>. Throws <see cref="CbdException"/> with the remedy, and has changed nothing then.
    /// </summary>
    public static RegionSource Open(string path, long? createSizeBytes = null)
    {
        if (string.IsNullOrEmpty(path) || path.Contains('\0'))
            throw new CbdException(CbdErrorKind.Invalid, $"region path '{path.Replace("\0", "\\0")}' is empty or has a zero byte: give the path of a file or device");
        try
        {
            int error = FileStatus.TryGet(path, out FileStatus found);
            if (error == -ENOENT)
                return Create(path, createSizeBytes);
            if (error != 0)
                throw new SystemCallException("statx", -error, path);
            RefuseType(path, found);
            // A FIFO put there meanwhile must not block.
            FileDescriptor descriptor = FileDescriptor.Open(path, OpenFlags.ReadWrite | OpenFlags.NonBlocking);
            try
            {
                FileStatus status = descriptor.GetStatus();
                RefuseType(path, status);
                return Classify(path, descriptor, status, created: false);
            }
            catch
            {
                descriptor.Dispose();
                throw;
            }
        }
        catch (SystemCallException e) when (e.Call is "open" or "statx")
        {
            throw Explain(path, e);
        }
    }

    /// <summary>
    /// Makes a file at least <paramref name="sizeBytes"/> long (never shorter) and reserves space for all of it, so
    /// that no later store can fail for lack of space. What it holds stays. On an error its size is as it was.
    /// </summary>
    public void Grow(long sizeBytes)
    {
        if (!IsFile)
        {
            if (sizeBytes > SizeBytes)
                throw new CbdException(CbdErrorKind.Invalid, $"region '{Path}' is a device of {SizeBytes} bytes and cannot grow to {sizeBytes}: give no --size, or a smaller one");
            return;
        }

        long before = SizeBytes;
        long target = RoundUp(Math.Max(sizeBytes, before), PageBytes);
        try
        {
            Descriptor.Allocate(AllocateMode.Reserve, 0, target);
            SizeBytes = target;
        }
        catch (SystemCallException e)
        {
            // fallocate may have grown the file before it ran out of space.
            if (Descriptor.GetStatus().SizeBytes != before)
                Descriptor.Truncate(before);
            throw e.Errno switch
            {
                ENOSPC or EDQUOT or ENOMEM => new CbdException(CbdErrorKind.Exhausted, $"region '{Path}': no space for {target} bytes: free some{(Kind == RegionKind.HugePages ? " huge pages (vm.nr_hugepages)" : "")}, or give a smaller --size", e),
                EFBIG => new CbdException(CbdErrorKind.Invalid, $"region '{Path}': {target} bytes are more than a file may have there: give a smaller --size", e),
                EOPNOTSUPP => new CbdException(CbdErrorKind.Unsupported, $"region '{Path}': this file system cannot reserve space: put the region on tmpfs (/dev/shm), ext4 or xfs", e),
                _ => e,
            };
        }
    }

    /// <summary>Maps all of it for reading and writing.</summary>
    public RegionMapping Map() => RegionMapping.Map(this);

    /// <summary>The file has a use now, and stays whatever fails later: others may be on it.</summary>
    public void Keep() => Created = false;

    /// <summary>Removes the file if <see cref="Created"/>; for who created it and then could not format it.</summary>
    public void DeleteIfCreated()
    {
        if (!Created)
            return;
        Created = false;
        int error = FileStatus.TryGet(Path, out FileStatus status);
        if (error is not (0 or -ENOENT))
            throw new SystemCallException("statx", -error, Path);
        // Only if the name still means our file.
        if (error == 0 && status.Inode == Inode && status.Device == Device && LibC.Unlink(Path) < 0)
            throw SystemCallException.Last("unlink", Path);
    }

    public void Dispose() => Descriptor.Dispose();

    private static RegionSource Create(string path, long? createSizeBytes)
    {
        if (KernelDirectory.Is(System.IO.Path.GetDirectoryName(path) is { Length: > 0 } directory ? directory : "."))
            throw new CbdException(CbdErrorKind.NotFound, $"region '{path}' does not exist, and a file there would be no device: attach the device (ls /dev/dax*), or give the path of a file (/dev/shm/NAME)") { MayPass = true };
        if (createSizeBytes is not { } sizeBytes)
            throw new CbdException(CbdErrorKind.NotFound, $"region '{path}' does not exist: check the path, or create it with --format --size SIZE") { MayPass = true };
        if (sizeBytes <= 0)
            throw new CbdException(CbdErrorKind.Invalid, $"region '{path}' cannot be created with {sizeBytes} bytes: give a --size above 0");
        FileDescriptor descriptor = FileDescriptor.Open(path, OpenFlags.ReadWrite | OpenFlags.Create | OpenFlags.Exclusive, 0x180);
        RegionSource? source = null;
        try
        {
            source = Classify(path, descriptor, descriptor.GetStatus(), created: true);
            source.Grow(sizeBytes);
            return source;
        }
        catch
        {
            source?.DeleteIfCreated();
            descriptor.Dispose();
            throw;
        }
    }

    private static RegionSource Classify(string path, FileDescriptor descriptor, FileStatus status, bool created)
    {
        int systemPage = Environment.SystemPageSize;
        if (status.Type == FileType.CharacterDevice)
        {
            DeviceDax dax = DeviceDax.TryRead(status.NodeMajor, status.NodeMinor) ??
                throw new CbdException(CbdErrorKind.Invalid, $"region '{path}' is a character device but not device-DAX: give a file, /dev/daxX.Y or a PCI resource");
            return new RegionSource(path, descriptor, status, RegionKind.DevDax, dax.SizeBytes, Math.Max(dax.AlignmentBytes, systemPage), created);
        }

        (long magic, long blockBytes) = descriptor.GetFileSystem();
        if (magic == SysFsMagic)
        {
            if (!IsPciResource(path))
                throw new CbdException(CbdErrorKind.Invalid, $"region '{path}' is a file of sysfs but not a PCI resource: give /sys/bus/pci/devices/ADDRESS/resourceN (not resourceN_wc, whose stores are not ordered)");
            return new RegionSource(path, descriptor, status, RegionKind.PciBar, status.SizeBytes, systemPage, created);
        }

        RegionKind kind = magic switch
        {
            TmpFsMagic or RamFsMagic => RegionKind.SharedMemory,
            HugeTlbFsMagic => RegionKind.HugePages,
            _ => status.IsDax ? RegionKind.FsDax : RegionKind.File,
        };
        int page = kind == RegionKind.HugePages ? checked((int)blockBytes) : systemPage;
        return new RegionSource(path, descriptor, status, kind, status.SizeBytes, page, created);
    }

    private static bool IsPciResource(string path)
    {
        ReadOnlySpan<char> name = System.IO.Path.GetFileName(path.AsSpan());
        return name.StartsWith("resource") && name.Length == "resource".Length + 1 && char.IsAsciiDigit(name[^1]);
    }

    private static void RefuseType(string path, FileStatus status)
    {
        string? reason = status.Type switch
        {
            FileType.Regular or FileType.CharacterDevice => null,
            FileType.Directory => $"is a directory: give the path of a file in it, e.g. '{System.IO.Path.Combine(path, "region")}'",
            FileType.BlockDevice => "is a block device: a user-space mapping of it goes through this host's page cache, which other hosts do not see: make it device-DAX (ndctl create-namespace --mode=devdax) and give /dev/daxX.Y",
            _ => "is neither a file nor a device: give a file, /dev/daxX.Y or a PCI resource",
        };
        if (reason is not null)
            throw new CbdException(CbdErrorKind.Invalid, $"region '{path}' {reason}");
    }

    private static CbdException Explain(string path, SystemCallException e) => e.Errno switch
    {
        EACCES or EPERM => new CbdException(CbdErrorKind.Denied, $"region '{path}': no permission to read and write it: run as its owner or as root", e),
        EROFS => new CbdException(CbdErrorKind.Denied, $"region '{path}' is on a read-only file system: mount it writable, or give another path", e),
        ENOENT => new CbdException(CbdErrorKind.NotFound, $"region '{path}': its directory does not exist: create it first", e) { MayPass = true },
        ENOTDIR => new CbdException(CbdErrorKind.Invalid, $"region '{path}': a part of the path is not a directory: check the path", e),
        EEXIST => new CbdException(CbdErrorKind.Busy, $"region '{path}' was created by somebody else at the same time: try again", e) { MayPass = true },
        _ => new CbdException(e.Kind, $"region '{path}' cannot be opened: {Marshal.GetPInvokeErrorMessage(e.Errno)}: check the path", e),
    };

    private static long RoundUp(long value, int unit)
    {
        if (value > long.MaxValue - unit)
            throw new CbdException(CbdErrorKind.Invalid, $"{value} bytes are more than a region can have: give a smaller --size");
        return (value + unit - 1) & -(long)unit;
    }
}
