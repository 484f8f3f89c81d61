using Cbd.Blocks;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Channels;

public class ChannelTests
{
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Writes_come_back_as_reads_also_when_they_are_larger_than_a_pool(bool payloadCrc)
    {
        using var bench = new ChannelBench(payloadCrc);
        bench.Attach();
        using var buffer = new NativeBuffer(2 << 20);
        var written = new BufferSlice(buffer, 0, 1 << 20);
        var read = new BufferSlice(buffer, 1 << 20, 1 << 20);
        new Random(5).NextBytes(written.Span);
        Assert.True(bench.Queue.TrySubmit(new BlockRequest(1, BlockOperation.Write, BlockFlags.None, 4096, 1 << 20, written)));
        Assert.Equal(new BlockCompletion(1, 0, 0), bench.Finish());
        Assert.True(bench.Queue.TrySubmit(new BlockRequest(2, BlockOperation.Read, BlockFlags.None, 4096, 1 << 20, read)));
        Assert.Equal(new BlockCompletion(2, 0, 1 << 20), bench.Finish());
        Assert.True(read.Span.SequenceEqual(written.Span));
    }

    [Fact]
    public void Every_operation_is_answered()
    {
        using var bench = new ChannelBench();
        bench.Attach();
        using var buffer = new NativeBuffer(4096);
        var extents = new BufferSlice(buffer, 0, 4096);
        (BlockOperation, BlockFlags, long, long, BufferSlice)[] requests =
        [
            (BlockOperation.Flush, BlockFlags.None, 0, 0, default),
            (BlockOperation.Discard, BlockFlags.None, 0, 8 << 20, default),
            (BlockOperation.WriteZeroes, BlockFlags.ForceUnitAccess | BlockFlags.NoUnmap, 4096, 1 << 20, default),
            (BlockOperation.Cache, BlockFlags.None, 0, 4096, default),
            (BlockOperation.BlockStatus, BlockFlags.None, 0, 1 << 20, extents),
        ];
        foreach ((BlockOperation operation, BlockFlags flags, long offset, long length, BufferSlice data) in requests)
        {
            Assert.True(bench.Queue.TrySubmit(new BlockRequest(9, operation, flags, offset, length, data)));
            Assert.Equal(0, bench.Finish().Error);
        }

        Assert.InRange(BlockExtent.Decode(extents.Span).LengthBytes, 1, 1 << 20);
    }

    [Theory]
    [InlineData("null:16M", BlockOperation.Write, 4)]
    [InlineData("null:16M", BlockOperation.Read, 4)]
    [InlineData("memory:16M", BlockOperation.Write, 12)]
    [InlineData("memory:16M", BlockOperation.Read, 12)]
    public void A_turn_begins_four_commands_at_a_disk_or_does_all_that_a_disk_in_memory_answers_at_once(
        string disk, BlockOperation operation, int answeredInATurn)
    {
        const int Count = 12;
        using var bench = new ChannelBench(disk: disk);
        bench.Attach();
        using var buffer = new NativeBuffer(Count * 4096);
        for (int i = 0; i < Count; i++)
            Assert.True(bench.Queue.TrySubmit(new BlockRequest((ulong)i, operation, BlockFlags.None, i * 4096, 4096, new BufferSlice(buffer, i * 4096, 4096))));
        var completions = new BlockCompletion[Count];
        Assert.Equal(0, bench.PollQueue(completions));
        Assert.Equal(Count, bench.Queue.InFlight);
        for (int answered = 0; answered < Count; answered += answeredInATurn)
        {
            Assert.True(bench.Group.Poll());
            Assert.Equal(answeredInATurn, bench.PollQueue(completions));
            Assert.Equal((ulong)answered, completions[0].Cookie);
        }

        Assert.False(bench.Group.Poll());
    }

