using Cbd.Blocks;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Channels;

/// <summary>The region's memory goes away under a channel, between a line and the payload that it speaks of.</summary>
public class PoisonedChannelTests
{
    private static void WriteOld(ChannelBench bench, NativeBuffer buffer)
    {
        bench.Attach();
        buffer.GetSpan(0, 8192).Fill(0xEE);
        Assert.True(bench.Queue.TrySubmit(new BlockRequest(1, BlockOperation.Write, BlockFlags.None, 0, 8192, new BufferSlice(buffer, 0, 8192))));
        Assert.Equal(0, bench.Finish().Error);
    }

    [Theory]
    [InlineData(true, true)]
    [InlineData(true, false)]
    [InlineData(false, true)]
    [InlineData(false, false)]
    public void Zeroes_of_a_failed_memory_do_not_reach_the_disk(bool isInMemory, bool payloadCrc)
    {
        using var bench = new ChannelBench(payloadCrc, isInMemory: isInMemory);
        using var buffer = new NativeBuffer(8192);
        WriteOld(bench, buffer);
        buffer.GetSpan(0, 8192).Fill(0x11);
        Assert.True(bench.Queue.TrySubmit(new BlockRequest(2, BlockOperation.Write, BlockFlags.None, 0, 8192, new BufferSlice(buffer, 0, 8192))));
        bench.PollQueue([]);
        bench.Truncate(bench.Layout.WritePoolOffset);
        bench.Group.Poll();
        bench.Group.Poll();
        Assert.True(bench.Memory.IsPoisoned);
        Assert.All(bench.ReadDisk(0, 8192), b => Assert.Equal(0xEE, b));
        Assert.Equal(new BlockCompletion(2, Errno.EIO, 0), bench.Finish());
        Assert.Contains("truncated", bench.State.Failure, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Zeroes_of_a_failed_memory_are_not_read(bool payloadCrc)
    {
        using var bench = new ChannelBench(payloadCrc);
        using var buffer = new NativeBuffer(8192);
        WriteOld(bench, buffer);
        Assert.True(bench.Queue.TrySubmit(new BlockRequest(2, BlockOperation.Read, BlockFlags.None, 0, 8192, new BufferSlice(buffer, 0, 8192))));
        bench.PollQueue([]);
        bench.Group.Poll();
        bench.Truncate(bench.Layout.ReadPoolOffset);
        Assert.Equal(new BlockCompletion(2, Errno.EIO, 0), bench.Finish());
        Assert.True(bench.Memory.IsPoisoned);
    }
}
