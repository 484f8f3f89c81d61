using Cbd.Memory;

namespace Cbd.Exports.Nbd;

/// <summary>
/// Gives out parts of an area of a buffer for payload, in pages of 4 KiB, the lowest that fit: what is never needed at once is
/// never touched and takes no memory. Single-threaded; allocates only when it is made.
/// </summary>
/// <param name="buffer">Where the area lies; stays the caller's.</param>
/// <param name="startBytes">Where it begins, a multiple of a page.</param>
/// <param name="sizeBytes">Its size.</param>
internal sealed class PayloadPool(NativeBuffer buffer, long startBytes, int sizeBytes)
{
    internal const int PageBytes = NativeBuffer.AlignmentBytes;

    private readonly PoolAllocator _space = new(sizeBytes, PageBytes, PoolFit.Lowest);
    private TouchedArea _touched = new(buffer, startBytes);

    internal int FreePages => _space.FreeUnits;

    internal int UsedPages => _space.UnitCount - _space.FreeUnits;

    internal static int Pages(int lengthBytes) => (lengthBytes + PageBytes - 1) / PageBytes;

    /// <summary>Takes room for <paramref name="lengthBytes"/> (&gt; 0) bytes in one piece; false if there is none now.</summary>
    internal bool TryTake(int lengthBytes, out BufferSlice slice)
    {
        bool isTaken = _space.TryAllocate(lengthBytes, out long offset);
        if (isTaken)
            _touched.Need(offset + lengthBytes);
        slice = isTaken ? new BufferSlice(buffer, startBytes + offset, lengthBytes) : default;
        return isTaken;
    }

    /// <summary>Gives to the system what was not needed since the last call, and was before.</summary>
    internal void GiveBackUnused() => _touched.GiveBackUnused((long)_space.UsedEnd * PageBytes);

    /// <summary>Gives back what <see cref="TryTake"/> gave.</summary>
    internal void Return(in BufferSlice slice)
    {
        if (slice.Buffer != buffer || slice.Offset < startBytes)
            throw new InvalidOperationException($"bytes {slice.Offset}+{slice.Length} are returned to a pool that did not give them out");
        _space.Free(slice.Offset - startBytes, slice.Length);
    }
}

/// <summary>How far an area that is used from its start was touched, so that what is not needed any more can be given back.</summary>
internal struct TouchedArea(NativeBuffer buffer, long startBytes)
{
    /// <summary>Ends, bytes, of what was ever needed and not given back, and of what was since the last look.</summary>
    private long _touchedEnd;
    private long _neededEnd;

    /// <summary>The area is used up to here.</summary>
    internal void Need(long end) => _neededEnd = Math.Max(_neededEnd, end);

    /// <summary>Gives to the system what was not needed since the last call, and was before.</summary>
    /// <param name="usedEnd">End of what is in use now.</param>
    internal void GiveBackUnused(long usedEnd)
    {
        long end = (_neededEnd + PayloadPool.PageBytes - 1) & -PayloadPool.PageBytes;
        if (_touchedEnd > end)
            ProcessMemory.GiveBack(buffer, startBytes + end, Math.Min(_touchedEnd, buffer.SizeBytes - startBytes) - end);
        _touchedEnd = end;
        _neededEnd = usedEnd;
    }
}
