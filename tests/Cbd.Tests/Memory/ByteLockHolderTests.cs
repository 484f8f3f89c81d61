using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Memory;

public sealed class The_process_that_holds_a_byte_of_a_file : IDisposable
{
    private readonly string _path = Path.Combine("/dev/shm", $"cbd-test-{Guid.NewGuid():N}");
    private readonly FileDescriptor _file;
    private readonly FileStatus _status;

    public The_process_that_holds_a_byte_of_a_file()
    {
        _file = FileDescriptor.Open(_path, OpenFlags.ReadWrite | OpenFlags.Create, 0x180);
        _status = _file.GetStatus();
    }

    public void Dispose()
    {
        _file.Dispose();
        File.Delete(_path);
    }

    private int? Find(int likely, long offset)
    {
        using ProcessDescriptor? found = ByteLockHolder.TryOpen(likely, _status.Device, _status.Inode, offset);
        return found?.ProcessId;
    }

    [Fact]
    public void Is_found_by_its_number_and_without_it()
    {
        using var held = RegionByteLock.TryAcquire(_file, 4096);
        Assert.NotNull(held);
        Assert.Equal(Environment.ProcessId, Find(Environment.ProcessId, 4096));
        Assert.Equal(Environment.ProcessId, Find(1, 4096));
        Assert.Equal(Environment.ProcessId, Find(-5, 4096));
    }

    [Fact]
    public void Is_told_from_one_of_another_name_space_by_its_number_in_proc()
    {
        using ProcessDescriptor self = Assert.IsType<ProcessDescriptor>(ProcessDescriptor.TryOpen(Environment.ProcessId));
        Assert.True(self.IsInProc(Environment.ProcessId));
        Assert.False(self.IsInProc(1));
    }

    [Fact]
    public void Is_nobody_where_the_byte_is_free_although_the_file_is_open()
    {
        using (RegionByteLock.TryAcquire(_file, 4096))
            Assert.Null(Find(Environment.ProcessId, 6144));
        Assert.Null(Find(Environment.ProcessId, 4096));
    }

    [Theory]
    [InlineData("lock:\t1: OFDLCK  ADVISORY  WRITE -1 00:1b:42 4096 4096", true)]
    [InlineData("lock:\t1: OFDLCK  ADVISORY  WRITE -1 00:1b:42 4000 EOF", true)]
    [InlineData("lock:\t1: OFDLCK  ADVISORY  WRITE -1 00:1b:42 4097 4097", false)]
    [InlineData("lock:\t1: OFDLCK  ADVISORY  WRITE -1 00:1b:42 0 4095", false)]
    [InlineData("lock:\t1: OFDLCK  ADVISORY  READ -1 00:1b:42 4096 4096", false)]
    [InlineData("lock:\t1: POSIX  ADVISORY  WRITE 77 00:1b:42 4096 4096", false)]
    [InlineData("lock:\t1: OFDLCK  ADVISORY  WRITE -1 00:1b:142 4096 4096", false)]
    [InlineData("pos:\t0", false)]
    [InlineData("", false)]
    public void Is_told_by_a_line_of_fdinfo(string line, bool holds) =>
        Assert.Equal(holds, ByteLockHolder.IsExclusiveLock(line, inode: 42, offset: 4096));
}
