using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>
/// <c>memory:SIZE</c>: a sparse disk in private memory, gone when it is disposed. Only what was written takes up memory,
/// and for each queue as much as its largest write.
/// </summary>
public sealed class MemoryDisk : Disk
{
    /// <summary>How far a disk can grow while it is served: a multiple of its size, or this; address space alone.</summary>
    private const long LeastGrowthBytes = 64L << 30;
    private const int GrowthFactor = 4;
    private const long MostGrowthBytes = 16L << 40;

    /// <summary>Spare clusters of all queues, each of which keeps what its largest write took: address space alone.</summary>
    private const long SpareBytes = 1L << 30;

    private readonly long _limitBytes;
    private readonly Func<long?>? _memoryLimitBytes;
    private long _sizeBytes;

    internal MemoryDisk(DiskOptions options)
        : base(options)
    {
        int logicalBlockBytes = options.LogicalBlockBytes ?? 512;
        long sizeBytes = ParseSize(options, logicalBlockBytes);
        _memoryLimitBytes = options.MemoryLimitBytes;
        CheckMemory(sizeBytes);
        _sizeBytes = sizeBytes;
        _limitBytes = Math.Max(sizeBytes, Math.Min(Math.Max(LeastGrowthBytes, sizeBytes > MostGrowthBytes ? 0 : GrowthFactor * sizeBytes), MostGrowthBytes));
        try
        {
            Clusters = OpenStore(sizeBytes, ref _limitBytes);
        }
        catch (CbdException e)
        {
            throw new CbdException(e.Kind, $"disk {options.Path}: {e.Message}", e);
        }
        Written = new WrittenMap(sizeBytes, _limitBytes);
        var life = Guid.NewGuid();
        Info = new BlockDeviceInfo
        {
            SizeBytes = sizeBytes,
            LogicalBlockBytes = logicalBlockBytes,
            ReadOnly = options.ReadOnly,
            CanDiscard = true,
            CanZeroFast = true,
            DurabilityId = life,
        };
        Identity = $"memory:{life:N}";
    }

    /// <summary>Random: each life is another disk. Without the size, which may change while it is served.</summary>
    public override string Identity { get; }

    public override string Engine => "memory";

    internal ClusterStore Clusters { get; }

    internal WrittenMap Written { get; }

    /// <summary>One discard at a time: another one would find unmarked what is not cleared yet, and leave it out.</summary>
    internal Lock Clearing { get; } = new();

    internal long SizeBytes => Volatile.Read(ref _sizeBytes);

    public override IBlockQueue OpenQueue(int depth, NativeBuffer? buffers = null)
    {
        CheckDepth(depth);
        return new MemoryQueue(this, depth);
    }

    public override long MeasureBytes() => SizeBytes;

    /// <inheritdoc/>
    public override void Grow(long sizeBytes)
    {
        if (sizeBytes <= SizeBytes)
            return;
        if (!Written.CanGrow)
            throw new CbdException(CbdErrorKind.Unsupported, $"disk {Path} cannot grow: only a memory disk whose size is a multiple of {Written.ChunkBytes} bytes can; start it anew with the size that is wanted");
        if (sizeBytes > _limitBytes)
            throw new CbdException(CbdErrorKind.Exhausted, $"disk {Path} cannot grow to {sizeBytes} bytes: this one has address space for {_limitBytes}; start it anew with the size that is wanted");
        CheckMemory(sizeBytes);
        Written.Grow(sizeBytes);
        Volatile.Write(ref _sizeBytes, sizeBytes);
    }

    public override string PathAt(long sizeBytes) => $"memory:{sizeBytes}";

    public override void Dispose() => Clusters.Dispose();

    /// <summary>What is written to it beyond the memory of the machine would end processes, this one first.</summary>
    private void CheckMemory(long sizeBytes)
    {
        if (_memoryLimitBytes?.Invoke() is { } limit && sizeBytes > limit)
            throw new CbdException(CbdErrorKind.Exhausted, $"disk {Path}: {sizeBytes} bytes are more than the {limit} bytes of memory that this machine, or the control group of cbdd, has: give a smaller size, or a file in place of memory");
    }

    /// <summary>Room to grow, and then spare clusters, are given up where the address space has none.</summary>
    private static ClusterStore OpenStore(long sizeBytes, ref long limitBytes)
    {
        long spareBytes = SpareBytes;
        while (true)
        {
            try
            {
                return new ClusterStore(limitBytes, spareBytes);
            }
            catch (CbdException) when (limitBytes > sizeBytes)
            {
                limitBytes = sizeBytes;
            }
            catch (CbdException) when (spareBytes > 0)
            {
                spareBytes = 0;
            }
        }
    }
}
