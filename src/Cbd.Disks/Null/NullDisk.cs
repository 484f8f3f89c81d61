using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary><c>null:SIZE</c>: reads zeroes and drops writes. For measuring what is above the disk.</summary>
public sealed class NullDisk : Disk
{
    private long _sizeBytes;

    internal NullDisk(DiskOptions options)
        : base(options)
    {
        int logicalBlockBytes = options.LogicalBlockBytes ?? 512;
        var life = Guid.NewGuid();
        Info = new BlockDeviceInfo
        {
            SizeBytes = ParseSize(options, logicalBlockBytes),
            LogicalBlockBytes = logicalBlockBytes,
            ReadOnly = options.ReadOnly,
            CanDiscard = true,
            CanZeroFast = true,
            DurabilityId = life,
        };
        Identity = $"null:{life:N}";
        _sizeBytes = Info.SizeBytes;
    }

    /// <summary>Random: each life is another disk. Without the size, which may change while it is served.</summary>
    public override string Identity { get; }

    public override string Engine => "null";

    public override IBlockQueue OpenQueue(int depth, NativeBuffer? buffers = null)
    {
        CheckDepth(depth);
        return new NullQueue(this, depth);
    }

    public override long MeasureBytes() => _sizeBytes;

    public override void Grow(long sizeBytes) => _sizeBytes = Math.Max(_sizeBytes, sizeBytes);

    public override string PathAt(long sizeBytes) => $"null:{sizeBytes}";

    public override void Dispose()
    {
    }

    private sealed class NullQueue(NullDisk disk, int depth) : ImmediateQueue(disk, depth)
    {
        protected override int Execute(in BlockRequest request)
        {
            switch (request.Operation)
            {
                case BlockOperation.Read:
                    request.Data.Span.Clear();
                    return (int)request.Length;
                case BlockOperation.BlockStatus:
                    new BlockExtent(request.Length, BlockExtentState.Hole | BlockExtentState.Zero).Encode(request.Data.Span);
                    return BlockExtent.EncodedSizeBytes;
                default:
                    return 0;
            }
        }
    }
}
