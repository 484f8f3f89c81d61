using System.Diagnostics;
using Cbd.Blocks;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Library;

/// <summary>What becomes of requests in flight when a queue, a blkdev, a host or a buffer goes.</summary>
public sealed class Queues_of_a_local_host : IDisposable
{
    private const int Block = 4096;

    private readonly LocalRegion _region = new();
    private readonly LocalHost _host;

    public Queues_of_a_local_host() => _host = _region.Join();

    public void Dispose() => _region.Dispose();

    private static BlockRequest Write(ulong cookie, NativeBuffer buffer, long offset = 0) =>
        new(cookie, BlockOperation.Write, 0, offset, Block, new BufferSlice(buffer, 0, Block));

    private static BlockRequest Read(ulong cookie, NativeBuffer buffer, long offset = 0) =>
        new(cookie, BlockOperation.Read, 0, offset, Block, new BufferSlice(buffer, 0, Block));

    private static NativeBuffer Filled(byte value)
    {
        var buffer = new NativeBuffer(Block);
        buffer.GetSpan(0, Block).Fill(value);
        return buffer;
    }

    private static BlockCompletion Finish(IBlockQueue queue, int seconds = 180)
    {
        var one = new BlockCompletion[1];
        var watch = Stopwatch.StartNew();
        while (queue.Poll(one) == 0)
        {
            Assert.True(watch.Elapsed < TimeSpan.FromSeconds(seconds), "no completion");
            queue.Wait(10_000);
        }

        return one[0];
    }

    /// <summary>Submits, and polls until the command is on its way to the disk, where a fault holds it.</summary>
    private static void Send(IBlockQueue queue, BlockRequest request)
    {
        Assert.True(queue.TrySubmit(request));
        for (int i = 0; i < 20; i++)
        {
            Assert.Equal(0, queue.Poll(new BlockCompletion[1]));
            Thread.Sleep(2);
        }
    }

    [Fact]
    public void That_are_disposed_have_done_their_requests()
    {
        int backend = _region.StartBackend("memory:16M", "delay,ms=300,op=write");
        using LocalBlkdev blkdev = _host.OpenBlkdev(backend);
        using NativeBuffer written = Filled(7), read = Filled(0);
        IBlockQueue first = blkdev.OpenQueue(4);
        Assert.True(first.TrySubmit(Write(1, written)));
        first.Dispose();
        using IBlockQueue second = blkdev.OpenQueue(4);
        Assert.Equal(0, second.Outstanding);
        Assert.True(second.TrySubmit(Read(2, read)));
        Assert.Equal(new BlockCompletion(2, 0, Block), Finish(second));
        Assert.Equal(7, read.GetSpan(0, 1)[0]);
    }

    [Fact]
    public void That_are_disposed_while_the_disk_hangs_wait_with_a_limit_and_no_later_request_is_overtaken()
    {
        int backend = _region.StartBackend("memory:16M");
        using LocalBlkdev blkdev = _host.OpenBlkdev(backend, queues: 2);
        using IBlockQueue other = blkdev.OpenQueue(4);
        using NativeBuffer later = Filled(2), read = Filled(0);
        _region.SetFault(backend, "stuck,op=write,count=1");
        IBlockQueue first = blkdev.OpenQueue(4);
        NativeBuffer early = Filled(9);
        Send(first, Write(1, early));
        var watch = Stopwatch.StartNew();
        first.Dispose();
        Assert.InRange(watch.Elapsed.TotalSeconds, 5, 180);
        early.Dispose();
        Assert.True(other.TrySubmit(Write(2, later)));
        for (int i = 0; i < 50; i++)
        {
            Assert.Equal(0, other.Poll(new BlockCompletion[4]));
            Thread.Sleep(2);
        }

        // Nobody has the first queue when its command ends.
        _region.SetFault(backend, "off");
        Assert.Equal(new BlockCompletion(2, 0, 0), Finish(other));
        using IBlockQueue second = blkdev.OpenQueue(4);
        Assert.Equal(0, second.Outstanding);
        Assert.Equal(0, second.Poll(new BlockCompletion[4]));
        Assert.True(second.TrySubmit(Read(3, read)));
        Assert.Equal(new BlockCompletion(3, 0, Block), Finish(second));
        Assert.Equal(2, read.GetSpan(0, 1)[0]);
    }

