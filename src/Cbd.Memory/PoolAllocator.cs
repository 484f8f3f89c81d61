using System.Numerics;

namespace Cbd.Memory;

/// <summary>Where a <see cref="PoolAllocator"/> looks first.</summary>
public enum PoolFit
{
    /// <summary>After what it gave last: the search is shortest.</summary>
    Next,

    /// <summary>At the lowest place: memory that is never needed at once is never touched, and takes up no page.</summary>
    Lowest,
}

/// <summary>
/// Hands out contiguous space of a pool in units, over a bitmap in private memory. Single-threaded; allocates nothing
/// after construction.
/// </summary>
public sealed class PoolAllocator
{
    private readonly ulong[] _used;
    private readonly int _unitShift;
    private readonly int _unitCount;
    private readonly PoolFit _fit;

    /// <summary>Where the search begins; with <see cref="PoolFit.Lowest"/> no unit before it is free.</summary>
    private int _cursor;

    /// <param name="sizeBytes">Size of the pool; what does not fill a unit at its end is not used.</param>
    /// <param name="unitBytes">Unit of allocation, a power of two.</param>
    /// <param name="fit">Where it looks first.</param>
    public PoolAllocator(long sizeBytes, int unitBytes = 4096, PoolFit fit = PoolFit.Next)
    {
        _fit = fit;
        ArgumentOutOfRangeException.ThrowIfNotEqual(BitOperations.IsPow2(unitBytes), true);
        _unitShift = BitOperations.TrailingZeroCount(unitBytes);
        _unitCount = checked((int)(sizeBytes >> _unitShift));
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(_unitCount);
        _used = new ulong[(_unitCount + 63) / 64];
        // Units past the end are never free.
        if ((_unitCount & 63) != 0)
            _used[^1] = ulong.MaxValue << (_unitCount & 63);
        FreeUnits = _unitCount;
    }

    /// <summary>Units free now.</summary>
    public int FreeUnits { get; private set; }

    /// <summary>All units.</summary>
    public int UnitCount => _unitCount;

    /// <summary>Units up to the last one that is used.</summary>
    public int UsedEnd
    {
        get
        {
            for (int word = _used.Length - 1; word >= 0; word--)
            {
                // Units past the end are no part of the pool.
                ulong used = word == _used.Length - 1 && (_unitCount & 63) != 0 ? _used[word] & ~(ulong.MaxValue << (_unitCount & 63)) : _used[word];
                if (used != 0)
                    return word * 64 + 64 - BitOperations.LeadingZeroCount(used);
            }

            return 0;
        }
    }

    /// <summary>Takes <paramref name="bytes"/> (&gt; 0), rounded up to units; false if no such piece is free.</summary>
    public bool TryAllocate(long bytes, out long offset)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(bytes);
        long wanted = (bytes + (1L << _unitShift) - 1) >> _unitShift;
        offset = 0;
        if (wanted > FreeUnits)
            return false;
        int units = (int)wanted;
        int start = Find(_cursor, _unitCount, units);
        if (start < 0 && _cursor > 0 && _fit == PoolFit.Next)
            start = Find(0, Math.Min(_unitCount, _cursor + units - 1), units);
        if (start < 0)
            return false;
        Mark(start, units, true);
        FreeUnits -= units;
        if (_fit == PoolFit.Next)
            _cursor = start + units == _unitCount ? 0 : start + units;
        else if (start == _cursor)
            _cursor = start + units;
        offset = (long)start << _unitShift;
        return true;
    }

    /// <summary>Gives back exactly what <see cref="TryAllocate"/> gave.</summary>
    public void Free(long offset, long bytes)
    {
        int units = (int)((bytes + (1L << _unitShift) - 1) >> _unitShift);
        int start = (int)(offset >> _unitShift);
        Mark(start, units, false);
        FreeUnits += units;
        if (_fit == PoolFit.Lowest)
            _cursor = Math.Min(_cursor, start);
    }

    /// <summary>Start of the first run of <paramref name="units"/> free units within [from, to), or −1.</summary>
    private int Find(int from, int to, int units)
    {
        int run = 0;
        for (int unit = from; unit < to;)
        {
            ulong word = _used[unit >> 6] >> (unit & 63);
            int left = 64 - (unit & 63);
            if ((word & 1) != 0)
            {
                run = 0;
                unit += Math.Min(left, BitOperations.TrailingZeroCount(~word));
                continue;
            }

            int free = Math.Min(Math.Min(left, BitOperations.TrailingZeroCount(word)), to - unit);
            if (run + free >= units)
                return unit - run;
            run += free;
            unit += free;
        }

        return -1;
    }

    private void Mark(int start, int units, bool used)
    {
        for (int unit = start, end = start + units; unit < end;)
        {
            int bit = unit & 63;
            int count = Math.Min(64 - bit, end - unit);
            ulong mask = (count == 64 ? ulong.MaxValue : (1UL << count) - 1) << bit;
            ref ulong word = ref _used[unit >> 6];
            if (((used ? word : ~word) & mask) != 0)
                throw new InvalidOperationException($"pool units {start}+{units}: {(used ? "taken twice" : "freed twice")}");
            word = used ? word | mask : word & ~mask;
            unit += count;
        }
    }
}
