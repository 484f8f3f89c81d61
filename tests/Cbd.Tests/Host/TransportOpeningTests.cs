using Cbd.Host;
using Cbd.Host.Transports;
using Cbd.Memory;
using Cbd.Protocol.Format;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>tp-reg that fails: no mapping, no lock, no entry, and no file that was not there stays.</summary>
public sealed class A_registration_that_fails : IDisposable
{
    private const long SizeBytes = 16 << 20;

    private readonly TemporaryDirectory _directory = new();

    private string Region => _directory.PathOf("region");

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData(CbdErrorKind.Unsupported, "coherence")]
    [InlineData(CbdErrorKind.Invalid, "name")]
    [InlineData(CbdErrorKind.Invalid, "no size")]
    [InlineData(CbdErrorKind.Invalid, "geometry")]
    [InlineData(CbdErrorKind.Invalid, "too small")]
    [InlineData(CbdErrorKind.Busy, "taken here")]
    public void With_a_new_file_leaves_none(CbdErrorKind kind, string what)
    {
        RegisterTransportOptions options = Formatting() with
        {
            Host = what == "name" ? "a/b" : "host",
            Coherence = what == "coherence" ? "software" : null,
            SizeBytes = what switch { "no size" => 0, "too small" => 4096, _ => SizeBytes },
            Hosts = what == "geometry" ? 1 << 20 : null,
        };
        Assert.Equal(kind, Assert.Throws<CbdException>(() => Open(options, isTaken: what == "taken here")).Kind);
        Assert.False(File.Exists(Region));
        Assert.Equal(0, RegionView.MappingsOf(Region));
    }

    [Fact]
    public void Because_there_is_nothing_changes_nothing()
    {
        Assert.Equal(CbdErrorKind.NotFound, Assert.Throws<CbdException>(() => Open(Joining())).Kind);
        Assert.Equal(CbdErrorKind.Invalid, Assert.Throws<CbdException>(() => Open(Joining() with { Channels = 4 })).Kind);
        Assert.False(File.Exists(Region));
        byte[] other = new byte[1 << 20];
        other[5000] = 1;
        File.WriteAllBytes(Region, other);
        Assert.Contains($"region '{Region}'", Assert.Throws<CbdException>(() => Open(Joining())).Message, StringComparison.Ordinal);
        Assert.Contains("not empty", Assert.Throws<CbdException>(() => Open(Formatting() with { SizeBytes = null })).Message, StringComparison.Ordinal);
        AssertNothingIsHeld();
        Assert.Equal(other, File.ReadAllBytes(Region));
    }

    [Fact]
    public void Because_hosts_live_there_leaves_no_trace_of_this_one()
    {
        using var host = new BareTransport(Region, "host", format: true);
        Assert.Contains("is taken", Assert.Throws<CbdException>(() => Open(Joining())).Message, StringComparison.Ordinal);
        Assert.Contains("not empty", Assert.Throws<CbdException>(() => Open(Formatting())).Message, StringComparison.Ordinal);
        Assert.Contains("is alive", Assert.Throws<CbdException>(() => Open(Formatting() with { Force = true })).Message, StringComparison.Ordinal);
        Assert.Equal(1, RegionView.MappingsOf(Region));
        using var view = new RegionView(Region);
        Assert.Equal([$"host {host.HostId} Active"], view.Taken);
        host.Dispose();
        Assert.Empty(view.Taken);
        Assert.False(view.IsLocked);
    }

    [Fact]
    public void Because_all_entries_are_taken_can_be_tried_again_when_one_is_free()
    {
        OpenedTransport first = Open(Formatting() with { Host = "first", Hosts = 1 });
        Assert.Equal(CbdErrorKind.Exhausted, Assert.Throws<CbdException>(() => Open(Joining())).Kind);
        Assert.Equal(1, RegionView.MappingsOf(Region));
        first.GiveBack();
        AssertNothingIsHeld();
        Open(Joining()).GiveBack();
        AssertNothingIsHeld();
    }

    [Fact]
    public void Because_of_a_host_that_nobody_judges_gives_up_after_a_time_and_its_entry_back()
    {
        Open(Formatting() with { Host = "other" }).GiveBack();
        using var far = new FarHost(Region, "host");
        CbdException unproven = Assert.Throws<CbdException>(() => Open(Joining()));
        Assert.Contains("nothing proves that host", unproven.Message, StringComparison.Ordinal);
        using var view = new RegionView(Region);
        Assert.Equal([$"host {far.Id} Active"], view.Taken);
        Assert.Equal(2, RegionView.MappingsOf(Region));
    }

    [Fact]
    public void To_grow_a_region_that_cannot_be_laid_out_leaves_its_size()
    {
        File.WriteAllBytes(Region, new byte[1 << 20]);
        Assert.Equal(CbdErrorKind.Invalid, Assert.Throws<CbdException>(() => Open(Formatting() with { SizeBytes = 2 << 20, Channels = 100_000 })).Kind);
        Assert.Equal(1 << 20, new FileInfo(Region).Length);
        Open(Formatting() with { SizeBytes = SizeBytes }).GiveBack();
        Assert.Equal(SizeBytes, new FileInfo(Region).Length);
    }

    [Fact]
    public void Leaves_the_locks_of_host_entries_to_others()
    {
        Open(Formatting()).GiveBack();
        using RegionMapping mine = RegionMapping.Open(Region), theirs = RegionMapping.Open(Region);
        var locks = new OfdHostLocks(mine);
        var others = new OfdHostLocks(theirs);
        Assert.False(locks.IsAnyHeld(mine.Device, mine.Inode));
        Assert.True(locks.TryLock(1));
        Assert.False(locks.TryLock(1));
        Assert.False(others.TryLock(1));
        Assert.True(locks.IsHeld(1, mine.Device, mine.Inode) && others.IsHeld(1, mine.Device, mine.Inode));
        Assert.False(others.IsHeld(2, mine.Device, mine.Inode));
        Assert.True(locks.IsAnyHeld(mine.Device, mine.Inode) && others.IsAnyHeld(mine.Device, mine.Inode));
        // Of a file with other numbers the kernel's locks say nothing.
        Assert.True(others.IsHeld(2, mine.Device, mine.Inode + 1) && others.IsAnyHeld(mine.Device + 1, mine.Inode));
        locks.Unlock(1);
        locks.Unlock(1);
        Assert.False(others.IsAnyHeld(mine.Device, mine.Inode));
        Assert.True(others.TryLock(1));
    }

    private RegisterTransportOptions Formatting() => new() { Host = "host", Path = Region, Format = true, SizeBytes = SizeBytes };

    private RegisterTransportOptions Joining() => new() { Host = "host", Path = Region };

    private static OpenedTransport Open(RegisterTransportOptions options, bool isTaken = false) =>
        TransportOpening.Open(0, options, TestNode.OptionsOf("/"), (_, _) => isTaken);

    private void AssertNothingIsHeld()
    {
        Assert.Equal(0, RegionView.MappingsOf(Region));
        using RegionSource source = RegionSource.Open(Region);
        Assert.False(RegionByteLock.IsAnyHeld(source.Descriptor));
    }
}
