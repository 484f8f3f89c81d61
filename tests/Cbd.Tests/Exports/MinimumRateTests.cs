using Cbd.Exports.Nbd;
using Xunit;

namespace Cbd.Tests.Exports;

public sealed class MinimumRateTests
{
    private const long Held = 32 << 20;

    [Fact]
    public void A_client_that_moves_what_it_holds_within_a_minute_stays_and_a_slower_one_does_not()
    {
        long perLook = Held / MinimumRate.SecondsForAll;
        Assert.Null(LookOfTheEnd(Held, perLook + 1, looks: 1000));
        Assert.Equal(MinimumRate.Looks + 1, LookOfTheEnd(Held, perLook * 9 / 10, looks: 1000));
    }

    [Fact]
    public void A_byte_every_three_seconds_is_too_slow_for_however_little_is_held() =>
        Assert.Equal(MinimumRate.Looks + 1, LookOfTheEnd(0, 1, looks: 1000));

    [Fact]
    public void A_client_that_holds_nothing_for_a_moment_begins_anew()
    {
        var rate = new MinimumRate();
        for (int look = 0; look < MinimumRate.Looks; look++)
            Assert.False(rate.IsTooSlow(Held, 0));
        rate.Reset();
        for (int look = 0; look < MinimumRate.Looks; look++)
            Assert.False(rate.IsTooSlow(Held, 0));
        Assert.True(rate.IsTooSlow(Held, 0));
    }

    [Fact]
    public void A_client_that_is_too_slow_and_was_not_ended_is_looked_at_again_the_next_time()
    {
        var rate = new MinimumRate();
        for (int look = 0; look < MinimumRate.Looks; look++)
            Assert.False(rate.IsTooSlow(Held, 0));
        Assert.True(rate.IsTooSlow(Held, 0));
        Assert.True(rate.IsTooSlow(Held, 0));
        Assert.False(rate.IsTooSlow(Held, Held));
    }

    private static int? LookOfTheEnd(long held, long perLook, int looks)
    {
        var rate = new MinimumRate();
        for (int look = 1; look <= looks; look++)
        {
            if (rate.IsTooSlow(held, look * perLook))
                return look;
        }

        return null;
    }
}
