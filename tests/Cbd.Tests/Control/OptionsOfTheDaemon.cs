using Cbd.Memory;
using Cbd.Programs.Daemon;
using Xunit;

namespace Cbd.Tests.Control;

public sealed class OptionsOfTheDaemon
{
    private static DaemonOptions Parse(params string[] words)
    {
        var commandLine = new DaemonCommandLine();
        return commandLine.Options(commandLine.Parse(words));
    }

    [Fact]
    public void All_options_are_taken()
    {
        var options = Parse(
            "--run-dir", "/tmp/r/", "--state-dir", "s", "--disks-dir", "/d/", "--socket-group", "storage", "--no-restore", "--adopt-record", "--run", "tp-reg -H a -p /r",
            "--run", "backend-start -p /d", "--beat-ms", "50", "--dead-ms", "400", "--fence-ms", "200", "--max-transports", "3",
            "--log-format", "json");
        Assert.Equal("/tmp/r", options.RunDirectory);
        Assert.Equal(Path.GetFullPath("s"), options.StateDirectory);
        Assert.Equal("/d", options.DisksDirectory);
        Assert.Equal("/run/cbd-disks", Parse("--run-dir", "/r", "--state-dir", "/s").DisksDirectory);
        Assert.Equal("storage", options.SocketGroup);
        Assert.True(options.NoRestore);
        Assert.True(options.AdoptRecord);
        Assert.Equal(["tp-reg -H a -p /r", "backend-start -p /d"], options.RunLines);
        Assert.Equal((50, 400, 200, 3), (options.BeatMs, options.DeadMs, options.FenceMs, options.MaxTransports));
        Assert.True(options.LogsAsJson);
    }

    [Theory]
    [InlineData("--beat-ms is 5", "--beat-ms", "5")]
    [InlineData("--beat-ms is 'x'", "--beat-ms", "x")]
    [InlineData("--fence-ms is 500", "--fence-ms", "500")]
    [InlineData("--fence-ms is 10000", "--fence-ms", "10000")]
    [InlineData("--dead-ms is 2500", "--dead-ms", "2500", "--fence-ms", "1500")]
    [InlineData("--max-transports is 0", "--max-transports", "0")]
    [InlineData("--log-format is 'xml'; use text or json", "--log-format", "xml")]
    [InlineData("--run-dir is ''", "--run-dir", "")]
    [InlineData("--restore and --no-restore", "--restore", "--no-restore")]
    [InlineData("Unrecognized command or argument 'more'", "more")]
    [InlineData("Unrecognized command or argument '--bogus'", "--bogus")]
    public void A_wrong_option_is_refused_with_its_value(string reason, params string[] words)
    {
        var error = Assert.Throws<CbdException>(() => Parse(words));
        Assert.Equal(CbdErrorKind.Invalid, error.Kind);
        Assert.Contains(reason, error.Message);
        Assert.DoesNotContain('\n', error.Message);
    }

    [Fact]
    public void Help_and_version_are_asked_for()
    {
        var commandLine = new DaemonCommandLine();
        Assert.True(commandLine.AsksForVersion(commandLine.Parse(["--version"])));
        Assert.True(DaemonCommandLine.AsksForHelp(commandLine.Parse(["--help"])));
        Assert.False(commandLine.AsksForVersion(commandLine.Parse([])));
        Assert.False(DaemonCommandLine.AsksForHelp(commandLine.Parse([])));
    }
}
