using Cbd.Blocks;
using Cbd.Disks;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Disks;

/// <summary>A memory disk as a handler uses it: payload goes between the region and the disk with no buffer between.</summary>
public sealed class Blocks_in_memory : IDisposable
{
    private const int Cluster = 64 << 10;
    private const int Size = 16 * Cluster;
    private readonly Disk _disk = Disk.Open(new DiskOptions { Path = $"memory:{Size}" });
    private readonly IBlockQueue _queue;
    private readonly IBlocksInMemory _blocks;

    public Blocks_in_memory()
    {
        _queue = _disk.OpenQueue(1);
        _blocks = Assert.IsType<IBlocksInMemory>(_queue, exactMatch: false);
    }

    /// <summary>Inside a cluster, up to its end and from it on, over an end, whole ones, and whole ones with more on either side.</summary>
    public static TheoryData<int, int> Ranges => new()
    {
        { 4096, 4096 }, { Cluster - 512, 512 }, { Cluster, 1024 }, { Cluster - 1024, 4096 }, { Cluster, Cluster },
        { 2 * Cluster, 3 * Cluster }, { Cluster - 512, Cluster + 512 }, { Cluster, Cluster + 512 }, { Cluster - 512, 3 * Cluster + 1024 },
        { 0, Size }, { Size - 512, 512 },
    };

    public void Dispose()
    {
        _queue.Dispose();
        _disk.Dispose();
    }

    [Theory]
    [MemberData(nameof(Ranges))]
    public void Have_what_was_written_when_the_write_ends_and_not_before(int offset, int length)
    {
        byte[] before = Fill(0, Size, 1);
        byte[] bytes = Bytes(length, 2);
        BeginWrite(_blocks, offset, bytes);
        Assert.Equal(before, ReadAll());
        _blocks.EndWrite();
        bytes.CopyTo(before, offset);
        Assert.Equal(before, ReadAll());
        // The clusters that were exchanged are spare now, and were not the disk's when they are filled.
        bytes = Bytes(length, 3);
        BeginWrite(_blocks, offset, bytes);
        Assert.Equal(before, ReadAll());
        _blocks.EndWrite();
        bytes.CopyTo(before, offset);
        Assert.Equal(before, ReadAll());
    }

    [Theory]
    [MemberData(nameof(Ranges))]
    public void Are_as_they_were_when_a_write_is_abandoned(int offset, int length)
    {
        byte[] before = Fill(0, Size, 1);
        for (int i = 0; i < 3; i++)
        {
            BeginWrite(_blocks, offset, Bytes(length, 2));
            _blocks.AbandonWrite();
            Assert.Equal(before, ReadAll());
        }

        Fill(offset, length, 3).CopyTo(before, offset);
        Assert.Equal(before, ReadAll());
    }

    [Theory]
    [MemberData(nameof(Ranges))]
    public void Are_not_confirmed_if_somebody_wrote_to_them_while_they_were_copied_and_are_read_anew(int offset, int length)
    {
        Fill(0, Size, 1);
        using IBlockQueue other = _disk.OpenQueue(1);
        byte[] bytes = Bytes(length, 2);
        Assert.True(_blocks.TryBeginRead(0, Size));
        _blocks.NextToRead();
        BeginWrite((IBlocksInMemory)other, offset, bytes);
        ((IBlocksInMemory)other).EndWrite();
        Assert.False(_blocks.ConfirmRead());
        byte[] read = FinishRead(Size);
        Assert.Equal(bytes, read[offset..(offset + length)]);

        Assert.True(_blocks.TryBeginRead(offset, length));
        _blocks.NextToRead();
        using var driver = new DiskDriver(_disk);
        Assert.Equal(0, driver.Do(BlockOperation.Discard, offset, length).Error);
        Assert.False(_blocks.ConfirmRead());
        Assert.Equal(new byte[length], FinishRead(length));
    }

    [Fact]
    public void Are_confirmed_if_somebody_wrote_elsewhere()
    {
        using IBlockQueue other = _disk.OpenQueue(1);
        Assert.True(_blocks.TryBeginRead(Cluster, Cluster));
        _blocks.NextToRead();
        BeginWrite((IBlocksInMemory)other, 0, Bytes(Cluster, 1));
        ((IBlocksInMemory)other).EndWrite();
        BeginWrite((IBlocksInMemory)other, 2 * Cluster, Bytes(512, 1));
        ((IBlocksInMemory)other).EndWrite();
        Assert.True(_blocks.ConfirmRead());
    }

