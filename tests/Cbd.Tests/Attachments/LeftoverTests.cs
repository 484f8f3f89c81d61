using Cbd.Exports.Kernel;
using Cbd.Host.Attachments;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Attachments;

/// <summary>
/// What killed daemons left of their devices: the link, the entry for udev and the kernel's node, whose number the next
/// device of anybody gets. Here in directories of the test's own, with a kind of attachment that only counts.
/// </summary>
public sealed class LeftoverTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly AttachPlaces _places;
    private readonly List<string> _log = [];

    public LeftoverTests()
    {
        _places = new AttachPlaces { Nodes = _directory.PathOf("dev"), Registry = _directory.PathOf("registry") };
        Directory.CreateDirectory(_places.Nodes);
    }

    public void Dispose() => _directory.Dispose();

    [Theory]
    [InlineData("cbd0", "cbd0")]
    [InlineData("data", "cbd/data")]
    [InlineData("loop7", "cbd/loop7")]
    public void The_link_and_the_entry_are_gone_before_the_node_is_given_back(string name, string link)
    {
        LeaveBehind(name, "loop7");
        Assert.Equal("/dev/loop7", new FileInfo(Path.Combine(_places.Nodes, link)).LinkTarget);
        bool isRemoved = false;
        CleanUp(new KernelLeftover("/dev/loop7", () =>
        {
            Assert.Null(LinkOf(name));
            Assert.False(HasEntry("loop7"));
            isRemoved = true;
            return "removed";
        }));
        Assert.True(isRemoved);
        Assert.Equal([$"the name {_places.Nodes}/{link} was left by a killed cbdd (pid 4194305) and is removed", "removed"], _log);
    }

    [Fact]
    public void The_link_goes_also_if_the_node_is_somebody_elses_by_now()
    {
        LeaveBehind("cbd0", "loop7");
        CleanUp();
        Assert.Null(LinkOf("cbd0"));
        Assert.False(HasEntry("loop7"));
        Assert.False(File.Exists(_places.LockOf("cbd0")));
    }

    [Fact]
    public void A_name_that_was_given_back_leaves_no_file()
    {
        using (DeviceLink given = DeviceLink.Take(_places, "data", Guid.Empty))
        {
            given.Point("/dev/loop7");
            given.Remove();
        }

        using DeviceLink living = DeviceLink.Take(_places, "cbd0", Guid.Empty);
        CleanUp();
        Assert.Equal(["by-node", "cbd0.lock", "registry"], Directory.GetFileSystemEntries(_places.Registry).Select(Path.GetFileName).Order(StringComparer.Ordinal));
        Assert.Empty(_log);
    }

    [Theory]
    [InlineData("loop7")]
    [InlineData("nbd3")]
    [InlineData("ublkb0")]
    public void A_link_without_a_record_goes_with_its_node(string kernelName)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(_places.LinkOf("data"))!);
        File.CreateSymbolicLink(_places.LinkOf("cbd1.0"), $"/dev/{kernelName}");
        File.CreateSymbolicLink(_places.LinkOf("data"), $"/dev/{kernelName}");
        CleanUp(Counted($"/dev/{kernelName}"));
        Assert.Null(LinkOf("cbd1.0"));
        Assert.Null(LinkOf("data"));
        Assert.Equal([$"/dev/{kernelName} removed"], _log);
    }

    [Fact]
    public void An_entry_without_a_link_goes_too()
    {
        LeaveBehind("cbd0", "loop7");
        File.Delete(_places.LinkOf("cbd0"));
        File.Delete(_places.LockOf("cbd0"));
        CleanUp();
        Assert.False(HasEntry("loop7"));
    }

    [Fact]
    public void A_living_daemons_device_is_not_touched()
    {
        using DeviceLink living = DeviceLink.Take(_places, "cbd0", Guid.Empty);
        living.Point("/dev/loop7");
        NameRecord record = NameRecord.Read(_places.LockOf("cbd0"));
        CleanUp(Counted("/dev/loop7"), Counted("/dev/loop8"));
        Assert.Equal("/dev/loop7", LinkOf("cbd0"));
        Assert.True(HasEntry("loop7"));
        Assert.Equal(("loop7", record), (record.Node, NameRecord.Read(_places.LockOf("cbd0"))));
        // That its node looked like a leftover was a number that it got since.
        Assert.Equal(["/dev/loop8 removed"], _log);
    }

    [Fact]
    public void An_old_entry_with_a_living_daemons_name_goes_with_its_node()
    {
        using DeviceLink living = DeviceLink.Take(_places, "cbd0", Guid.Empty);
        living.Point("/dev/loop7");
        File.WriteAllText(_places.EntryOf("loop8"), $"cbd0 {Guid.Empty:D}\n");
        CleanUp(Counted("/dev/loop8"));
        Assert.False(HasEntry("loop8"));
        Assert.Equal("/dev/loop7", LinkOf("cbd0"));
        Assert.Equal(["/dev/loop8 removed"], _log);
    }

    [Fact]
    public void Links_and_entries_that_daemons_do_not_make_are_left_alone()
    {
        Directory.CreateDirectory(_places.Entries);
        File.WriteAllText(_places.EntryOf("loop7"), "../../precious 1\n");
        File.WriteAllText(Path.Combine(_places.Registry, "other.lock"), "4194305 loop7\n");
        string other = Path.Combine(_places.Nodes, "other"), below = Path.Combine(_places.Nodes, "cbd", "-no-name");
        File.CreateSymbolicLink(other, "/dev/loop7");
        Directory.CreateDirectory(Path.GetDirectoryName(below)!);
        File.CreateSymbolicLink(below, "/dev/loop7");
        File.CreateSymbolicLink(_places.LinkOf("cbd0"), "/dev/loop8");
        CleanUp(Counted("/dev/loop7"));
        Assert.Equal(("/dev/loop7", "/dev/loop7", "/dev/loop8"), (new FileInfo(other).LinkTarget, new FileInfo(below).LinkTarget, LinkOf("cbd0")));
        Assert.Equal(["/dev/loop7 removed"], _log);
    }

    [Fact]
    public void A_node_whose_link_cannot_be_removed_is_not_given_back()
    {
        File.CreateSymbolicLink(_places.LinkOf("cbd0"), "/dev/loop7");
        // Where its lock should be is a directory.
        Directory.CreateDirectory(_places.LockOf("cbd0"));
        CleanUp(Counted("/dev/loop7"));
        Assert.DoesNotContain("/dev/loop7 removed", _log);
        Assert.Contains(_log, line => line.StartsWith("the name of /dev/loop7, which stays therefore, cannot be removed: ", StringComparison.Ordinal));
    }

    [Fact]
    public void A_program_without_kinds_removes_no_names()
    {
        LeaveBehind("cbd0", "loop7");
        new KernelExports(_places).CleanUp(_log.Add);
        Assert.Equal("/dev/loop7", LinkOf("cbd0"));
        Assert.Empty(_log);
    }

    [Fact]
    public void The_name_of_a_device_that_outlives_its_daemon_stays()
    {
        LeaveBehind("cbd0", "loop7");
        LeaveBehind("cbd1", "loop8");
        new KernelExports(_places, new Kind([]) { GoingOn = "loop7" }).CleanUp(_log.Add);
        Assert.Equal(("/dev/loop7", null), (LinkOf("cbd0"), LinkOf("cbd1")));
        Assert.True(HasEntry("loop7"));
        new KernelExports(_places, new Kind([])).CleanUp(_log.Add, name => name == "cbd0");
        Assert.Equal("/dev/loop7", LinkOf("cbd0"));
        new KernelExports(_places, new Kind([])).CleanUp(_log.Add);
        Assert.Null(LinkOf("cbd0"));
    }

    [Fact]
    public void The_name_of_a_device_that_goes_on_is_taken_with_its_link()
    {
        LeaveBehind("cbd0", "loop7");
        using (DeviceLink.Take(_places, "cbd0", Guid.Empty, goesOn: true))
            Assert.Equal("/dev/loop7", LinkOf("cbd0"));
        // Of a device that begins anew.
        using (DeviceLink.Take(_places, "cbd0", Guid.Empty))
            Assert.Null(LinkOf("cbd0"));
    }

    [Fact]
    public void A_machine_without_devices_gets_no_registry()
    {
        CleanUp(Counted("/dev/loop7"));
        Assert.False(Directory.Exists(_places.Registry));
        Assert.Equal(["/dev/loop7 removed"], _log);
    }

    /// <summary>As a daemon that was killed leaves it: the record, the entry and the link, and no lock.</summary>
    private void LeaveBehind(string name, string kernelName)
    {
        Directory.CreateDirectory(_places.Entries);
        File.WriteAllText(_places.LockOf(name), $"4194305 {kernelName}\n");
        File.WriteAllText(_places.EntryOf(kernelName), $"{AttachPlaces.RelativeLinkOf(name)} {Guid.Empty:D}\n");
        Directory.CreateDirectory(Path.GetDirectoryName(_places.LinkOf(name))!);
        File.CreateSymbolicLink(_places.LinkOf(name), $"/dev/{kernelName}");
    }

    private string? LinkOf(string name) => new FileInfo(_places.LinkOf(name)).LinkTarget;

    private bool HasEntry(string kernelName) => File.Exists(_places.EntryOf(kernelName));

    private void CleanUp(params KernelLeftover[] leftovers) => new KernelExports(_places, new Kind(leftovers)).CleanUp(_log.Add);

    private static KernelLeftover Counted(string node) => new(node, () => $"{node} removed");

    private sealed class Kind(KernelLeftover[] leftovers) : IAttachKind
    {
        public string GoingOn { get; init; } = "";

        public bool GoesOn(string kernelName) => kernelName == GoingOn;

        public string Name => "fuse";

        public bool IsAvailable(out string whyNot)
        {
            whyNot = "";
            return true;
        }

        public IKernelAttachment Open(KernelExportOptions options) => throw new InvalidOperationException("nothing is opened by a clean-up");

        public IEnumerable<KernelLeftover> FindLeftovers(Action<string> log) => leftovers;
    }
}
