using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Memory;

public sealed class RegionSourceTests : IDisposable
{
    private readonly TemporaryDirectory _files = new();

    public void Dispose() => _files.Dispose();

    [Fact]
    public void Missing_file_is_created_with_space_and_for_the_owner_alone()
    {
        string path = _files.PathOf("region");
        using RegionSource source = RegionSource.Open(path, 1_000_000);
        Assert.True(source.Created);
        Assert.Equal(RegionKind.SharedMemory, source.Kind);
        Assert.Equal(1_003_520, source.SizeBytes);
        FileStatus status = StatusOf(path);
        Assert.Equal(0x180u, status.Permissions);
        Assert.Equal(1_003_520, status.SizeBytes);
        Assert.True(status.AllocatedBytes >= status.SizeBytes);
        Assert.Equal((status.Device, status.Inode), (source.Device, source.Inode));
        Assert.False(source.RequiresCoherence);
        source.DeleteIfCreated();
        Assert.False(File.Exists(path));
    }

    [Fact]
    public void Existing_file_is_neither_created_nor_deleted_nor_resized()
    {
        string path = _files.PathOf("region");
        File.WriteAllBytes(path, new byte[8192]);
        using RegionSource source = RegionSource.Open(path, 1_000_000);
        Assert.False(source.Created);
        Assert.Equal(8192, source.SizeBytes);
        source.DeleteIfCreated();
        Assert.True(File.Exists(path));
    }

    [Fact]
    public void Growing_keeps_content_and_reserves_holes()
    {
        using var disk = new TemporaryDirectory(onDisk: true);
        string path = disk.PathOf("region");
        File.WriteAllBytes(path, [1, 2, 3]);
        using RegionSource source = RegionSource.Open(path);
        Assert.Equal(RegionKind.File, source.Kind);
        source.Grow(100_000);
        source.Grow(4096);
        FileStatus status = StatusOf(path);
        Assert.Equal(102_400, status.SizeBytes);
        Assert.True(status.AllocatedBytes >= 102_400);
        Assert.Equal([1, 2, 3, 0], File.ReadAllBytes(path)[..4]);
    }

    [Fact]
    public void Growing_beyond_the_space_changes_nothing_and_says_so()
    {
        string path = _files.PathOf("region");
        File.WriteAllBytes(path, new byte[8192]);
        using RegionSource source = RegionSource.Open(path);
        long tooMuch = new DriveInfo("/dev/shm").TotalSize * 2;
        var e = Assert.Throws<CbdException>(() => source.Grow(tooMuch));
        Assert.Equal(CbdErrorKind.Exhausted, e.Kind);
        Assert.Contains($"no space for {tooMuch} bytes", e.Message, StringComparison.Ordinal);
        Assert.Equal(8192, StatusOf(path).SizeBytes);
    }

    [Fact]
    public void Creating_beyond_the_space_leaves_no_file()
    {
        string path = _files.PathOf("region");
        long tooMuch = new DriveInfo("/dev/shm").TotalSize * 2;
        Assert.Equal(CbdErrorKind.Exhausted, Assert.Throws<CbdException>(() => RegionSource.Open(path, tooMuch)).Kind);
        Assert.False(File.Exists(path));
    }