    [Theory]
    [InlineData(BlockOperation.Read, 16L << 20, 4096, Errno.EINVAL)]
    [InlineData(BlockOperation.Write, (16L << 20) - 512, 4096, Errno.EINVAL)]
    [InlineData(BlockOperation.Read, 100, 512, Errno.EINVAL)]
    [InlineData(BlockOperation.Read, -512, 512, Errno.EINVAL)]
    [InlineData(BlockOperation.Discard, 0, long.MaxValue, Errno.EINVAL)]
    [InlineData((BlockOperation)99, 0, 512, Errno.EINVAL)]
    public void A_request_that_does_not_fit_the_disk_is_answered_with_an_error(BlockOperation operation, long offset, long length, int error)
    {
        using var bench = new ChannelBench();
        bench.Attach();
        using var buffer = new NativeBuffer(4096);
        var data = new BufferSlice(buffer, 0, (int)Math.Min(length, 4096));
        Assert.True(bench.Queue.TrySubmit(new BlockRequest(1, operation, BlockFlags.None, offset, length, data)));
        Assert.Equal(new BlockCompletion(1, error, 0), bench.Finish());
        Assert.Null(bench.State.Failure);
    }

    [Fact]
    public void No_byte_is_allocated_per_request()
    {
        using var bench = new ChannelBench();
        bench.Attach();
        using var buffer = new NativeBuffer(65536);
        var completions = new BlockCompletion[16];
        void Run(int requests)
        {
            int sent = 0, done = 0;
            while (done < requests)
            {
                while (sent < requests && sent - done < 8)
                {
                    BlockOperation operation = sent % 17 == 0 ? BlockOperation.Flush : sent % 2 == 0 ? BlockOperation.Write : BlockOperation.Read;
                    BufferSlice data = operation == BlockOperation.Flush ? default : new BufferSlice(buffer, sent % 8 * 4096, 4096);
                    if (!bench.Queue.TrySubmit(new BlockRequest((ulong)sent, operation, BlockFlags.None, operation == BlockOperation.Flush ? 0 : sent % 1000 * 4096L, data.Length, data)))
                        break;
                    sent++;
                }

                bench.Group.Poll();
                done += bench.PollQueue(completions);
            }
        }

        Run(2000);
        Allocations.None(() => Run(20_000));
    }

    [Fact]
    public void A_quarantined_channel_is_reported_drained_when_its_handler_is_done_and_not_before()
    {
        using var bench = new ChannelBench();
        bench.Attach();
        int channel = bench.Layout.Channel;
        ClaimWord quarantined = bench.Word.With(ClaimState.Quarantined);
        Assert.False(IsDrained());
        Assert.True(ClaimOperations<MappedMemory, SafePolicy>.TrySwap(bench.Memory, bench.Layout.ClaimOffset, bench.Word, quarantined));
        bench.Group.ReportDrained(channel);
        Assert.False(IsDrained());
        bench.Group.Poll();
        Assert.Equal(0, bench.Group.Count);
        Assert.False(IsDrained());
        bench.Group.ReportDrained(channel);
        Assert.True(IsDrained());
        Assert.Equal(quarantined, bench.Word);

        bool IsDrained() => HandlerCtrlLine.IsDrained(bench.Memory, bench.Geometry, channel, quarantined.Epoch, bench.Backend.Session);
    }

    public static TheoryData<string> HostileCommands => ["operation", "flags", "pool offset", "pool length", "length", "extents"];

    [Theory]
    [MemberData(nameof(HostileCommands))]
    public void A_command_that_breaks_a_rule_fails_its_channel_and_nothing_else(string rule)
    {
        using var bench = new ChannelBench();
        bench.Attach();
        uint pool = (uint)bench.Layout.PoolBytes;
        var good = new CommandLine(1, bench.Word.Epoch, BlockOperation.Write, BlockFlags.None, 0, 4096, 0, 4096, 0, 0);
        bench.StoreCommand(rule switch
        {
            "operation" => good with { Operation = (BlockOperation)200 },
            "flags" => good with { Flags = (BlockFlags)0x80 },
            "pool offset" => good with { PayloadOffset = pool - 4095 },
            "pool length" => good with { PayloadLength = uint.MaxValue, Length = uint.MaxValue },
            "length" => good with { Length = 8192 },
            _ => good with { Operation = BlockOperation.BlockStatus, PayloadLength = 15 },
        });
        for (int i = 0; i < 10; i++)
            bench.Group.Poll();
        var failures = new List<string>();
        bench.Group.CollectFailures(failures);
        Assert.Single(failures);
        Assert.True(HandlerCtrlLine.TryLoad(bench.Memory, bench.Geometry, bench.Layout.Channel, bench.Word.Epoch, out HandlerCtrlLine ctrl));
        Assert.Equal(HandlerCondition.Failed, ctrl.Condition);
        // The blkdev finds out by its deadline, resets the channel, and goes on.
        Assert.True(bench.Queue.TrySubmit(new BlockRequest(1, BlockOperation.Flush, BlockFlags.None, 0, 0, default)));
        Assert.Equal(new BlockCompletion(1, 0, 0), bench.Finish());
        Assert.Equal(1, bench.Queue.ResetCount);
    }