    [Fact]
    public void That_are_disposed_while_the_backend_is_away_end_at_once_and_touch_no_buffer()
    {
        string disk = Path.Combine(Path.GetTempPath(), $"cbd-local-{Guid.NewGuid():N}");
        File.WriteAllBytes(disk, new byte[1 << 20]);
        try
        {
            int backend = _region.StartBackend(disk);
            using LocalBlkdev blkdev = _host.OpenBlkdev(backend, queues: 2);
            using IBlockQueue other = blkdev.OpenQueue(4);
            IBlockQueue first = blkdev.OpenQueue(4);
            // Its answer is in the channel when the backend goes, and nobody takes it.
            NativeBuffer read = Filled(0xEE);
            Assert.True(read.TryAddReference());
            Assert.True(first.TrySubmit(Read(1, read)));
            Assert.Equal(0, first.Poll([]));
            _region.LeaveBackend(backend);
            Assert.True(other.TrySubmit(new BlockRequest(2, BlockOperation.Flush, 0, 0, 0, default)));
            for (int i = 0; i < 100; i++)
            {
                Assert.Equal(0, other.Poll(new BlockCompletion[1]));
                Thread.Sleep(2);
            }

            // Far less than it would wait for a backend that is there.
            ((LocalQueue)first).DrainLimitMs = 600_000;
            var watch = Stopwatch.StartNew();
            first.Dispose();
            Assert.InRange(watch.Elapsed.TotalSeconds, 0, 300);
            read.Dispose();
            read.GetSpan(0, Block).Fill(0xDD);
            Assert.Equal(backend, _region.StartBackend(disk, backend: backend));
            Assert.Equal(new BlockCompletion(2, 0, 0), Finish(other));
            using IBlockQueue second = blkdev.OpenQueue(4);
            using NativeBuffer again = Filled(1);
            Assert.True(second.TrySubmit(Read(3, again)));
            Assert.Equal(new BlockCompletion(3, 0, Block), Finish(second));
            Assert.False(read.GetSpan(0, Block).ContainsAnyExcept((byte)0xDD));
            read.ReleaseReference();
        }
        finally
        {
            File.Delete(disk);
        }
    }

    [Fact]
    public void That_nobody_has_opened_do_not_keep_the_others_from_a_backend_that_comes_back()
    {
        string disk = Path.Combine(Path.GetTempPath(), $"cbd-local-{Guid.NewGuid():N}");
        File.WriteAllBytes(disk, new byte[1 << 20]);
        try
        {
            int backend = _region.StartBackend(disk);
            using LocalBlkdev blkdev = _host.OpenBlkdev(backend, queues: 3);
            using IBlockQueue queue = blkdev.OpenQueue(4);
            blkdev.OpenQueue(4).Dispose();
            using NativeBuffer buffer = Filled(1);
            Assert.True(queue.TrySubmit(Write(1, buffer)));
            Assert.Equal(0, Finish(queue).Error);
            _region.LeaveBackend(backend);
            Assert.Equal(backend, _region.StartBackend(disk, backend: backend));
            Assert.True(queue.TrySubmit(Read(2, buffer)));
            Assert.Equal(new BlockCompletion(2, 0, Block), Finish(queue));
        }
        finally
        {
            File.Delete(disk);
        }
    }

    [Fact]
    public async Task Of_a_blkdev_that_is_disposed_answer_ESHUTDOWN_and_touch_no_buffer()
    {
        int backend = _region.StartBackend("memory:16M");
        LocalBlkdev blkdev = _host.OpenBlkdev(backend);
        IBlockQueue queue = blkdev.OpenQueue(2);
        _region.SetFault(backend, "stuck,op=read,count=1");
        using NativeBuffer read = Filled(0xEE);
        Send(queue, Read(1, read));
        Task release = Task.Run(async () =>
        {
            await Task.Delay(500, TestContext.Current.CancellationToken);
            _region.SetFault(backend, "off");
        }, TestContext.Current.CancellationToken);
        blkdev.Dispose();
        await release;
        Assert.Equal(1, queue.Outstanding);
        Assert.Equal(new BlockCompletion(1, Errno.ESHUTDOWN, 0), Finish(queue));
        Assert.False(read.GetSpan(0, Block).ContainsAnyExcept((byte)0xEE));
        Assert.True(queue.TrySubmit(Read(2, read)));
        Assert.True(queue.TrySubmit(Read(3, read)));
        Assert.False(queue.TrySubmit(Read(4, read)));
        Assert.Equal(2, queue.Outstanding);
        Assert.Equal(new BlockCompletion(2, Errno.ESHUTDOWN, 0), Finish(queue));
        Assert.Equal(new BlockCompletion(3, Errno.ESHUTDOWN, 0), Finish(queue));
        Assert.Throws<ObjectDisposedException>(() => blkdev.OpenQueue(1));
        queue.Dispose();
        blkdev.Dispose();
        // Its channel is another blkdev's by now.
        using LocalBlkdev next = _host.OpenBlkdev(backend);
        Assert.Equal(blkdev.Id, next.Id);
        blkdev.Dispose();
        using IBlockQueue working = next.OpenQueue(1);
        Assert.True(working.TrySubmit(Read(5, read)));
        Assert.Equal(new BlockCompletion(5, 0, Block), Finish(working));
    }

