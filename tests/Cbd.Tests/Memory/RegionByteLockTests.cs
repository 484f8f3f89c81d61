using System.Diagnostics;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Memory;

public sealed class RegionByteLockTests : IDisposable
{
    private readonly TemporaryDirectory _files = new();
    private readonly RegionSource _ours;
    private readonly RegionSource _theirs;

    public RegionByteLockTests()
    {
        _ours = RegionSource.Open(_files.PathOf("region"), 4096);
        _theirs = RegionSource.Open(_files.PathOf("region"));
    }

    public void Dispose()
    {
        _ours.Dispose();
        _theirs.Dispose();
        _files.Dispose();
    }

    [Fact]
    public void One_description_holds_a_byte_and_the_others_see_it()
    {
        using RegionByteLock held = RegionByteLock.TryAcquire(_ours.Descriptor, 7)!;
        Assert.True(RegionByteLock.IsHeld(_theirs.Descriptor, 7));
        Assert.False(RegionByteLock.IsHeld(_theirs.Descriptor, 6));
        Assert.False(RegionByteLock.IsHeld(_theirs.Descriptor, 8));
        Assert.False(RegionByteLock.IsHeld(_ours.Descriptor, 7));
        Assert.Null(RegionByteLock.TryAcquire(_theirs.Descriptor, 7));
        using RegionByteLock next = RegionByteLock.TryAcquire(_theirs.Descriptor, 8)!;
        Assert.NotNull(next);
        held.Dispose();
        Assert.False(RegionByteLock.IsHeld(_theirs.Descriptor, 7));
    }

    [Fact]
    public void Closing_the_description_releases()
    {
        using RegionByteLock held = RegionByteLock.TryAcquire(_ours.Descriptor, 1L << 40)!;
        Assert.True(RegionByteLock.IsHeld(_theirs.Descriptor, 1L << 40));
        _ours.Dispose();
        Assert.False(RegionByteLock.IsHeld(_theirs.Descriptor, 1L << 40));
    }

    [Fact]
    public void A_lock_outlives_its_descriptor_while_the_mapping_can_still_store()
    {
        RegionMapping mapping = _ours.Map();
        using RegionByteLock held = RegionByteLock.TryAcquire(_ours.Descriptor, 3)!;
        _ours.Dispose();
        Assert.True(RegionByteLock.IsHeld(_theirs.Descriptor, 3));
        mapping.Dispose();
        Assert.False(RegionByteLock.IsHeld(_theirs.Descriptor, 3));
    }

    [Fact]
    public void Death_of_the_process_releases()
    {
        const string lockByte9 = "import fcntl,struct,sys; f=open(sys.argv[1],'r+b'); " +
            "fcntl.fcntl(f,37,struct.pack('hhqqi4x',1,0,9,1,0)); print('locked',flush=True); sys.stdin.read()";
        Assert.SkipUnless(File.Exists("/usr/bin/python3"), "python3 is not installed");
        using Process process = Process.Start(new ProcessStartInfo("/usr/bin/python3", ["-c", lockByte9, _ours.Path])
        {
            RedirectStandardOutput = true,
            RedirectStandardInput = true,
        })!;
        Assert.Equal("locked", process.StandardOutput.ReadLine());
        Assert.True(RegionByteLock.IsHeld(_theirs.Descriptor, 9));
        process.Kill();
        process.WaitForExit();
        Assert.False(RegionByteLock.IsHeld(_theirs.Descriptor, 9));
    }
}
