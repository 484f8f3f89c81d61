using Cbd.Exports.Nbd;
using Cbd.Memory;
using CsCheck;
using Xunit;

namespace Cbd.Tests.Exports;

public sealed class PayloadPoolTests
{
    private const int PoolPages = 256;
    private const int StartBytes = 2 * PayloadPool.PageBytes;

    [Fact]
    public void What_a_burst_has_touched_is_given_back_when_it_is_not_needed_any_more_and_nothing_else()
    {
        using var buffer = new NativeBuffer(StartBytes + (PoolPages * PayloadPool.PageBytes));
        var pool = new PayloadPool(buffer, StartBytes, PoolPages * PayloadPool.PageBytes);
        Assert.True(pool.TryTake(PayloadPool.PageBytes, out BufferSlice kept));
        Assert.True(pool.TryTake(PayloadPool.PageBytes, out BufferSlice burst));
        kept.Span.Fill(1);
        burst.Span.Fill(2);
        pool.GiveBackUnused();
        pool.Return(burst);
        // It was needed since the last look.
        pool.GiveBackUnused();
        Assert.Equal(2, buffer.GetSpan(burst.Offset, 1)[0]);
        pool.GiveBackUnused();
        Assert.Equal(0, buffer.GetSpan(burst.Offset, 1)[0]);
        Assert.Equal(1, kept.Span[0]);
    }

    [Fact]
    public void What_is_given_out_never_overlaps_and_is_found_if_there_is_room() =>
        Gen.Select(Gen.Bool, Gen.Int[1, PoolPages * PayloadPool.PageBytes], Gen.Int[1, 40 * PayloadPool.PageBytes], Gen.Int[0, 1000])
            .Array[1, 200].Sample(steps =>
            {
                using var buffer = new NativeBuffer(StartBytes + (PoolPages * PayloadPool.PageBytes));
                var pool = new PayloadPool(buffer, StartBytes, PoolPages * PayloadPool.PageBytes);
                var used = new bool[PoolPages];
                var held = new List<BufferSlice>();
                foreach ((bool large, int any, int small, int pick) in steps)
                {
                    if (held.Count > 0 && pick % 3 == 0)
                    {
                        BufferSlice returned = held[pick % held.Count];
                        held.Remove(returned);
                        pool.Return(returned);
                        Mark(used, returned, false);
                    }

                    int length = large ? any : small;
                    bool taken = pool.TryTake(length, out BufferSlice slice);
                    Assert.Equal(HasRun(used, Pages(length)), taken);
                    if (!taken)
                        continue;
                    Assert.Equal(length, slice.Length);
                    Mark(used, slice, true);
                    held.Add(slice);
                }

                Assert.Equal(used.Count(page => page), pool.UsedPages);
            });

    [Fact]
    public void Returning_twice_is_a_bug_that_stops()
    {
        using var buffer = new NativeBuffer(StartBytes + (64 * PayloadPool.PageBytes));
        var pool = new PayloadPool(buffer, StartBytes, 64 * PayloadPool.PageBytes);
        Assert.True(pool.TryTake(5000, out BufferSlice slice));
        pool.Return(slice);
        Assert.Throws<InvalidOperationException>(() => pool.Return(slice));
    }

    [Fact]
    public void The_lowest_place_is_given_first()
    {
        using var buffer = new NativeBuffer(StartBytes + (64 * PayloadPool.PageBytes));
        var pool = new PayloadPool(buffer, StartBytes, 64 * PayloadPool.PageBytes);
        Assert.True(pool.TryTake(1, out BufferSlice first));
        Assert.True(pool.TryTake(PayloadPool.PageBytes, out _));
        pool.Return(first);
        Assert.True(pool.TryTake(PayloadPool.PageBytes, out BufferSlice again));
        Assert.Equal(StartBytes, again.Offset);
    }

    private static int Pages(int length) => (length + PayloadPool.PageBytes - 1) / PayloadPool.PageBytes;

    private static bool HasRun(bool[] used, int pages)
    {
        int run = 0;
        foreach (bool page in used)
        {
            run = page ? 0 : run + 1;
            if (run >= pages)
                return true;
        }

        return false;
    }

    private static void Mark(bool[] used, BufferSlice slice, bool value)
    {
        int first = (int)((slice.Offset - StartBytes) / PayloadPool.PageBytes);
        for (int page = first; page < first + Pages(slice.Length); page++)
        {
            Assert.NotEqual(value, used[page]);
            used[page] = value;
        }
    }
}