    [Theory]
    [InlineData(-512, 512)]
    [InlineData(Size, 512)]
    [InlineData(Size - 512, 1024)]
    [InlineData(100, 512)]
    [InlineData(0, 100)]
    [InlineData(0, 0)]
    public void Refuse_what_a_request_could_not_have(long offset, long length)
    {
        Assert.False(_blocks.TryBeginRead(offset, length));
        Assert.False(_blocks.TryBeginWrite(offset, length));
    }

    [Fact]
    public void Refuse_a_write_of_a_disk_that_is_read_only()
    {
        using var disk = Disk.Open(new DiskOptions { Path = "memory:1M", ReadOnly = true });
        using IBlockQueue queue = disk.OpenQueue(1);
        Assert.True(((IBlocksInMemory)queue).TryBeginRead(0, 4096));
        Assert.False(((IBlocksInMemory)queue).TryBeginWrite(0, 4096));
    }

    [Fact]
    public void Change_cluster_by_cluster_in_the_eyes_of_other_queues_and_stay_in_their_places()
    {
        const int Rounds = 3_000;
        const int Wide = 4 * Cluster;
        using var disk = Disk.Open(new DiskOptions { Path = $"memory:{Wide}" });
        // Whatever anybody writes leaves a cluster of one value, which says its place; a discard leaves zeroes.
        var writers = Enumerable.Range(0, 3).Select(id => new Thread(() =>
        {
            using IBlockQueue queue = disk.OpenQueue(1);
            using var driver = new DiskDriver(disk);
            var random = new Random(id);
            for (int i = 0; i < Rounds; i++)
            {
                int first = random.Next(4), count = random.Next(1, 5 - first);
                int stamp = random.Next(1, 64);
                if (id == 2 && i % 4 == 0)
                {
                    Assert.Equal(0, driver.Do(BlockOperation.Discard, (long)first * Cluster, (long)count * Cluster).Error);
                    continue;
                }

                byte[] bytes = new byte[count * Cluster];
                for (int place = 0; place < count; place++)
                    bytes.AsSpan(place * Cluster, Cluster).Fill(Stamp(first + place, stamp));
                BeginWrite((IBlocksInMemory)queue, first * Cluster, bytes);
                ((IBlocksInMemory)queue).EndWrite();
            }
        })).ToList();
        writers.Add(new Thread(() =>
        {
            // In place, and of one value over the whole cluster, too.
            using var driver = new DiskDriver(disk);
            byte[] bytes = new byte[Cluster];
            for (int i = 0; i < Rounds; i++)
            {
                Array.Fill(bytes, Stamp(i % 4, i));
                Assert.Equal(0, driver.Write(i % 4 * Cluster, bytes).Error);
            }
        }));
        foreach (Thread writer in writers)
            writer.Start();
        using IBlockQueue reader = disk.OpenQueue(1);
        var blocks = (IBlocksInMemory)reader;
        byte[] read = new byte[Wide];
        int looks = 0, torn = 0;
        while (writers.Exists(w => w.IsAlive) || looks == 0)
        {
            looks++;
            Assert.True(blocks.TryBeginRead(0, Wide));
            for (int done = 0; done < Wide;)
            {
                ReadOnlySpan<byte> run = blocks.NextToRead();
                run.CopyTo(read.AsSpan(done));
                if (blocks.ConfirmRead())
                    done += run.Length;
            }

            for (int place = 0; place < 4; place++)
            {
                Span<byte> cluster = read.AsSpan(place * Cluster, Cluster);
                if (cluster.ContainsAnyExcept(cluster[0]) || (cluster[0] != 0 && cluster[0] % 4 != place))
                    torn++;
            }
        }

        Assert.Equal(0, torn);
    }

