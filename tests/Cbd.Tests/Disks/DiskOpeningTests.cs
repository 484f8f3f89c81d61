using System.Diagnostics;
using Cbd.Blocks;
using Cbd.Disks;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Disks;

public sealed class Opening_a_disk : IDisposable
{
    private const string WithoutIoUring = "CBD_TEST_WITHOUT_IO_URING";

    private readonly string _folder = Directory.CreateTempSubdirectory("cbd-open-").FullName;

    public void Dispose() => Directory.Delete(_folder, recursive: true);

    private string MakeFile(string name, long sizeBytes)
    {
        string path = Path.Combine(_folder, name);
        using var file = new FileStream(path, FileMode.CreateNew, FileAccess.Write);
        file.SetLength(sizeBytes);
        return path;
    }

    private static CbdException Refused(CbdErrorKind kind, DiskOptions options, params string[] words)
    {
        var error = Assert.ThrowsAny<CbdException>(() => Disk.Open(options).Dispose());
        Assert.Equal(kind, error.Kind);
        Assert.DoesNotContain('\n', error.Message);
        foreach (string word in words.Append(options.Path))
            Assert.Contains(word, error.Message, StringComparison.Ordinal);
        return error;
    }

    [Fact]
    public void Is_refused_when_it_is_missing() =>
        Refused(CbdErrorKind.NotFound, new() { Path = Path.Combine(_folder, "none") }, "does not exist", "create it");

