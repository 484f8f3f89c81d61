using Cbd.Blocks;
using Cbd.Disks;
using Cbd.Exports.Nbd.Client;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Exports;

public sealed class NbdClientDeviceTests
{
    [Fact]
    public void What_it_writes_it_reads_back_in_blocks_small_and_large()
    {
        using Disk disk = Disk.Open(new DiskOptions { Path = "memory:16M" });
        using var server = new NbdTestServer(disk);
        using NbdClientDevice device = NbdClientDevice.Connect(server.Export.Uri, timeoutMs: 180_000);
        using var buffer = new NativeBuffer(4 << 20);
        using IBlockQueue queue = device.OpenQueue(8, buffer);
        Assert.Equal(16 << 20, device.Info.SizeBytes);
        foreach (int length in new[] { 512, 4096, 100 * 512, 1 << 20, 2 << 20 })
        {
            var written = new BufferSlice(buffer, 0, length);
            new Random(length).NextBytes(written.Span);
            Assert.Equal(0, Run(queue, BlockOperation.Write, 512, written).Error);
            Assert.Equal(0, Run(queue, BlockOperation.Flush, 0, default).Error);
            var read = new BufferSlice(buffer, 2 << 20, length);
            read.Span.Clear();
            Assert.Equal(new BlockCompletion(7, 0, length), Run(queue, BlockOperation.Read, 512, read));
            Assert.True(written.Span.SequenceEqual(read.Span));
        }
    }

    [Fact]
    public void Many_requests_in_flight_all_end_with_their_own_data()
    {
        using Disk disk = Disk.Open(new DiskOptions { Path = "memory:16M" });
        using var server = new NbdTestServer(disk);
        using NbdClientDevice device = NbdClientDevice.Connect(server.Export.Uri, timeoutMs: 180_000);
        const int depth = 64;
        const int block = 64 << 10;
        using var buffer = new NativeBuffer(depth * block);
        using IBlockQueue queue = device.OpenQueue(depth, buffer);
        foreach (BlockOperation operation in new[] { BlockOperation.Write, BlockOperation.Read })
        {
            for (int i = 0; i < depth; i++)
            {
                var data = new BufferSlice(buffer, i * block, block);
                data.Span.Fill(operation == BlockOperation.Write ? (byte)(i + 1) : (byte)0);
                Assert.True(queue.TrySubmit(new BlockRequest((ulong)i, operation, BlockFlags.None, i * block, block, data)));
            }

            var completions = new BlockCompletion[depth];
            for (int ended = 0; ended < depth;)
            {
                int count = queue.Poll(completions);
                Assert.All(completions.AsSpan(0, count).ToArray(), c => Assert.Equal(0, c.Error));
                ended += count;
                if (count == 0)
                    queue.Wait(10_000);
            }
        }

        for (int i = 0; i < depth; i++)
            Assert.False(buffer.GetSpan(i * block, block).ContainsAnyExcept((byte)(i + 1)));
    }

    [Fact]
    public void What_is_outside_the_device_is_refused_and_the_connection_goes_on()
    {
        using Disk disk = Disk.Open(new DiskOptions { Path = "memory:1M" });
        using var server = new NbdTestServer(disk);
        using NbdClientDevice device = NbdClientDevice.Connect(server.Export.Uri, timeoutMs: 180_000);
        using var buffer = new NativeBuffer(4096);
        using IBlockQueue queue = device.OpenQueue(2, buffer);
        var data = new BufferSlice(buffer, 0, 4096);
        Assert.Equal(Errno.EINVAL, Run(queue, BlockOperation.Read, 1 << 20, data).Error);
        Assert.Equal(0, Run(queue, BlockOperation.Read, 0, data).Error);
    }

    [Fact]
    public void A_server_that_goes_ends_its_requests_with_EIO()
    {
        using Disk disk = Disk.Open(new DiskOptions { Path = "memory:1M" });
        var server = new NbdTestServer(disk);
        using NbdClientDevice device = NbdClientDevice.Connect(server.Export.Uri, timeoutMs: 180_000);
        using var buffer = new NativeBuffer(4096);
        using IBlockQueue queue = device.OpenQueue(2, buffer);
        var data = new BufferSlice(buffer, 0, 4096);
        Assert.Equal(0, Run(queue, BlockOperation.Read, 0, data).Error);
        server.Dispose();
        Assert.Equal(Errno.EIO, Run(queue, BlockOperation.Read, 0, data).Error);
        Assert.Equal(Errno.EIO, Run(queue, BlockOperation.Read, 0, data).Error);
    }

    [Theory]
    [InlineData("http://host/", "use nbd://")]
    [InlineData("nothing", "use nbd://")]
    [InlineData("nbd+unix:///name", "?socket=PATH")]
    public void A_URI_of_another_kind_is_refused(string uri, string why) =>
        Assert.Contains(why, Assert.Throws<CbdException>(() => NbdClientDevice.Connect(uri)).Message);

    [Fact]
    public void Where_nobody_listens_the_error_names_the_server() =>
        Assert.Contains("/nowhere.sock", Assert.Throws<CbdException>(() => NbdClientDevice.Connect("nbd+unix:///?socket=/nowhere.sock")).Message);

    private static BlockCompletion Run(IBlockQueue queue, BlockOperation operation, long offset, BufferSlice data)
    {
        Assert.True(queue.TrySubmit(new BlockRequest(7, operation, BlockFlags.None, offset, data.Length, data)));
        var completions = new BlockCompletion[1];
        while (queue.Poll(completions) == 0)
            queue.Wait(100_000);
        return completions[0];
    }
}
