using Cbd.Exports.InFlight;
using Xunit;

namespace Cbd.Tests.Exports.InFlight;

/// <summary>Which pages of a payload area are free.</summary>
public sealed class PageMapTests
{
    [Fact]
    public void Finds_the_lowest_free_pages_side_by_side()
    {
        const int pages = 256;
        var random = new Random(5);
        var map = new PageMap(pages);
        bool[] taken = new bool[pages];
        var held = new List<(int First, int Count)>();
        int found = 0;
        for (int step = 0; step < 20_000; step++)
        {
            int count = random.Next(random.Next(3) == 0 ? 130 : 9) + 1;
            if (random.Next(2) == 0 && held.Count > 0)
            {
                (int first, int freed) = held[random.Next(held.Count)];
                held.Remove((first, freed));
                map.Free(first, freed);
                Array.Fill(taken, false, first, freed);
            }
            else
            {
                int expected = Enumerable.Range(0, pages - count + 1).FirstOrDefault(at => !taken.AsSpan(at, count).Contains(true), -1);
                int first = map.Find(count);
                Assert.Equal(expected, first);
                if (first < 0)
                    continue;
                Assert.True(map.IsFree(first, count));
                found++;
                map.Take(first, count);
                Assert.False(map.IsFree(first + count - 1, 1));
                Array.Fill(taken, true, first, count);
                held.Add((first, count));
            }
        }

        Assert.InRange(found, 1000, 20_000);
    }
}
