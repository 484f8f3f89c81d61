using Cbd.Blocks;
using Cbd.Disks;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Disks;

public class A_disk_that_grows
{
    private const long Before = TestDisk.SizeBytes;
    private const long After = 3 * TestDisk.SizeBytes;

    public static TheoryData<string> Growing => ["memory", "file io_uring", "file pread", "tmpfs io_uring", "tmpfs pread"];

    private static byte[] Pattern(int length) => [.. Enumerable.Range(0, length).Select(i => (byte)(i * 7 + 3))];

    [Theory]
    [MemberData(nameof(Growing))]
    public void Takes_requests_for_what_is_new_when_it_is_served_and_not_before_on_queues_that_are_open(string kind)
    {
        using var test = new TestDisk(kind);
        using var driver = new DiskDriver(test.Disk);
        byte[] bytes = Pattern(8192);
        Assert.Equal(0, driver.Write(Before - 8192, bytes).Error);
        Assert.Equal(Before, test.Disk.MeasureBytes());
        test.Disk.Grow(After);
        Assert.Equal(After, test.Disk.MeasureBytes());
        Assert.Equal(Before, test.Disk.Info.SizeBytes);
        Assert.Equal(Errno.EINVAL, driver.Write(Before, bytes).Error);
        Assert.Equal(Errno.EINVAL, driver.Write(Before - 4096, bytes).Error);
        Assert.Equal(0, test.Disk.Sync());

        test.Disk.Serve(After);
        Assert.Equal(After, test.Disk.Info.SizeBytes);
        Assert.Equal(new byte[8192], driver.Read(Before, 8192));
        Assert.Equal(new byte[8192], driver.Read(After - 8192, 8192));
        Assert.Equal(bytes, driver.Read(Before - 8192, 8192));
        Assert.Equal(0, driver.Write(After - 8192, bytes, BlockFlags.ForceUnitAccess).Error);
        Assert.Equal(bytes, driver.Read(After - 8192, 8192));
        Assert.Equal(Errno.EINVAL, driver.Write(After - 4096, bytes).Error);
        var data = new BlockExtent(8192, BlockExtentState.Data);
        Assert.Contains(driver.Status(After - 8192, 8192), e => e == data);
        Assert.Equal(0, driver.Do(BlockOperation.Discard, 0, After).Error);
        Assert.Equal(new byte[8192], driver.Read(After - 8192, 8192));
        using var late = new DiskDriver(test.Disk);
        Assert.Equal(0, late.Write(After - 8192, bytes).Error);
    }

    [Theory]
    [MemberData(nameof(Growing))]
    public void Serves_less_than_it_has_if_it_is_told_so(string kind)
    {
        using var test = new TestDisk(kind);
        using var driver = new DiskDriver(test.Disk);
        test.Disk.Serve(Before / 2);
        Assert.Equal(Errno.EINVAL, driver.Write(Before / 2, Pattern(4096)).Error);
        Assert.Equal(0, driver.Write(Before / 2 - 4096, Pattern(4096)).Error);
        Assert.Equal(Before, test.Disk.MeasureBytes());
    }

    [Theory]
    [InlineData("memory")]
    [InlineData("file")]
    public void Stays_as_it_is_when_it_is_large_enough(string kind)
    {
        using var test = new TestDisk(kind);
        test.Disk.Grow(Before);
        test.Disk.Grow(512);
        Assert.Equal(Before, test.Disk.MeasureBytes());
    }

    [Fact]
    public void That_is_a_file_gets_a_hole_or_reserved_space_as_it_has_now()
    {
        using var test = new TestDisk("file");
        test.Disk.Grow(After);
        Assert.True(AllocatedBytes(test) < 1 << 20, $"{AllocatedBytes(test)} bytes are allocated");
        TestDisk.Run("fallocate", "-l", $"{After}", test.FilePath);
        test.Disk.Grow(2 * After);
        Assert.True(AllocatedBytes(test) >= 2 * After, $"{AllocatedBytes(test)} bytes are allocated");
    }

    [Fact]
    public void That_is_a_file_without_space_for_it_keeps_its_size_and_says_so()
    {
        using var test = new TestDisk("tmpfs");
        TestDisk.Run("fallocate", "-l", $"{Before}", test.FilePath);
        // More than a tmpfs has: the whole of memory, and more.
        long tooMuch = (long)(new DriveInfo("/dev/shm").TotalSize / 4096 * 4096) * 2;
        var error = Assert.Throws<CbdException>(() => test.Disk.Grow(tooMuch));
        Assert.Equal(CbdErrorKind.Exhausted, error.Kind);
        Assert.Contains($"cannot grow from {Before} to {tooMuch} bytes: its file system has no space", error.Message, StringComparison.Ordinal);
        Assert.Equal(Before, test.Disk.MeasureBytes());
        Assert.Equal(Before, AllocatedBytes(test));
    }

    [Fact]
    public void That_is_a_file_open_read_only_is_not_made_longer()
    {
        using var test = new TestDisk("file", readOnly: true);
        var error = Assert.Throws<CbdException>(() => test.Disk.Grow(After));
        Assert.Equal(CbdErrorKind.Denied, error.Kind);
        Assert.Contains($"truncate -s {After}", error.Message, StringComparison.Ordinal);
        using (var file = new FileStream(test.FilePath, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
            file.SetLength(After);
        Assert.Equal(After, test.Disk.MeasureBytes());
    }

    [Theory]
    [InlineData("loop io_uring")]
    [InlineData("loop pread")]
    public void That_is_a_block_device_is_made_larger_outside(string kind)
    {
        using var test = new TestDisk(kind);
        using var driver = new DiskDriver(test.Disk);
        var error = Assert.Throws<CbdException>(() => test.Disk.Grow(After));
        Assert.Equal(CbdErrorKind.Invalid, error.Kind);
        Assert.Contains($"is a block device of {Before} bytes, fewer than {After}", error.Message, StringComparison.Ordinal);
        TestDisk.Run("truncate", "-s", $"{After}", test.FilePath);
        TestDisk.Run("losetup", "-c", test.Options.Path);
        Assert.Equal(After, test.Disk.MeasureBytes());
        test.Disk.Grow(After);
        test.Disk.Serve(After);
        Assert.Equal(0, driver.Write(After - 4096, Pattern(4096)).Error);
    }

    [Fact]
    public void In_memory_grows_as_far_as_there_is_address_space_for_it()
    {
        using var disk = Disk.Open(new DiskOptions { Path = "memory:64K" });
        var error = Assert.Throws<CbdException>(() => disk.Grow(1L << 40));
        Assert.Equal(CbdErrorKind.Exhausted, error.Kind);
        Assert.Equal(65536, disk.MeasureBytes());
        disk.Grow(1L << 36);
        Assert.Equal("memory:68719476736", disk.PathAt(1L << 36));
        using var odd = Disk.Open(new DiskOptions { Path = "memory:1000K" });
        Assert.Contains("only a memory disk whose size is a multiple of 65536 bytes can", Assert.Throws<CbdException>(() => odd.Grow(1 << 20)).Message, StringComparison.Ordinal);
    }

    private static long AllocatedBytes(TestDisk test) => 512 * long.Parse(TestDisk.Run("stat", "-c", "%b", test.FilePath));
}