    [Fact]
    public void Names_no_file_to_create_among_the_devices_or_where_there_is_no_directory()
    {
        CbdException device = Refused(CbdErrorKind.NotFound, new() { Path = "/dev/no-such-disk" }, "attach the device", "correct the path");
        Assert.DoesNotContain("truncate", device.Message, StringComparison.Ordinal);
        CbdException folder = Refused(CbdErrorKind.NotFound, new() { Path = Path.Combine(_folder, "none", "disk") }, $"no directory {_folder}/none");
        Assert.DoesNotContain("truncate", folder.Message, StringComparison.Ordinal);
        CbdException above = Refused(CbdErrorKind.NotFound, new() { Path = $"{_folder}/none/../disk" }, $"no directory {_folder}/none/..");
        Assert.DoesNotContain("truncate", above.Message, StringComparison.Ordinal);
        CbdException slash = Refused(CbdErrorKind.NotFound, new() { Path = MakeFile("plain", 4096) + "/" }, "correct the path");
        Assert.DoesNotContain("truncate", slash.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(1000, 512, 1024)]
    [InlineData(1000, 4096, 4096)]
    [InlineData(4608, 4096, 8192)]
    public void Names_a_size_and_block_size_that_help(long sizeBytes, int blockBytes, long wholeBytes)
    {
        string path = MakeFile("odd", sizeBytes);
        CbdException error = Refused(CbdErrorKind.Invalid, new() { Path = path, LogicalBlockBytes = blockBytes }, $"truncate -s {wholeBytes} {path}");
        Assert.Equal(blockBytes != 512 && sizeBytes % 512 == 0, error.Message.Contains("use a block size of 512", StringComparison.Ordinal));
        if (blockBytes != 512 && sizeBytes % 512 == 0)
            Disk.Open(new() { Path = path, LogicalBlockBytes = 512 }).Dispose();
        using (var file = new FileStream(path, FileMode.Open))
            file.SetLength(wholeBytes);
        Disk.Open(new() { Path = path, LogicalBlockBytes = blockBytes }).Dispose();
    }

    [Theory]
    [InlineData("a\0b")]
    [InlineData("a\nb")]
    public void Is_refused_when_its_path_has_a_control_character(string path)
    {
        var error = Assert.ThrowsAny<CbdException>(() => Disk.Open(new() { Path = path }).Dispose());
        Assert.Equal(CbdErrorKind.Invalid, error.Kind);
        Assert.Contains("a?b", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Is_refused_when_a_part_of_the_path_is_a_file() =>
        Refused(CbdErrorKind.NotFound, new() { Path = MakeFile("a", 512) + "/b" }, "does not exist");

    [Fact]
    public void Is_refused_when_it_is_a_directory() =>
        Refused(CbdErrorKind.Invalid, new() { Path = _folder }, "directory", "regular file");

    [Fact]
    public void Is_refused_when_it_is_neither_file_nor_block_device() =>
        Refused(CbdErrorKind.Invalid, new() { Path = "/dev/null" }, "neither a regular file nor a block device");

    [Fact]
    public void Is_refused_when_its_size_is_zero() =>
        Refused(CbdErrorKind.Invalid, new() { Path = MakeFile("empty", 0) }, "0 bytes", "truncate -s");

    [Fact]
    public void Is_refused_when_its_size_is_not_a_multiple_of_its_block()
    {
        Refused(CbdErrorKind.Invalid, new() { Path = MakeFile("odd", 1000) }, "1000", "512", "truncate -s 1024");
        Refused(CbdErrorKind.Invalid, new() { Path = MakeFile("small", 5120), LogicalBlockBytes = 4096 }, "5120", "4096");
    }

    [Fact]
    public void Is_refused_with_a_block_size_that_is_not_offered() =>
        Refused(CbdErrorKind.Invalid, new() { Path = MakeFile("a", 8192), LogicalBlockBytes = 1024 }, "1024", "512 or 4096");

    [Fact]
    public void Is_refused_when_it_is_the_region_itself_even_by_another_name()
    {
        string path = MakeFile("region", 4096);
        Assert.Equal(0, FileStatus.TryGet(path, out var status));
        string link = Path.Combine(_folder, "link");
        File.CreateSymbolicLink(link, path);
        FileIdentity[] regions = [new(status.Device, status.Inode)];
        Refused(CbdErrorKind.Invalid, new() { Path = path, Regions = regions }, "region itself");
        Refused(CbdErrorKind.Invalid, new() { Path = link, Regions = regions }, "region itself");
        using var other = Disk.Open(new() { Path = MakeFile("other", 4096), Regions = regions });
        Assert.Equal(TestDisk.Run("stat", "-c", "%d %i", path), $"{status.Device} {status.Inode}");
    }

    [Fact]
    public void Is_refused_without_permission()
    {
        if (Environment.UserName == "root")
            Assert.SkipUnless(File.Exists("/usr/bin/chattr") && IsImmutable(MakeFile("probe", 512)), "root may open anything here");
        string path = MakeFile("locked", 512);
        if (Environment.UserName == "root")
            TestDisk.Run("chattr", "+i", path);
        else
            TestDisk.Run("chmod", "0", path);
        try
        {
            Refused(CbdErrorKind.Denied, new() { Path = path }, "no permission");
        }
        finally
        {
            if (Environment.UserName == "root")
                TestDisk.Run("chattr", "-i", path);
        }

        static bool IsImmutable(string probe)
        {
            try
            {
                TestDisk.Run("chattr", "+i", probe);
                TestDisk.Run("chattr", "-i", probe);
                return true;
            }
            catch (Xunit.Sdk.XunitException)
            {
                return false;
            }
        }
    }

    [Fact]
    public void Is_refused_while_this_process_uses_it()
    {
        string path = MakeFile("used", 1 << 20);
        using (Disk.Open(new() { Path = path }))
        {
            Refused(CbdErrorKind.Busy, new() { Path = path }, "already in use");
            Refused(CbdErrorKind.Busy, new() { Path = path, ReadOnly = true }, "already in use");
        }
        using (Disk.Open(new() { Path = path, ReadOnly = true }))
        using (Disk.Open(new() { Path = path, ReadOnly = true }))
            Refused(CbdErrorKind.Busy, new() { Path = path }, "already in use");
        Disk.Open(new() { Path = path }).Dispose();
    }

    [Theory]
    [MemberData(nameof(Every_disk.KindsWithLock), MemberType = typeof(Every_disk))]
    public void Is_possible_again_as_soon_as_its_last_queue_and_itself_are_closed(string kind)
    {
        using var test = new TestDisk(kind);
        for (int i = 0; i < 20; i++)
        {
            using (var driver = new DiskDriver(test.Disk))
                Assert.Equal(0, driver.Write(0, new byte[4096], BlockFlags.ForceUnitAccess).Error);
            test.Reopen();
        }
    }

    [Fact]
    public async Task Is_refused_while_another_process_uses_it_and_waits_for_it_when_told_to()
    {
        string path = MakeFile("other-process", 1 << 20);
        using var holder = Start(
            "python3", "-c",
            "import fcntl,sys; f=open(sys.argv[1],'r+b'); fcntl.lockf(f,fcntl.LOCK_EX); print('locked',flush=True); sys.stdin.readline()",
            path);
        Assert.Equal("locked", holder.StandardOutput.ReadLine());
        Refused(CbdErrorKind.Busy, new() { Path = path }, "already in use");
        Refused(CbdErrorKind.Busy, new() { Path = path, LockWaitMs = 60 }, "after 60 ms");
        var opening = new TaskCompletionSource<Disk>();
        var opener = new Thread(() => opening.SetResult(Disk.Open(new() { Path = path, LockWaitMs = 60_000 })));
        opener.Start();
        holder.StandardInput.WriteLine();
        holder.WaitForExit();
        opener.Join();
        (await opening.Task).Dispose();
    }

    [Fact]
    public async Task Of_a_block_device_is_refused_while_it_is_in_use_and_waits_for_it_when_told_to()
    {
        using var test = new TestDisk("loop io_uring");
        Refused(CbdErrorKind.Busy, test.Options, "already in use", "mounted");
        var opening = new TaskCompletionSource<Disk>();
        var opener = new Thread(() => opening.SetResult(Disk.Open(test.Options with { LockWaitMs = 60_000 })));
        opener.Start();
        test.Disk.Dispose();
        opener.Join();
        (await opening.Task).Dispose();
    }

    [Fact]
    public void Of_a_read_only_block_device_asks_for_read_only()
    {
        TestDisk.RequireLoopDevices();
        string loop = TestDisk.Run("losetup", "--find", "--show", "--read-only", MakeFile("read-only", 1 << 20));
        try
        {
            Refused(CbdErrorKind.Denied, new() { Path = loop }, "read-only");
            using var disk = Disk.Open(new() { Path = loop, ReadOnly = true });
            Assert.True(disk.Info.ReadOnly);
        }
        finally
        {
            TestDisk.Run("losetup", "-d", loop);
        }
    }

    [Fact]
    public void Of_a_block_device_with_4096_byte_sectors_refuses_smaller_blocks()
    {
        TestDisk.RequireLoopDevices();
        string loop = TestDisk.Run("losetup", "--find", "--show", "--sector-size=4096", MakeFile("sectors", 1 << 20));
        try
        {
            Refused(CbdErrorKind.Invalid, new() { Path = loop, LogicalBlockBytes = 512 }, "512", "its own is 4096");
            using var disk = Disk.Open(new() { Path = loop });
            Assert.Equal(4096, disk.Info.LogicalBlockBytes);
        }
        finally
        {
            TestDisk.Run("losetup", "-d", loop);
        }
    }

    [Theory]
    [InlineData(DiskEngine.IoUring)]
    [InlineData(DiskEngine.Pread)]
    public void Takes_the_page_cache_where_direct_io_needs_larger_blocks(DiskEngine engine)
    {
        TestDisk.RequireLoopDevices();
        string loop = TestDisk.Run("losetup", "--find", "--show", "--sector-size=4096", MakeFile("fs", 16 << 20));
        string mount = Directory.CreateDirectory(Path.Combine(_folder, "mount")).FullName;
        try
        {
            TestDisk.Run("mkfs.ext4", "-q", "-b", "4096", loop);
            TestDisk.Run("mount", loop, mount);
            try
            {
                string path = Path.Combine(mount, "disk");
                using (var file = new FileStream(path, FileMode.CreateNew, FileAccess.Write))
                    file.SetLength(1 << 20);
                using (var disk = Disk.Open(new() { Path = path, Engine = engine, LogicalBlockBytes = 4096 }))
                    Assert.False(disk.IsBuffered);
                using (var disk = Disk.Open(new() { Path = path, Engine = engine }))
                using (var driver = new DiskDriver(disk))
                {
                    Assert.True(disk.IsBuffered);
                    byte[] bytes = [.. Enumerable.Repeat((byte)3, 512)];
                    Assert.Equal(0, driver.Write(512, bytes, BlockFlags.ForceUnitAccess).Error);
                    Assert.Equal(0, driver.Do(BlockOperation.Cache, 0, 4096).Error);
                    Assert.Equal(0, driver.Do(BlockOperation.Flush, 0, 0).Error);
                    Assert.Equal(bytes, driver.Read(512, 512));
                }
            }
            finally
            {
                TestDisk.Run("umount", mount);
            }
        }
        finally
        {
            TestDisk.Run("losetup", "-d", loop);
        }
    }

    [Fact]
    public void Names_the_engine_in_use()
    {
        string path = MakeFile("engine", 1 << 20);
        using (var disk = Disk.Open(new() { Path = path, Engine = DiskEngine.Pread }))
            Assert.Equal("pread", disk.Engine);
        using (var disk = Disk.Open(new() { Path = path }))
            Assert.Equal(Environment.GetEnvironmentVariable(WithoutIoUring) is null ? "io_uring" : "pread", disk.Engine);
        Assert.Throws<CbdException>(() => DiskOptions.ParseEngine("aio"));
    }

    [Fact]
    public void Falls_back_to_pread_where_io_uring_is_forbidden()
    {
        if (Environment.GetEnvironmentVariable(WithoutIoUring) is null)
        {
            // Once more in a process whose io_uring_setup fails with EPERM, as it does in containers.
            RunSelfWithoutIoUring(nameof(Falls_back_to_pread_where_io_uring_is_forbidden));
            return;
        }
        string path = MakeFile("forbidden", 1 << 20);
        Refused(CbdErrorKind.Unsupported, new() { Path = path, Engine = DiskEngine.IoUring }, "io_uring", "errno 1", "pread");
        using var disk = Disk.Open(new() { Path = path });
        Assert.Equal("pread", disk.Engine);
        using var driver = new DiskDriver(disk);
        Assert.Equal(0, driver.Write(0, new byte[4096], BlockFlags.ForceUnitAccess).Error);
        Assert.Equal(new byte[4096], driver.Read(0, 4096));
    }

    [Fact]
    public void Gives_files_their_own_identity_and_durability_id()
    {
        using var first = Disk.Open(new() { Path = MakeFile("first", 512) });
        using var second = Disk.Open(new() { Path = MakeFile("second", 512) });
        Assert.NotEqual(first.Identity, second.Identity);
        Assert.NotEqual(first.Info.DurabilityId, second.Info.DurabilityId);
    }

    [Fact]
    public void Of_a_file_that_a_loop_device_stands_on_is_refused_for_writing()
    {
        using var test = new TestDisk("loop", readOnly: true);
        Refused(CbdErrorKind.Busy, new() { Path = test.FilePath }, "the loop device /dev/loop", "losetup -d");
        Disk.Open(new() { Path = test.FilePath, ReadOnly = true }).Dispose();
    }

    [Fact]
    public void Of_a_loop_device_whose_file_is_served_is_refused_for_writing()
    {
        using var test = new TestDisk("file");
        string loop = TestDisk.Run("losetup", "--find", "--show", test.FilePath);
        try
        {
            Refused(CbdErrorKind.Busy, new() { Path = loop }, test.FilePath, "has a lock");
            Disk.Open(new() { Path = loop, ReadOnly = true }).Dispose();
            test.Disk.Dispose();
            Disk.Open(new() { Path = loop }).Dispose();
        }
        finally
        {
            TestDisk.Run("losetup", "-d", loop);
        }
    }

    private static void RunSelfWithoutIoUring(string method)
    {
        // A seccomp filter: load the call number; io_uring_setup (425) answers EPERM, all else is allowed.
        const string Script = """
            import ctypes,os,struct,sys
            filter=b''.join(struct.pack('=HBBI',*i) for i in [(0x20,0,0,0),(0x15,0,1,425),(6,0,0,0x00050001),(6,0,0,0x7fff0000)])
            code=ctypes.create_string_buffer(filter)
            class Program(ctypes.Structure): _fields_=[('count',ctypes.c_ushort),('code',ctypes.c_void_p)]
            program=Program(4,ctypes.cast(code,ctypes.c_void_p))
            libc=ctypes.CDLL(None,use_errno=True)
            if libc.prctl(38,1,0,0,0)!=0 or libc.prctl(22,2,ctypes.byref(program),0,0)!=0:
                sys.exit('prctl: errno %d' % ctypes.get_errno())
            os.execv(sys.argv[1],sys.argv[1:])
            """;
        using var process = Start(
            "python3", "-c", Script, Environment.ProcessPath!, "-method", $"{typeof(Opening_a_disk).FullName}.{method}");
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, output);
        Assert.Contains("Total: 1, ", output, StringComparison.Ordinal);
    }

    private static Process Start(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments) { RedirectStandardInput = true, RedirectStandardOutput = true };
        start.Environment[WithoutIoUring] = "1";
        return Process.Start(start)!;
    }
}
