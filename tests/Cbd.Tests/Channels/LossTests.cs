using Cbd.Blocks;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Channels;

public sealed class A_queue_that_does_not_wait_for_its_backend
{
    private readonly BlockCompletion[] _one = new BlockCompletion[1];

    private BlockCompletion Next(ChannelBench bench) => bench.PollQueue(_one) == 1 ? _one[0] : default;

    private static BlockRequest Write(ulong cookie, NativeBuffer buffer, int at) =>
        new(cookie, BlockOperation.Write, BlockFlags.None, 0, 4096, new BufferSlice(buffer, at, 4096));

    [Fact]
    public void Answers_what_waits_and_what_comes_with_an_error_and_goes_on_afterwards()
    {
        using var bench = new ChannelBench();
        bench.Attach();
        using var buffer = new NativeBuffer(16384);
        bench.State.IsFailing = true;
        Assert.True(bench.Queue.TrySubmit(Write(1, buffer, 0)));
        Assert.Equal(new BlockCompletion(1, Errno.EIO, 0), Next(bench));
        bench.State.IsFailing = false;
        Assert.True(bench.Queue.TrySubmit(Write(2, buffer, 0)));
        Assert.Equal(new BlockCompletion(2, 0, 0), bench.Finish());
        // Nothing was in flight: nothing to drain.
        Assert.Equal(0, bench.Queue.ResetCount);
        Assert.False(bench.State.IsHeld);
    }

    [Fact]
    public void Issues_nothing_new_before_what_it_gave_up_is_drained()
    {
        using var bench = new ChannelBench();
        bench.Attach();
        using var buffer = new NativeBuffer(16384);
        var old = new BufferSlice(buffer, 0, 4096);
        var fresh = new BufferSlice(buffer, 4096, 4096);
        old.Span.Fill(1);
        fresh.Span.Fill(2);
        Assert.True(bench.Queue.TrySubmit(Write(1, buffer, 0)));
        Assert.Equal(default, Next(bench));
        Assert.Equal(1, bench.Queue.InFlight);
        bench.State.IsFailing = true;
        Assert.Equal(new BlockCompletion(1, Errno.EIO, 0), Next(bench));
        // All queues of the device are held: the old command may still be fetched, and land after a new one.
        Assert.True(bench.State.IsHeld);
        Assert.Equal(1, bench.Queue.InFlight);

        int woken = 0;
        bench.State.QueuesMayGoOn = () => woken += bench.State.IsHeld ? 100 : 1;
        bench.State.IsFailing = false;
        Assert.True(bench.Queue.TrySubmit(Write(2, buffer, 4096)));
        ulong epoch = bench.Word.Epoch;
        Assert.Equal(default, Next(bench));
        Assert.Equal(ClaimState.Offered, bench.Word.State);
        Assert.Equal(epoch + 1, bench.Word.Epoch);
        Assert.True(bench.State.IsHeld);
        Assert.Equal(new BlockCompletion(2, 0, 0), bench.Finish());
        Assert.False(bench.State.IsHeld);
        Assert.Equal(1, woken);
        Assert.Equal(0, bench.Queue.InFlight);
        // What was answered with an error is never issued again.
        var read = new BufferSlice(buffer, 8192, 4096);
        Assert.True(bench.Queue.TrySubmit(new BlockRequest(3, BlockOperation.Read, BlockFlags.None, 0, 4096, read)));
        Assert.Equal(0, bench.Finish().Error);
        Assert.True(read.Span.SequenceEqual(fresh.Span));
        Assert.Equal(1, bench.Queue.ResetCount);
    }

