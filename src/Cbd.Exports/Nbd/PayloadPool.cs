using Cbd.Memory;

namespace Cbd.Exports.Nbd;

/// <summary>
/// Gives out parts of one buffer for payload, in pages of 4 KiB, the lowest that fit: what is never needed at once is
/// never touched and takes no memory. Single-threaded; allocates only when it is made.
/// </summary>
internal sealed class PayloadPool : IDisposable
{
    internal const int PageBytes = NativeBuffer.AlignmentBytes;

    private readonly PoolAllocator _space;

    /// <summary>Ends, bytes, of what was ever given out and not given back to the system, and of what was since the last look.</summary>
    private long _touchedEnd;
    private long _neededEnd;

    internal PayloadPool(int sizeBytes)
    {
        _space = new PoolAllocator(sizeBytes, PageBytes, PoolFit.Lowest);
        Buffer = new NativeBuffer(sizeBytes);
    }

    internal NativeBuffer Buffer { get; }

    internal int UsedPages => _space.UnitCount - _space.FreeUnits;

    /// <summary>Takes room for <paramref name="lengthBytes"/> (&gt; 0) bytes in one piece; false if there is none now.</summary>
    internal bool TryTake(int lengthBytes, out BufferSlice slice)
    {
        bool isTaken = _space.TryAllocate(lengthBytes, out long offset);
        if (isTaken)
            _neededEnd = Math.Max(_neededEnd, offset + lengthBytes);
        slice = isTaken ? new BufferSlice(Buffer, offset, lengthBytes) : default;
        return isTaken;
    }

    /// <summary>Gives to the system what was not needed since the last call, and was before.</summary>
    internal void GiveBackUnused()
    {
        long end = (_neededEnd + PageBytes - 1) & -PageBytes;
        if (_touchedEnd > end)
            ProcessMemory.GiveBack(Buffer, end, Math.Min(_touchedEnd, Buffer.SizeBytes) - end);
        _touchedEnd = end;
        _neededEnd = (long)_space.UsedEnd * PageBytes;
    }

    /// <summary>Gives back what <see cref="TryTake"/> gave.</summary>
    internal void Return(in BufferSlice slice)
    {
        if (slice.Buffer != Buffer)
            throw new InvalidOperationException($"bytes {slice.Offset}+{slice.Length} are returned to a pool that did not give them out");
        _space.Free(slice.Offset, slice.Length);
    }

    public void Dispose() => Buffer.Dispose();
}