    [Theory]
    [InlineData(long.MinValue, 4096)]
    [InlineData(-1, 4096)]
    [InlineData(long.MaxValue - 511, 4096)]
    [InlineData(17L << 20, 4096)]
    [InlineData(3, 4096)]
    public void A_command_outside_the_disk_is_answered_and_the_channel_goes_on(long offset, long length)
    {
        using var bench = new ChannelBench();
        bench.Attach();
        bench.StoreCommand(new CommandLine(1, bench.Word.Epoch, BlockOperation.Read, BlockFlags.None, offset, length, 0, (uint)length, 0, 3));
        for (int i = 0; i < 10; i++)
            bench.Group.Poll();
        bench.Memory.ReadLine(bench.Layout.CompletionRingOffset + 64, out Line line);
        CompletionLine completion = CompletionLine.FromLine(line);
        Assert.Equal((1ul, (ushort)3, (ushort)Errno.EINVAL), (completion.Sequence, completion.Tag, completion.Error));
    }

    [Theory]
    [InlineData(true, 512)]
    [InlineData(true, 64 << 10)]
    [InlineData(true, 100 << 10)]
    [InlineData(false, 100 << 10)]
    public void A_write_whose_payload_does_not_match_its_crc_never_reaches_the_disk(bool isInMemory, int length)
    {
        using var bench = new ChannelBench(isInMemory: isInMemory);
        bench.Attach();
        using var buffer = new NativeBuffer(length);
        buffer.GetSpan(0, length).Fill(7);
        Assert.True(bench.Queue.TrySubmit(new BlockRequest(1, BlockOperation.Write, BlockFlags.None, 0, length, new BufferSlice(buffer, 0, length))));
        Assert.Equal(new BlockCompletion(1, 0, 0), bench.Finish());
        byte[] before = bench.ReadDisk(0, length);
        Assert.Equal(buffer.GetSpan(0, length).ToArray(), before);
        bench.Memory.Write(bench.Layout.WritePoolOffset, new byte[length].AsSpan());
        bench.StoreCommand(new CommandLine(2, bench.Word.Epoch, BlockOperation.Write, BlockFlags.None, 0, length, 0, (uint)length, 12345, 0));
        bench.Group.Poll();
        bench.Memory.ReadLine(bench.Layout.CompletionRingOffset + 128, out Line line);
        Assert.Equal(Errno.EBADMSG, CompletionLine.FromLine(line).Error);
        Assert.Equal(0, bench.Group.Outstanding);
        Assert.Equal(before, bench.ReadDisk(0, length));
    }

    [Theory]
    [InlineData(500, 0u)]
    [InlineData(0, 4097u)]
    public void A_completion_that_breaks_a_rule_resets_the_channel_and_the_request_is_done_anyway(int tag, uint length)
    {
        using var bench = new ChannelBench();
        bench.Attach();
        using var buffer = new NativeBuffer(4096);
        Assert.True(bench.Queue.TrySubmit(new BlockRequest(1, BlockOperation.Read, BlockFlags.None, 0, 4096, new BufferSlice(buffer, 0, 4096))));
        bench.PollQueue([]);
        bench.StoreCompletion(new CompletionLine(1, bench.Word.Epoch, 1, (ushort)tag, 0, 0, length));
        bench.PollQueue([]);
        Assert.Equal(ClaimState.Offered, bench.Word.State);
        Assert.Equal(new BlockCompletion(1, 0, 4096), bench.Finish());
    }

