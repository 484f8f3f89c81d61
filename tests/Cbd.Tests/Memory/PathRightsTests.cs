using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Memory;

/// <summary>Paths that are opened for another user.</summary>
public sealed class PathRightsTests : IDisposable
{
    private const uint Stranger = 54201;
    private const uint Group = 54202;
    private const int GetDumpable = 3;

    private readonly TemporaryDirectory _files = new(onDisk: true);

    public PathRightsTests()
    {
        Assert.SkipUnless(ControlSyscalls.EffectiveUserId == 0, "only root can take the rights of others");
        File.SetUnixFileMode(Path.GetDirectoryName(_files.PathOf("x"))!, (UnixFileMode)0b111_101_101);
    }

    public void Dispose() => _files.Dispose();

    [Fact]
    public void Are_those_of_the_user_and_its_groups()
    {
        string secret = Make("secret", 0b110_000_000);
        string readable = Make("readable", 0b110_000_100);
        string ofGroup = Make("of-group", 0b110_110_000);
        ControlSyscalls.ChangeGroup(ofGroup, Group);
        Assert.Equal(-Errno.EACCES, Open(Of(), secret));
        Assert.Equal(-Errno.EACCES, Open(Of(), readable, OpenFlags.ReadWrite));
        Assert.Equal(0, Open(Of(), readable));
        Assert.Equal(-Errno.EACCES, Open(Of(), ofGroup));
        Assert.Equal(0, Open(Of(Group), ofGroup, OpenFlags.ReadWrite));
        Assert.Equal(0, Open(new PathRights(Stranger, Group, []), ofGroup, OpenFlags.ReadWrite));
        Assert.Equal(0, Open(null, secret, OpenFlags.ReadWrite));
    }

    [Fact]
    public void Hold_behind_links_and_for_what_is_in_a_closed_directory()
    {
        string secret = Make("secret", 0b110_000_000);
        File.CreateSymbolicLink(_files.PathOf("link"), secret);
        Assert.Equal(-Errno.EACCES, Open(Of(), _files.PathOf("link")));
        Directory.CreateDirectory(_files.PathOf("closed"), UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
        string hidden = Make("closed/hidden", 0b110_110_110);
        Assert.Equal(-Errno.EACCES, Open(Of(), hidden));
        Assert.Equal(-Errno.EACCES, PathRights.TryGetStatus(Of(), hidden, out _));
        // A way around the directory: this process has the file open.
        using FileStream open = File.OpenRead(hidden);
        string around = $"/proc/self/fd/{open.SafeFileHandle.DangerousGetHandle()}";
        Assert.Equal(-Errno.ELOOP, Open(Of(), around));
        Assert.Equal(-Errno.ELOOP, Open(Of(), $"/proc/self/root{hidden}"));
        // Which the kernel would take.
        Assert.Equal(0, Open(null, around));
    }

    [Fact]
    public void Are_given_back()
    {
        string own = Make("own", 0b110_000_000);
        string before = Rights();
        // The test runner may be undumpable already.
        int dumpable = LibC.PrCtl(GetDumpable, 0, 0, 0, 0);
        for (int i = 0; i < 100; i++)
            Assert.Equal(-Errno.EACCES, Open(Of(Group), own));
        Assert.Equal(before, Rights());
        Assert.Equal(0, Open(null, own, OpenFlags.ReadWrite));
        Assert.Equal(dumpable, LibC.PrCtl(GetDumpable, 0, 0, 0, 0));
    }

    [Fact]
    public void Are_no_other_threads()
    {
        string own = Make("own", 0b110_000_000);
        using var end = new CancellationTokenSource();
        int failures = 0;
        Thread[] others = [.. Enumerable.Range(0, 2).Select(_ => new Thread(() =>
        {
            while (!end.IsCancellationRequested)
            {
                if (Open(Of(), own) != -Errno.EACCES)
                    Interlocked.Increment(ref failures);
            }
        }))];
        foreach (Thread other in others)
            other.Start();
        string rights = Rights();
        for (int i = 0; i < 500; i++)
        {
            Assert.Equal(0, Open(null, own, OpenFlags.ReadWrite));
            Assert.Equal(rights, Rights());
        }

        end.Cancel();
        foreach (Thread other in others)
            other.Join();
        Assert.Equal(0, failures);
    }

    [Fact]
    public void Are_this_process_s_below_allowed_paths_and_none_elsewhere()
    {
        Directory.CreateDirectory(_files.PathOf("pool/deep"));
        string pool = _files.PathOf("pool");
        string inside = Make("pool/deep/disk", 0b110_000_000);
        string outside = Make("outside", 0b110_110_110);
        string secret = Make("secret", 0b110_000_000);
        File.CreateSymbolicLink(_files.PathOf("pool/link"), secret);
        KernelTests.Run("ln", $"{secret} {_files.PathOf("pool/hard")}");
        File.CreateSymbolicLink(_files.PathOf("way"), _files.PathOf("pool/deep"));
        var rights = new PathRights(Stranger, Stranger, [], [pool, _files.PathOf("one")]);
        Assert.Equal(0, Open(rights, inside, OpenFlags.ReadWrite));
        Assert.Equal(0, Open(rights, _files.PathOf("way/disk"), OpenFlags.ReadWrite));
        Assert.Equal(-Errno.EACCES, Open(rights, outside));
        Assert.Equal(-Errno.EACCES, Open(rights, _files.PathOf("nothing/there")));
        Assert.Equal(-Errno.EACCES, Open(rights, _files.PathOf("pool/../secret")));
        Assert.Equal(-Errno.ELOOP, Open(rights, _files.PathOf("pool/link")));
        Assert.Equal(-Errno.EACCES, Open(rights, _files.PathOf("pool/hard")));
        // A file by its own path, whether it is there or not.
        Assert.Equal(-Errno.ENOENT, Open(rights, _files.PathOf("one")));
        Make("one", 0b110_000_000);
        Assert.Equal(0, Open(rights, _files.PathOf("one"), OpenFlags.ReadWrite));
    }

    private static PathRights Of(params uint[] groups) => new(Stranger, Stranger, groups);

    private static int Open(PathRights? rights, string path, OpenFlags flags = OpenFlags.ReadOnly)
    {
        int error = PathRights.TryOpen(rights, path, flags, 0, out FileDescriptor? opened);
        opened?.Dispose();
        return error;
    }

    /// <summary>Of this thread, as the kernel has them.</summary>
    private static string Rights() => string.Join('\n', File.ReadLines("/proc/thread-self/status").Where(line =>
        line.StartsWith("Uid", StringComparison.Ordinal) || line.StartsWith("Gid", StringComparison.Ordinal) || line.StartsWith("Groups", StringComparison.Ordinal) ||
        line.StartsWith("Cap", StringComparison.Ordinal) || line.StartsWith("SigBlk", StringComparison.Ordinal)));

    private string Make(string name, int mode)
    {
        string path = _files.PathOf(name);
        File.WriteAllText(path, "text");
        File.SetUnixFileMode(path, (UnixFileMode)mode);
        return path;
    }
}
