using System.Diagnostics;
using Cbd.Blocks;
using Cbd.Memory;
using static Cbd.Memory.Errno;

namespace Cbd.Disks;

/// <summary>A file or block device that was checked, locked and measured.</summary>
internal sealed record OpenedDisk
{
    public required DiskFile File { get; init; }
    public required bool IsBlockDevice { get; init; }
    public required bool IsDirect { get; init; }
    public required int DirectMemoryAlignmentBytes { get; init; }
    public required string Identity { get; init; }
    public required string OldIdentity { get; init; }
    public required BlockDeviceInfo Info { get; init; }
}

/// <summary>Opens files and block devices as disks; every refusal names the path, the value and the remedy.</summary>
internal static class DiskOpening
{
    /// <summary>S_ISUID and S_ISGID.</summary>
    private const uint ChangesUser = 0xC00;

    private const int LockPollMs = 20;

    /// <summary>
    /// A block device that was just closed may be held a moment longer, by the kernel's threads of an io_uring, and
    /// there is no call that gives it back earlier.
    /// </summary>
    private const int BlockDeviceGraceMs = 500;

    public static OpenedDisk Open(DiskOptions options)
    {
        string path = options.Path;
        int error = PathRights.TryGetStatus(options.Rights, path, out FileStatus status);
        if (error != 0)
            throw OpenError(options, -error);
        CheckKind(options, status);
        DiskFile file = OpenLocked(options, status.Type == FileType.BlockDevice);
        try
        {
            return Measure(options, file);
        }
        catch
        {
            GiveBack(file);
            throw;
        }
    }

    private static OpenedDisk Measure(DiskOptions options, DiskFile file)
    {
        int error = file.TryGetStatus(out FileStatus status);
        if (error != 0)
            throw OpenError(options, -error);
        // Once more, of what was really opened.
        CheckKind(options, status);
        bool isBlockDevice = status.Type == FileType.BlockDevice;
        BlockDeviceInfo info = isBlockDevice
            ? BlockDisk.Measure(options, file, status)
            : FileDisk.Measure(options, file, status);
        if (info.SizeBytes <= 0)
        {
            throw new CbdException(
                CbdErrorKind.Invalid,
                $"disk {options.Path} has a size of 0 bytes; " + (isBlockDevice ? "attach a medium to it"
                    : KernelDirectory.Is(options.Path) ? "name a regular file or a block device"
                    : $"give it one (truncate -s 10G {options.Path})"));
        }
        if (info.SizeBytes % info.LogicalBlockBytes != 0)
        {
            throw new CbdException(
                CbdErrorKind.Invalid,
                $"disk {options.Path}: its size of {info.SizeBytes} bytes is not a multiple of the block size {info.LogicalBlockBytes}; " +
                RemedyForSize(options, info, isBlockDevice));
        }
        string identity = isBlockDevice
            ? BlockNames.Find(status.NodeMajor, status.NodeMinor, file).ToString()
            : FileNames.Find(file, status).ToString();
        // The durability id is made of what it was always made of: another one would say that unflushed writes may be lost.
        string oldIdentity = isBlockDevice ? BlockDisk.IdentifyAsBefore(status) : FileDisk.IdentifyAsBefore(file, status);
        string life = isBlockDevice ? BlockDisk.IdentifyLife(file) : "";
        bool isDirect = TrySetDirect(file, status, info.LogicalBlockBytes);
        return new OpenedDisk
        {
            File = file,
            IsBlockDevice = isBlockDevice,
            IsDirect = isDirect,
            DirectMemoryAlignmentBytes = status.DirectMemoryAlignmentBytes is > 0 and int bytes ? bytes : info.LogicalBlockBytes,
            Identity = identity,
            OldIdentity = oldIdentity,
            Info = info with { CanCache = !isDirect, DurabilityId = DiskHash.ForThisBoot($"{oldIdentity} {life}") },
        };
    }

    private static string RemedyForSize(DiskOptions options, BlockDeviceInfo info, bool isBlockDevice)
    {
        bool fitsSmallBlocks = info.LogicalBlockBytes != 512 && info.SizeBytes % 512 == 0;
        if (isBlockDevice)
            return fitsSmallBlocks && options.LogicalBlockBytes is not null ? "use a block size of 512" : "make it larger or smaller by its own tools";
        long wholeBytes = (info.SizeBytes / info.LogicalBlockBytes + 1) * info.LogicalBlockBytes;
        return $"grow it (truncate -s {wholeBytes} {options.Path}){(fitsSmallBlocks ? ", or use a block size of 512" : "")}";
    }

    /// <summary>What helps where there is no such path.</summary>
    private static string RemedyForMissing(string path)
    {
        // By the kernel: .NET takes '..' away as text.
        string directory = System.IO.Path.GetDirectoryName(path) is { Length: > 0 } parent ? parent : ".";
        if (FileStatus.TryGet(directory, out FileStatus status) != 0 || status.Type != FileType.Directory)
            return $"correct the path, for there is no directory {directory} either";
        return KernelDirectory.Is(directory)
            ? "attach the device, or correct the path (lsblk lists what there is)"
            : $"create it (truncate -s 10G {path}) or correct the path";
    }

