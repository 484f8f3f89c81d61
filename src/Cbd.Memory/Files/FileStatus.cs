using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>What an inode is: the upper four bits of st_mode.</summary>
public enum FileType
{
    Other = 0,
    Fifo = 1,
    CharacterDevice = 2,
    Directory = 4,
    BlockDevice = 6,
    Regular = 8,
    SymbolicLink = 10,
    Socket = 12,
}

/// <summary>What statx(2) tells of a file. Sizes in bytes.</summary>
public readonly record struct FileStatus
{
    private const int StoredBlockBytes = 512;

    private FileStatus(in LibC.StatxResult raw)
    {
        Type = (FileType)(raw.Mode >> 12);
        Permissions = raw.Mode & 0xfffu;
        LinkCount = raw.LinkCount;
        OwnerId = raw.OwnerId;
        GroupId = raw.GroupId;
        ModifiedNanoseconds = (Int128)raw.ModifiedSeconds * 1_000_000_000 + raw.ModifiedNanoseconds;
        DeviceMajor = raw.DeviceMajor;
        DeviceMinor = raw.DeviceMinor;
        NodeMajor = raw.NodeMajor;
        NodeMinor = raw.NodeMinor;
        Inode = raw.Inode;
        SizeBytes = (long)raw.Size;
        AllocatedBytes = (long)raw.Blocks * StoredBlockBytes;
        PreferredBytes = (int)Math.Min(raw.BlockSize, 1 << 30);
        if ((raw.Mask & StatxBirthTime) != 0 && (raw.BirthSeconds != 0 || raw.BirthNanoseconds != 0))
            BirthNanoseconds = (Int128)raw.BirthSeconds * 1_000_000_000 + raw.BirthNanoseconds;
        if ((raw.Mask & StatxSubvolume) != 0)
            Subvolume = raw.Subvolume;
        IsDax = (raw.Attributes & StatxAttributeDax) != 0;
        if ((raw.Mask & StatxDirectAlignment) != 0)
        {
            DirectMemoryAlignmentBytes = (int)Math.Min(raw.DirectMemoryAlignment, 1 << 30);
            DirectOffsetAlignmentBytes = (int)Math.Min(raw.DirectOffsetAlignment, 1 << 30);
        }
    }

    public FileType Type { get; }

    /// <summary>The lower twelve bits of st_mode.</summary>
    public uint Permissions { get; }

    /// <summary>Names that it has; none once it was removed.</summary>
    public uint LinkCount { get; }

    /// <summary>The user whose file it is.</summary>
    public uint OwnerId { get; }

    /// <summary>The group whose file it is.</summary>
    public uint GroupId { get; }

    /// <summary>When its contents were changed last, on the file system's clock, since 1970.</summary>
    public Int128 ModifiedNanoseconds { get; }

    /// <summary>Device of the file system that the file is in.</summary>
    public uint DeviceMajor { get; }
    public uint DeviceMinor { get; }

    /// <summary>The device that a device node stands for.</summary>
    public uint NodeMajor { get; }
    public uint NodeMinor { get; }

    public ulong Inode { get; }
    public long SizeBytes { get; }

    /// <summary>Space taken up on the file system.</summary>
    public long AllocatedBytes { get; }

    /// <summary>The file system's preferred unit of I/O.</summary>
    public int PreferredBytes { get; }

    /// <summary>When the inode came into being, on the file system's clock, since 1970; null: the file system does not say.</summary>
    public Int128? BirthNanoseconds { get; }

    /// <summary>The subvolume, whose snapshots have the same inodes; null: the kernel (before 6.10) or the file system does not say.</summary>
    public ulong? Subvolume { get; }

    /// <summary>Its pages are the memory of the device: mappings bypass the page cache.</summary>
    public bool IsDax { get; }

    /// <summary>Alignment that O_DIRECT needs of addresses; 0: no O_DIRECT; null: the kernel does not say.</summary>
    public int? DirectMemoryAlignmentBytes { get; }

    /// <summary>Alignment that O_DIRECT needs of offsets and lengths; 0: no O_DIRECT; null: the kernel does not say.</summary>
    public int? DirectOffsetAlignmentBytes { get; }

    /// <summary>The device in the coding of stat(2)'s st_dev (makedev(3)).</summary>
    public ulong Device =>
        ((ulong)(DeviceMajor & 0xfffff000) << 32) | ((ulong)(DeviceMajor & 0xfff) << 8) |
        ((ulong)(DeviceMinor & 0xffffff00) << 12) | (DeviceMinor & 0xff);

    /// <summary>The same inode of the same file system.</summary>
    public bool IsSameFile(in FileStatus other) => Inode == other.Inode && Device == other.Device;

    /// <summary>What a path names. Returns 0 or a negative errno.</summary>
    public static int TryGet(string path, out FileStatus status, bool followLinks = true) =>
        TryGet(FileDescriptor.CurrentDirectory, path, followLinks ? 0 : AtSymlinkNoFollow, out status);

    /// <summary>What is open. Returns 0 or a negative errno.</summary>
    internal static int TryGet(FileDescriptor descriptor, out FileStatus status) =>
        TryGet(descriptor, "", AtEmptyPath, out status);

    /// <summary>
    /// The minor number of the device that holds what is open. Asks no server of a file system, so it never waits for one. Returns 0 or
    /// a negative errno.
    /// </summary>
    internal static unsafe int TryGetDeviceMinor(FileDescriptor descriptor, out uint minor)
    {
        LibC.StatxResult raw = default;
        // SAFETY: the kernel stores at most the 256 bytes of the structure.
        int error = LibC.Statx(descriptor, "", AtEmptyPath | AtStatxDontSync, 0, &raw) < 0 ? -LibC.LastErrno : 0;
        minor = raw.DeviceMinor;
        return error;
    }

    /// <summary>What has a name in a directory; no link is followed. Returns 0 or a negative errno.</summary>
    internal static int TryGet(FileDescriptor directory, string name, out FileStatus status) =>
        TryGet(directory, name, AtSymlinkNoFollow, out status);

    private static unsafe int TryGet(FileDescriptor directory, string path, int flags, out FileStatus status)
    {
        LibC.StatxResult raw = default;
        // SAFETY: the kernel stores at most the 256 bytes of the structure.
        int error = LibC.Statx(directory, path, flags, StatxBasicStats | StatxBirthTime | StatxDirectAlignment | StatxSubvolume, &raw) < 0 ? -LibC.LastErrno : 0;
        status = error == 0 ? new FileStatus(raw) : default;
        return error;
    }
}
