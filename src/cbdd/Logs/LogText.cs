using System.Buffers;
using System.Globalization;
using System.Text;
using System.Text.Encodings.Web;
using System.Text.Json;
using Cbd.Host.Logs;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon.Logs;

/// <summary>The lines of the daemon's log: text or JSON, one line per event. Thread-safe.</summary>
internal static class LogText
{
    /// <summary>The event as a line, without its end.</summary>
    public static string Format(LogEvent line, bool asJson)
    {
        var time = line.Time.ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture);
        return asJson ? Json(time, line) : Text(time, line);
    }

    private static string Text(string time, LogEvent line)
    {
        var text = $"{time} {Name(line.Level)} {line.Category}: {line.Message}";
        return OneLine.From(line.Exception is null ? text : $"{text}: {line.Exception}");
    }

    private static string Json(string time, LogEvent line)
    {
        var bytes = new ArrayBufferWriter<byte>(256);
        using (var json = new Utf8JsonWriter(bytes, new JsonWriterOptions { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping }))
        {
            json.WriteStartObject();
            json.WriteString("time", time);
            json.WriteString("level", Name(line.Level));
            json.WriteString("category", line.Category);
            json.WriteString("message", line.Message);
            if (line.Exception is not null)
                json.WriteString("exception", line.Exception.ToString());
            WriteValues(json, line.Values);
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
