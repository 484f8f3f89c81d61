using System.Numerics;
using Cbd.Blocks;

namespace Cbd.Disks;

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
            bool written = DescribeRun(offset, end, out long next);
            new BlockExtent(next - offset, written ? BlockExtentState.Data : BlockExtentState.Hole | BlockExtentState.Zero)
                .Encode(extents[stored..]);
            stored += BlockExtent.EncodedSizeBytes;
            offset = next;
        }
        return stored;
    }

    /// <summary>Whether the bytes [offset, next) are in chunks that are marked, or in some that are not; at most up to the end.</summary>
    public bool DescribeRun(long offset, long end, out long next)
    {
        long chunk = offset >> _chunkShift;
        bool written = IsSet(chunk);
        do
            chunk++;
        while (chunk << _chunkShift < end && IsSet(chunk) == written);
        next = Math.Min(chunk << _chunkShift, end);
        return written;
    }

    private bool IsSet(long chunk) => (Volatile.Read(ref _words[chunk >> 5]) & (1 << (int)(chunk & 31))) != 0;
}
