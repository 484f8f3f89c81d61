using System.Text.Json;
using Microsoft.Extensions.Logging;
using Xunit;

namespace Cbd.Tests.Control;

public sealed class LogsOfADaemon
{
    [Fact]
    public void Text_is_one_line_per_event_whatever_is_in_it()
    {
        var written = new WrittenLog();
        var logger = written.CreateLogger("node");
        logger.LogWarning(new IOException("a\nb"), "host {Host} is gone", "x\ny");
        logger.LogDebug("not shown");
        var line = Assert.Single(written.ToString().TrimEnd('\n').Split('\n'));
        Assert.Matches(@"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z warning node: host x\\ny is gone: System\.IO\.IOException: a\\nb$", line);
    }

    [Fact]
    public void Json_is_one_object_per_event_with_its_values()
    {
        var written = new WrittenLog(asJson: true);
        var logger = written.CreateLogger("node");
        logger.LogError("backend {Backend} on {Path}\nfailed", 3, "/dev/sdb");
        var line = Assert.Single(written.ToString().TrimEnd('\n').Split('\n'));
        var json = JsonDocument.Parse(line).RootElement;
        Assert.Equal("error", json.GetProperty("level").GetString());
        Assert.Equal("node", json.GetProperty("category").GetString());
        Assert.Equal("backend 3 on /dev/sdb\nfailed", json.GetProperty("message").GetString());
        Assert.Equal("3", json.GetProperty("values").GetProperty("Backend").GetString());
        Assert.Equal("/dev/sdb", json.GetProperty("values").GetProperty("Path").GetString());
    }
}
