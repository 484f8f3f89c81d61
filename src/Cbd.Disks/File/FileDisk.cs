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

    /// <summary>What the version before called it: device, inode and, where the file system has one, the generation that tells its uses apart.</summary>
    internal static string IdentifyAsBefore(DiskFile file, in FileStatus status)
    {
        string generation = file.TryGetGeneration(out uint number) == 0 ? $":{number:x8}" : OldDiskName.NoGeneration;
        return $"file:{status.DeviceMajor}:{status.DeviceMinor}:{status.Inode}{generation}";
    }

    /// <inheritdoc/>
    public override long MeasureBytes() => Status().SizeBytes;

    /// <inheritdoc/>
    public override string? FindTrouble()
    {
        long served = Info.SizeBytes;
        if (File.TryGetStatus(out FileStatus status) is var error && error != 0)
            return $"disk {Path} cannot be looked at (errno {-error}): check its file system";
        NoteSize(served, status.SizeBytes);
        return DescribeEnd() ?? (status.LinkCount > 0 ? null
            : $"disk {Path} was removed: all of it is gone when its backend stops: copy it from a device of it before that");
    }

    private protected override void LookForEnd()
    {
        long served = Info.SizeBytes;
        if (File.TryGetStatus(out FileStatus status) == 0)
            NoteSize(served, status.SizeBytes);
    }

    /// <summary>
    /// Makes the file longer: by a hole, or by reserved space if all that it has is reserved, so that a disk whose writes
    /// cannot fail for lack of space stays one.
    /// </summary>
    public override void Grow(long sizeBytes)
    {
        FileStatus before = Status();
        if (sizeBytes <= before.SizeBytes)
            return;
        if (Info.ReadOnly)
            throw new CbdException(CbdErrorKind.Denied, $"disk {Path} is open read-only: make the file longer yourself (truncate -s {sizeBytes} {Path}), then resize without a size");
        bool isReserved = before.AllocatedBytes >= before.SizeBytes;
        int error = isReserved ? -File.Allocate(AllocateMode.Reserve, before.SizeBytes, sizeBytes - before.SizeBytes) : 0;
        if (!isReserved || IsUnsupported(error))
            error = -File.SetLength(sizeBytes);
        if (error == 0)
            return;
        // fallocate may have made the file longer before it ran out of space; nobody uses what is new yet.
        if (Status().SizeBytes > before.SizeBytes)
            _ = File.SetLength(before.SizeBytes);
        string what = $"disk {Path} cannot grow from {before.SizeBytes} to {sizeBytes} bytes";
        throw error switch
        {
            Errno.ENOSPC or Errno.EDQUOT => new CbdException(CbdErrorKind.Exhausted, $"{what}: its file system has no space for that; free some, or give a smaller size"),
            Errno.EFBIG or Errno.EINVAL => new CbdException(CbdErrorKind.Invalid, $"{what}: that is more than a file may have there; give a smaller size"),
            Errno.EPERM or Errno.EACCES or Errno.ETXTBSY => new CbdException(CbdErrorKind.Denied, $"{what}: the file may not be made longer (errno {error}); see lsattr"),
            _ => new CbdException(CbdErrorKind.Failed, $"{what} (errno {error})"),
        };
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
        // What the file does not have is no hole: a copy has to read it, and fail.
        LookForEnd();
        long there = Math.Clamp(EndBytes & ~(long)(Info.LogicalBlockBytes - 1), offset, end);
        while (offset < there && extents.Length - stored >= BlockExtent.EncodedSizeBytes)
        {
            long next = FindChange(offset, there, out bool isHole);
            new BlockExtent(next - offset, isHole ? BlockExtentState.Hole | BlockExtentState.Zero : BlockExtentState.Data)
                .Encode(extents[stored..]);
            stored += BlockExtent.EncodedSizeBytes;
            offset = next;
        }

        if (offset >= there && there < end && extents.Length - stored >= BlockExtent.EncodedSizeBytes)
        {
            new BlockExtent(end - there, BlockExtentState.Data).Encode(extents[stored..]);
            stored += BlockExtent.EncodedSizeBytes;
        }

        return stored;
    }

    private FileStatus Status()
    {
        int error = File.TryGetStatus(out FileStatus status);
        return error == 0 ? status : throw new CbdException(CbdErrorKind.Failed, $"disk {Path}: its size cannot be read (errno {-error}); check the file system");
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
