using Cbd.Host;
using Cbd.Host.Threads;
using Cbd.Memory;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>What a host does while its heartbeat is late.</summary>
public sealed class A_late_beat : IDisposable
{
    private const int FenceMs = 60_000;

    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    [Fact]
    public void Fences_after_the_fence_time_and_the_next_beat_ends_that()
    {
        var condition = new BeatCondition(FenceMs);
        long now = MonotonicClock.Milliseconds;
        condition.NoteBeat(now, KernelClock.BootTimeNs);
        Assert.False(condition.IsOverdueAt(now + FenceMs));
        Assert.True(condition.IsOverdueAt(now + FenceMs + 1));
        Assert.False(condition.IsOverdue);
        condition.NoteBeat(now - FenceMs - 1, KernelClock.BootTimeNs);
        Assert.True(condition.IsOverdue);
        condition.NoteBeat(now, KernelClock.BootTimeNs);
        Assert.False(condition.IsOverdue);
    }

    [Fact]
    public void Counts_time_in_suspend_where_a_thread_slept()
    {
        var condition = new BeatCondition(FenceMs);
        // The machine was suspended for longer than the fence time: the running clock knows nothing of it.
        condition.NoteBeat(MonotonicClock.Milliseconds, KernelClock.BootTimeNs - (FenceMs + 1000) * 1_000_000L);
        Assert.False(condition.IsOverdue);
        Assert.True(condition.IsOverdueAfterSleep);
        // From then on all threads know.
        Assert.True(condition.IsOverdue);
        condition.NoteBeat(MonotonicClock.Milliseconds, KernelClock.BootTimeNs);
        Assert.False(condition.IsOverdueAfterSleep);
    }

    [Fact]
    public void Of_housekeeping_that_stands_still_is_told_once_and_so_is_its_end()
    {
        var log = new RecordedLog();
        using var host = new BareTransport(_directory.PathOf("region"), "host", format: true, log, fenceMs: TestNode.BeatMs + 50);
        lock (host.Transport.StateLock)
        {
            Eventually.True(() => host.Transport.Failure is { } why && why.Contains("its housekeeping stands still", StringComparison.Ordinal));
            host.Transport.CheckHousekeeping();
            host.Transport.CheckHousekeeping();
            Assert.True(host.Transport.Condition.IsOverdue);
        }

        // A thread of its own writes the lines.
        Eventually.True(() => log.Has("its housekeeping stands still"));
        Assert.Single(log.Lines, line => line.Contains("its housekeeping stands still", StringComparison.Ordinal));
        Eventually.True(() => host.Transport.Failure is null);
        Eventually.True(() =>
        {
            host.Transport.CheckHousekeeping();
            return log.Has("its housekeeping goes on");
        });
        Eventually.True(() => log.Has("stopped storing; its entry is still its own, and it goes on"));
        Assert.False(host.Transport.Condition.IsFenced);
    }

    [Fact]
    public void Keeps_requests_from_the_region_until_the_entry_is_seen_to_be_its_own()
    {
        using var disks = new BareTransport(_directory.PathOf("region"), "disks", format: true);
        using var users = new BareTransport(_directory.PathOf("region"), "users", fenceMs: TestNode.BeatMs + 50);
        users.StartDevice(disks.StartBackend("memory:1M"));
        using var buffer = new NativeBuffer(4096);
        using Blocks.IBlockQueue queue = users.Exports.Last.Device!.OpenQueue(4);
        var done = new Blocks.BlockCompletion[1];
        lock (users.Transport.StateLock)
        {
            Eventually.True(() => users.Transport.Condition.IsOverdue);
            Assert.True(queue.TrySubmit(new Blocks.BlockRequest(1, Blocks.BlockOperation.Flush, Blocks.BlockFlags.None, 0, 0, default)));
            Assert.Equal(0, queue.Poll(done));
            queue.Wait(1_000_000);
            Assert.Equal(0, queue.Poll(done));
            Assert.False(((Blocks.IDescriptorWait)queue).TryWait(0, 1000));
            Assert.Equal(0, disks.Transport.Lists.ListChannels()[0].Outstanding);
        }

        Eventually.True(() => queue.Poll(done) == 1);
        Assert.Equal((1UL, 0), (done[0].Cookie, done[0].Error));
    }
}
