using Cbd.Disks;
using Cbd.Tests.Disks;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>A file of a file system, and the same file of its copy: nothing tells whether the two are one.</summary>
public sealed class A_disk_that_may_be_reserved : IDisposable
{
    private const int ImageBytes = 128 << 20;

    private readonly TemporaryDirectory _folder = new(onDisk: true);
    private readonly Stack<Action> _cleanUp = [];
    private readonly BareTransport _users;
    private readonly BareTransport _other;
    private readonly string _disk, _copy;

    public A_disk_that_may_be_reserved()
    {
        TestDisk.RequireLoopDevices();
        string image = _folder.PathOf("image"), second = _folder.PathOf("second");
        using (var file = new FileStream(image, FileMode.CreateNew, FileAccess.Write))
            file.SetLength(ImageBytes);
        TestDisk.Run("mkfs.ext4", "-q", "-F", image);
        string mount = Mount(image, "mount");
        _disk = Path.Combine(mount, "disk");
        using (var file = new FileStream(_disk, FileMode.CreateNew, FileAccess.Write))
            file.SetLength(1 << 20);
        TestDisk.Run("sync", "-f", _disk);
        File.Copy(image, second);
        _copy = Path.Combine(Mount(second, "copy"), "disk");
        _users = new BareTransport(_folder.PathOf("region"), "users", format: true);
        _other = new BareTransport(_folder.PathOf("other"), "other", format: true);
    }

    public void Dispose()
    {
        _users?.Dispose();
        _other?.Dispose();
        while (_cleanUp.TryPop(out Action? undo))
            undo();
        _folder.Dispose();
    }

    [Fact]
    public void Stays_reserved_when_its_copy_is_stopped_in_its_region()
    {
        using (BareTransport disks = Serve())
        {
            Assert.Equal(1, _users.StartBackend(_copy));
            _users.Transport.Backends.Stop(1, force: false, leaves: false);
            _users.StartDevice(0);
        }

        RefusesFor(_disk, $"disk {_disk} is backend 0 of host 'disks'");
    }

    [Fact]
    public void Stays_reserved_when_its_copy_was_reserved_for_another_region_before_devices_came()
    {
        using (BareTransport disks = Serve())
        {
            Assert.Equal(0, _other.StartBackend(_copy));
            _users.StartDevice(0);
        }

        RefusesFor(_disk, $"disk {_disk} is backend 0 of host 'disks'");
    }

    [Fact]
    public void Is_started_beside_the_original_that_is_served_and_again_when_its_own_devices_wait()
    {
        using (BareTransport disks = Serve())
        {
            _users.StartDevice(0);
            using var copies = new BareTransport(_folder.PathOf("other"), "copies");
            Assert.Equal(0, copies.StartBackend(_copy));
            _other.StartDevice(0);
        }

        using var again = new BareTransport(_folder.PathOf("other"), "copies");
        Assert.Equal(0, again.StartBackend(_copy));
    }

    [Fact]
    public void Is_refused_with_what_is_right_whichever_disk_it_is()
    {
        using (BareTransport disks = Serve())
            _users.StartDevice(0);
        CbdException refused = RefusesFor(_copy, "it may be on a copy of its file system: start the disk of that backend there, which leaves this one free if it is another");
        Assert.StartsWith($"nothing tells whether disk {_copy} is backend 0 of host 'disks' in region {_folder.PathOf("region")}, for which devices there wait", refused.Message, StringComparison.Ordinal);
        using BareTransport again = Serve();
        Assert.Equal(0, _other.StartBackend(_copy));
    }

    [Fact]
    public void Is_refused_with_what_is_right_for_another_users_region_too()
    {
        using (BareTransport disks = Serve())
            _users.StartDevice(0);
        string file = Assert.Single(Directory.GetFiles(_folder.PathOf("disks")));
        TestDisk.Run("chown", "54321", file, _copy);
        RefusesFor(_copy, $"if it is another one, remove {file}, start this one, and that backend again, which reserves its disk anew");
        File.Delete(file);
        Assert.Equal(0, _other.StartBackend(_copy));
        Serve().Dispose();
        RefusesFor(_disk, $"disk {_disk} is backend 0 of host 'disks'");
    }

    /// <summary>The disk is backend 0 of the region of the users, until that daemon is gone.</summary>
    private BareTransport Serve()
    {
        var disks = new BareTransport(_folder.PathOf("region"), "disks");
        Assert.Equal(0, disks.StartBackend(_disk));
        return disks;
    }

    private CbdException RefusesFor(string disk, string why)
    {
        CbdException refused = Assert.Throws<CbdException>(() => _other.StartBackend(disk));
        Assert.Equal(CbdErrorKind.Busy, refused.Kind);
        Assert.Contains(why, refused.Message, StringComparison.Ordinal);
        return refused;
    }

    private string Mount(string image, string name)
    {
        string folder = Directory.CreateDirectory(_folder.PathOf(name)).FullName;
        TestDisk.Run("mount", "-o", "loop", image, folder);
        _cleanUp.Push(() => TestDisk.Run("umount", folder));
        return folder;
    }
}
