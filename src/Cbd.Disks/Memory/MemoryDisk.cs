using System.Numerics;
using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>
/// <c>memory:SIZE</c>: a sparse disk in private memory, gone when it is disposed. Only what was written takes up memory.
/// </summary>
public sealed class MemoryDisk : Disk, IImmediateDisk
{
    /// <summary>How far a disk can grow while it is served: a multiple of its size, or this; address space alone.</summary>
    private const long LeastGrowthBytes = 64L << 30;
    private const int GrowthFactor = 4;
    private const long MostGrowthBytes = 16L << 40;

    private readonly SparseMemory _memory;
    private readonly WrittenMap _written;

    internal MemoryDisk(DiskOptions options)
        : base(options)
    {
        int logicalBlockBytes = options.LogicalBlockBytes ?? 512;
        long sizeBytes = ParseSize(options, logicalBlockBytes);
        try
        {
            _memory = new SparseMemory(sizeBytes, Math.Min(Math.Max(LeastGrowthBytes, sizeBytes > MostGrowthBytes ? 0 : GrowthFactor * sizeBytes), MostGrowthBytes));
        }
        catch (CbdException e)
        {
            throw new CbdException(e.Kind, $"disk {options.Path}: {e.Message}", e);
        }
        _written = new WrittenMap(sizeBytes, _memory.LimitBytes);
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
    }

    /// <summary>
    /// Without the size, which may change while it is served. Another life has other contents, but an operator may put an
    /// empty disk in its place: the durability id tells the two apart.
    /// </summary>
    public override string Identity => "memory";

    public override string Engine => "memory";

    public override IBlockQueue OpenQueue(int depth, NativeBuffer? buffers = null)
    {
        CheckDepth(depth);
        return new MemoryQueue(this, depth);
    }

    int IImmediateDisk.Execute(in BlockRequest request)
    {
        switch (request.Operation)
        {
            case BlockOperation.Read:
                _memory.Read(request.Offset, request.Data.Span);
                return (int)request.Length;
            case BlockOperation.Write:
                _memory.Write(request.Offset, request.Data.Span);
                _written.Set(request.Offset, request.Length);
                return 0;
            case BlockOperation.Discard:
            case BlockOperation.WriteZeroes:
                // Cleared before the memory: a write that comes in between is marked again, so that data is never
                // reported as a hole.
                _written.Clear(request.Offset, request.Length);
                _memory.Clear(request.Offset, request.Length);
                return 0;
            case BlockOperation.BlockStatus:
                return _written.Describe(request.Offset, request.Length, request.Data.Span);
            default:
                return 0;
        }
    }

    public override long MeasureBytes() => _memory.SizeBytes;

    /// <inheritdoc/>
    public override void Grow(long sizeBytes)
    {
        if (sizeBytes <= _memory.SizeBytes)
            return;
        if (!_written.CanGrow)
            throw new CbdException(CbdErrorKind.Unsupported, $"disk {Path} cannot grow: only a memory disk whose size is a multiple of {_written.ChunkBytes} bytes can; start it anew with the size that is wanted");
        if (!_memory.TryGrow(sizeBytes))
            throw new CbdException(CbdErrorKind.Exhausted, $"disk {Path} cannot grow to {sizeBytes} bytes: this one has address space for {_memory.LimitBytes}; start it anew with the size that is wanted");
        _written.Grow(sizeBytes);
    }

    public override string PathAt(long sizeBytes) => $"memory:{sizeBytes}";

    public override void Dispose() => _memory.Dispose();

    /// <summary>Its reads need not be copied into a buffer first.</summary>
    private sealed class MemoryQueue(MemoryDisk disk, int depth) : ImmediateQueue<MemoryDisk>(disk, depth), IBlocksInMemory
    {
        private readonly MemoryDisk _disk = disk;

        public bool TryGetBytes(long offset, long length, out ReadOnlySpan<byte> bytes)
        {
            bool possible = RequestGate.IsTransfer(_disk.Info, offset, length);
            bytes = possible ? _disk._memory.GetSpan(offset, (int)length) : default;
            return possible;
        }
    }
}

/// <summary>Which chunks of a memory disk were written since they were last cleared as a whole. Any thread.</summary>
internal sealed class WrittenMap
{
    private const int MinChunkShift = 16;
    private const int MaxChunkCount = 1 << 22;

    private long _sizeBytes;
    private readonly int _chunkShift;
    private readonly int[] _words;

    /// <param name="sizeBytes">Size of the disk.</param>
    /// <param name="limitBytes">Largest size that it may ever have.</param>
    public WrittenMap(long sizeBytes, long limitBytes)
    {
        _sizeBytes = sizeBytes;
        long smallestChunkBytes = (limitBytes - 1) / MaxChunkCount + 1;
        _chunkShift = Math.Max(MinChunkShift, 64 - BitOperations.LeadingZeroCount((ulong)smallestChunkBytes - 1));
        _words = new int[(int)(((limitBytes - 1) >> _chunkShift) / 32 + 1)];
    }

    public long ChunkBytes => 1L << _chunkShift;

    /// <summary>
    /// The last chunk is whole. Of one that is not, a discard up to the end of the disk, judged by the old size, could
    /// unmark what was written behind that end.
    /// </summary>
    public bool CanGrow => Volatile.Read(ref _sizeBytes) % ChunkBytes == 0;

    public void Grow(long sizeBytes) => Volatile.Write(ref _sizeBytes, sizeBytes);

    /// <summary>Marks every chunk that the range touches.</summary>
    public void Set(long offset, long length)
    {
        long last = (offset + length - 1) >> _chunkShift;
        for (long chunk = offset >> _chunkShift; chunk <= last; chunk++)
        {
            if (!IsSet(chunk))
                Interlocked.Or(ref _words[chunk >> 5], 1 << (int)(chunk & 31));
        }
    }

    /// <summary>Unmarks every chunk that lies wholly in the range.</summary>
    public void Clear(long offset, long length)
    {
        long end = (offset + length == Volatile.Read(ref _sizeBytes) ? offset + length + ChunkBytes - 1 : offset + length) >> _chunkShift;
        for (long chunk = (offset + ChunkBytes - 1) >> _chunkShift; chunk < end; chunk++)
        {
            if (IsSet(chunk))
                Interlocked.And(ref _words[chunk >> 5], ~(1 << (int)(chunk & 31)));
        }
    }

    /// <summary>Encodes the extents of the range, as many as fit; returns the bytes stored.</summary>
    public int Describe(long offset, long length, Span<byte> extents)
    {
        long end = offset + length;
        int stored = 0;
        while (offset < end && extents.Length - stored >= BlockExtent.EncodedSizeBytes)
        {
            long chunk = offset >> _chunkShift;
            bool written = IsSet(chunk);
            do
                chunk++;
            while (chunk << _chunkShift < end && IsSet(chunk) == written);
            long next = Math.Min(chunk << _chunkShift, end);
            new BlockExtent(next - offset, written ? BlockExtentState.Data : BlockExtentState.Hole | BlockExtentState.Zero)
                .Encode(extents[stored..]);
            stored += BlockExtent.EncodedSizeBytes;
            offset = next;
        }
        return stored;
    }

    private bool IsSet(long chunk) => (Volatile.Read(ref _words[chunk >> 5]) & (1 << (int)(chunk & 31))) != 0;
}
