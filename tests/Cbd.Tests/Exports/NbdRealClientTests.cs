using System.Diagnostics;
using Cbd.Exports.Pumping;
using Cbd.Blocks;
using Cbd.Disks;
using Cbd.Exports.Nbd;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>Clients that nobody here wrote, on a memory disk.</summary>
public sealed class NbdRealClientTests : IDisposable
{
    private readonly Disk _disk = Disk.Open(new DiskOptions { Path = "memory:512M", LogicalBlockBytes = 4096 });
    private readonly NbdTestServer _server;

    public NbdRealClientTests() => _server = new NbdTestServer(_disk, queues: 2);

    public void Dispose()
    {
        _server.Dispose();
        _disk.Dispose();
    }

    [Fact]
    public void Fio_verifies_random_writes_of_4k_to_1m_over_four_connections()
    {
        (int code, string output) = Run(
            "fio", "--name=verify", "--ioengine=nbd", $"--uri={_server.Export.Uri}", "--rw=randwrite", "--bsrange=4k-1m",
            "--blockalign=4k", "--iodepth=16", "--numjobs=4", "--size=64m", "--offset_increment=64m", "--verify=crc32c",
            "--verify_fatal=1", "--verify_state_save=0", "--fsync=64", "--group_reporting");
        Assert.True(code == 0 && output.Contains("err= 0", StringComparison.Ordinal), output);
        IReadOnlyList<PumpStatistics> pumps = _server.Export.GetStatistics();
        Assert.Equal(256L << 20, pumps.Sum(pump => pump.BytesWritten));
        Assert.Equal(0, pumps.Sum(pump => pump.FailedRequests));
        Assert.All(pumps, pump => Assert.NotEqual(0, pump.Requests));
    }

    [Fact]
    public void Nbdcopy_brings_back_what_it_brought()
    {
        string source = Path.GetTempFileName();
        string copy = source + ".copy";
        try
        {
            byte[] bytes = new byte[100 << 20];
            new Random(1).NextBytes(bytes.AsSpan(1 << 20, 60 << 20));
            using (FileStream file = File.Create(source))
            {
                file.Write(bytes);
                file.SetLength(512 << 20);
            }

            Assert.Equal((0, ""), Run("nbdcopy", "--flush", source, _server.Export.Uri));
            Assert.Equal((0, ""), Run("nbdcopy", _server.Export.Uri, copy));
            Assert.Equal((0, ""), Run("cmp", source, copy));
        }
        finally
        {
            File.Delete(source);
            File.Delete(copy);
        }
    }

