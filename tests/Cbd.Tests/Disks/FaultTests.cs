using Cbd.Blocks;
using Cbd.Disks;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Disks;

public sealed class Faults_of_a_disk
{
    private readonly BlockCompletion[] _completions = new BlockCompletion[64];

    private static FaultSet Set(params string[] specs) => new(FaultSpec.ParseAll(specs));

    private static BlockRequest Read(DiskDriver driver, ulong cookie, long offset = 0) =>
        new(cookie, BlockOperation.Read, BlockFlags.None, offset, 4096, driver.Slice(0, 4096));

    /// <summary>A memory disk behind faults.</summary>
    private static DiskDriver Open(FaultSet faults, out Disk disk)
    {
        disk = Disk.Open(new DiskOptions { Path = "memory:16M", Faults = faults });
        return new DiskDriver(disk.Faulty);
    }

    [Theory]
    [InlineData("error", "error,errno=EIO")]
    [InlineData("error,op=any,rate=1", "error,errno=EIO")]
    [InlineData("error,op=write,rate=0.01,errno=ENOSPC,seed=7", "error,op=write,errno=ENOSPC,rate=0.01,seed=7")]
    [InlineData("error,rate=0.00001", "error,errno=EIO,rate=0.00001,seed=1")]
    [InlineData("delay,ms=20,op=flush", "delay,op=flush,ms=20")]
    [InlineData("short,offset=1M,length=64K", "short,offset=1048576,length=65536,seed=1")]
    [InlineData("stuck,op=write-zeroes,count=3", "stuck,op=write-zeroes,count=3")]
    [InlineData("error,op=discard,errno=EOPNOTSUPP", "error,op=discard,errno=EOPNOTSUPP")]
    public void Are_read_and_can_be_given_again(string text, string canonical)
    {
        FaultSpec spec = FaultSpec.Parse(text);
        Assert.Equal(canonical, spec.ToString());
        Assert.Equal(spec, FaultSpec.Parse(canonical));
    }

