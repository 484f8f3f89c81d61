using Cbd.Memory;
using Cbd.Programs.Daemon.Supervision;
using Cbd.Programs.Daemon.Upgrading;
using Xunit;

namespace Cbd.Tests.Supervision;

/// <summary>What a supervisor starts, and which programs may take the place of the one that runs.</summary>
public sealed class UpgradeTests
{
    [Fact]
    public void The_program_of_an_upgrade_is_the_next_ones_and_all_later_ones_once_it_was_ready()
    {
        using var own = FileDescriptor.Open("/dev/null", OpenFlags.ReadOnly);
        using var programs = new WorkerProgram(own, "/p");
        var next = FileDescriptor.Open("/dev/null", OpenFlags.ReadOnly);
        programs.Started();
        Assert.False(programs.TryCommit());
        programs.Offer(next);
        // The old one ends now.
        Assert.False(programs.TryTakeBack("it ended"));
        Assert.Same(next, programs.Descriptor);
        programs.Started();
        Assert.True(programs.IsOnTrial);
        Assert.True(programs.TryCommit());
        Assert.False(programs.IsOnTrial);
        programs.Started();
        Assert.False(programs.TryTakeBack("it ended later"));
        Assert.Same(next, programs.Descriptor);
        Assert.Null(programs.Failure);
    }

    [Fact]
    public void One_that_is_taken_back_leaves_the_one_before_and_the_reason()
    {
        using var own = FileDescriptor.Open("/dev/null", OpenFlags.ReadOnly);
        using var programs = new WorkerProgram(own, "/p");
        programs.Offer(FileDescriptor.Open("/dev/null", OpenFlags.ReadOnly));
        programs.Started();
        Assert.True(programs.TryTakeBack("it ended"));
        Assert.Same(own, programs.Descriptor);
        Assert.Equal("it ended", programs.Failure);
        programs.Started();
        Assert.False(programs.IsOnTrial);
        programs.Offer(FileDescriptor.Open("/dev/null", OpenFlags.ReadOnly));
        Assert.Null(programs.Failure);
        Assert.True(programs.TryRefuse("it cannot be started"));
        Assert.Same(own, programs.Descriptor);
    }

    [Fact]
    public void A_program_that_reads_the_records_of_this_one_may_take_its_place() => StartCheck.Check("/p", 0, StartCheck.Text, "");

    [Theory]
    [InlineData(0, "device-record 99\ninflight-record 1\n", "", CbdErrorKind.Unsupported, "reads the versions 99 of device-record")]
    [InlineData(0, "device-record 1 2\ninflight-record 1\n", "", CbdErrorKind.Invalid, "it does not say which versions of nbd-state it reads")]
    [InlineData(0, "cbdd 1.0\n", "", CbdErrorKind.Invalid, "it is no cbdd")]
    [InlineData(0, "", "", CbdErrorKind.Invalid, "it is no cbdd")]
    [InlineData(2, "", "cbdd: Unrecognized command or argument '--check-start'\n", CbdErrorKind.Invalid, "Unrecognized command")]
    [InlineData(139, "", "", CbdErrorKind.Invalid, "it ends with 139")]
    public void Others_are_refused_with_the_reason(int exitCode, string output, string errors, CbdErrorKind kind, string why)
    {
        var refusal = Assert.Throws<CbdException>(() => StartCheck.Check("/p", exitCode, output, errors));
        Assert.Equal(kind, refusal.Kind);
        Assert.Contains(why, refusal.Message, StringComparison.Ordinal);
        Assert.Contains("nothing was changed", refusal.Message, StringComparison.Ordinal);
    }
}
