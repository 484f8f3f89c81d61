using System.Numerics;

namespace Cbd.Exports.InFlight;

/// <summary>Which pages of a payload area are taken. One thread at a time.</summary>
/// <param name="pageCount">Pages; a multiple of 64.</param>
internal sealed class PageMap(int pageCount)
{
    private const int WordBits = 64;

    private readonly ulong[] _taken = new ulong[pageCount / WordBits];

    /// <summary>The first of the lowest free pages that are so many side by side; negative if there are none.</summary>
    internal int Find(int count)
    {
        int start = 0;
        int page = 0;
        while (page < pageCount)
        {
            int within = page % WordBits;
            ulong rest = _taken[page / WordBits] >> within;
            // What was shifted in is not there.
            int free = rest == 0 ? WordBits - within : BitOperations.TrailingZeroCount(rest);
            page += free;
            if (page - start >= count)
                return start;
            if (rest == 0)
                continue;
            page += BitOperations.TrailingZeroCount(~(rest >> free));
            start = page;
        }

        return -1;
    }

    internal bool IsFree(int first, int count)
    {
        for (int page = first; page < first + count; page++)
        {
            if ((_taken[page / WordBits] & (1UL << (page % WordBits))) != 0)
                return false;
        }

        return true;
    }

    internal void Take(int first, int count) => Change(first, count, taken: true);

    internal void Free(int first, int count) => Change(first, count, taken: false);

    private void Change(int first, int count, bool taken)
    {
        int end = first + count;
        while (first < end)
        {
            int within = first % WordBits;
            int bits = Math.Min(WordBits - within, end - first);
            ulong mask = (bits == WordBits ? ulong.MaxValue : (1UL << bits) - 1) << within;
            ref ulong word = ref _taken[first / WordBits];
            word = taken ? word | mask : word & ~mask;
            first += bits;
        }
    }
}
