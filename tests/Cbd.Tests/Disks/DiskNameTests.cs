using System.Diagnostics;
using Cbd.Blocks;
using Cbd.Disks;
using Cbd.Memory;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Disks;

/// <summary>What disks of this machine are called, and what a comparison makes of it.</summary>
public sealed class The_identity_of_a_disk : IDisposable
{
    private const int ImageBytes = 128 << 20;

    private readonly TemporaryDirectory _folder = new(onDisk: true);
    private readonly Stack<Action> _cleanUp = [];
    private int _triesOfNumbers = 100;

    public void Dispose()
    {
        while (_cleanUp.TryPop(out Action? undo))
            undo();
        _folder.Dispose();
    }

    [Fact]
    public void Is_that_of_the_file_by_whichever_path()
    {
        string path = MakeFile(_folder.PathOf("disk"));
        string link = _folder.PathOf("link"), symbolic = _folder.PathOf("symbolic");
        TestDisk.Run("ln", path, link);
        File.CreateSymbolicLink(symbolic, path);
        DiskIdentity disk = Identify(path);
        Assert.Equal(disk, Identify(link));
        Assert.Equal(disk, Identify(symbolic));
        Assert.Equal(DiskComparison.Same, DiskIdentity.Compare(disk, Identify(link)));
        string moved = _folder.PathOf("moved");
        File.Move(path, moved);
        Assert.Equal(disk, Identify(moved));
    }

    [Fact]
    public void Is_another_one_for_another_file_under_its_path()
    {
        string path = MakeFile(_folder.PathOf("disk"));
        DiskIdentity disk = Identify(path);
        File.Delete(path);
        Assert.Equal(DiskComparison.Different, DiskIdentity.Compare(disk, Identify(MakeFile(path))));
    }

    [Fact]
    public void Is_that_of_the_file_on_a_file_system_without_generations()
    {
        using var memory = new TemporaryDirectory();
        string path = MakeFile(memory.PathOf("disk"));
        DiskIdentity disk = Identify(path);
        Assert.EndsWith(":-", disk.OldText, StringComparison.Ordinal);
        Assert.SkipUnless(FileDiskName.TryParse(disk.Text, out FileDiskName? name) && name.Birth != "-", "this kernel does not say when files of tmpfs came into being");
        Assert.Equal(DiskComparison.Same, DiskIdentity.Compare(disk, Identify(path)));
        File.Delete(path);
        Assert.Equal(DiskComparison.Different, DiskIdentity.Compare(disk, Identify(MakeFile(path))));
    }

    [Fact]
    public void Does_not_change_what_durability_ids_are_made_of()
    {
        string path = MakeFile(_folder.PathOf("disk"));
        using Disk disk = Disk.Open(new DiskOptions { Path = path });
        Assert.Equal(0, FileStatus.TryGet(path, out FileStatus status));
        Assert.StartsWith($"file:{status.DeviceMajor}:{status.DeviceMinor}:{status.Inode}:", disk.OldIdentity, StringComparison.Ordinal);
        Assert.Equal(DiskHash.ForThisBoot($"{disk.OldIdentity} "), disk.Info.DurabilityId);
    }

    [Fact]
    public void Is_that_of_the_file_when_its_file_system_is_mounted_anew_from_another_device()
    {
        TestDisk.RequireLoopDevices();
        string image = MakeImage("image", "mkfs.ext4", "-q", "-F");
        string mount = Directory.CreateDirectory(_folder.PathOf("mount")).FullName;
        string first = Attach(image);
        Mount(first, mount);
        string path = MakeFile(Path.Combine(mount, "disk"));
        DiskIdentity disk = Identify(path);
        Assert.True(FileDiskName.TryParse(disk.Text, out FileDiskName? name));
        Assert.Equal(TestDisk.Run("blkid", "-p", "-s", "UUID", "-o", "value", first).Replace("-", "", StringComparison.Ordinal), name.FileSystem);
        Undo();
        // While the first has its number, so that it is another one.
        string second = Attach(image);
        Assert.NotEqual(first, second);
        Mount(second, mount);
        Assert.Equal(DiskComparison.Same, DiskIdentity.Compare(disk, Identify(path)));
        // Nobody can tell a copy of the file system, with all its inodes, from the original by what is in it.
        Undo();
        string copy = _folder.PathOf("copy");
        File.Copy(image, copy);
        Mount(Attach(copy), mount);
        DiskIdentity copied = Identify(path);
        Assert.Equal(DiskComparison.CannotTell, DiskIdentity.Compare(disk, copied));
        Assert.True(DiskIdentity.MayBe(disk, copied));
    }

