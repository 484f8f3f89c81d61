using Microsoft.Extensions.Logging;

namespace Cbd.Host.Logs;

/// <summary>One event of a log, as it was when it happened.</summary>
/// <param name="Time">When, UTC.</param>
/// <param name="Level">How bad.</param>
/// <param name="Category">Of which part of the program.</param>
/// <param name="Message">What, for people.</param>
/// <param name="Values">The values in the message under their names; null or empty if there are none.</param>
/// <param name="Exception">What led to it.</param>
internal sealed record LogEvent(
    DateTime Time, LogLevel Level, string Category, string Message, IReadOnlyList<KeyValuePair<string, object?>>? Values, Exception? Exception);
