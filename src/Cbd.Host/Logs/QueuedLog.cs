using System.Collections.Concurrent;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Logs;

/// <summary>
/// A logger whose calls never wait: lines go into a bounded queue, and a thread of its own hands them on. Threads that hold
/// locks, beat or serve may log through it, whatever the real log does. Lines that do not fit are counted, and the count is
/// logged when there is room. Thread-safe.
/// </summary>
internal sealed class QueuedLog : ILogger, IDisposable
{
    private const int Capacity = 4096;
    private const int EndWaitMs = 2_000;

    private readonly ILogger _inner;
    private readonly BlockingCollection<Action<ILogger>> _lines = new(Capacity);
    private readonly Thread _thread;
    private long _lost;
    private long _reportedLost;

    public QueuedLog(ILogger inner)
    {
        _inner = inner;
        _thread = new Thread(Run) { Name = "cbd-log", IsBackground = true };
        _thread.Start();
    }

    /// <summary>Lines that were dropped because the log did not take them.</summary>
    public long Lost => Volatile.Read(ref _lost);

    public bool IsEnabled(LogLevel logLevel) => _inner.IsEnabled(logLevel);

    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
    {
        if (!IsEnabled(logLevel))
            return;
        bool taken = false;
        try
        {
            taken = _lines.TryAdd(log => log.Log(logLevel, eventId, state, exception, formatter));
        }
        catch (InvalidOperationException)
        {
            // After the end; also while it ends (ObjectDisposedException).
        }

        if (!taken)
            Interlocked.Increment(ref _lost);
    }

    /// <summary>Hands on what is there, for a short time, and takes nothing more.</summary>
    public void Dispose()
    {
        _lines.CompleteAdding();
        _thread.Join(EndWaitMs);
    }

    private void Run()
    {
        foreach (Action<ILogger> line in _lines.GetConsumingEnumerable())
        {
            try
            {
                line(_inner);
                long lost = Lost;
                if (lost == _reportedLost || _lines.Count > 0)
                    continue;
                _inner.LogWarning("{Count} log line(s) were lost: the log did not take them", lost - _reportedLost);
                _reportedLost = lost;
            }
            catch (Exception)
            {
                // A log that cannot be written must not end the process; the line is counted.
                Interlocked.Increment(ref _lost);
            }
        }
    }
}