    [Fact]
    public void Of_a_loop_device_may_be_the_same_when_its_file_is_not_found_any_more()
    {
        TestDisk.RequireLoopDevices();
        string image = MakeFile(_folder.PathOf("image"));
        string loop = Attach(image);
        DiskIdentity named = Identify(loop);
        Assert.StartsWith("block:loop=", named.Text, StringComparison.Ordinal);
        File.Delete(image);
        DiskIdentity numbered = Identify(loop);
        Assert.StartsWith("block:dev=7,", numbered.Text, StringComparison.Ordinal);
        Assert.Equal((DiskComparison.CannotTell, DiskComparison.CannotTell), (DiskIdentity.Compare(named, numbered), DiskIdentity.Compare(numbered, named)));
        Assert.True(DiskIdentity.MayBe(named, numbered));
    }

    [Fact]
    public void Is_another_one_in_a_snapshot()
    {
        TestDisk.RequireLoopDevices();
        Assert.SkipUnless(File.Exists("/usr/bin/btrfs") || File.Exists("/usr/sbin/btrfs") || File.Exists("/sbin/btrfs"), "the programs of btrfs are not installed");
        string mount = Directory.CreateDirectory(_folder.PathOf("mount")).FullName;
        Mount(Attach(MakeImage("image", "mkfs.btrfs", "-q")), mount);
        TestDisk.Run("btrfs", "subvolume", "create", $"{mount}/volume");
        string path = MakeFile($"{mount}/volume/disk");
        TestDisk.Run("btrfs", "subvolume", "snapshot", $"{mount}/volume", $"{mount}/snapshot");
        DiskIdentity disk = Identify(path), snapshot = Identify($"{mount}/snapshot/disk");
        Assert.Equal(DiskComparison.Same, DiskIdentity.Compare(disk, Identify(path)));
        Assert.Equal(DiskComparison.Different, DiskIdentity.Compare(disk, snapshot));
        Assert.True(FileDiskName.TryParse(disk.Text, out FileDiskName? of));
        Assert.True(FileDiskName.TryParse(snapshot.Text, out FileDiskName? other));
        Assert.Equal(of.Inode, other.Inode);
        Assert.Equal(0, DiskFile.TryOpenForLook(path, out DiskFile? file));
        using DiskFile opened = file!;
        Assert.Equal(0, opened.TryGetBtrfsSubvolume(out ulong subvolume));
        Assert.EndsWith($"/{subvolume}", of.FileSystem, StringComparison.Ordinal);
    }

    [Fact]
    public void Of_a_loop_device_is_that_of_its_file_under_any_number()
    {
        TestDisk.RequireLoopDevices();
        string file = MakeFile(_folder.PathOf("file")), other = MakeFile(_folder.PathOf("other"));
        string first;
        DiskIdentity disk;
        do
        {
            first = Attach(file);
            disk = Identify(first);
            Assert.StartsWith("block:loop=", disk.Text, StringComparison.Ordinal);
            Assert.StartsWith("block:7:", disk.OldText, StringComparison.Ordinal);
            Undo();
        }
        while (!TryAttachTo(first, other));
        Assert.Equal(DiskComparison.Different, DiskIdentity.Compare(disk, Identify(first)));
        string second = Attach(file);
        Assert.NotEqual(first, second);
        Assert.Equal(DiskComparison.Same, DiskIdentity.Compare(disk, Identify(second)));
        Assert.Equal(DiskComparison.Different, DiskIdentity.Compare(disk, Identify(Attach(file, "--offset=4096"))));
    }

    [Fact]
    public void Of_a_device_that_nothing_names_is_its_number_in_this_boot()
    {
        TestDisk.RequireLoopDevices();
        string file = MakeFile(_folder.PathOf("file"));
        string loop = Attach(file);
        File.Delete(file);
        DiskIdentity disk = Identify(loop);
        Assert.StartsWith("block:dev=7,", disk.Text, StringComparison.Ordinal);
        Assert.Equal(DiskComparison.Same, DiskIdentity.Compare(disk, Identify(loop)));
    }

