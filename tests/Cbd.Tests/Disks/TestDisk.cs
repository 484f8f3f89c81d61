using System.Diagnostics;
using Cbd.Blocks;
using Cbd.Disks;
using Cbd.Host;
using Cbd.Tests.Library;
using Xunit;

namespace Cbd.Tests.Disks;

/// <summary>
/// A disk of a kind and engine with what is behind it: a temporary file (tmpfs has no
/// zero-range, so that zeroes are written), or a loop device over one. With "blkdev" before the kind another host of this
/// process serves it on a region, and a blkdev of the library is its device here.
/// </summary>
internal sealed class TestDisk : IDisposable
{
    public const long SizeBytes = 16 << 20;

    private readonly string _folder;
    private readonly LocalRegion? _region;
    private string? _loop;

    public TestDisk(string kind, long sizeBytes = SizeBytes, bool readOnly = false, int? blockBytes = null, FaultSet? faults = null)
    {
        bool isRemote = kind.StartsWith("blkdev ", StringComparison.Ordinal);
        kind = isRemote ? kind["blkdev ".Length..] : kind;
        if (kind.StartsWith("tmpfs", StringComparison.Ordinal) && !Directory.Exists("/dev/shm"))
            Assert.Skip("this machine has no /dev/shm");
        _folder = kind.StartsWith("tmpfs", StringComparison.Ordinal)
            ? Directory.CreateDirectory($"/dev/shm/cbd-disk-{Guid.NewGuid():N}").FullName
            : Directory.CreateTempSubdirectory("cbd-disk-").FullName;
        try
        {
            FilePath = Path.Combine(_folder, "disk.img");
            using (var file = new FileStream(FilePath, FileMode.CreateNew, FileAccess.Write))
                file.SetLength(sizeBytes);
            string[] parts = kind.Split(' ');
            Options = new DiskOptions
            {
                Path = parts[0] switch
                {
                    "memory" => $"memory:{sizeBytes}",
                    "loop" => AttachLoop(),
                    _ => FilePath,
                },
                Engine = parts.Length > 1 ? DiskOptions.ParseEngine(parts[1]) : DiskEngine.Auto,
                ReadOnly = readOnly,
                LogicalBlockBytes = blockBytes,
                Faults = faults,
            };
            if (isRemote)
            {
                _region = new LocalRegion();
                int backend = _region.StartBackend(new StartBackendOptions
                {
                    Path = Options.Path,
                    Engine = parts.Length > 1 ? parts[1] : "auto",
                    ReadOnly = readOnly,
                    BlockBytes = blockBytes,
                });
                Device = _region.Join().OpenBlkdev(backend, queues: 2, readOnly);
            }
            else
            {
                Device = Disk = Disk.Open(Options);
            }
        }
        catch
        {
            Dispose();
            throw;
        }
    }

    public string FilePath { get; }

    public DiskOptions Options { get; }

    /// <summary>The disk, where it is in this process.</summary>
    public Disk Disk { get; private set; } = null!;

    /// <summary>The disk, or the blkdev on it.</summary>
    public IBlockDevice Device { get; private set; } = null!;

    /// <summary>Closes the disk and opens it again.</summary>
    public void Reopen()
    {
        Disk.Dispose();
        Device = Disk = Disk.Open(Options);
    }

    public void Dispose()
    {
        Device?.Dispose();
        _region?.Dispose();
        if (_loop is not null)
            Run("losetup", "-d", _loop);
        Directory.Delete(_folder, recursive: true);
    }

    /// <summary>Runs a program to its end; returns its output, trimmed.</summary>
    public static string Run(string program, params string[] arguments)
    {
        using var process = Process.Start(new ProcessStartInfo(program, arguments)
        {
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        string output = process.StandardOutput.ReadToEnd();
        string errors = process.StandardError.ReadToEnd();
        process.WaitForExit();
        Assert.True(process.ExitCode == 0, $"{program} {string.Join(' ', arguments)}: {output}{errors}");
        return output.Trim();
    }

    public static void RequireLoopDevices()
    {
        if (Environment.UserName != "root")
            Assert.Skip("loop devices need root");
        if (!File.Exists("/dev/loop-control"))
            Assert.Skip("this machine has no loop devices");
    }

    private string AttachLoop()
    {
        RequireLoopDevices();
        _loop = Run("losetup", "--find", "--show", "--direct-io=on", FilePath);
        return _loop;
    }
}
