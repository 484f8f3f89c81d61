using Cbd.Memory;
using Cbd.Host;
using Cbd.Tests.Host;
using Microsoft.Extensions.Logging.Abstractions;
using Xunit;

namespace Cbd.Tests.Control;

/// <summary>Failures and crashes anywhere in this process are written to each directory: no other test may have one meanwhile.</summary>
[Collection(Alone.Name)]
public sealed class FlightRecorderFiles : IDisposable
{
    /// <summary>No test is about time: a busy machine must not matter.</summary>
    private const int PatienceMs = 600_000;

    private readonly TemporaryDirectory _directory = new();
    private readonly ListedNode _node = new();

    public FlightRecorderFiles() => _node.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });

    public void Dispose() => _directory.Dispose();

    private string[] Files => [.. Directory.GetFiles(_directory.Path, "flight-*.txt").Order(StringComparer.Ordinal)];

    [Fact]
    public void Have_the_reason_and_the_recorders_of_every_transport()
    {
        using var files = new FlightFiles(_node, _directory.Path, NullLogger.Instance);
        string path = files.Write("somebody\nasked");
        string[] lines = File.ReadAllLines(path);
        Assert.EndsWith($"Z process {Environment.ProcessId}: somebody asked", lines[0], StringComparison.Ordinal);
        Assert.Equal("transport 0: /r, host 3 ('alpha')", lines[1]);
        Assert.StartsWith("transport 0, channel 4, queue of device 1 on backend 2", lines[2], StringComparison.Ordinal);
        Assert.Equal(6, lines.Length);
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(path));
    }

    [Fact]
    public void Are_no_more_than_a_few_and_the_oldest_goes()
    {
        using var files = new FlightFiles(_node, _directory.Path, NullLogger.Instance);
        string[] paths = [.. Enumerable.Range(0, FlightFiles.MaxFiles + 3).Select(_ => files.Write("again"))];
        Assert.Equal(paths[3..], Files);
    }

    [Fact]
    public void Are_written_before_a_crash_even_if_that_is_all_that_works()
    {
        using var files = new FlightFiles(_node, _directory.Path, NullLogger.Instance);
        FlightFiles.OnCrash("handler thread failed", PatienceMs);
        Assert.Contains("handler thread failed", File.ReadLines(Assert.Single(Files)).First(), StringComparison.Ordinal);
        _node.Failure = null;
        _node.Execute(Operations.UnregisterTransport, new TransportTarget());
        FlightFiles.OnCrash("the node has nothing", PatienceMs);
        Assert.Equal(2, Files.Length);
    }

    [Fact]
    public void Of_failures_that_follow_each_other_closely_there_is_one()
    {
        using (var files = new FlightFiles(_node, _directory.Path, NullLogger.Instance, failureGapMs: PatienceMs))
        {
            for (int i = 0; i < 100; i++)
                FlightFiles.OnFailure($"failure {i}");
            Assert.True(SpinWait.SpinUntil(() => Files is [var path] && new FileInfo(path).Length > 0, TimeSpan.FromMinutes(3)));
        }

        FlightFiles.OnCrash("nobody listens any more", PatienceMs);
        Assert.Contains("failure 0", File.ReadLines(Assert.Single(Files)).First(), StringComparison.Ordinal);
    }

    [Fact]
    public void Appear_as_a_whole()
    {
        using var files = new FlightFiles(_node, _directory.Path, NullLogger.Instance);
        int asked = 0;
        _node.OnReadFlights = () =>
        {
            asked++;
            Assert.Empty(Files);
        };
        files.Write("asked");
        Assert.Equal(1, asked);
        Assert.Equal(Files, Directory.GetFileSystemEntries(_directory.Path));
    }

    [Fact]
    public void That_end_half_way_leave_nothing_and_a_crash_throws_nothing()
    {
        using var files = new FlightFiles(_node, _directory.Path, NullLogger.Instance);
        _node.OnReadFlights = () => throw new IOException("No space left on device");
        Assert.Contains("No space left", Assert.Throws<CbdException>(() => files.Write("asked")).Message, StringComparison.Ordinal);
        Assert.Empty(Directory.GetFileSystemEntries(_directory.Path));
        _node.OnReadFlights = () => throw new NotSupportedException("a bug");
        FlightFiles.OnCrash("nothing is thrown", PatienceMs);
        Assert.Empty(Directory.GetFileSystemEntries(_directory.Path));
    }

    [Fact]
    public void Of_a_process_that_died_while_it_wrote_go_with_the_next()
    {
        File.WriteAllText(Path.Combine(_directory.Path, "flight-20260101T000000.000000Z-1.txt.new"), "half");
        using var files = new FlightFiles(_node, _directory.Path, NullLogger.Instance);
        files.Write("asked");
        Assert.Equal(Files, Directory.GetFileSystemEntries(_directory.Path));
        Directory.Delete(_directory.Path, recursive: true);
        FlightFiles.OnCrash("its directory is gone", PatienceMs);
        Directory.CreateDirectory(_directory.Path);
    }

    [Fact]
    public void That_cannot_be_written_are_an_error_with_the_path()
    {
        using var files = new FlightFiles(_node, Path.Combine(_directory.Path, "none"), NullLogger.Instance);
        CbdException error = Assert.Throws<CbdException>(() => files.Write("asked"));
        Assert.Contains($"{_directory.Path}/none", error.Message, StringComparison.Ordinal);
        FlightFiles.OnCrash("nothing is thrown", PatienceMs);
    }
}
