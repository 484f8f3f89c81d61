using System.Diagnostics;
using Cbd.Exports.Fuse;
using Cbd.Exports.Kernel;
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
        Assert.Equal((name, Environment.ProcessId), (self.Name, self.Process.Id));
        Assert.False(self.Process.IsGone);
    }

    [Theory]
    [InlineData("")]
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
