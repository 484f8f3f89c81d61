using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>How a file or block device is read and written.</summary>
public enum DiskEngine
{
    /// <summary>io_uring, or pread where io_uring is forbidden or missing.</summary>
    Auto = 0,
    IoUring = 1,

    /// <summary>A fixed number of threads that call pread and pwrite.</summary>
    Pread = 2,
}

/// <summary>A file by the numbers of its file system and inode.</summary>
public readonly record struct FileIdentity(ulong Device, ulong Inode);

/// <summary>What <see cref="Disk.Open"/> opens, and how.</summary>
public sealed record DiskOptions
{
    /// <summary>A regular file, a block device, <c>memory:SIZE</c> or <c>null:SIZE</c>.</summary>
    public required string Path { get; init; }

    public bool ReadOnly { get; init; }

    /// <summary>Whose rights it is opened with; null: those of this process.</summary>
    public PathRights? Rights { get; init; }

    public DiskEngine Engine { get; init; }

    /// <summary>Logical block to offer, 512 or 4096; null for the disk's own.</summary>
    public int? LogicalBlockBytes { get; init; }

    /// <summary>Files that are refused as disks: the regions of the transports.</summary>
    public IReadOnlyList<FileIdentity> Regions { get; init; } = [];

    /// <summary>How long to wait for a disk that is in use, milliseconds; 0 refuses it at once.</summary>
    public int LockWaitMs { get; init; }

    /// <summary>Largest disk in memory, bytes; null for any.</summary>
    public Func<long?>? MemoryLimitBytes { get; init; }

    /// <summary>Faults for its requests; null, and nothing on their way, for none ever.</summary>
    public FaultSet? Faults { get; init; }

    /// <summary>The engine of that name: auto, io_uring or pread.</summary>
    /// <exception cref="CbdException">There is no such engine.</exception>
    public static DiskEngine ParseEngine(string name) => name switch
    {
        "auto" => DiskEngine.Auto,
        "io_uring" => DiskEngine.IoUring,
        "pread" => DiskEngine.Pread,
        _ => throw new CbdException(
            CbdErrorKind.Invalid, $"unknown disk engine '{name}'; use auto, io_uring or pread"),
    };
}