    [Fact]
    public void Takes_the_uuid_that_udev_has_found()
    {
        TestDisk.RequireLoopDevices();
        string loop = Attach(MakeFile(_folder.PathOf("file")));
        Assert.Equal(0, FileStatus.TryGet(loop, out FileStatus node));
        string links = Directory.CreateDirectory(_folder.PathOf("by-uuid")).FullName;
        var uuid = Guid.NewGuid();
        File.CreateSymbolicLink(Path.Combine(links, "1234-ABCD"), loop);
        File.CreateSymbolicLink(Path.Combine(links, Guid.NewGuid().ToString()), "/dev/null");
        File.CreateSymbolicLink(Path.Combine(links, Guid.NewGuid().ToString()), "/nowhere");
        Assert.Null(FileNames.FindLinkedUuid(node.NodeMajor, node.NodeMinor, links));
        File.CreateSymbolicLink(Path.Combine(links, uuid.ToString()), loop);
        Assert.Equal(uuid, FileNames.FindLinkedUuid(node.NodeMajor, node.NodeMinor, links));
        Assert.Null(FileNames.FindLinkedUuid(node.NodeMajor, node.NodeMinor + 1, links));
        Assert.Null(FileNames.FindLinkedUuid(node.NodeMajor, node.NodeMinor, "/nowhere"));
    }

    [Fact]
    public void Keeps_names_of_devices_as_they_are_if_they_fit()
    {
        Assert.Equal("naa.5000c500a1b2c3d4", BlockNames.Clean("naa.5000c500a1b2c3d4"));
        Assert.Equal($"~{DiskHash.Name("t10.ATA     disk")}", BlockNames.Clean("t10.ATA     disk"));
        Assert.Equal(33, BlockNames.Clean(new string('x', 65)).Length);
        Assert.Equal(33, BlockNames.Clean("a:b").Length);
    }

    [Fact]
    public void Names_the_machine_by_all_that_it_has()
    {
        const string Id = "0123456789abcdef0123456789abcdef";
        Assert.Equal("-", MachineTags.OfMachine("", ""));
        Assert.Equal("-", MachineTags.OfMachine("uninitialized", ""));
        Assert.Equal('i', MachineTags.OfMachine(Id, "")[0]);
        Assert.Equal('d', MachineTags.OfMachine(Id, "1")[0]);
        Assert.NotEqual(MachineTags.OfMachine(Id, "1"), MachineTags.OfMachine(Id, "2"));
        Assert.NotEqual(MachineTags.OfMachine(Id, "1"), MachineTags.OfMachine("", "1"));
    }

    private static DiskIdentity Identify(string path)
    {
        using Disk disk = Disk.Open(new DiskOptions { Path = path });
        return new DiskIdentity(disk.Identity, disk.OldIdentity, 1);
    }

    private static string MakeFile(string path)
    {
        using var file = new FileStream(path, FileMode.CreateNew, FileAccess.Write);
        file.SetLength(1 << 20);
        return path;
    }

    private string MakeImage(string name, string program, params string[] options)
    {
        string image = _folder.PathOf(name);
        using (var file = new FileStream(image, FileMode.CreateNew, FileAccess.Write))
            file.SetLength(ImageBytes);
        TestDisk.Run(program, [.. options, image]);
        return image;
    }

    private string Attach(string file, params string[] options)
    {
        string loop = TestDisk.Run("losetup", ["--find", "--show", .. options, file]);
        _cleanUp.Push(() => TestDisk.Run("losetup", "-d", loop));
        return loop;
    }

    /// <summary>False if another process, or somebody who still looks at it, has the loop device.</summary>
    private bool TryAttachTo(string loop, string file)
    {
        using var losetup = Process.Start("losetup", [loop, file]);
        losetup.WaitForExit();
        if (losetup.ExitCode != 0)
        {
            // Also where it never works: then its own message says why.
            Assert.True(--_triesOfNumbers > 0, $"{loop} could not be attached to {file}");
            return false;
        }

        _cleanUp.Push(() => TestDisk.Run("losetup", "-d", loop));
        return true;
    }

    private void Mount(string device, string folder)
    {
        TestDisk.Run("mount", device, folder);
        _cleanUp.Push(() => TestDisk.Run("umount", folder));
    }

    private void Undo() => _cleanUp.Pop()();
}
