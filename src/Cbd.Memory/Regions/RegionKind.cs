namespace Cbd.Memory;

/// <summary>What a region is made of. <see cref="Unknown"/> is never the kind of an opened region.</summary>
public enum RegionKind
{
    Unknown = 0,

    /// <summary>A regular file on a disk's file system: shared by the processes of one kernel, through its page cache.</summary>
    File = 1,

    /// <summary>A file on tmpfs, e.g. in <c>/dev/shm</c>.</summary>
    SharedMemory = 2,

    /// <summary>A file on hugetlbfs.</summary>
    HugePages = 3,

    /// <summary>A file on a file system in DAX mode: the stores go to the device itself.</summary>
    FsDax = 4,

    /// <summary>A device-DAX node, <c>/dev/daxX.Y</c>.</summary>
    DevDax = 5,

    /// <summary>The memory of a PCI device, <c>/sys/bus/pci/devices/…/resourceN</c>.</summary>
    PciBar = 6,
}
