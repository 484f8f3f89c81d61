using System.Numerics;
using Cbd.Memory;

namespace Cbd.Exports.Nbd;

/// <summary>
/// Gives out parts of one buffer for payload, in pages of 4 KiB, the lowest that fit: what is never needed at once is
/// never touched and takes no memory. Single-threaded; allocates only when it is made.
/// </summary>
internal sealed class PayloadPool : IDisposable
{
    internal const int PageBytes = NativeBuffer.AlignmentBytes;

    private readonly ulong[] _used;

    /// <summary>No word before this one has a free page.</summary>
    private int _firstFreeWord;

    internal PayloadPool(int sizeBytes)
    {
        if (sizeBytes <= 0 || sizeBytes % (64 * PageBytes) != 0)
            throw new ArgumentOutOfRangeException(nameof(sizeBytes), sizeBytes, $"must be a multiple of {64 * PageBytes}");
        Buffer = new NativeBuffer(sizeBytes);
        _used = new ulong[sizeBytes / (64 * PageBytes)];
    }

    internal NativeBuffer Buffer { get; }

    internal int UsedPages { get; private set; }

    /// <summary>Takes room for <paramref name="lengthBytes"/> (&gt; 0) bytes in one piece; false if there is none now.</summary>
    internal bool TryTake(int lengthBytes, out BufferSlice slice)
    {
        int pages = (lengthBytes + PageBytes - 1) / PageBytes;
        while (_firstFreeWord < _used.Length && _used[_firstFreeWord] == ulong.MaxValue)
            _firstFreeWord++;
        int run = 0;
        for (int word = _firstFreeWord; word < _used.Length; word++)
        {
            ulong used = _used[word];
            if (used == 0)
            {
                run += 64;
                if (run >= pages)
                    return Take((64 * (word + 1)) - run, pages, lengthBytes, out slice);
                continue;
            }

            for (int bit = 0; bit < 64;)
            {
                ulong rest = used >> bit;
                int free = Math.Min(BitOperations.TrailingZeroCount(rest), 64 - bit);
                run += free;
                bit += free;
                if (run >= pages)
                    return Take((64 * word) + bit - run, pages, lengthBytes, out slice);
                if (bit == 64)
                    break;
                bit += BitOperations.TrailingZeroCount(~(used >> bit));
                run = 0;
            }
        }

        slice = default;
        return false;
    }

    /// <summary>Gives back what <see cref="TryTake"/> gave.</summary>
    internal void Return(in BufferSlice slice)
    {
        int first = (int)(slice.Offset / PageBytes);
        int pages = (slice.Length + PageBytes - 1) / PageBytes;
        if (slice.Buffer != Buffer || !ChangeAll(first, pages, false))
            throw new InvalidOperationException($"pages {first}+{pages} are returned to a pool that did not give them out");
        _firstFreeWord = Math.Min(_firstFreeWord, first / 64);
        UsedPages -= pages;
    }

    public void Dispose() => Buffer.Dispose();

    private bool Take(int first, int pages, int lengthBytes, out BufferSlice slice)
    {
        if (!ChangeAll(first, pages, true))
            throw new InvalidOperationException($"pages {first}+{pages} of a payload pool are given out twice");
        UsedPages += pages;
        slice = new BufferSlice(Buffer, (long)first * PageBytes, lengthBytes);
        return true;
    }

    private bool ChangeAll(int first, int pages, bool used)
    {
        for (int page = first; page < first + pages;)
        {
            int bit = page % 64;
            int count = Math.Min(64 - bit, first + pages - page);
            ulong mask = (count == 64 ? ulong.MaxValue : (1UL << count) - 1) << bit;
            ref ulong word = ref _used[page / 64];
            if ((word & mask) != (used ? 0 : mask))
                return false;
            word ^= mask;
            page += count;
        }

        return true;
    }
}