    [Fact]
    public void Wakes_no_other_queue_when_its_channel_is_taken_away_while_it_holds_them()
    {
        using var bench = new ChannelBench();
        bench.Attach();
        using var buffer = new NativeBuffer(4096);
        Assert.True(bench.Queue.TrySubmit(Write(1, buffer, 0)));
        Assert.Equal(default, Next(bench));
        bench.State.IsFailing = true;
        Assert.Equal(new BlockCompletion(1, Errno.EIO, 0), Next(bench));
        Assert.True(bench.State.IsHeld);

        int woken = 0;
        bench.State.QueuesMayGoOn = () => woken++;
        Assert.True(ClaimOperations<MappedMemory, SafePolicy>.TrySwap(bench.Memory, bench.Layout.ClaimOffset, bench.Word, bench.Word.With(ClaimState.Free)));
        bench.PollQueue(_one);
        Assert.Equal(QueuePhase.Lost, bench.Queue.Phase);
        Assert.NotNull(bench.State.Failure);
        Assert.False(bench.State.IsHeld);
        // Their doorbells may be somebody else's, too.
        Assert.Equal(0, woken);
    }

    [Fact]
    public void Needs_no_reset_when_the_late_completions_have_come()
    {
        using var bench = new ChannelBench();
        bench.Attach();
        using var buffer = new NativeBuffer(4096);
        Assert.True(bench.Queue.TrySubmit(Write(1, buffer, 0)));
        Assert.Equal(default, Next(bench));
        bench.State.IsFailing = true;
        Assert.Equal(Errno.EIO, Next(bench).Error);
        bench.Group.Poll();
        Assert.Equal(default, Next(bench));
        Assert.Equal(0, bench.Queue.InFlight);
        bench.State.IsFailing = false;
        Assert.Equal(default, Next(bench));
        Assert.False(bench.State.IsHeld);
        Assert.Equal(0, bench.Queue.ResetCount);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Holds_the_other_queues_after_a_new_session_only_while_it_has_something_to_repeat(bool busy)
    {
        using var bench = new ChannelBench();
        bench.Attach();
        using var buffer = new NativeBuffer(4096);
        if (busy)
            Assert.True(bench.Queue.TrySubmit(Write(1, buffer, 0)));
        Assert.Equal(default, Next(bench));
        bench.State.Adopt(new BackendSession(8, bench.State.Info.DurabilityId, bench.State.Info));
        Assert.Equal(default, Next(bench));
        Assert.Equal(ClaimState.Offered, bench.Word.State);
        Assert.Equal(busy, bench.State.IsHeld);
    }

    [Theory]
    [InlineData("session")]
    [InlineData("failing")]
    [InlineData("failure")]
    public void Does_not_sleep_over_what_another_thread_changed_just_before(string what)
    {
        using var bench = new ChannelBench();
        bench.Attach();
        using var buffer = new NativeBuffer(4096);
        Assert.True(bench.Queue.TrySubmit(Write(1, buffer, 0)));
        Assert.Equal(default, Next(bench));
        Assert.True(bench.Queue.TryAnnounceSleep());
        bench.Queue.RetractSleep();
        if (what == "session")
            bench.State.Adopt(new BackendSession(8, bench.State.Info.DurabilityId, bench.State.Info));
        else if (what == "failing")
            bench.State.IsFailing = true;
        else
            bench.State.Fail("a test");
        Assert.False(bench.Queue.TryAnnounceSleep());
        // The next turns act upon it, and then there is nothing to stay awake for.
        Next(bench);
        Next(bench);
        Assert.True(bench.Queue.TryAnnounceSleep());
    }

    [Fact]
    public void Leaves_no_hold_behind_when_it_is_closed_meanwhile()
    {
        using var bench = new ChannelBench();
        bench.Attach();
        using var buffer = new NativeBuffer(4096);
        Assert.True(bench.Queue.TrySubmit(Write(1, buffer, 0)));
        Assert.Equal(default, Next(bench));
        bench.State.IsFailing = true;
        Assert.Equal(Errno.EIO, Next(bench).Error);
        Assert.True(bench.State.IsHeld);
        bench.Queue.BeginClose();
        Assert.False(bench.State.IsHeld);
    }
}