    [Theory]
    [InlineData("", CbdErrorKind.Invalid, "is empty")]
    [InlineData("/dev/null", CbdErrorKind.Invalid, "character device but not device-DAX")]
    [InlineData("/dev/shm", CbdErrorKind.Invalid, "is a directory: give the path of a file in it, e.g. '/dev/shm/region'")]
    [InlineData("/sys/kernel/mm/transparent_hugepage/enabled", CbdErrorKind.Invalid, "not a PCI resource")]
    [InlineData("/etc/passwd/x", CbdErrorKind.Invalid, "not a directory")]
    public void What_cannot_be_a_region_is_refused_with_the_remedy(string path, CbdErrorKind kind, string part)
    {
        var e = Assert.Throws<CbdException>(() => RegionSource.Open(path));
        Assert.Equal(kind, e.Kind);
        Assert.Contains(part, e.Message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', e.Message);
    }

    [Fact]
    public void Missing_file_says_how_to_create_it()
    {
        var e = Assert.Throws<CbdException>(() => RegionSource.Open(_files.PathOf("none")));
        Assert.Equal(CbdErrorKind.NotFound, e.Kind);
        Assert.Contains("--format --size", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Missing_directory_is_named()
    {
        var e = Assert.Throws<CbdException>(() => RegionSource.Open(_files.PathOf("no/region"), 4096));
        Assert.Equal(CbdErrorKind.NotFound, e.Kind);
        Assert.Contains("its directory does not exist", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Fifo_is_refused_without_blocking()
    {
        string path = _files.PathOf("fifo");
        KernelTests.Run("mkfifo", path);
        Assert.Contains("neither a file nor a device", Assert.Throws<CbdException>(() => RegionSource.Open(path)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Block_device_is_refused_with_reason_and_remedy()
    {
        string? device = Directory.EnumerateFileSystemEntries("/dev")
            .FirstOrDefault(p => FileStatus.TryGet(p, out FileStatus status) == 0 && status.Type == FileType.BlockDevice);
        Assert.SkipWhen(device is null, "there is no block device node in /dev");
        var e = Assert.Throws<CbdException>(() => RegionSource.Open(device!));
        Assert.Equal(CbdErrorKind.Invalid, e.Kind);
        Assert.Contains("page cache", e.Message, StringComparison.Ordinal);
        Assert.Contains("ndctl create-namespace --mode=devdax", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void File_without_permission_is_refused()
    {
        // A file of sysfs that nobody may write, not even root.
        var e = Assert.Throws<CbdException>(() => RegionSource.Open("/sys/kernel/uevent_seqnum"));
        Assert.Equal(CbdErrorKind.Denied, e.Kind);
        Assert.Contains("no permission to read and write it", e.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Pci_bar_is_a_region_whose_coherence_must_be_told()
    {
        string? bar = null;
        if (Environment.UserName == "root" && Directory.Exists("/sys/bus/pci/devices"))
        {
            bar = Directory.EnumerateDirectories("/sys/bus/pci/devices")
                .Select(d => $"{d}/resource0").FirstOrDefault(p => FileStatus.TryGet(p, out FileStatus status) == 0 && status.SizeBytes >= 4096);
        }

        Assert.SkipWhen(bar is null, "there is no PCI device with a BAR that this user may open");
        using RegionSource source = RegionSource.Open(bar!);
        Assert.Equal(RegionKind.PciBar, source.Kind);
        Assert.True(source.RequiresCoherence);
        Assert.False(source.IsFile);
        Assert.Equal(StatusOf(bar!).SizeBytes, source.SizeBytes);
        Assert.Contains("cannot grow", Assert.Throws<CbdException>(() => source.Grow(1L << 40)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Huge_pages_are_reserved_whole_and_mapped()
    {
        string? mount = File.ReadLines("/proc/self/mounts").Select(l => l.Split(' ')).FirstOrDefault(f => f[2] == "hugetlbfs")?[1];
        string? free = File.ReadLines("/proc/meminfo").FirstOrDefault(l => l.StartsWith("HugePages_Free:", StringComparison.Ordinal));
        Assert.SkipWhen(mount is null || free is null || free.EndsWith(" 0", StringComparison.Ordinal), "no hugetlbfs is mounted, or no huge page is free");
        string path = System.IO.Path.Combine(mount!, $"cbd-test-{Guid.NewGuid():N}");
        Assert.Equal(CbdErrorKind.Exhausted, Assert.Throws<CbdException>(() => RegionSource.Open(path, 1L << 50)).Kind);
        Assert.False(File.Exists(path));
        using RegionSource source = RegionSource.Open(path, 1);
        try
        {
            Assert.Equal(RegionKind.HugePages, source.Kind);
            Assert.True(source.PageBytes > Environment.SystemPageSize);
            Assert.Equal(source.PageBytes, source.SizeBytes);
            using RegionMapping mapping = source.Map();
            mapping.Memory.WriteRelease(source.SizeBytes - 8, 1);
            source.Descriptor.Truncate(0);
            Assert.Equal(0ul, mapping.Memory.ReadAcquire(0));
            Assert.True(mapping.IsPoisoned);
        }
        finally
        {
            source.DeleteIfCreated();
        }
    }

    [Fact]
    public void Dax_geometry_comes_from_sysfs()
    {
        string device = _files.PathOf("sys/dev/char/251:3");
        Directory.CreateDirectory(device);
        Directory.CreateDirectory(_files.PathOf("sys/bus/dax"));
        Assert.Null(DeviceDax.TryRead(251, 3, _files.PathOf("sys")));
        File.CreateSymbolicLink(System.IO.Path.Combine(device, "subsystem"), "../../../bus/dax");
        var e = Assert.Throws<CbdException>(() => DeviceDax.TryRead(251, 3, _files.PathOf("sys")));
        Assert.Contains("size", e.Message, StringComparison.Ordinal);
        File.WriteAllText(System.IO.Path.Combine(device, "size"), "4294967296\n");
        Assert.Equal(new DeviceDax(4L << 30, 2 << 20), DeviceDax.TryRead(251, 3, _files.PathOf("sys")));
        File.WriteAllText(System.IO.Path.Combine(device, "align"), "1073741824\n");
        Assert.Equal(new DeviceDax(4L << 30, 1 << 30), DeviceDax.TryRead(251, 3, _files.PathOf("sys")));
        File.WriteAllText(System.IO.Path.Combine(device, "align"), "3000\n");
        Assert.Throws<CbdException>(() => DeviceDax.TryRead(251, 3, _files.PathOf("sys")));
        File.WriteAllText(System.IO.Path.Combine(device, "align"), "many\n");
        Assert.Contains("'many', which is not a number", Assert.Throws<CbdException>(() => DeviceDax.TryRead(251, 3, _files.PathOf("sys"))).Message, StringComparison.Ordinal);
    }

    private static FileStatus StatusOf(string path)
    {
        Assert.Equal(0, FileStatus.TryGet(path, out FileStatus status));
        return status;
    }
}
