using System.Numerics;
using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>A regular file as a disk, under an OFD lock on its whole length.</summary>
public sealed class FileDisk : DescriptorDisk
{
    private const int DefaultBlockBytes = 512;
    private const int PageBytes = 4096;

    internal FileDisk(DiskOptions options, OpenedDisk opened)
        : base(options, opened)
    {
    }

    internal static BlockDeviceInfo Measure(DiskOptions options, DiskFile file, in FileStatus status)
    {
        int logicalBlockBytes = options.LogicalBlockBytes ?? DefaultBlockBytes;
        // A hole punched behind the end changes nothing, and tells whether holes can be punched.
        bool canPunch = !options.ReadOnly && file.Allocate(AllocateMode.PunchHole, status.SizeBytes, PageBytes) == 0;
        bool isUnitUsable = BitOperations.IsPow2(status.PreferredBytes) && status.PreferredBytes is >= 512 and <= 1 << 20;
        return new BlockDeviceInfo
        {
            SizeBytes = status.SizeBytes,
            LogicalBlockBytes = logicalBlockBytes,
            PhysicalBlockBytes = PageBytes,
            ReadOnly = options.ReadOnly,
            CanDiscard = canPunch,
            CanZeroFast = canPunch,
            DiscardGranularityBytes = Math.Max(logicalBlockBytes, isUnitUsable ? status.PreferredBytes : PageBytes),
        };
    }

    /// <summary>Device, inode and, where the file system has one, the generation that tells its uses apart.</summary>
    internal static string Identify(DiskFile file, in FileStatus status)
    {
        string generation = file.TryGetGeneration(out uint number) == 0 ? $"{number:x8}" : "-";
        return $"file:{status.DeviceMajor}:{status.DeviceMinor}:{status.Inode}:{generation}";
    }

    internal override AllocateMode? GetAllocateMode(in BlockRequest request) => request.Operation switch
    {
        BlockOperation.Discard when Info.CanDiscard => AllocateMode.PunchHole,
        BlockOperation.WriteZeroes => GetZeroMode(request.Flags),
        _ => null,
    };

    private protected override int Discard(long offset, long length)
    {
        if (!Info.CanDiscard)
            return 0;
        int error = -File.Allocate(AllocateMode.PunchHole, offset, length);
        return IsUnsupported(error) ? 0 : error;
    }

    private protected override int WriteZeroes(long offset, long length, BlockFlags flags)
    {
        int error = -File.Allocate(GetZeroMode(flags), offset, length);
        if (!IsUnsupported(error))
            return error;
        return (flags & BlockFlags.FastZero) != 0 ? Errno.EOPNOTSUPP : WriteZeroPieces(offset, length);
    }

    private protected override int Describe(long offset, long length, Span<byte> extents)
    {
        long end = offset + length;
        int stored = 0;
        while (offset < end && extents.Length - stored >= BlockExtent.EncodedSizeBytes)
        {
            long next = FindChange(offset, end, out bool isHole);
            new BlockExtent(next - offset, isHole ? BlockExtentState.Hole | BlockExtentState.Zero : BlockExtentState.Data)
                .Encode(extents[stored..]);
            stored += BlockExtent.EncodedSizeBytes;
            offset = next;
        }
        return stored;
    }

    private AllocateMode GetZeroMode(BlockFlags flags) =>
        (flags & BlockFlags.NoUnmap) == 0 && Info.CanDiscard ? AllocateMode.PunchHole : AllocateMode.ZeroRange;

    /// <summary>
    /// Where what begins at the offset ends, at most at <paramref name="end"/>. A block that holds any data is data;
    /// so is everything where the file system knows no holes.
    /// </summary>
    private long FindChange(long offset, long end, out bool isHole)
    {
        long blockMask = Info.LogicalBlockBytes - 1;
        long data = File.SeekData(offset);
        if (data == -Errno.ENXIO)
            data = end;
        isHole = data >= 0 && Math.Min(data & ~blockMask, end) > offset;
        if (isHole)
            return Math.Min(data & ~blockMask, end);
        long hole = data < 0 ? -1 : File.SeekHole(data);
        return hole < 0 ? end : Math.Min((Math.Max(hole, offset + 1) + blockMask) & ~blockMask, end);
    }
}
