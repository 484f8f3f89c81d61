using Cbd.Memory;
using Cbd.Exports.Kernel;
using Cbd.Host.Attachments;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Attachments;

/// <summary>The name of a device in /dev, here in a directory of the test's own.</summary>
public sealed class DeviceLinkTests : IDisposable
{
    private static readonly Guid s_region = Guid.NewGuid();
    private readonly TemporaryDirectory _directory = new();
    private readonly AttachPlaces _places;

    public DeviceLinkTests()
    {
        _places = new AttachPlaces { Nodes = _directory.PathOf("dev"), Registry = _directory.PathOf("registry") };
        Directory.CreateDirectory(_places.Nodes);
    }

    private string Link => Path.Combine(_places.Nodes, "cbd0");

    private string ByNode => Path.Combine(_places.Registry, "by-node", "loop7");

    public void Dispose() => _directory.Dispose();

    [Fact]
    public void Leads_to_the_node_while_the_device_is_there()
    {
        using DeviceLink link = Take();
        Assert.Equal(Link, link.Path);
        Assert.False(File.Exists(Link));
        link.Point("/dev/loop7");
        Assert.Equal("/dev/loop7", new FileInfo(Link).LinkTarget);
        Assert.Equal($"cbd0 {s_region:D}\n", File.ReadAllText(ByNode));
        link.Remove();
        Assert.Null(new FileInfo(Link).LinkTarget);
        Assert.False(File.Exists(ByNode));
    }

    [Fact]
    public void Belongs_to_one_daemon_at_a_time()
    {
        using (DeviceLink link = Take())
            Refused($"it belongs to a running cbdd, pid {Environment.ProcessId}");
        using DeviceLink again = Take();
    }

    [Fact]
    public void A_file_of_that_name_is_left_alone()
    {
        File.WriteAllText(Link, "precious");
        Refused("it is there already, and is no link");
        Assert.Equal("precious", File.ReadAllText(Link));
    }

    [Fact]
    public void A_link_of_somebody_else_is_left_alone_and_named()
    {
        File.CreateSymbolicLink(Link, "/dev/null");
        Refused("it is a link to /dev/null that cbdd did not make");
        Assert.Equal("/dev/null", new FileInfo(Link).LinkTarget);
    }

    [Fact]
    public void A_link_to_nothing_is_replaced()
    {
        File.CreateSymbolicLink(Link, "/dev/nothing");
        using DeviceLink link = Take();
        Assert.Null(new FileInfo(Link).LinkTarget);
    }

    [Fact]
    public void What_a_killed_daemon_left_is_replaced()
    {
        LeaveBehind("cbd0");
        using DeviceLink link = Take();
        Assert.Null(new FileInfo(Link).LinkTarget);
        Assert.False(File.Exists(ByNode));
    }

    [Fact]
    public void A_link_that_leads_elsewhere_is_not_what_the_killed_daemon_left()
    {
        LeaveBehind("cbd0");
        File.Delete(Link);
        File.CreateSymbolicLink(Link, "/dev/null");
        Refused("it is a link to /dev/null that cbdd did not make");
        Assert.Equal("/dev/null", new FileInfo(Link).LinkTarget);
    }

    [Fact]
    public void A_link_that_somebody_put_in_its_place_is_left_alone()
    {
        using DeviceLink link = Take();
        link.Point("/dev/loop7");
        File.Delete(Link);
        File.CreateSymbolicLink(Link, "/dev/null");
        link.Remove();
        Assert.Equal("/dev/null", new FileInfo(Link).LinkTarget);
        Assert.False(File.Exists(ByNode));
    }

    [Fact]
    public void Can_be_removed_and_made_again_and_is_nothing_once_it_was_given_back()
    {
        using DeviceLink link = Take();
        link.Remove();
        link.Point("/dev/loop7");
        link.Remove();
        link.Point("/dev/loop8");
        link.Remove();
        link.Remove();
        link.Dispose();
        link.Remove();
        Assert.Empty(Directory.GetFiles(Path.Combine(_places.Registry, "by-node")));
        Assert.Empty(Directory.GetFileSystemEntries(_places.Nodes));
    }

    [Fact]
    public void The_entry_of_a_node_that_is_another_device_now_is_kept()
    {
        LeaveBehind("cbd1");
        using DeviceLink link = Take();
        Assert.True(File.Exists(ByNode));
    }

    [Fact]
    public void A_link_that_udev_made_first_is_good()
    {
        using DeviceLink link = Take();
        File.CreateSymbolicLink(Link, "loop7");
        link.Point("/dev/loop7");
        Assert.Equal("loop7", new FileInfo(Link).LinkTarget);
    }

    [Fact]
    public void A_name_that_was_taken_meanwhile_is_an_error()
    {
        using DeviceLink link = Take();
        File.WriteAllText(Link, "");
        Assert.Contains(Link, Assert.Throws<CbdException>(() => link.Point("/dev/loop7")).Message, StringComparison.Ordinal);
    }

    /// <summary>As a daemon that was killed leaves it: the record, the link and the entry, and no lock.</summary>
    private void LeaveBehind(string nameAtNode)
    {
        Directory.CreateDirectory(Path.GetDirectoryName(ByNode)!);
        File.WriteAllText(Path.Combine(_places.Registry, "cbd0.lock"), "4194305 loop7\n");
        File.WriteAllText(ByNode, $"{nameAtNode} {s_region:D}\n");
        File.CreateSymbolicLink(Link, "/dev/loop7");
    }

    private void Refused(string why)
    {
        CbdException refusal = Assert.Throws<CbdException>(Take);
        Assert.Equal(CbdErrorKind.Busy, refusal.Kind);
        Assert.Equal($"{Link} is taken: {why}; start the device with another --name, or with --attach none", refusal.Message);
    }

    private DeviceLink Take() => DeviceLink.Take(_places, "cbd0", s_region);
}