    [Fact]
    public void Nbdinfo_shows_the_export()
    {
        (int code, string output) = Run("nbdinfo", "--list", _server.Export.Uri);
        Assert.True(code == 0, output);
        foreach (string line in new[]
        {
            "export-size: 536870912", "is_read_only: false", "can_flush: true", "can_fua: true", "can_multi_conn: true", "can_trim: true",
            "can_zero: true", "can_fast_zero: true", "block_size_minimum: 4096", "block_size_maximum: 33554432",
        })
        {
            Assert.Contains(line, output, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void Qemu_io_writes_zeroes_discards_and_reads_patterns()
    {
        (int code, string output) = Run(
            "qemu-io", "-f", "raw", "-c", "write -P 0x5a 0 1M", "-c", "write -f -P 0x5b 1M 64k", "-c", "write -z 64k 128k",
            "-c", "write -z -u 512k 64k", "-c", "discard 2M 1M", "-c", "flush", "-c", "read -P 0x5a 0 64k", "-c", "read -P 0 64k 128k",
            "-c", "read -P 0x5a 192k 320k", "-c", "read -P 0x5b 1M 64k", "-c", "aio_write -P 1 8M 16M", "-c", "aio_read -P 1 8M 16M",
            "-c", "aio_flush", _server.Export.Uri);
        Assert.True(code == 0, output);
        Assert.DoesNotContain("failed", output, StringComparison.Ordinal);
        Assert.Equal(0, _server.Export.GetStatistics().Sum(pump => pump.FailedRequests));
    }

    [Fact]
    public void Nbdsh_sees_the_errors_that_it_should()
    {
        const string Script = """
            import errno
            def expect(code, call):
                try:
                    call()
                except nbd.Error as e:
                    assert e.errnum == code, (e.errnum, code)
                    return
                raise AssertionError("no error, expected %d" % code)
            h.set_strict_mode(0)
            h.connect_uri(uri)
            size = h.get_size()
            h.pwrite(b"x" * 8192, 4096, nbd.CMD_FLAG_FUA)
            assert h.pread(8192, 4096) == b"x" * 8192
            expect(errno.ENOSPC, lambda: h.pwrite(b"x" * 4096, size))
            expect(errno.EINVAL, lambda: h.pread(4096, size))
            expect(errno.EINVAL, lambda: h.pread(512, 0))
            expect(errno.EINVAL, lambda: h.trim(4096, size))
            expect(errno.ENOSPC, lambda: h.zero(4096, size))
            h.zero(4096, 4096, nbd.CMD_FLAG_NO_HOLE)
            assert h.pread(8192, 4096) == bytes(4096) + b"x" * 4096
            h.flush()
            h.shutdown()
            """;
        Require("nbdsh");
        (int code, string output) = Run("/usr/bin/python3", "-c", "import nbd; h = nbd.NBD(); uri = '" + _server.Export.Uri + "'\n" + Script);
        Assert.True(code == 0, output);
    }

    [Fact]
    public async Task A_killed_fio_leaves_the_other_one_alone()
    {
        Require("fio");
        using Process victim = Start("fio", FioWrites());
        using Process other = Start("fio", [.. FioWrites(), "--offset=256m"]);
        try
        {
            NbdTestServer.Until(() => _server.Export.ClientCount == 2 && Requests() > 2000, "both are connected and write");
            victim.Kill(entireProcessTree: true);
            NbdTestServer.Until(() => _server.Export.ClientCount == 1, "the killed one is gone");
            long before = Requests();
            NbdTestServer.Until(() => Requests() > before + 2000, "the other one goes on");
            Task<string> output = other.StandardOutput.ReadToEndAsync();
            Assert.Equal((0, ""), Run("/bin/kill", "-INT", $"{other.Id}"));
            string text = await output.WaitAsync(TimeSpan.FromSeconds(180));
            Assert.Contains("terminating on signal 2", text, StringComparison.Ordinal);
            Assert.Contains("err= 0", text, StringComparison.Ordinal);
            NbdTestServer.Until(() => _server.Export.ClientCount == 0, "both are gone");
        }
        finally
        {
            victim.Kill(entireProcessTree: true);
            other.Kill(entireProcessTree: true);
        }
    }

    private long Requests() => _server.Export.GetStatistics().Sum(pump => pump.Requests);

    /// <summary>For longer than any test: whoever starts it ends it.</summary>
    private string[] FioWrites() =>
    [
        "--name=writes", "--ioengine=nbd", $"--uri={_server.Export.Uri}", "--rw=randwrite", "--bs=64k", "--iodepth=16", "--size=128m",
        "--time_based", "--runtime=600", "--thread",
    ];

    private static void Require(string program)
    {
        string[] directories = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(':');
        if (!directories.Any(directory => File.Exists(Path.Combine(directory, program))))
            Assert.Skip($"{program} is not installed");
    }

    private static Process Start(string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(program, arguments)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = Path.GetTempPath(),
        };
        return Process.Start(start) ?? throw new InvalidOperationException($"{program} did not start");
    }

    private static (int Code, string Output) Run(string program, params string[] arguments)
    {
        if (program[0] != '/')
            Require(program);
        using Process process = Start(program, arguments);
        Task<string> errors = process.StandardError.ReadToEndAsync();
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output + errors.GetAwaiter().GetResult());
    }
}
