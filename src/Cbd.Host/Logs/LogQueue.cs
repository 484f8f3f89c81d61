using Cbd.Memory;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Logs;

/// <summary>
/// The log: loggers whose calls neither wait nor throw. Lines go into a bounded queue, and a thread of its own writes them. Threads that
/// hold locks, beat or serve may log, whatever the real log does. Lines that do not fit, or cannot be written, are counted, and the
/// count is logged when writing works again. Many lines of one kind are limited (<see cref="RepeatLimit"/>). Thread-safe.
/// </summary>
internal sealed class LogQueue : ILoggerProvider
{
    /// <summary>Lines that wait to be written; with <see cref="MostCharacters"/> of each, the memory that a blocked log takes is bounded.</summary>
    public const int Capacity = 2048;

    public const int MostCharacters = 4096;

    /// <summary>How long the end waits for a log that takes nothing, and for one that is slow.</summary>
    private const int StillMs = 1_000;
    private const int SlowMs = 5_000;

    private const int LookMs = 1_000;

    private readonly Action<LogEvent> _write;
    private readonly Predicate<LogLevel> _isEnabled;
    private readonly int _stillMs;
    private readonly Func<long> _clockMs;
    private readonly object _gate = new();
    private readonly Queue<LogEvent> _lines = new();
    private readonly RepeatLimit _limit = new();
    private readonly Thread _thread;
    private bool _isEnding;
    private long _lost;
    private long _reportedLost;
    private long _written;

    /// <param name="write">Writes one line; it may wait and throw.</param>
    /// <param name="isEnabled">Levels that are written; null: from Information on.</param>
    /// <param name="stillMs">How long the end waits for a log that takes nothing.</param>
    /// <param name="clockMs">The time that repeated lines are limited by, in milliseconds; null: the monotonic clock's.</param>
    /// <exception cref="CbdException">No thread can be had.</exception>
    public LogQueue(Action<LogEvent> write, Predicate<LogLevel>? isEnabled = null, int stillMs = StillMs, Func<long>? clockMs = null)
    {
        _write = write;
        _stillMs = stillMs;
        _clockMs = clockMs ?? (static () => MonotonicClock.Milliseconds);
        _isEnabled = isEnabled ?? (static level => level is >= LogLevel.Information and < LogLevel.None);
        _thread = NeededThread.Start("cbd-log", Run);
    }

    /// <summary>In front of another logger.</summary>
    public LogQueue(ILogger inner, int stillMs = StillMs, Func<long>? clockMs = null)
        : this(line => inner.Log(line.Level, default, line.Values ?? [], line.Exception, (_, _) => line.Message), inner.IsEnabled, stillMs, clockMs)
    {
    }

    /// <summary>Lines that were dropped because the log did not take them.</summary>
    public long Lost => Volatile.Read(ref _lost);

    public ILogger CreateLogger(string categoryName) => new QueuedLog(this, categoryName);

    public bool IsEnabled(LogLevel level) => _isEnabled(level);

    /// <summary>Takes a line. Never waits, never throws.</summary>
    public void Add(LogEvent line)
    {
        try
        {
            if (line.Message.Length > MostCharacters)
                line = line with { Message = string.Concat(line.Message.AsSpan(0, MostCharacters), " …") };
            lock (_gate)
            {
                if (!_isEnding && _lines.Count < Capacity)
                {
                    if (!_limit.Admits(line, _clockMs()))
                        return;
                    _lines.Enqueue(line);
                    Monitor.Pulse(_gate);
                    return;
                }
            }
        }
        catch (Exception)
        {
            // No memory: the line is lost, and the caller goes on.
        }

        CountLost();
    }

    /// <summary>A line could not even be made.</summary>
    public void CountLost() => Interlocked.Increment(ref _lost);

    /// <summary>Writes what is there, for a short time, and takes nothing more.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            _isEnding = true;
            Monitor.Pulse(_gate);
        }

        long written = -1;
        for (int waited = 0; waited < SlowMs && written != Volatile.Read(ref _written); waited += _stillMs)
        {
            written = Volatile.Read(ref _written);
            if (_thread.Join(_stillMs))
                return;
        }
    }

    private void Run()
    {
        while (true)
        {
            try
            {
                if (!TryTake(out LogEvent? line))
                    return;
                if (line is not null && !TryWrite(line))
                    CountLost();
                ReportLost();
            }
            catch (Exception)
            {
                // No memory for what it says of others: the log goes on when there is some.
                CountLost();
                Thread.Sleep(LookMs);
            }
        }
    }

    /// <summary>The next line; null if there was none for a while. False at the end.</summary>
    private bool TryTake(out LogEvent? line)
    {
        lock (_gate)
        {
            line = null;
            if (_lines.Count == 0 && !_isEnding)
                Monitor.Wait(_gate, Lost != _reportedLost || _limit.HasLeftOut ? LookMs : Timeout.Infinite);
            foreach (LogEvent summary in _limit.TakeSummaries(_clockMs(), _isEnding))
                _lines.Enqueue(summary);
            return _lines.TryDequeue(out line) || !_isEnding;
        }
    }

    private bool TryWrite(LogEvent line)
    {
        try
        {
            _write(line);
            Volatile.Write(ref _written, _written + 1);
            return true;
        }
        catch (Exception)
        {
            // A log that cannot be written must not end the process.
            return false;
        }
    }

    /// <summary>Also without another line: a log that can be written again says so by itself.</summary>
    private void ReportLost()
    {
        long lost = Lost;
        if (lost == _reportedLost)
            return;
        lock (_gate)
        {
            if (_lines.Count > 0)
                return;
        }

        if (TryWrite(new LogEvent(DateTime.UtcNow, LogLevel.Warning, "log", $"{lost - _reportedLost} log line(s) were lost: the log did not take them", null, null)))
            _reportedLost = lost;
    }
}
