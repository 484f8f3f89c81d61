using System.Globalization;
using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>A block device as a disk, opened with O_EXCL: nothing else that asks for exclusive use may have it.</summary>
public sealed class BlockDisk : DescriptorDisk
{
    internal BlockDisk(DiskOptions options, OpenedDisk opened)
        : base(options, opened)
    {
    }

    internal static BlockDeviceInfo Measure(DiskOptions options, DiskFile file, in FileStatus status)
    {
        int error = file.TryGetBlockSizes(out long sizeBytes, out int ownBytes, out int physicalBytes);
        if (error != 0)
        {
            throw new CbdException(
                CbdErrorKind.Failed, $"disk {options.Path}: its size cannot be read (errno {-error}); check the device");
        }
        if (!options.ReadOnly && file.TryGetBlockReadOnly(out bool readOnly) == 0 && readOnly)
            throw new CbdException(CbdErrorKind.Denied, $"disk {options.Path} can only be read; start it read-only");
        int logicalBlockBytes = options.LogicalBlockBytes ?? ownBytes;
        if (logicalBlockBytes < ownBytes || logicalBlockBytes is not (512 or 4096))
        {
            throw new CbdException(
                options.LogicalBlockBytes is null ? CbdErrorKind.Unsupported : CbdErrorKind.Invalid,
                $"disk {options.Path}: a block size of {logicalBlockBytes} is not possible, its own is {ownBytes}; " +
                ownBytes switch
                {
                    > 4096 => "use a device with blocks of 512 or 4096 bytes",
                    4096 => "use 4096, or leave it out",
                    _ => "use 512 or 4096",
                });
        }
        string? queue = FindQueue(status);
        long granularity = ReadNumber(queue, "discard_granularity");
        return new BlockDeviceInfo
        {
            SizeBytes = sizeBytes,
            LogicalBlockBytes = logicalBlockBytes,
            PhysicalBlockBytes = Math.Max(logicalBlockBytes, physicalBytes),
            ReadOnly = options.ReadOnly,
            CanDiscard = ReadNumber(queue, "discard_max_bytes") > 0,
            CanZeroFast = ReadNumber(queue, "write_zeroes_max_bytes") > 0,
            IsRotational = ReadNumber(queue, "rotational") > 0,
            DiscardGranularityBytes = (int)Math.Clamp(granularity, logicalBlockBytes, 1 << 30),
        };
    }

    /// <summary>What the version before called it: its number, and a hash of whatever names the hardware or file behind it.</summary>
    internal static string IdentifyAsBefore(in FileStatus status)
    {
        string? node = BlockNames.FindNode(status.NodeMajor, status.NodeMinor);
        string? disk = node is not null && System.IO.File.Exists($"{node}/partition") ? Directory.GetParent(node)?.FullName : node;
        string names = string.Join(
            '\n',
            BlockNames.Read(node, "partition"), BlockNames.Read(disk, "wwid"), BlockNames.Read(disk, "device/wwid"), BlockNames.Read(disk, "serial"),
            BlockNames.Read(disk, "device/serial"), BlockNames.Read(disk, "dm/uuid"), BlockNames.Read(disk, "md/uuid"),
            BlockNames.Read(disk, "loop/backing_file"), BlockNames.Read(disk, "loop/offset"));
        return $"block:{status.NodeMajor}:{status.NodeMinor}:{DiskHash.Shorten(names)}";
    }

    /// <summary>What changes when another medium is attached under the same number; empty before Linux 5.15.</summary>
    internal static string IdentifyLife(DiskFile file) =>
        file.TryGetDiskSequence(out ulong sequence) == 0 ? sequence.ToString(CultureInfo.InvariantCulture) : "";

    /// <inheritdoc/>
    public override string? FindTrouble()
    {
        LookForEnd();
        return DescribeEnd();
    }

    private protected override void LookForEnd()
    {
        long served = Info.SizeBytes;
        if (File.TryGetBlockSizes(out long sizeBytes, out _, out _) == 0)
            NoteSize(served, sizeBytes);
    }

    /// <inheritdoc/>
    public override long MeasureBytes()
    {
        int error = File.TryGetBlockSizes(out long sizeBytes, out _, out _);
        return error == 0 ? sizeBytes : throw new CbdException(CbdErrorKind.Failed, $"disk {Path}: its size cannot be read (errno {-error}); check the device");
    }

    /// <summary>A block device is made larger by its own tools.</summary>
    public override void Grow(long sizeBytes)
    {
        if (MeasureBytes() is var present && present < sizeBytes)
            throw new CbdException(CbdErrorKind.Invalid, $"disk {Path} is a block device of {present} bytes, fewer than {sizeBytes}: make it larger first (lvextend, losetup -c, the storage's own tool), then resize without a size");
    }

    internal override AllocateMode? GetAllocateMode(in BlockRequest request) => null;

    private protected override int Discard(long offset, long length)
    {
        if (!Info.CanDiscard)
            return 0;
        int error = -File.DiscardBlocks(offset, length);
        return IsUnsupported(error) ? 0 : error;
    }

    private protected override int WriteZeroes(long offset, long length, BlockFlags flags)
    {
        bool mustBeFast = (flags & BlockFlags.FastZero) != 0;
        if ((flags & BlockFlags.NoUnmap) == 0)
        {
            // On a block device this zeroes by the device itself, or fails with EOPNOTSUPP (fallocate(2), Linux 4.9).
            int error = -File.Allocate(AllocateMode.PunchHole, offset, length);
            if (!IsUnsupported(error))
                return error;
        }
        // BLKZEROOUT keeps the space, but does not tell whether it is faster than writing.
        return mustBeFast ? Errno.EOPNOTSUPP : -File.ZeroBlocks(offset, length);
    }

    private static string? FindQueue(in FileStatus status)
    {
        string? node = BlockNames.FindNode(status.NodeMajor, status.NodeMinor);
        if (node is null)
            return null;
        return Directory.Exists($"{node}/queue") ? $"{node}/queue" : $"{Directory.GetParent(node)?.FullName}/queue";
    }

    private static long ReadNumber(string? folder, string name) =>
        long.TryParse(BlockNames.Read(folder, name), NumberStyles.None, CultureInfo.InvariantCulture, out long number) ? number : 0;
}
