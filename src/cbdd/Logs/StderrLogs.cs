using System.Buffers;
using System.Globalization;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using Cbd.Control;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon.Logs;

/// <summary>
/// Structured logs on stderr, one line per event, written before the call returns: no queue, no thread, and nothing
/// lost when the process dies next. Thread-safe.
/// </summary>
internal sealed class StderrLogs(TextWriter writer, bool asJson) : ILoggerProvider
{
    private readonly Lock _gate = new();

    public ILogger CreateLogger(string categoryName) => new Logger(this, categoryName);

    public void Dispose()
    {
    }

    private void Write(string line)
    {
        lock (_gate)
        {
            writer.Write(line + "\n");
            writer.Flush();
        }
    }

    private sealed class Logger(StderrLogs logs, string category) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => logLevel is >= LogLevel.Information and < LogLevel.None;

        public void Log<TState>(
            LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            if (!IsEnabled(logLevel))
                return;
            var time = DateTime.UtcNow.ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture);
            var message = formatter(state, exception);
            logs.Write(logs.AsJson
                ? Json(time, logLevel, message, state as IReadOnlyList<KeyValuePair<string, object?>>, exception)
                : Text(time, logLevel, message, exception));
        }

        private string Text(string time, LogLevel level, string message, Exception? exception)
        {
            var line = $"{time} {Name(level)} {category}: {message}";
            return OneLine.From(exception is null ? line : $"{line}: {exception}");
        }

        private string Json(
            string time, LogLevel level, string message, IReadOnlyList<KeyValuePair<string, object?>>? values, Exception? exception)
        {
            var bytes = new ArrayBufferWriter<byte>(256);
            using (var json = new Utf8JsonWriter(bytes, new JsonWriterOptions { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
            {
                json.WriteStartObject();
                json.WriteString("time", time);
                json.WriteString("level", Name(level));
                json.WriteString("category", category);
                json.WriteString("message", message);
                if (exception is not null)
                    json.WriteString("exception", exception.ToString());
                WriteValues(json, values);
                json.WriteEndObject();
            }

            return Encoding.UTF8.GetString(bytes.WrittenSpan);
        }

        private static void WriteValues(Utf8JsonWriter json, IReadOnlyList<KeyValuePair<string, object?>>? values)
        {
            if (values is null || values.All(v => v.Key == "{OriginalFormat}"))
                return;
            json.WriteStartObject("values");
            foreach (var (key, value) in values)
            {
                if (key != "{OriginalFormat}")
                    json.WriteString(key, Convert.ToString(value, CultureInfo.InvariantCulture));
            }

            json.WriteEndObject();
        }

        private static string Name(LogLevel level) => level switch
        {
            LogLevel.Information => "info",
            LogLevel.Warning => "warning",
            LogLevel.Error => "error",
            LogLevel.Critical => "critical",
            _ => level.ToString(),
        };
    }

    private bool AsJson => asJson;
}
