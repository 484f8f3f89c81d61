using Cbd.Memory;
using CsCheck;
using Xunit;

namespace Cbd.Tests.Memory;

public class PoolAllocatorTests
{
    [Fact]
    public void Hands_out_everything_once()
    {
        var pool = new PoolAllocator(70 * 4096 + 100);
        var seen = new HashSet<long>();
        while (pool.TryAllocate(4096, out long offset))
            Assert.True(seen.Add(offset) && offset % 4096 == 0 && offset < 70 * 4096);
        Assert.Equal(70, seen.Count);
        Assert.Equal(0, pool.FreeUnits);
    }

    [Fact]
    public void Refuses_a_piece_larger_than_the_largest_gap()
    {
        var pool = new PoolAllocator(4 * 4096);
        Assert.True(pool.TryAllocate(4096, out long first));
        Assert.True(pool.TryAllocate(4096, out long second));
        Assert.True(pool.TryAllocate(4096, out _));
        pool.Free(first, 4096);
        Assert.False(pool.TryAllocate(2 * 4096, out _));
        pool.Free(second, 4096);
        Assert.True(pool.TryAllocate(2 * 4096, out long both));
        Assert.Equal(0, both);
    }

    [Fact]
    public void Stops_at_a_piece_freed_twice()
    {
        var pool = new PoolAllocator(4 * 4096);
        Assert.True(pool.TryAllocate(8192, out long offset));
        pool.Free(offset, 8192);
        Assert.Throws<InvalidOperationException>(() => pool.Free(offset, 8192));
    }

    [Fact]
    public void Never_overlaps_whatever_the_order()
    {
        Gen.Select(Gen.Int[1, 300], Gen.Int[1, 20_000].Array[1, 200], Gen.Int).Sample((units, sizes, seed) =>
        {
            var pool = new PoolAllocator(units * 4096L);
            var owned = new bool[units];
            var live = new List<(long Offset, int Bytes)>();
            var random = new Random(seed);
            foreach (int bytes in sizes)
            {
                if (live.Count > 0 && random.Next(3) == 0)
                {
                    (long offset, int size) = live[^1];
                    live.RemoveAt(live.Count - 1);
                    pool.Free(offset, size);
                    for (long u = offset / 4096; u < offset / 4096 + (size + 4095) / 4096; u++)
                        owned[u] = false;
                }

                int wanted = (bytes + 4095) / 4096;
                bool fits = LongestGap(owned) >= wanted;
                Assert.Equal(fits, pool.TryAllocate(bytes, out long at));
                if (!fits)
                    continue;
                for (long u = at / 4096; u < at / 4096 + wanted; u++)
                {
                    Assert.False(owned[u]);
                    owned[u] = true;
                }

                live.Insert(random.Next(live.Count + 1), (at, bytes));
            }

            Assert.Equal(owned.Count(o => !o), pool.FreeUnits);
        });
    }

    private static int LongestGap(bool[] owned)
    {
        int longest = 0, run = 0;
        foreach (bool taken in owned)
        {
            run = taken ? 0 : run + 1;
            longest = Math.Max(longest, run);
        }

        return longest;
    }
}