    [Fact]
    public void Of_spare_clusters_serve_other_queues_when_one_is_closed()
    {
        Fill(0, Size, 1);
        byte[] bytes = Bytes(Size, 2);
        // More than the spare clusters there are.
        for (int i = 0; i < 1200; i++)
        {
            using IBlockQueue queue = _disk.OpenQueue(1);
            var blocks = (IBlocksInMemory)queue;
            Assert.True(blocks.TryBeginWrite(0, Size));
            // Together still, as at first.
            Span<byte> run = blocks.NextToWrite();
            Assert.Equal(Size, run.Length);
            bytes.CopyTo(run);
            blocks.EndWrite();
        }

        Assert.Equal(bytes, ReadAll());
    }

    [Fact]
    public void That_somebody_always_writes_to_are_read_all_the_same()
    {
        using IBlockQueue other = _disk.OpenQueue(1);
        var writer = (IBlocksInMemory)other;
        byte[] expected = Fill(0, Size, 1);
        byte[] read = new byte[Size];
        Assert.True(_blocks.TryBeginRead(0, Size));
        int seed = 2, copied = 0;
        for (int done = 0; done < Size; copied++)
        {
            ReadOnlySpan<byte> run = _blocks.NextToRead();
            run.CopyTo(read.AsSpan(done));
            byte[] bytes = Bytes(4096, seed++);
            BeginWrite(writer, done, bytes);
            writer.EndWrite();
            if (!_blocks.ConfirmRead())
            {
                bytes.CopyTo(expected, done);
                continue;
            }

            Assert.Equal(Cluster, run.Length);
            done += run.Length;
        }

        Assert.Equal(expected, read);
        // At first all of it, then each cluster where it is and, locked, once more.
        Assert.Equal(1 + 2 * (Size / Cluster), copied);
    }

    [Fact]
    public void Are_zeroes_when_a_discard_has_ended_though_another_one_is_clearing_them()
    {
        const int Rounds = 50;
        using var disk = Disk.Open(new DiskOptions { Path = "memory:64M" });
        using var barrier = new Barrier(2);
        int left = 0;
        var threads = Enumerable.Range(0, 2).Select(id => new Thread(() =>
        {
            using var driver = new DiskDriver(disk);
            for (int i = 0; i < Rounds; i++)
            {
                if (id == 0)
                {
                    for (long at = 0; at < 64 << 20; at += Cluster)
                        Assert.Equal(0, driver.Write(at, Bytes(4096, i)).Error);
                }

                barrier.SignalAndWait();
                // One of the two is first; the other must not be done before the last block is cleared.
                Assert.Equal(0, driver.Do(BlockOperation.Discard, 0, 64 << 20).Error);
                if (driver.Read((64 << 20) - Cluster, 4096).AsSpan().ContainsAnyExcept((byte)0))
                    Interlocked.Increment(ref left);
                barrier.SignalAndWait();
            }
        })).ToList();
        threads.ForEach(t => t.Start());
        threads.ForEach(t => t.Join());
        Assert.Equal(0, left);
    }

    private static byte Stamp(int place, int value) => (byte)(value % 64 * 4 + place);

    private static byte[] Bytes(int length, int seed)
    {
        byte[] bytes = new byte[length];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }

    private static void BeginWrite(IBlocksInMemory blocks, int offset, ReadOnlySpan<byte> bytes)
    {
        Assert.True(blocks.TryBeginWrite(offset, bytes.Length));
        while (bytes.Length > 0)
        {
            Span<byte> run = blocks.NextToWrite();
            bytes[..run.Length].CopyTo(run);
            bytes = bytes[run.Length..];
        }
    }

    private byte[] Fill(int offset, int length, int seed)
    {
        byte[] bytes = Bytes(length, seed);
        BeginWrite(_blocks, offset, bytes);
        _blocks.EndWrite();
        return bytes;
    }

    /// <summary>By another queue: this one may be in the middle of a write.</summary>
    private byte[] ReadAll() => Read(0, Size);

    private byte[] Read(int offset, int length)
    {
        using var driver = new DiskDriver(_disk);
        return driver.Read(offset, length);
    }

    private byte[] FinishRead(int length)
    {
        byte[] read = new byte[length];
        for (int done = 0; done < length;)
        {
            ReadOnlySpan<byte> run = _blocks.NextToRead();
            run.CopyTo(read.AsSpan(done));
            Assert.True(_blocks.ConfirmRead());
            done += run.Length;
        }

        return read;
    }
}
