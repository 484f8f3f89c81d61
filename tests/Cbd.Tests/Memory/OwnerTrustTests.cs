using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Memory;

/// <summary>Directories and files that others made, or can change.</summary>
public sealed class OwnerTrustTests : IDisposable
{
    private const uint Stranger = 54201;

    private readonly TemporaryDirectory _files = new(onDisk: true);

    public void Dispose() => _files.Dispose();

    [Fact]
    public void Own_directories_are_taken_and_missing_ones()
    {
        OwnerTrust.Default.CheckDirectory(Make("own", 0b111_000_000), "run directory", "none");
        OwnerTrust.Default.CheckDirectory(_files.PathOf("own/not/there"), "run directory", "none");
        OwnerTrust.Default.CheckDirectory("/tmp", "directory", "none", isShared: true);
    }

    [Theory]
    [InlineData(0b111_111_111, "can be written by others")]
    [InlineData(0b001_111_111_111, "is for everybody to write to")]
    public void Directories_that_others_can_write_are_refused(int mode, string why)
    {
        string path = Make("open", mode);
        CbdException refused = Assert.Throws<CbdException>(() => OwnerTrust.Default.CheckDirectory(path, "run directory", "give another one with --run-dir"));
        Assert.Equal(CbdErrorKind.Denied, refused.Kind);
        Assert.StartsWith($"the run directory '{path}' {why}", refused.Message, StringComparison.Ordinal);
        Assert.Contains($"mode 0{Convert.ToString(mode, 8)}", refused.Message, StringComparison.Ordinal);
        Assert.Contains("give another one with --run-dir", refused.Message, StringComparison.Ordinal);
        // The remedies work.
        new OwnerTrust(any: true).CheckDirectory(path, "run directory", "none");
        new OwnerTrust(users: [ControlSyscalls.EffectiveUserId]).CheckDirectory(path, "run directory", "none");
        File.SetUnixFileMode(path, (UnixFileMode)0b111_101_101);
        OwnerTrust.Default.CheckDirectory(path, "run directory", "none");
    }

    [Fact]
    public void Directories_of_others_are_refused_and_what_is_in_them_and_their_links()
    {
        Assert.SkipUnless(ControlSyscalls.EffectiveUserId == 0, "only root can make files of others");
        string theirs = Make("theirs", 0b111_101_101);
        Directory.CreateDirectory(_files.PathOf("theirs/mine"));
        Give(theirs);
        Assert.Contains($"belongs to uid {Stranger} (mode 0755)", Refusal(theirs), StringComparison.Ordinal);
        Assert.Contains($"is in '{theirs}', which belongs to uid {Stranger}", Refusal(_files.PathOf("theirs/mine")), StringComparison.Ordinal);
        Assert.Contains($"--trust-owner {Stranger}", Refusal(theirs), StringComparison.Ordinal);
        new OwnerTrust(users: [Stranger]).CheckDirectory(_files.PathOf("theirs/mine"), "run directory", "none");
        string link = _files.PathOf("link");
        KernelTests.Run("ln", $"-s {Make("mine", 0b111_000_000)} {link}");
        OwnerTrust.Default.CheckDirectory(link, "run directory", "none");
        Give(link);
        Assert.Contains($"leads over the link '{link}' of uid {Stranger}", Refusal(link), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("-s")]
    [InlineData("")]
    public void Links_in_place_of_a_lock_or_a_file_are_refused(string symbolic)
    {
        string target = _files.PathOf("target");
        File.WriteAllText(target, "not ours");
        string path = _files.PathOf("lock");
        KernelTests.Run("ln", $"{symbolic} {target} {path}".Trim());
        Assert.Contains($"'{path}' is where a lock file belongs, and", Assert.Throws<CbdException>(() => ControlSyscalls.OpenLockFile(path)).Message, StringComparison.Ordinal);
        Assert.Contains($"'{path}' is where the record belongs, and", Assert.Throws<CbdException>(() => ControlSyscalls.TryOpenOwnFile(path, "the record")).Message, StringComparison.Ordinal);
        Assert.Equal("not ours", File.ReadAllText(target));
    }

    [Fact]
    public void Files_of_others_are_no_lock_and_not_read()
    {
        Assert.SkipUnless(ControlSyscalls.EffectiveUserId == 0, "only root can make files of others");
        string path = _files.PathOf("file");
        File.WriteAllText(path, "theirs");
        Give(path);
        Assert.Contains($"belongs to uid {Stranger}", Assert.Throws<CbdException>(() => ControlSyscalls.OpenLockFile(path)).Message, StringComparison.Ordinal);
        Assert.Throws<CbdException>(() => ControlSyscalls.TryOpenOwnFile(path, "the record"));
        ControlSyscalls.OpenLockFile(path, trust: new OwnerTrust(users: [Stranger])).Dispose();
        Assert.Null(ControlSyscalls.TryOpenOwnFile(_files.PathOf("none"), "the record"));
    }

    [Fact]
    public void Root_refuses_regions_of_others_and_those_that_others_can_write()
    {
        Assert.SkipUnless(ControlSyscalls.EffectiveUserId == 0, "only root is strict");
        string path = _files.PathOf("region");
        File.WriteAllBytes(path, new byte[8192]);
        var access = new RegionAccess();
        RegionSource.Open(path, access: access).Dispose();
        File.SetUnixFileMode(path, (UnixFileMode)0b110_110_110);
        Assert.Contains("can be written by everybody (owner root (uid 0), mode 0666)", Assert.Throws<CbdException>(() => RegionSource.Open(path, access: access)).Message, StringComparison.Ordinal);
        RegionSource.Open(path, access: access with { Mode = 0x1b6 }).Dispose();
        Give(path);
        Assert.Contains($"belongs to uid {Stranger} (mode 0666), who could read and write every block", Assert.Throws<CbdException>(() => RegionSource.Open(path, access: access)).Message, StringComparison.Ordinal);
        RegionSource.Open(path, access: access with { Trust = new OwnerTrust(users: [Stranger]) }).Dispose();
        // A caller's own region is the caller's business.
        File.SetUnixFileMode(path, (UnixFileMode)0b110_000_000);
        File.SetUnixFileMode(Path.GetDirectoryName(path)!, (UnixFileMode)0b111_101_101);
        RegionSource.Open(path, access: access with { Rights = new PathRights(Stranger, Stranger, []) }).Dispose();
    }

    private static string Refusal(string path) =>
        Assert.Throws<CbdException>(() => OwnerTrust.Default.CheckDirectory(path, "run directory", "give another one with --run-dir")).Message;

    private string Make(string name, int mode)
    {
        string path = _files.PathOf(name);
        Directory.CreateDirectory(path);
        File.SetUnixFileMode(path, (UnixFileMode)mode);
        return path;
    }

    private static void Give(string path) => KernelTests.Run("chown", $"-h {Stranger}:{Stranger} {path}");
}