    [Fact]
    public void Are_taken_from_a_thread_that_sleeps_in_one_when_the_host_is_disposed()
    {
        int backend = _region.StartBackend("memory:16M");
        LocalBlkdev blkdev = _host.OpenBlkdev(backend, queues: 2);
        using NativeBuffer buffer = Filled(3);
        var users = new List<Thread>();
        var ends = new List<int>();
        for (int i = 0; i < 2; i++)
        {
            IBlockQueue queue = blkdev.OpenQueue(4);
            bool isBusy = i == 0;
            users.Add(new Thread(() =>
            {
                var one = new BlockCompletion[1];
                int error = 0;
                while (error == 0)
                {
                    if (isBusy)
                        queue.TrySubmit(Read(1, buffer));
                    else if (queue.Outstanding == 0)
                        queue.Wait(60_000_000);
                    if (queue.Poll(one) == 1)
                        error = one[0].Error;
                    else if (!isBusy)
                        queue.TrySubmit(new BlockRequest(2, BlockOperation.Flush, 0, 0, 0, default));
                }

                lock (ends)
                    ends.Add(error);
                queue.Dispose();
            }));
            users[i].Start();
        }

        Thread.Sleep(200);
        var watch = Stopwatch.StartNew();
        _host.Dispose();
        Assert.InRange(watch.Elapsed.TotalSeconds, 0, 180);
        Assert.All(users, user => Assert.True(user.Join(180_000)));
        Assert.Equal([Errno.ESHUTDOWN, Errno.ESHUTDOWN], ends);
        blkdev.Dispose();
        _host.Dispose();
        Assert.Throws<ObjectDisposedException>(() => _host.OpenBlkdev(backend));
        Assert.Throws<ObjectDisposedException>(_host.ListBackends);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Keep_a_buffer_that_is_disposed_early_until_its_requests_have_ended(bool isGivenToTheQueue)
    {
        int backend = _region.StartBackend("memory:16M");
        using LocalBlkdev blkdev = _host.OpenBlkdev(backend);
        var buffer = Filled(5);
        IBlockQueue queue = blkdev.OpenQueue(4, isGivenToTheQueue ? buffer : null);
        _region.SetFault(backend, "stuck,op=read,count=1");
        Send(queue, Read(1, buffer));
        Assert.True(queue.TrySubmit(Write(2, buffer, Block)));
        buffer.Dispose();
        buffer.Dispose();
        Assert.Equal(5, buffer.GetSpan(0, 1)[0]);
        _region.SetFault(backend, "off");
        Assert.Equal((0, 0), (Finish(queue).Error, Finish(queue).Error));
        // One that is not the queue's own is freed by now.
        if (!isGivenToTheQueue)
        {
            Assert.Throws<ObjectDisposedException>(() => buffer.Address);
            Assert.True(queue.TrySubmit(Read(3, buffer)));
            Assert.Equal(new BlockCompletion(3, Errno.EFAULT, 0), Finish(queue));
        }

        queue.Dispose();
        Assert.Throws<ObjectDisposedException>(() => buffer.Address);
        Assert.Throws<ObjectDisposedException>(() => blkdev.OpenQueue(4, buffer));
        using IBlockQueue next = blkdev.OpenQueue(4);
        Assert.Equal(0, next.Outstanding);
    }
}
