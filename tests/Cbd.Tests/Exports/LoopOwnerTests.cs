using System.Diagnostics;
using Cbd.Exports.Fuse;
using Cbd.Exports.Kernel;
using Cbd.Host.Attachments;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>Whose a loop device is, by the name of its file.</summary>
public sealed class LoopOwnerTests
{
    [Theory]
    [InlineData("cbd1.0")]
    [InlineData("data")]
    [InlineData("a-b_c.cbdd-1-2-3")]
    public void Is_told_by_the_name_of_the_file(string name)
    {
        LoopOwner self = LoopOwner.Self(name);
        Assert.Equal(self, LoopOwner.TryParse("/" + self.FileName));
        Assert.Equal((name, Environment.ProcessId), (self.Name, self.Process!.Value.Id));
        Assert.False(self.IsLeftover(new AttachmentLives(Guid.NewGuid())));
    }

    /// <summary>A life belongs to a state directory, whatever process serves it.</summary>
    [Fact]
    public void A_life_is_its_hosts_until_it_is_over()
    {
        var host = Guid.NewGuid();
        LoopOwner owner = LoopOwner.Self(new string('n', 31), new AttachmentLife { Host = host, Id = 0x00f1 });
        Assert.Equal(new string('n', 31) + $".cbdd-{host:D}-00000000000000f1", owner.FileName);
        Assert.Equal(owner, LoopOwner.TryParse("/" + owner.FileName));
        var lives = new AttachmentLives(host);
        Assert.True(owner.IsLeftover(lives));
        lives.Add(0xf1);
        Assert.False(owner.IsLeftover(lives));
        lives.Remove(0xf1);
        Assert.True(owner.IsLeftover(lives));
        // Others' are never this daemon's to remove.
        Assert.False(owner.IsLeftover(new AttachmentLives(Guid.NewGuid())));
        Assert.False(owner.IsLeftover(null));
    }

    [Theory]
    [InlineData("")]
    [InlineData("/cbd0.cbdd-0f5d4c3b-2a19-4876-a5b4-c3d2e1f00112-0000000000000000")]
    [InlineData("/cbd0.cbdd-0f5d4c3b-2a19-4876-a5b4-c3d2e1f00112-f1")]
    [InlineData("/cbd0.cbdd-0f5d4c3b-2a19-4876-a5b4-c3d2e1f0011-00000000000000f1")]
    [InlineData("/var/lib/disk.img")]
    [InlineData("/cbd0")]
    [InlineData("/cbd0.cbdd-1-2")]
    [InlineData("/cbd0.cbdd-1-2-3 (deleted)")]
    [InlineData("/home/cbd0.cbdd-1-2-3")]
    [InlineData("/0cbd.cbdd-1-2-3")]
    [InlineData("/cbd0.cbdd-99999999999999999999-2-3")]
    public void Other_files_are_nobodys(string path) => Assert.Null(LoopOwner.TryParse(path));

    [Fact]
    public void A_process_that_ended_is_dead()
    {
        using Process process = Process.Start("/bin/sleep", "0");
        process.WaitForExit();
        Assert.True((OwnerProcess.Self with { Id = process.Id }).IsGone);
    }

    [Fact]
    public void Another_process_of_the_same_number_is_not_it() =>
        Assert.True((OwnerProcess.Self with { StartTicks = 1 }).IsGone);

    [Fact]
    public void Nothing_is_known_of_other_namespaces() =>
        Assert.False((OwnerProcess.Self with { StartTicks = 1, Namespace = 5 }).IsGone);
}
