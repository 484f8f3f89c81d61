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
        using (var queue = Patient())
        {
            ILogger log = queue.CreateLogger("node");
            for (int i = 0; i < 100; i++)
                log.LogInformation("line {Number}", i);
        }

        Assert.Equal(Enumerable.Range(0, 100).Select(i => $"Information: line {i}"), _inner.Lines);
    }

    [Fact]
    public void Drops_lines_when_it_is_full_and_says_later_how_many()
    {
        // Its limits have forgotten every line when the next one comes.
        long now = 0;
        using var queue = new LogQueue(_inner, clockMs: () => Interlocked.Add(ref now, RepeatLimit.WindowMs));
        ILogger log = queue.CreateLogger("node");
        log.LogInformation("first");
        Eventually.True(() => _inner.IsWaiting);
        for (int i = 0; queue.Lost < 3; i++)
            log.LogInformation("more of {Kind}", Letters(i));
        Assert.Empty(_inner.Lines);
        _inner.Open();
        Eventually.True(() => _inner.Lines.Contains("Warning: 3 log line(s) were lost: the log did not take them"));
        log.LogInformation("last");
        Eventually.True(() => _inner.Lines[^1] == "Information: last");
        Assert.Equal(3, queue.Lost);
        Assert.Single(_inner.Lines, line => line.Contains("were lost", StringComparison.Ordinal));
    }

    [Fact]
    public void Hands_on_what_is_queued_when_it_is_disposed_and_takes_nothing_more()
    {
        var queue = Patient();
        ILogger log = queue.CreateLogger("node");
        log.LogInformation("first");
        Eventually.True(() => _inner.IsWaiting);
        log.LogInformation("second");
        var ends = new Thread(queue.Dispose) { IsBackground = true };
        ends.Start();
        // It has begun to end when it takes no line any more.
        int count = 0;
        Eventually.True(() =>
        {
            log.LogInformation("too late, perhaps: {Kind}", Letters(count++));
            return queue.Lost > 0;
        });
        _inner.Open();
        ends.Join();
        Assert.Equal(["Information: first", "Information: second"], _inner.Lines.Take(2));
        int written = _inner.Lines.Count;
        log.LogInformation("too late");
        Assert.Equal(written, _inner.Lines.Count);
    }

    [Fact]
    public void Ends_although_the_real_log_stands_still()
    {
        var queue = new LogQueue(_inner);
        ILogger log = queue.CreateLogger("node");
        log.LogInformation("first");
        Eventually.True(() => _inner.IsWaiting);
        queue.Dispose();
        Assert.Empty(_inner.Lines);
        _inner.Open();
    }

    [Fact]
    public void Counts_a_line_that_cannot_be_written_and_goes_on()
    {
        _inner.Open();
        using var queue = Patient();
        ILogger log = queue.CreateLogger("node");
        _inner.Throws = true;
        log.LogInformation("no disk space");
        Eventually.True(() => queue.Lost == 1);
        _inner.Throws = false;
        log.LogInformation("next");
        // In either order: the count does not wait for another line.
        Eventually.True(() => _inner.Lines.Contains("Information: next")
            && _inner.Lines.Contains("Warning: 1 log line(s) were lost: the log did not take them"));
    }

    [Fact]
    public void Says_that_it_can_be_written_again_without_another_line()
    {
        _inner.Open();
        using var queue = Patient();
        _inner.Throws = true;
        queue.CreateLogger("node").LogInformation("no disk space");
        Eventually.True(() => queue.Lost == 1);
        _inner.Throws = false;
        Eventually.True(() => _inner.Lines.Contains("Warning: 1 log line(s) were lost: the log did not take them"));
    }

    [Fact]
    public void Limits_lines_with_words_that_a_client_chose()
    {
        _inner.Open();
        using (var queue = Patient())
        {
            ILogger log = queue.CreateLogger("node");
            for (int i = 0; i < 1000; i++)
            {
                log.LogInformation("a request begins with 0x{Magic:x8} instead", (uint)i * 2654435761);
                log.LogInformation("no export is named '{Name}'", new string('a', 1 + (i % 100)) + new string('b', 1 + (i / 100)));
            }
        }

        Assert.InRange(_inner.Lines.Count(line => line.StartsWith("Information: a request", StringComparison.Ordinal)), 1, RepeatLimit.MostLines);
        // As many kinds as are told apart, and the rest as one.
        Assert.InRange(_inner.Lines.Count(line => line.StartsWith("Information: no export", StringComparison.Ordinal)), 1, 256 + RepeatLimit.MostLines);
    }

    [Fact]
    public void Limits_lines_that_differ_in_their_numbers_alone_and_says_how_many_it_left_out()
    {
        _inner.Open();
        using (var queue = Patient())
        {
            ILogger log = queue.CreateLogger("node");
            for (int i = 0; i < RepeatLimit.MostLines + 7; i++)
                log.LogInformation("client {Number} is not right", i);
            log.LogInformation("another line");
        }

        Assert.Equal(RepeatLimit.MostLines, _inner.Lines.Count(line => line.StartsWith("Information: client", StringComparison.Ordinal)));
        Assert.Contains("Information: another line", _inner.Lines);
        Assert.Equal($"Information: 7 more line(s) like this were left out: client {RepeatLimit.MostLines + 6} is not right", _inner.Lines[^1]);
        Assert.DoesNotContain(_inner.Lines, line => line.Contains("were lost", StringComparison.Ordinal));
    }

    [Fact]
    public void Counts_a_line_whose_text_cannot_be_made()
    {
        _inner.Open();
        using var queue = Patient();
        queue.CreateLogger("node").Log(LogLevel.Information, default, 0, null, (_, _) => throw new InvalidOperationException("no text"));
        Assert.Equal(1, queue.Lost);
    }

    [Fact]
    public void Bounds_the_length_of_a_line()
    {
        _inner.Open();
        using (var queue = Patient())
            queue.CreateLogger("node").LogInformation("{Text}", new string('x', 10 * LogQueue.MostCharacters));
        Assert.InRange(Assert.Single(_inner.Lines).Length, LogQueue.MostCharacters, LogQueue.MostCharacters + 30);
    }

    /// <summary>Its end waits for its thread, and no time passes for its limits: a busy machine must not matter.</summary>
    private LogQueue Patient() => new(_inner, stillMs: 600_000, clockMs: static () => 0);

    /// <summary>A word of its own for each number: lines that differ in digits alone are of one kind.</summary>
    private static string Letters(int number) => string.Concat($"{number}".Select(digit => (char)(digit + 'a' - '0')));

    [Fact]
    public void Leaves_out_what_the_real_log_does_not_want()
    {
        _inner.Open();
        using (var queue = Patient())
        {
            ILogger log = queue.CreateLogger("node");
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
