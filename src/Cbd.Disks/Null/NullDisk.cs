using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary><c>null:SIZE</c>: reads zeroes and drops writes. For measuring what is above the disk.</summary>
public sealed class NullDisk : Disk, IImmediateDisk
{
    internal NullDisk(DiskOptions options)
        : base(options)
    {
        int logicalBlockBytes = options.LogicalBlockBytes ?? 512;
        Info = new BlockDeviceInfo
        {
            SizeBytes = ParseSize(options, logicalBlockBytes),
            LogicalBlockBytes = logicalBlockBytes,
            ReadOnly = options.ReadOnly,
            CanDiscard = true,
            CanZeroFast = true,
            DurabilityId = Guid.NewGuid(),
        };
        Identity = $"null:{Info.SizeBytes}";
    }

    public override string Identity { get; }

    public override string Engine => "null";

    public override BlockDeviceInfo Info { get; }

    public override IBlockQueue OpenQueue(int depth, NativeBuffer? buffers = null)
    {
        CheckDepth(depth);
        return new ImmediateQueue<NullDisk>(this, depth);
    }

    int IImmediateDisk.Execute(in BlockRequest request)
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

    public override void Dispose()
    {
    }
}
