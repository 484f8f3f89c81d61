using Cbd.Blocks;
using Cbd.Disks;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Disks;

public class A_memory_disk
{
    private static Disk Open(string size) => Disk.Open(new DiskOptions { Path = $"memory:{size}" });

    [Theory]
    [InlineData("512", 512)]
    [InlineData("64K", 64 << 10)]
    [InlineData("512M", 512L << 20)]
    [InlineData("4GiB", 4L << 30)]
    [InlineData("4gb", 4L << 30)]
    [InlineData("1T", 1L << 40)]
    public void Has_the_size_of_its_path(string text, long sizeBytes)
    {
        using var disk = Open(text);
        Assert.Equal(sizeBytes, disk.Info.SizeBytes);
    }

    [Theory]
    [InlineData("")]
    [InlineData("0")]
    [InlineData("-1")]
    [InlineData("12Q")]
    [InlineData("5iB")]
    [InlineData("1.5G")]
    [InlineData("513")]
    [InlineData("9999999T")]
    [InlineData("99999999999999999999")]
    public void Refuses_a_bad_size_and_names_the_path(string text)
    {
        var error = Assert.Throws<CbdException>(() => Open(text));
        Assert.Equal(CbdErrorKind.Invalid, error.Kind);
        Assert.Contains($"memory:{text}", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Is_refused_and_does_not_grow_beyond_the_memory_that_there_is()
    {
        var options = new DiskOptions { Path = "memory:3M", MemoryLimitBytes = static () => 2 << 20 };
        var error = Assert.Throws<CbdException>(() => Disk.Open(options));
        Assert.Equal(CbdErrorKind.Exhausted, error.Kind);
        Assert.Contains("memory:3M: 3145728 bytes are more than the 2097152 bytes", error.Message, StringComparison.Ordinal);
        using var disk = Disk.Open(options with { Path = "memory:1M" });
        Assert.Equal(CbdErrorKind.Exhausted, Assert.Throws<CbdException>(() => disk.Grow(3 << 20)).Kind);
        Assert.Equal(1 << 20, disk.MeasureBytes());
        disk.Grow(2 << 20);
        Assert.Equal(2 << 20, disk.MeasureBytes());
    }

    [Fact]
    public void Completes_a_request_in_the_next_poll()
    {
        using var disk = Open("1M");
        using var driver = new DiskDriver(disk);
        var completions = new BlockCompletion[4];
        Assert.True(driver.Queue.TrySubmit(new BlockRequest(7, BlockOperation.Flush, 0, 0, 0, default)));
        Assert.Equal(1, driver.Queue.Outstanding);
        Assert.Equal(1, driver.Queue.Poll(completions));
        Assert.Equal(new BlockCompletion(7, 0, 0), completions[0]);
        Assert.Equal(0, driver.Queue.Outstanding);
    }

    [Fact]
    public void Takes_no_more_than_its_depth_before_a_poll()
    {
        using var disk = Open("1M");
        using var driver = new DiskDriver(disk, depth: 2);
        var flush = new BlockRequest(1, BlockOperation.Flush, 0, 0, 0, default);
        Assert.True(driver.Queue.TrySubmit(flush));
        Assert.True(driver.Queue.TrySubmit(flush));
        Assert.False(driver.Queue.TrySubmit(flush));
        Assert.Equal(1, driver.Queue.Poll(new BlockCompletion[1]));
        Assert.True(driver.Queue.TrySubmit(flush));
    }

    [Fact]
    public void Reports_what_was_never_written_as_a_hole()
    {
        using var disk = Open("1T");
        using var driver = new DiskDriver(disk);
        driver.Write(5L << 30, new byte[4096]);
        Assert.Equal(
            [
                new BlockExtent(5L << 30, BlockExtentState.Hole | BlockExtentState.Zero),
                new BlockExtent(1 << 20, BlockExtentState.Data),
                new BlockExtent((1L << 40) - (5L << 30) - (1 << 20), BlockExtentState.Hole | BlockExtentState.Zero),
            ],
            driver.Status(0, 1L << 40));
        Assert.Equal(0, driver.Do(BlockOperation.Discard, 0, 1L << 40).Error);
        Assert.Single(driver.Status(0, 1L << 40));
    }

    [Fact]
    public void Is_another_disk_in_each_life()
    {
        using var first = Open("1M");
        using var second = Open("1M");
        Assert.NotEqual(first.Info.DurabilityId, second.Info.DurabilityId);
        Assert.NotEqual(first.Identity, second.Identity);
        Assert.StartsWith("memory:", first.Identity, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Sleeps_until_it_is_interrupted()
    {
        using var disk = Open("1M");
        using var driver = new DiskDriver(disk);
        driver.Queue.Interrupt();
        driver.Queue.Wait(int.MaxValue);
        var sleeper = Task.Run(() => driver.Queue.Wait(int.MaxValue), TestContext.Current.CancellationToken);
        driver.Queue.Interrupt();
        await sleeper;
    }
}

public class A_null_disk
{
    [Fact]
    public void Reads_zeroes_and_drops_writes()
    {
        using var disk = Disk.Open(new DiskOptions { Path = "null:1M" });
        using var driver = new DiskDriver(disk);
        Assert.Equal(0, driver.Write(0, [.. Enumerable.Repeat((byte)1, 4096)]).Error);
        Assert.Equal(new byte[4096], driver.Read(0, 4096));
        Assert.Equal([new BlockExtent(1 << 20, BlockExtentState.Hole | BlockExtentState.Zero)], driver.Status(0, 1 << 20));
    }
}
