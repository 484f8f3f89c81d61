using Cbd.Memory;
using Cbd.Host.Threads;
using Xunit;

namespace Cbd.Tests.Transports;

public sealed class A_host_that_could_not_beat
{
    private const int FenceMs = 10_000_000;
    private const long LongMs = 2L * FenceMs;

    private readonly BeatCondition _condition = new(FenceMs);

    private static long NowMs => Environment.TickCount64;

    private static long BootNs => KernelClock.BootTimeNs;

    [Fact]
    public void May_store_after_it_has_registered() => Assert.False(_condition.IsOverdue || _condition.IsOverdueAfterSleep || _condition.IsFenced);

    [Fact]
    public void May_not_store_before_its_next_beat()
    {
        _condition.NoteBeat(NowMs - LongMs, BootNs - LongMs * 1_000_000);
        Assert.True(_condition.IsOverdue);
        _condition.NoteBeat(NowMs, BootNs);
        Assert.False(_condition.IsOverdue);
    }

    [Fact]
    public void Is_told_apart_by_the_clock_that_runs_in_suspend()
    {
        _condition.NoteBeat(NowMs, BootNs - LongMs * 1_000_000);
        // The cheap clock stood still with the machine.
        Assert.False(_condition.IsOverdue);
        Assert.True(_condition.IsOverdueAfterSleep);
        // Whoever noticed tells the others.
        Assert.True(_condition.IsOverdue);
        Assert.True(_condition.SinceBeatMs >= LongMs);
        _condition.NoteBeat(NowMs, BootNs);
        Assert.False(_condition.IsOverdue);
    }

    [Fact]
    public void Is_fenced_for_good_once_it_was_cleared()
    {
        Assert.True(_condition.TryFail("cleared"));
        Assert.False(_condition.TryFail("again"));
        _condition.NoteBeat(NowMs, BootNs);
        Assert.Equal("cleared", _condition.Failure);
        Assert.True(_condition.IsFenced);
    }
}
