using Cbd.Host.Logs;
using Cbd.Programs.Daemon.Logs;
using Microsoft.Extensions.Logging;

namespace Cbd.Tests.Control;

/// <summary>The daemon's log as text, each line there when the call returns. Thread-safe.</summary>
internal sealed class WrittenLog(bool asJson = false) : ILoggerProvider
{
    private readonly StringWriter _text = new();

    public ILogger CreateLogger(string categoryName) => new Logger(this, categoryName);

    public void Dispose()
    {
    }

    public override string ToString()
    {
        lock (_text)
            return _text.ToString();
    }

    private sealed class Logger(WrittenLog log, string category) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel is >= LogLevel.Information and < LogLevel.None;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            if (!IsEnabled(logLevel))
                return;
            var line = new LogEvent(DateTime.UtcNow, logLevel, category, formatter(state, exception), state as IReadOnlyList<KeyValuePair<string, object?>>, exception);
            lock (log._text)
                log._text.Write(LogText.Format(line, log.IsJson) + "\n");
        }
    }

    private bool IsJson => asJson;
}
