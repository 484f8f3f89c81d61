using Cbd.Host.Logs;
using Microsoft.Extensions.Logging;
using Xunit;

namespace Cbd.Tests.Host;

public sealed class A_log_that_never_waits
{
    private readonly BlockedLog _inner = new();

    [Fact]
    public void Hands_lines_on_in_their_order_before_it_ends()
    {
        _inner.Open();
        using (var log = new QueuedLog(_inner))
        {
            for (int i = 0; i < 100; i++)
                log.LogInformation("line {Number}", i);
        }

        Assert.Equal(Enumerable.Range(0, 100).Select(i => $"Information: line {i}"), _inner.Lines);
    }

    [Fact]
    public void Drops_lines_when_it_is_full_and_says_later_how_many()
    {
        using var log = new QueuedLog(_inner);
        log.LogInformation("first");
        Eventually.True(() => _inner.IsWaiting);
        while (log.Lost < 3)
            log.LogInformation("more");
        Assert.Empty(_inner.Lines);
        _inner.Open();
        Eventually.True(() => _inner.Lines.Contains("Warning: 3 log line(s) were lost: the log did not take them"));
        log.LogInformation("last");
        Eventually.True(() => _inner.Lines[^1] == "Information: last");
        Assert.Equal(3, log.Lost);
        Assert.Single(_inner.Lines, line => line.Contains("were lost", StringComparison.Ordinal));
    }

    [Fact]
    public void Hands_on_what_is_queued_when_it_is_disposed_and_takes_nothing_more()
    {
        var log = new QueuedLog(_inner);
        log.LogInformation("first");
        Eventually.True(() => _inner.IsWaiting);
        log.LogInformation("second");
        var ends = new Thread(log.Dispose);
        ends.Start();
        // It has begun to end when it takes no line any more.
        Eventually.True(() =>
        {
            log.LogInformation("too late, perhaps");
            return log.Lost > 0;
        });
        _inner.Open();
        ends.Join();
        Assert.Equal(["Information: first", "Information: second"], _inner.Lines.Take(2));
        int count = _inner.Lines.Count;
        log.LogInformation("too late");
        Assert.Equal(count, _inner.Lines.Count);
    }

    [Fact]
    public void Ends_although_the_real_log_stands_still()
    {
        var log = new QueuedLog(_inner);
        log.LogInformation("first");
        Eventually.True(() => _inner.IsWaiting);
        log.Dispose();
        Assert.Empty(_inner.Lines);
        _inner.Open();
    }

    [Fact]
    public void Counts_a_line_that_cannot_be_written_and_goes_on()
    {
        _inner.Open();
        using var log = new QueuedLog(_inner);
        _inner.Throws = true;
        log.LogInformation("no disk space");
        Eventually.True(() => log.Lost == 1);
        _inner.Throws = false;
        log.LogInformation("next");
        Eventually.True(() => _inner.Lines.Contains("Warning: 1 log line(s) were lost: the log did not take them"));
        Assert.Equal("Information: next", _inner.Lines[0]);
    }

    [Fact]
    public void Leaves_out_what_the_real_log_does_not_want()
    {
        _inner.Open();
        using (var log = new QueuedLog(_inner))
        {
            Assert.False(log.IsEnabled(LogLevel.Debug));
            Assert.Null(log.BeginScope("scope"));
            log.LogDebug("detail");
        }

        Assert.Empty(_inner.Lines);
    }

    /// <summary>Takes no line before it is opened.</summary>
    private sealed class BlockedLog : ILogger
    {
        private readonly RecordedLog _lines = new();
        private readonly ManualResetEventSlim _open = new();

        public IReadOnlyList<string> Lines => _lines.Lines;

        public volatile bool IsWaiting;

        public volatile bool Throws;

        public void Open() => _open.Set();

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel >= LogLevel.Information;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            IsWaiting = true;
            _open.Wait();
            if (Throws)
                throw new IOException("No space left on device");
            _lines.Log(logLevel, eventId, state, exception, formatter);
        }
    }
}