    private static void CheckKind(DiskOptions options, in FileStatus status)
    {
        if (status.Type == FileType.Directory)
        {
            throw new CbdException(
                CbdErrorKind.Invalid, $"disk {options.Path} is a directory; name a regular file or a block device");
        }
        if (status.Type is not (FileType.Regular or FileType.BlockDevice))
        {
            throw new CbdException(
                CbdErrorKind.Invalid,
                $"disk {options.Path} is neither a regular file nor a block device; name one of these, memory:SIZE or null:SIZE");
        }
        if (options.Rights is { } rights && !options.ReadOnly && status.Type == FileType.Regular && (status.Permissions & ChangesUser) != 0)
        {
            // The kernel takes these bits from a file that its user writes to; it does not where a privileged process does.
            throw new CbdException(
                CbdErrorKind.Denied, $"disk {options.Path} has a mode that changes the user of who executes it, and uid {rights.UserId} may not write to it through cbdd: take that away (chmod u-s,g-s {options.Path})");
        }
        if (options.Regions.Contains(new FileIdentity(status.Device, status.Inode)))
        {
            throw new CbdException(
                CbdErrorKind.Invalid, $"disk {options.Path} is the shared region itself; name another file");
        }
    }

    /// <summary>Opens the disk and takes its lock, waiting for it as long as the options say.</summary>
    private static DiskFile OpenLocked(DiskOptions options, bool isBlockDevice)
    {
        long start = Stopwatch.GetTimestamp();
        int waitMs = isBlockDevice ? Math.Max(options.LockWaitMs, BlockDeviceGraceMs) : options.LockWaitMs;
        DiskFile? file = null;
        try
        {
            while (true)
            {
                int error = 0;
                if (file is null)
                    error = DiskFile.TryOpen(options.Path, options.ReadOnly, exclusive: isBlockDevice, out file, options.Rights);
                if (error == 0 && !isBlockDevice)
                {
                    error = file!.TryLock(write: !options.ReadOnly);
                    if (error is not (0 or -EAGAIN or -EACCES))
                    {
                        throw new CbdException(
                            CbdErrorKind.Unsupported,
                            $"disk {options.Path} cannot be locked (errno {-error}); move it to a file system that has locks");
                    }
                }
                if (error == 0 && !options.ReadOnly && LoopUse.Find(file!, isBlockDevice) is { } use)
                    throw new DiskInUseException($"disk {options.Path} {use}");
                if (error == 0)
                {
                    DiskFile opened = file!;
                    file = null;
                    return opened;
                }
                bool isInUse = file is not null || error is -EBUSY or -ETXTBSY;
                if (!isInUse)
                    throw OpenError(options, -error);
                if (Stopwatch.GetElapsedTime(start).TotalMilliseconds >= waitMs)
                    throw InUse(options, isBlockDevice);
                Thread.Sleep(LockPollMs);
            }
        }
        finally
        {
            if (file is not null)
                GiveBack(file);
        }
    }

    /// <summary>A process that is being started has a copy of each descriptor for a moment, which would keep the lock.</summary>
    private static void GiveBack(DiskFile file)
    {
        file.Unlock();
        file.Dispose();
    }

    private static DiskInUseException InUse(DiskOptions options, bool isBlockDevice)
    {
        string waited = options.LockWaitMs > 0 ? $" after {options.LockWaitMs} ms" : "";
        return new DiskInUseException(
            isBlockDevice
                ? $"disk {options.Path} is already in use{waited}: it is mounted, or held by another backend or program; unmount or stop that first (lsblk, fuser)"
                : $"disk {options.Path} is already in use{waited}: another backend or program holds a lock on it; stop that first (lslocks, fuser)");
    }

    private static CbdException OpenError(DiskOptions options, int errno)
    {
        string path = options.Path;
        return errno switch
        {
            ENOENT or ENOTDIR => new CbdException(
                CbdErrorKind.NotFound, $"disk {path} does not exist; {(options.Rights is null ? RemedyForMissing(path) : "create it or correct the path")}"),
            EACCES or EPERM or ELOOP when options.Rights is { } rights => new CbdException(
                CbdErrorKind.Denied, $"uid {rights.UserId}, who asks for it, may not {(options.ReadOnly ? "read" : "read and write")} disk {path}; {rights.Remedy}"),
            _ when Exhaustion.RemedyOf(errno) is { } remedy => new CbdException(
                CbdErrorKind.Exhausted, $"disk {path} cannot be opened (errno {errno}){remedy}"),
            ENXIO or ENODEV => new CbdException(
                CbdErrorKind.NotFound, $"disk {path} is a node without a device behind it; attach the device or correct the path"),
            EROFS => new CbdException(
                CbdErrorKind.Denied, $"disk {path} can only be read; start it read-only"),
            EACCES or EPERM when !options.ReadOnly => new CbdException(
                CbdErrorKind.Denied, $"no permission to read and write disk {path}; change its mode or owner, or start it read-only"),
            EACCES or EPERM => new CbdException(
                CbdErrorKind.Denied, $"no permission to read disk {path}; change its mode or owner"),
            _ => new CbdException(
                CbdErrorKind.Failed, $"disk {path} cannot be opened (errno {errno}); check the path and the file system"),
        };
    }

    /// <summary>
    /// Switches O_DIRECT on where it works with the block size on offer. On the description that is open already,
    /// since a second one would not hold the lock.
    /// </summary>
    private static bool TrySetDirect(DiskFile file, in FileStatus status, int logicalBlockBytes)
    {
        if (status.DirectOffsetAlignmentBytes is 0 || status.DirectOffsetAlignmentBytes > logicalBlockBytes ||
            status.DirectMemoryAlignmentBytes > NativeBuffer.AlignmentBytes)
        {
            return false;
        }
        if (file.SetDirect(true) != 0)
            return false;
        using var block = new NativeBuffer(logicalBlockBytes);
        if (file.Read(new BufferSlice(block, 0, logicalBlockBytes), 0) != -EINVAL)
            return true;
        file.SetDirect(false);
        return false;
    }
}