    [Theory]
    [InlineData("", "kind ''", "error, delay, short, stuck")]
    [InlineData("eror", "kind 'eror'", "error, delay, short, stuck")]
    [InlineData("error,", "''", "key=value")]
    [InlineData("error,op", "'op' has no value", "key=value")]
    [InlineData("error,op=trim", "op 'trim'", "read, write, flush, discard, write-zeroes or any")]
    [InlineData("error,op=read,op=write", "op is given twice", "once")]
    [InlineData("error,rate=0", "rate '0'", "above 0 and at most 1")]
    [InlineData("error,rate=1.1", "rate '1.1'", "above 0 and at most 1")]
    [InlineData("error,rate=-0.5", "rate '-0.5'", "above 0")]
    [InlineData("error,rate=NaN", "rate 'NaN'", "above 0")]
    [InlineData("error,errno=EBADMSG", "errno 'EBADMSG'", "EIO")]
    [InlineData("error,errno=5", "errno '5'", "EIO")]
    [InlineData("error,ms=5", "key 'ms'", "errno, op")]
    [InlineData("delay", "ms is missing", "delay,ms=20")]
    [InlineData("delay,ms=0", "ms is '0'", "1 to 600000")]
    [InlineData("delay,ms=5,errno=EIO", "key 'errno'", "ms, op")]
    [InlineData("stuck,colour=red", "key 'colour'", "op, rate")]
    [InlineData("error,count=0", "count is '0'", "from 1")]
    [InlineData("error,seed=-1", "seed is '-1'", "from 0")]
    [InlineData("error,offset=1X", "offset: '1X'", "512M")]
    [InlineData("error,length=0", "length is 0", "at least 1")]
    [InlineData("error,op=flush,offset=4096", "op=flush has no range", "leave offset")]
    [InlineData("error,offset=9223372036854775807,length=2", "beyond 63 bits", "smaller")]
    [InlineData("short,op=flush", "op=flush transfers nothing", "op=read")]
    public void That_are_not_right_are_refused_with_key_value_and_remedy(string text, params string[] words)
    {
        CbdException error = Assert.Throws<CbdException>(() => FaultSpec.Parse(text));
        Assert.Equal(CbdErrorKind.Invalid, error.Kind);
        Assert.StartsWith($"fault '{text}': ", error.Message, StringComparison.Ordinal);
        foreach (string word in words)
            Assert.Contains(word, error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Off_is_alone_and_no_more_than_a_few_are_taken()
    {
        Assert.Empty(FaultSpec.ParseAll(["off"]));
        Assert.Contains("'off'", Assert.Throws<CbdException>(() => FaultSpec.ParseAll(["error", "off"])).Message, StringComparison.Ordinal);
        Assert.Contains("at most 32", Assert.Throws<CbdException>(() => FaultSpec.ParseAll(Enumerable.Repeat("error", 33).ToArray())).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Are_nothing_on_the_way_where_there_are_none()
    {
        using Disk disk = Disk.Open(new DiskOptions { Path = "memory:1M" });
        Assert.Same(disk, disk.Faulty);
    }

    [Fact]
    public void Error_fails_the_operation_and_leaves_others_and_the_disk_alone()
    {
        FaultSet faults = Set("error,op=write,errno=ENOSPC");
        using DiskDriver driver = Open(faults, out Disk disk);
        using (disk)
        {
            Assert.Equal(Errno.ENOSPC, driver.Write(0, new byte[] { 1, 2, 3 }.Concat(new byte[509]).ToArray()).Error);
            Assert.All(driver.Read(0, 512), b => Assert.Equal(0, b));
            Assert.Equal(0, driver.Do(BlockOperation.Flush, 0, 0).Error);
            Assert.Equal(1, faults.List()[0].Struck);
        }
    }

    [Fact]
    public void Ranges_strike_what_touches_them()
    {
        using DiskDriver driver = Open(Set("error,offset=8192,length=4096"), out Disk disk);
        using (disk)
        {
            (long Offset, int Length, int Error)[] reads =
                [(0, 8192, 0), (0, 8704, Errno.EIO), (8192, 512, Errno.EIO), (11776, 512, Errno.EIO), (12288, 512, 0), (0, 65536, Errno.EIO)];
            foreach ((long offset, int length, int error) in reads)
                Assert.Equal(error, driver.Do(BlockOperation.Read, offset, length, data: driver.Slice(0, length)).Error);
            Assert.Equal(0, driver.Do(BlockOperation.Flush, 0, 0).Error);
        }
    }

    [Fact]
    public void Count_ends_them()
    {
        FaultSet faults = Set("error,count=2");
        using DiskDriver driver = Open(faults, out Disk disk);
        using (disk)
        {
            int[] errors = [.. Enumerable.Range(0, 5).Select(_ => driver.Do(BlockOperation.Flush, 0, 0).Error)];
            Assert.Equal([Errno.EIO, Errno.EIO, 0, 0, 0], errors);
            Assert.Equal(2, faults.List()[0].Struck);
        }
    }

    private static int[] Draw(string spec, int count)
    {
        using DiskDriver driver = Open(Set(spec), out Disk disk);
        using (disk)
            return [.. Enumerable.Range(0, count).Select(_ => driver.Do(BlockOperation.Flush, 0, 0).Error)];
    }

    [Fact]
    public void The_seed_decides_which_requests_are_struck()
    {
        int[] first = Draw("error,rate=0.1,seed=3", 2000);
        Assert.Equal(first, Draw("error,rate=0.1,seed=3", 2000));
        Assert.NotEqual(first, Draw("error,rate=0.1,seed=4", 2000));
        // Of a binomial distribution, ten standard deviations around the mean.
        Assert.InRange(first.Count(e => e != 0), 66, 334);
    }

    [Fact]
    public void Stuck_requests_reach_the_disk_when_the_faults_are_changed()
    {
        FaultSet faults = Set("stuck,op=write");
        using DiskDriver driver = Open(faults, out Disk disk);
        using (disk)
        {
            driver.Slice(0, 512).Span.Fill(7);
            Assert.True(driver.Queue.TrySubmit(new BlockRequest(1, BlockOperation.Write, BlockFlags.None, 0, 512, driver.Slice(0, 512))));
            Assert.True(driver.Queue.TrySubmit(Read(driver, 2, 4096) with { Data = driver.Slice(4096, 4096) }));
            Assert.Equal(2, driver.Queue.Outstanding);
            Assert.Equal(1, driver.Queue.Poll(_completions));
            Assert.Equal(2ul, _completions[0].Cookie);
            driver.Queue.Wait(1000);
            Assert.Equal(0, driver.Queue.Poll(_completions));
            Assert.Equal(1, driver.Queue.Outstanding);
            faults.Switch([]);
            Assert.Equal(new BlockCompletion(1, 0, 0), driver.Next());
            Assert.Empty(faults.List());
            Assert.All(driver.Read(0, 512), b => Assert.Equal(7, b));
        }
    }

    [Fact]
    public void Waiting_for_a_stuck_request_ends_when_the_faults_are_changed()
    {
        FaultSet faults = Set("stuck");
        using DiskDriver driver = Open(faults, out Disk disk);
        using (disk)
        {
            Assert.True(driver.Queue.TrySubmit(Read(driver, 1)));
            var changer = new Thread(() => faults.Switch([]));
            changer.Start();
            // Nothing but the change ends this.
            while (driver.Queue.Poll(_completions) == 0)
                driver.Queue.Wait(int.MaxValue);
            changer.Join();
        }
    }

    [Fact]
    public void A_stuck_queue_takes_its_depth_and_no_more_and_can_be_closed()
    {
        using DiskDriver driver = Open(Set("stuck"), out Disk disk);
        using (disk)
        {
            for (ulong cookie = 0; cookie < 64; cookie++)
                Assert.True(driver.Queue.TrySubmit(Read(driver, cookie)));
            Assert.False(driver.Queue.TrySubmit(Read(driver, 64)));
        }
    }

    [Fact]
    public void Delayed_requests_come_late_with_the_error_of_another_fault()
    {
        FaultSet faults = Set("delay,ms=30", "error,op=flush,count=1");
        using DiskDriver driver = Open(faults, out Disk disk);
        using (disk)
        {
            long start = System.Diagnostics.Stopwatch.GetTimestamp();
            Assert.Equal(Errno.EIO, driver.Do(BlockOperation.Flush, 0, 0).Error);
            Assert.True(System.Diagnostics.Stopwatch.GetElapsedTime(start).TotalMilliseconds >= 30);
            Assert.Equal(0, driver.Do(BlockOperation.Flush, 0, 0).Error);
            Assert.Equal([2, 1], faults.List().Select(f => f.Struck));
        }
    }

    [Theory]
    [InlineData("file io_uring")]
    [InlineData("file pread")]
    [InlineData("tmpfs io_uring")]
    [InlineData("tmpfs pread")]
    public void Short_transfers_are_gone_on_with(string kind)
    {
        FaultSet faults = Set("short,rate=0.7,seed=5");
        using var test = new TestDisk(kind, faults: faults);
        using var driver = new DiskDriver(test.Disk.Faulty);
        var random = new Random(9);
        byte[] model = new byte[256 << 10];
        for (int i = 0; i < 40; i++)
        {
            int offset = random.Next(0, 256) * 512;
            byte[] bytes = new byte[random.Next(1, 256) * 512];
            random.NextBytes(bytes);
            bytes.CopyTo(model, offset);
            Assert.Equal(new BlockCompletion(0, 0, 0), driver.Write(offset, bytes, (BlockFlags)(i & 1)) with { Cookie = 0 });
            Assert.Equal(bytes, driver.Read(offset, bytes.Length));
        }

        Assert.True(faults.List()[0].Struck > 40);
        faults.Switch([]);
        Assert.Equal(model, driver.Read(0, model.Length));
    }

    [Fact]
    public void Short_is_refused_where_nothing_can_end_short()
    {
        CbdException error = Assert.Throws<CbdException>(() => Disk.Open(new DiskOptions { Path = "memory:1M", Faults = Set("short") }));
        Assert.Contains("memory:1M", error.Message, StringComparison.Ordinal);
        Assert.Contains("use a file or block device", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Nothing_is_allocated_per_request()
    {
        using DiskDriver driver = Open(Set("error,rate=0.5", "delay,ms=1,rate=0.1"), out Disk disk);
        using (disk)
        {
            RunMany(driver, 200);
            Allocations.None(() => RunMany(driver, 2000));
        }
    }

    private void RunMany(DiskDriver driver, int count)
    {
        int done = 0;
        for (int sent = 0; done < count;)
        {
            while (sent < count && driver.Queue.TrySubmit(Read(driver, (ulong)sent)))
                sent++;
            done += driver.Queue.Poll(_completions);
        }
    }
}