    [Fact]
    public void Requests_fail_when_three_resets_bring_no_completion()
    {
        using var bench = new ChannelBench();
        bench.Attach();
        Assert.True(bench.Queue.TrySubmit(new BlockRequest(1, BlockOperation.Flush, BlockFlags.None, 0, 0, default)));
        Span<BlockCompletion> one = new BlockCompletion[1];
        for (int i = 0; i < 100_000; i++)
        {
            // A handler that attaches every epoch and then fails it at once.
            if (bench.Word.State == ClaimState.Attached)
                bench.StoreCommand(new CommandLine(1, bench.Word.Epoch, (BlockOperation)77, 0, 0, 0, 0, 0, 0, 0));
            bench.Group.Poll();
            if (bench.PollQueue(one) == 0)
                continue;
            Assert.Equal(new BlockCompletion(1, Errno.EIO, 0), one[0]);
            Assert.Equal(3, bench.Queue.ResetCount);
            return;
        }

        Assert.Fail("no answer");
    }

    [Fact]
    public void A_flush_that_fails_latches_until_it_is_cleared()
    {
        using var bench = new ChannelBench();
        bench.Attach();
        bench.Backend.LatchFlushError(Errno.EIO);
        Assert.Equal(Errno.EIO, bench.StoredFlushError);
        Assert.True(bench.Queue.TrySubmit(new BlockRequest(1, BlockOperation.Flush, BlockFlags.None, 0, 0, default)));
        Assert.Equal(Errno.EIO, bench.Finish().Error);
        bench.Backend.ClearFlushError();
        Assert.True(bench.Queue.TrySubmit(new BlockRequest(2, BlockOperation.Flush, BlockFlags.None, 0, 0, default)));
        Assert.Equal(0, bench.Finish().Error);
    }

    /// <summary>Its first pieces may be in the cache that the backend's machine loses, while the rest is done anew elsewhere.</summary>
    [Fact]
    public void A_write_of_which_a_part_is_done_is_uncovered_before_it_is_answered()
    {
        using var bench = new ChannelBench();
        bench.Attach();
        using var buffer = new NativeBuffer(1 << 20);
        Assert.True(bench.Queue.TrySubmit(new BlockRequest(1, BlockOperation.Write, BlockFlags.None, 0, 1 << 20, new BufferSlice(buffer, 0, 1 << 20))));
        for (int i = 0; i < 1000 && !bench.State.HasUncoveredWrites; i++)
        {
            bench.Group.Poll();
            Assert.Equal(0, bench.PollQueue(new BlockCompletion[1]));
        }

        Assert.True(bench.State.HasUncoveredWrites);
        bench.State.Adopt(new BackendSession(8, Guid.NewGuid(), bench.State.Info));
        Assert.NotNull(bench.State.Failure);
        Assert.Equal(new BlockCompletion(1, Errno.EIO, 0), bench.Finish());
    }

    [Fact]
    public void Closing_drains_and_frees_the_channel()
    {
        using var bench = new ChannelBench();
        bench.Attach();
        bench.Queue.BeginClose();
        Assert.Equal(ClaimState.Closing, bench.Word.State);
        bench.Group.Poll();
        Assert.Equal(ClaimState.Detached, bench.Word.State);
        bench.PollQueue([]);
        Assert.Equal(QueuePhase.Closed, bench.Queue.Phase);
        Assert.Equal(ClaimState.Free, bench.Word.State);
        Assert.Equal(0, bench.Group.Count);
    }

    [Fact]
    public void A_withdrawn_offer_cannot_be_attached()
    {
        using var bench = new ChannelBench();
        bench.Queue.Offer();
        bench.Queue.BeginClose();
        Assert.Equal(QueuePhase.Closed, bench.Queue.Phase);
        Assert.False(bench.Group.TryAttach(bench.Layout.Channel));
        Assert.Equal(ClaimState.Free, bench.Word.State);
    }
}
