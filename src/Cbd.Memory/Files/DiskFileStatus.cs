namespace Cbd.Memory;

/// <summary>What a path or a descriptor is.</summary>
public enum FileKind
{
    Regular,
    Directory,
    BlockDevice,
    Other,
}

/// <summary>What statx(2) says about a file. Sizes in bytes.</summary>
public readonly record struct DiskFileStatus
{
    internal DiskFileStatus(in FileCalls.FileStatusRaw raw)
    {
        Kind = (raw.Mode & 0xf000) switch
        {
            0x8000 => FileKind.Regular,
            0x4000 => FileKind.Directory,
            0x6000 => FileKind.BlockDevice,
            _ => FileKind.Other,
        };
        DeviceMajor = raw.DeviceMajor;
        DeviceMinor = raw.DeviceMinor;
        NodeMajor = raw.NodeMajor;
        NodeMinor = raw.NodeMinor;
        Inode = raw.Inode;
        SizeBytes = (long)raw.Size;
        AllocatedBytes = (long)raw.Blocks * 512;
        PreferredBytes = (int)Math.Min(raw.BlockSize, 1 << 30);
        if ((raw.Mask & FileCalls.StatDirectAlignment) != 0)
        {
            DirectMemoryAlignmentBytes = (int)Math.Min(raw.DirectMemoryAlignment, 1 << 30);
            DirectOffsetAlignmentBytes = (int)Math.Min(raw.DirectOffsetAlignment, 1 << 30);
        }
    }

    public FileKind Kind { get; }

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

    /// <summary>Alignment that O_DIRECT needs of addresses; 0: no O_DIRECT; null: the kernel does not say.</summary>
    public int? DirectMemoryAlignmentBytes { get; }

    /// <summary>Alignment that O_DIRECT needs of offsets and lengths; 0: no O_DIRECT; null: the kernel does not say.</summary>
    public int? DirectOffsetAlignmentBytes { get; }

    /// <summary>The device in the coding of stat(2)'s st_dev.</summary>
    public ulong Device =>
        ((ulong)(DeviceMajor & 0xfffff000) << 32) | ((ulong)(DeviceMajor & 0xfff) << 8) |
        ((ulong)(DeviceMinor & 0xffffff00) << 12) | (DeviceMinor & 0xff);
}
