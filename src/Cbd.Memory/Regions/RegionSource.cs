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
    private RegionAccess? _access;

    /// <summary>Where it was created with the rights of another user: it is removed there, and with these rights.</summary>
    private FileDescriptor? _parent;

    private RegionSource(string path, FileDescriptor descriptor, FileStatus status, RegionKind kind, long sizeBytes, int pageBytes, bool created)
    {
        OwnerId = status.OwnerId;
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

    /// <summary>The user whose file it is.</summary>
    public uint OwnerId { get; }

    /// <summary>Open for reading and writing; the OFD locks of this host belong to it.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>
    /// Opens a region. A missing file is created (mode 0600 or that of <paramref name="access"/>, all space reserved) if
    /// <paramref name="createSizeBytes"/> is given, which an existing one is not measured by: see
    /// <see cref="Grow"/>. Throws <see cref="CbdException"/> with the remedy, and has changed nothing then.
    /// </summary>
    /// <param name="path">Its path.</param>
    /// <param name="createSizeBytes">Bytes of a file that is created; null: none is.</param>
    /// <param name="access">Whose rights it is opened with, and whose file it may be; null: this process's, and anybody's.</param>
    public static RegionSource Open(string path, long? createSizeBytes = null, RegionAccess? access = null)
    {
        if (string.IsNullOrEmpty(path) || path.Contains('\0'))
            throw new CbdException(CbdErrorKind.Invalid, $"region path '{path.Replace("\0", "\\0")}' is empty or has a zero byte: give the path of a file or device");
        try
        {
            access?.CheckWay(path);
            int error = PathRights.TryGetStatus(access?.Rights, path, out FileStatus found);
            if (error == -ENOENT)
                return Create(path, createSizeBytes, access);
            if (error != 0)
                throw new SystemCallException("statx", -error, path);
            RefuseType(path, found);
            // A FIFO put there meanwhile must not block.
            error = PathRights.TryOpen(access?.Rights, path, OpenFlags.ReadWrite | OpenFlags.NonBlocking | OpenFlags.NoTerminal, 0, out FileDescriptor? descriptor);
            if (error != 0)
                throw new SystemCallException("open", -error, path);
            try
            {
                FileStatus status = descriptor!.GetStatus();
                RefuseType(path, status);
                access?.Check(path, status);
                RegionSource source = Classify(path, descriptor, status, created: false);
                source._access = access;
                return source;
            }
            catch
            {
                descriptor!.Dispose();
                throw;
            }
        }
        catch (SystemCallException e) when (e.Call is "open" or "statx")
        {
            throw Explain(path, e, access);
        }
    }

    /// <summary>Refuses a region that everybody may read, where this process is root.</summary>
    /// <exception cref="CbdException">Denied, with owner, mode and remedy.</exception>
    public void CheckReaders()
    {
        if (!Created)
            _access?.CheckReaders(Path, Descriptor.GetStatus());
    }

    /// <summary>Refuses a file with several names, where this process is root: for who formats it.</summary>
    /// <exception cref="CbdException">Denied, with owner, mode and remedy.</exception>
    public void CheckNames() => _access?.CheckNames(Path, Descriptor.GetStatus());

    /// <summary>It was formatted: a file of this process's gets the mode and group that regions have here.</summary>
    public void SetAccess()
    {
        FileStatus status = Descriptor.GetStatus();
        if (_access is null || !IsFile || status.OwnerId != ControlSyscalls.EffectiveUserId)
            return;
        if (_access.ModeOf(status) is var mode && mode != status.Permissions && LibC.FChangeMode(Descriptor, mode) < 0)
            throw SystemCallException.Last("fchmod", Path);
        SetGroup();
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
        string name = Path[(Path.LastIndexOf('/') + 1)..];
        int error = _parent is null ? FileStatus.TryGet(Path, out FileStatus status, followLinks: false) : FileStatus.TryGet(_parent, name, out status);
        if (error is not (0 or -ENOENT))
            throw new SystemCallException("statx", -error, Path);
        // Only if the name still means our file.
        if (error != 0 || status.Inode != Inode || status.Device != Device)
            return;
        error = _parent is null ? LibC.Unlink(Path) < 0 ? -LibC.LastErrno : 0 : _access!.Rights!.TryUnlink(_parent, name);
        if (error != 0)
            throw new SystemCallException("unlink", -error, Path);
    }

    public void Dispose()
    {
        _parent?.Dispose();
        Descriptor.Dispose();
    }

    private static RegionSource Create(string path, long? createSizeBytes, RegionAccess? access)
    {
        if (KernelDirectory.Is(System.IO.Path.GetDirectoryName(path) is { Length: > 0 } directory ? directory : "."))
            throw new CbdException(CbdErrorKind.NotFound, $"region '{path}' does not exist, and a file there would be no device: attach the device (ls /dev/dax*), or give the path of a file (/dev/shm/NAME)") { MayPass = true };
        if (createSizeBytes is not { } sizeBytes)
            throw new CbdException(CbdErrorKind.NotFound, $"region '{path}' does not exist: check the path, or create it with --format --size SIZE") { MayPass = true };
        if (FileStatus.TryGet(path, out FileStatus link, followLinks: false) == 0 && link.Type == FileType.SymbolicLink && access?.Rights is null)
            throw new CbdException(CbdErrorKind.Invalid, $"region '{path}' is a symbolic link to what is not there, and none is followed where a file is made: remove the link, or give the path that it leads to");
        if (sizeBytes <= 0)
            throw new CbdException(CbdErrorKind.Invalid, $"region '{path}' cannot be created with {sizeBytes} bytes: give a --size above 0");
        FileDescriptor? parent = null;
        FileDescriptor? descriptor = null;
        RegionSource? source = null;
        try
        {
            descriptor = MakeFile(path, access, out parent);
            source = Classify(path, descriptor, descriptor.GetStatus(), created: true);
            source._access = access;
            source._parent = parent;
            // The umask has no say in it.
            if (access is not null && access.Mode != descriptor.GetStatus().Permissions && LibC.FChangeMode(descriptor, access.Mode) < 0)
                throw SystemCallException.Last("fchmod", path);
            source.SetGroup();
            source.Grow(sizeBytes);
            return source;
        }
        catch
        {
            source?.DeleteIfCreated();
            parent?.Dispose();
            descriptor?.Dispose();
            throw;
        }
    }

    private static FileDescriptor MakeFile(string path, RegionAccess? access, out FileDescriptor? parent)
    {
        const int ownerOnly = 0x180;
        parent = null;
        if (access?.Rights is not { } rights)
            return FileDescriptor.Open(path, OpenFlags.ReadWrite | OpenFlags.Create | OpenFlags.Exclusive, ownerOnly);
        int error = rights.TryOpenParent(path, out parent, out string name);
        FileDescriptor? made = null;
        if (error == 0)
            error = rights.TryCreate(parent!, name, OpenFlags.ReadWrite, ownerOnly, out made);
        return error == 0 ? made! : throw new SystemCallException("open", -error, path);
    }

    private void SetGroup()
    {
        if (_access?.Group is { } group && LibC.FChangeOwner(Descriptor, uint.MaxValue, group) < 0)
            throw new CbdException(CbdErrorKind.Denied, $"region '{Path}' cannot be given to group {group} (errno {LibC.LastErrno}): run cbdd as root or as a member of that group, or give another --region-group");
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

    private static CbdException Explain(string path, SystemCallException e, RegionAccess? access) => e.Errno switch
    {
        EACCES or EPERM or ELOOP when access?.Rights is { } rights => new CbdException(CbdErrorKind.Denied, $"region '{path}': uid {rights.UserId}, who asks for it, may not read and write it: {rights.Remedy}", e),
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
