using Cbd.Blocks;
using Cbd.Disks;
using Cbd.Memory;
using CsCheck;
using Xunit;

namespace Cbd.Tests.Disks;

/// <summary>The same behaviour from every kind of disk and every engine, and from blkdevs on them.</summary>
public class Every_disk
{
    public static TheoryData<string> Kinds { get; } =
    [
        "memory", "file io_uring", "file pread", "tmpfs io_uring", "tmpfs pread", "loop io_uring", "loop pread",
        "blkdev memory", "blkdev file io_uring", "blkdev file pread", "blkdev tmpfs pread",
    ];

    public static TheoryData<string> KindsOfFiles { get; } = ["file io_uring", "file pread", "blkdev file io_uring", "blkdev file pread"];

    public static TheoryData<string> KindsWithLock { get; } = ["file io_uring", "file pread", "loop io_uring", "loop pread"];

    private static byte[] Pattern(int length, int seed)
    {
        var bytes = new byte[length];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Reads_what_was_written_and_zeroes_elsewhere(string kind)
    {
        using var test = new TestDisk(kind);
        using var driver = new DiskDriver(test.Device);
        Assert.Equal(TestDisk.SizeBytes, test.Device.Info.SizeBytes);
        byte[] bytes = Pattern(12288, 1);
        Assert.Equal(0, driver.Write(4096 + 512, bytes).Error);
        byte[] expected = new byte[20480];
        bytes.CopyTo(expected, 4096 + 512);
        Assert.Equal(expected, driver.Read(0, 20480));
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Agrees_with_a_model_under_any_sequence_of_requests(string kind)
    {
        using var test = new TestDisk(kind);
        using var driver = new DiskDriver(test.Device);
        const int Blocks = 256;
        var model = new BlockModel(Blocks);
        var genRequest = Gen.Select(
            Gen.Int[1, 7].Select(operation => (BlockOperation)operation),
            Gen.Int[0, Blocks - 1], Gen.Int[1, 96], Gen.Int[0, 7], Gen.Int);
        genRequest.List[1, 30].Sample(
            requests =>
            {
                foreach (var (operation, block, count, flags, seed) in requests)
                    model.Apply(driver, operation, block, Math.Min(count, Blocks - block), (BlockFlags)flags, seed);
            },
            iter: 60, threads: 1);
        model.VerifyAll(driver);
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Keeps_64_requests_apart_that_are_in_flight_together(string kind)
    {
        const int Depth = 64;
        const int LaneBytes = 64 << 10;
        const int Rounds = 40;
        using var test = new TestDisk(kind);
        using var driver = new DiskDriver(test.Device, Depth, (long)Depth * LaneBytes);
        var completions = new BlockCompletion[Depth];
        var random = new Random(7);
        var written = new byte[Depth][];
        var rounds = new int[Depth];
        for (int lane = 0; lane < Depth; lane++)
            Submit(lane);
        int finished = 0;
        while (finished < Depth)
        {
            int count = driver.Queue.Poll(completions);
            for (int i = 0; i < count; i++)
            {
                int lane = (int)completions[i].Cookie;
                Assert.Equal(0, completions[i].Error);
                if (rounds[lane] % 2 == 1)
                {
                    Assert.Equal(written[lane].Length, completions[i].Result);
                    Assert.True(driver.Slice((long)lane * LaneBytes, written[lane].Length).Span.SequenceEqual(written[lane]));
                }
                if (++rounds[lane] < Rounds)
                    Submit(lane);
                else
                    finished++;
            }
            if (count == 0)
                driver.Queue.Wait(1_000_000);
        }
        Assert.Equal(0, driver.Queue.Outstanding);

        void Submit(int lane)
        {
            bool reads = rounds[lane] % 2 == 1;
            if (!reads)
                written[lane] = Pattern(512 * random.Next(1, LaneBytes / 512 + 1), random.Next());
            var slice = driver.Slice((long)lane * LaneBytes, written[lane].Length);
            if (reads)
                slice.Span.Clear();
            else
                written[lane].CopyTo(slice.Span);
            Assert.True(driver.Queue.TrySubmit(new BlockRequest(
                (ulong)lane, reads ? BlockOperation.Read : BlockOperation.Write, 0, (long)lane * LaneBytes, slice.Length, slice)));
        }
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Makes_zeroes_by_discard_and_by_write_zeroes_in_every_variant(string kind)
    {
        using var test = new TestDisk(kind);
        using var driver = new DiskDriver(test.Device);
        foreach (var flags in new[] { BlockFlags.None, BlockFlags.NoUnmap, BlockFlags.ForceUnitAccess, BlockFlags.NoUnmap | BlockFlags.ForceUnitAccess })
        {
            byte[] bytes = Pattern(128 << 10, 3);
            Assert.Equal(0, driver.Write(0, bytes, BlockFlags.ForceUnitAccess).Error);
            Assert.Equal(0, driver.Do(BlockOperation.WriteZeroes, 512, 100 << 10, flags).Error);
            bytes.AsSpan(512, 100 << 10).Clear();
            Assert.Equal(bytes, driver.Read(0, 128 << 10));
        }
        var fast = driver.Do(BlockOperation.WriteZeroes, 0, 64 << 10, BlockFlags.FastZero);
        Assert.Equal(test.Device.Info.CanZeroFast ? 0 : Errno.EOPNOTSUPP, fast.Error);
        Assert.Equal(0, driver.Do(BlockOperation.Discard, 0, 1 << 20, BlockFlags.ForceUnitAccess).Error);
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Answers_what_is_no_request_with_EINVAL(string kind)
    {
        using var test = new TestDisk(kind);
        using var driver = new DiskDriver(test.Device);
        var page = driver.Slice(0, 4096);
        (BlockOperation Operation, BlockFlags Flags, long Offset, long Length, int DataBytes)[] bad =
        [
            (BlockOperation.Read, 0, 100, 4096, 4096),
            (BlockOperation.Read, 0, 0, 100, 100),
            (BlockOperation.Read, 0, 0, 0, 0),
            (BlockOperation.Read, 0, 0, 4096, 512),
            (BlockOperation.Read, 0, TestDisk.SizeBytes, 512, 512),
            (BlockOperation.Read, 0, TestDisk.SizeBytes - 512, 1024, 1024),
            (BlockOperation.Read, 0, -512, 512, 512),
            (BlockOperation.Write, 0, long.MaxValue - 511, 512, 512),
            (BlockOperation.Write, 0, 512, long.MaxValue - 511, 512),
            (BlockOperation.Write, (BlockFlags)0x80, 0, 512, 512),
            (BlockOperation.Flush, 0, 512, 512, 0),
            (BlockOperation.Discard, 0, 0, -512, 0),
            (BlockOperation.WriteZeroes, 0, 0, TestDisk.SizeBytes + 512, 0),
            (BlockOperation.BlockStatus, 0, 0, 4096, 8),
            ((BlockOperation)99, 0, 0, 512, 512),
            (0, 0, 0, 0, 0),
        ];
        foreach (var (operation, flags, offset, length, dataBytes) in bad)
            Assert.Equal(Errno.EINVAL, driver.Do(operation, offset, length, flags, page.Slice(0, dataBytes)).Error);
        Assert.Equal(Errno.EINVAL, driver.Do(BlockOperation.Read, 0, 4096).Error);
        Assert.Equal(0, driver.Do(BlockOperation.Read, TestDisk.SizeBytes - 512, 512, data: page.Slice(0, 512)).Error);
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Refuses_to_change_when_it_is_read_only(string kind)
    {
        using var test = new TestDisk(kind, readOnly: true);
        using var driver = new DiskDriver(test.Device);
        Assert.True(test.Device.Info.ReadOnly);
        Assert.Equal(Errno.EPERM, driver.Write(0, new byte[512]).Error);
        Assert.Equal(Errno.EPERM, driver.Do(BlockOperation.Discard, 0, 512).Error);
        Assert.Equal(Errno.EPERM, driver.Do(BlockOperation.WriteZeroes, 0, 512).Error);
        Assert.Equal(0, driver.Do(BlockOperation.Flush, 0, 0).Error);
        Assert.Equal(new byte[512], driver.Read(0, 512));
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Offers_blocks_of_4096_when_told_to(string kind)
    {
        using var test = new TestDisk(kind, blockBytes: 4096);
        using var driver = new DiskDriver(test.Device);
        Assert.Equal(4096, test.Device.Info.LogicalBlockBytes);
        Assert.Equal(Errno.EINVAL, driver.Do(BlockOperation.Read, 512, 512, data: driver.Slice(0, 512)).Error);
        Assert.Equal(0, driver.Write(4096, new byte[4096]).Error);
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public async Task Ends_a_wait_when_interrupted(string kind)
    {
        using var test = new TestDisk(kind);
        using var driver = new DiskDriver(test.Device);
        driver.Queue.Interrupt();
        driver.Queue.Wait(int.MaxValue);
        for (int i = 0; i < 20; i++)
        {
            var sleeper = Task.Run(() => driver.Queue.Wait(int.MaxValue), TestContext.Current.CancellationToken);
            driver.Queue.Interrupt();
            await sleeper;
            Assert.Equal(0, driver.Queue.Poll(new BlockCompletion[4]));
            Assert.Equal(new byte[512], driver.Read(0, 512));
        }
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Takes_its_depth_and_drains_when_its_queue_is_closed(string kind)
    {
        using var test = new TestDisk(kind);
        var driver = new DiskDriver(test.Device, depth: 3);
        for (int i = 0; i < 3; i++)
        {
            driver.Slice(i * 4096, 4096).Span.Fill(9);
            Assert.True(driver.Queue.TrySubmit(new BlockRequest(
                (ulong)i, BlockOperation.Write, 0, i * 4096, 4096, driver.Slice(i * 4096, 4096))));
        }
        Assert.False(driver.Queue.TrySubmit(new BlockRequest(4, BlockOperation.Flush, 0, 0, 0, default)));
        Assert.Equal(3, driver.Queue.Outstanding);
        driver.Dispose();
        using var second = new DiskDriver(test.Device, depth: 3);
        Assert.Equal([.. Enumerable.Repeat((byte)9, 3 * 4096)], second.Read(0, 3 * 4096));
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Lets_another_thread_go_on_with_what_one_thread_submitted(string kind)
    {
        using var test = new TestDisk(kind);
        using var driver = new DiskDriver(test.Device);
        var submitter = new Thread(() =>
        {
            driver.Slice(0, 4096).Span.Fill(5);
            driver.Queue.TrySubmit(new BlockRequest(
                1, BlockOperation.Write, BlockFlags.ForceUnitAccess, 0, 4096, driver.Slice(0, 4096)));
            driver.Queue.Poll([]);
        });
        submitter.Start();
        submitter.Join();
        Assert.Equal(new BlockCompletion(1, 0, 0), driver.Next());
        Assert.Equal([.. Enumerable.Repeat((byte)5, 4096)], driver.Read(0, 4096));
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Refuses_use_of_a_queue_that_is_disposed_but_lets_anybody_interrupt_it(string kind)
    {
        using var test = new TestDisk(kind);
        using var buffer = new NativeBuffer(4096);
        IBlockQueue queue = test.Device.OpenQueue(4, buffer);
        for (int i = 0; i < 4; i++)
            Assert.True(queue.TrySubmit(new BlockRequest((ulong)i, BlockOperation.Read, 0, 0, 1024, new BufferSlice(buffer, i * 1024, 1024))));
        queue.Dispose();
        queue.Dispose();
        Assert.Throws<ObjectDisposedException>(() => queue.TrySubmit(new BlockRequest(1, BlockOperation.Flush, 0, 0, 0, default)));
        Assert.Throws<ObjectDisposedException>(() => queue.Poll(new BlockCompletion[1]));
        Assert.Throws<ObjectDisposedException>(() => queue.Wait(1000));
        queue.Interrupt();
        // The next one is new.
        using IBlockQueue next = test.Device.OpenQueue(4, buffer);
        Assert.Equal(0, next.Outstanding);
        Assert.Equal(0, next.Poll(new BlockCompletion[4]));
        Assert.True(next.TrySubmit(new BlockRequest(9, BlockOperation.Flush, 0, 0, 0, default)));
        var one = new BlockCompletion[1];
        while (next.Poll(one) == 0)
            next.Wait(1000);
        Assert.Equal(new BlockCompletion(9, 0, 0), one[0]);
        Assert.Throws<ArgumentOutOfRangeException>(() => test.Device.OpenQueue(0));
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Allocates_nothing_per_request(string kind)
    {
        using var test = new TestDisk(kind);
        using var driver = new DiskDriver(test.Device, depth: 8);
        var completions = new BlockCompletion[8];
        RunRequests(200);
        Allocations.None(() => RunRequests(1000));

        void RunRequests(int count)
        {
            int outstanding = 0;
            for (int i = 0; i < count || outstanding > 0;)
            {
                while (i < count && outstanding < 8)
                {
                    var operation = (i % 8) switch
                    {
                        0 or 1 or 2 => BlockOperation.Write,
                        3 => BlockOperation.WriteZeroes,
                        _ => BlockOperation.Read,
                    };
                    var data = operation == BlockOperation.WriteZeroes ? default : driver.Slice(i % 8 * 4096, 4096);
                    if (!driver.Queue.TrySubmit(new BlockRequest((ulong)i, operation, 0, i % 64 * 4096, 4096, data)))
                        throw new InvalidOperationException("no room within the depth");
                    i++;
                    outstanding++;
                }
                int polled = driver.Queue.Poll(completions);
                outstanding -= polled;
                for (int k = 0; k < polled; k++)
                {
                    if (completions[k].Error != 0)
                        throw new InvalidOperationException($"errno {completions[k].Error}");
                }
                if (polled == 0)
                    driver.Queue.Wait(1_000_000);
            }
        }
    }

    [Theory]
    [MemberData(nameof(KindsWithLock))]
    public void Keeps_its_contents_identity_and_durability_id_over_a_reopening(string kind)
    {
        using var test = new TestDisk(kind);
        byte[] bytes = Pattern(8192, 5);
        using (var driver = new DiskDriver(test.Disk))
        {
            Assert.Equal(0, driver.Write(0, bytes, BlockFlags.ForceUnitAccess).Error);
            Assert.Equal(0, driver.Do(BlockOperation.Flush, 0, 0).Error);
        }
        var (identity, durability) = (test.Disk.Identity, test.Disk.Info.DurabilityId);
        test.Reopen();
        Assert.Equal(identity, test.Disk.Identity);
        Assert.Equal(durability, test.Disk.Info.DurabilityId);
        Assert.DoesNotContain(' ', identity);
        using (var driver = new DiskDriver(test.Disk))
            Assert.Equal(bytes, driver.Read(0, 8192));
        test.Disk.Dispose();
        Assert.Equal(bytes, File.ReadAllBytes(test.FilePath)[..8192]);
    }

    [Theory]
    [MemberData(nameof(KindsOfFiles))]
    public void Frees_space_on_discard_and_reports_holes(string kind)
    {
        using var test = new TestDisk(kind);
        using var driver = new DiskDriver(test.Device);
        Assert.True(test.Device.Info.CanDiscard);
        var hole = BlockExtentState.Hole | BlockExtentState.Zero;
        Assert.Equal([new BlockExtent(TestDisk.SizeBytes, hole)], driver.Status(0, TestDisk.SizeBytes));
        Assert.Equal(0, driver.Write(1 << 20, Pattern(1 << 20, 1)).Error);
        Assert.Equal(0, driver.Do(BlockOperation.Flush, 0, 0).Error);
        Assert.True(AllocatedBytes(test) >= 1 << 20);
        Assert.Equal(
            [new(1 << 20, hole), new(1 << 20, 0), new(TestDisk.SizeBytes - (2 << 20), hole)],
            driver.Status(0, TestDisk.SizeBytes));
        Assert.Equal(0, driver.Do(BlockOperation.Discard, (1 << 20) + 65536, 65536).Error);
        Assert.Equal(
            [new(65536 - 512, 0), new(65536, hole), new((1 << 20) - 131072, 0), new(512, hole)],
            driver.Status((1 << 20) + 512, 1 << 20, room: 1));
        Assert.Equal(0, driver.Do(BlockOperation.WriteZeroes, 0, TestDisk.SizeBytes).Error);
        Assert.True(AllocatedBytes(test) < 65536);
        Assert.Equal(0, driver.Do(BlockOperation.WriteZeroes, 0, 1 << 20, BlockFlags.NoUnmap).Error);
        Assert.True(AllocatedBytes(test) >= 1 << 20, "write-zeroes with no-unmap keeps the space allocated");
    }

    [Theory]
    [MemberData(nameof(KindsOfFiles))]
    public void Answers_EIO_where_the_file_was_truncated_underneath(string kind)
    {
        using var test = new TestDisk(kind);
        using var driver = new DiskDriver(test.Device);
        Assert.Equal(0, driver.Write(0, Pattern(16384, 1)).Error);
        using (var file = new FileStream(test.FilePath, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
            file.SetLength(8192 + 100);
        Assert.Equal(Errno.EIO, driver.Do(BlockOperation.Read, 16384, 4096, data: driver.Slice(0, 4096)).Error);
        var across = driver.Do(BlockOperation.Read, 4096, 8192, data: driver.Slice(0, 8192));
        Assert.Equal((Errno.EIO, 0), (across.Error, across.Result));
        Assert.Equal(4096, driver.Read(4096, 4096).Length);
    }

    /// <summary>A hole would be copied as zeroes, and a write behind the end would make zeroes of what lies before it.</summary>
    [Theory]
    [MemberData(nameof(KindsOfFiles))]
    public void Has_no_holes_and_takes_nothing_where_the_file_was_truncated_underneath(string kind)
    {
        using var test = new TestDisk(kind);
        using var driver = new DiskDriver(test.Device);
        Assert.Equal(0, driver.Write(0, Pattern(16384, 1)).Error);
        SetLength(test, 8192 + 100);
        Assert.All(driver.Status(0, TestDisk.SizeBytes), extent => Assert.Equal(BlockExtentState.Data, extent.State));
        foreach (BlockOperation operation in new[] { BlockOperation.Discard, BlockOperation.WriteZeroes })
        {
            Assert.Equal(Errno.EIO, driver.Do(operation, 1 << 20, 65536).Error);
            Assert.Equal(Errno.EIO, driver.Do(operation, 0, 65536).Error);
            Assert.Equal(0, driver.Do(operation, 0, 4096).Error);
        }

        Assert.Equal(Errno.EIO, driver.Write(1 << 20, Pattern(4096, 2)).Error);
        Assert.Equal(8192 + 100, new FileInfo(test.FilePath).Length);
        Assert.Equal(4096, driver.Read(4096, 4096).Length);
        // One of another host says it there.
        if (test.Disk is { } own)
            Assert.Contains($"has {8192 + 100} of {TestDisk.SizeBytes} bytes", own.FindTrouble(), StringComparison.Ordinal);
        // As long as it was, it takes everything again.
        SetLength(test, TestDisk.SizeBytes);
        Assert.Equal(0, driver.Write(1 << 20, Pattern(4096, 2)).Error);
        Assert.Null(test.Disk?.FindTrouble());
    }

    [Theory]
    [InlineData("file")]
    [InlineData("tmpfs")]
    public void Says_that_its_file_was_removed(string kind)
    {
        using var test = new TestDisk(kind);
        Assert.Null(test.Disk.FindTrouble());
        File.Delete(test.FilePath);
        Assert.Contains("was removed", test.Disk.FindTrouble(), StringComparison.Ordinal);
        using var driver = new DiskDriver(test.Device);
        Assert.Equal(0, driver.Write(0, Pattern(4096, 1)).Error);
    }

    private static void SetLength(TestDisk test, long bytes)
    {
        using var file = new FileStream(test.FilePath, FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
        file.SetLength(bytes);
    }

    [Theory]
    [InlineData("loop io_uring")]
    [InlineData("loop pread")]
    public void Sends_flushes_and_forced_unit_accesses_to_the_device(string kind)
    {
        using var test = new TestDisk(kind);
        using var driver = new DiskDriver(test.Disk);
        Assert.Equal(0, driver.Write(0, Pattern(4096, 1)).Error);
        long plain = FlushCount(test);
        Assert.Equal(0, driver.Write(0, Pattern(4096, 2)).Error);
        Assert.Equal(plain, FlushCount(test));
        Assert.Equal(0, driver.Do(BlockOperation.Flush, 0, 0).Error);
        long flushed = FlushCount(test);
        Assert.True(flushed > plain);
        Assert.Equal(0, driver.Write(0, Pattern(4096, 3), BlockFlags.ForceUnitAccess).Error);
        long forced = FlushCount(test);
        Assert.True(forced > flushed);
        Assert.Equal(0, driver.Do(BlockOperation.WriteZeroes, 0, 4096, BlockFlags.ForceUnitAccess).Error);
        Assert.True(FlushCount(test) > forced);
    }

    /// <summary>Flushes that the device has completed: field 16 of its statistics (Linux 5.5).</summary>
    private static long FlushCount(TestDisk test) =>
        long.Parse(File.ReadAllText($"/sys/block/{Path.GetFileName(test.Options.Path)}/stat")
            .Split(' ', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)[15]);

    private static long AllocatedBytes(TestDisk test) =>
        512 * long.Parse(TestDisk.Run("stat", "-c", "%b", test.FilePath));
}
