using Microsoft.Extensions.Logging;

namespace Cbd.Host.Logs;

/// <summary>A logger of one category in front of a <see cref="LogQueue"/>: its calls neither wait nor throw. Thread-safe.</summary>
internal sealed class QueuedLog(LogQueue queue, string category) : ILogger
{
    public LogQueue Queue => queue;

    public bool IsEnabled(LogLevel logLevel) => queue.IsEnabled(logLevel);

    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
    {
        if (!IsEnabled(logLevel))
            return;
        try
        {
            queue.Add(new LogEvent(DateTime.UtcNow, logLevel, category, formatter(state, exception), state as IReadOnlyList<KeyValuePair<string, object?>>, exception));
        }
        catch (Exception)
        {
            // A text that cannot be made, or no memory for it.
            queue.CountLost();
        }
    }
}
