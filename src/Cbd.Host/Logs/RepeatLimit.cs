using System.Globalization;
using System.Text;

namespace Cbd.Host.Logs;

/// <summary>
/// Lets so many lines of one kind into the log in a time, and counts the others. Lines that differ in nothing but their numbers are of
/// one kind. Not thread-safe.
/// </summary>
internal sealed class RepeatLimit
{
    /// <summary>Lines of one kind in <see cref="WindowMs"/>.</summary>
    public const int MostLines = 100;

    public const int WindowMs = 10_000;

    private const int MostKinds = 256;
    private const int ComparedLength = 200;

    private readonly Dictionary<string, Kind> _kinds = [];

    /// <summary>Lines were left out that no summary has told of.</summary>
    public bool HasLeftOut => _kinds.Values.Any(kind => kind.LeftOut > 0);

    /// <summary>Whether the line is written. One that is not is counted.</summary>
    public bool Admits(LogEvent line, long nowMs)
    {
        string key = KeyOf(line);
        if (!_kinds.TryGetValue(key, out Kind? kind))
        {
            if (_kinds.Count >= MostKinds)
                RemoveOld(nowMs);
            // Where there are too many kinds, the rest of a category is of one: a client may have a word in what is logged.
            if (_kinds.Count >= MostKinds && !_kinds.TryGetValue(key = PrefixOf(line).ToString(), out kind))
                kind = null;
            if (kind is null)
                _kinds.Add(key, kind = new Kind { SinceMs = nowMs });
        }

        // The lines that were left out are told of first.
        if (nowMs - kind.SinceMs >= WindowMs && kind.LeftOut == 0)
            (kind.SinceMs, kind.Count) = (nowMs, 0);
        if (kind.Count++ < MostLines)
            return true;
        kind.LeftOut++;
        kind.Last = line;
        return false;
    }

    /// <summary>For each kind whose time is over, or for all, a line that says how many were left out.</summary>
    public IReadOnlyList<LogEvent> TakeSummaries(long nowMs, bool all = false)
    {
        List<LogEvent>? summaries = null;
        foreach (Kind kind in _kinds.Values)
        {
            if (kind.LeftOut == 0 || (!all && nowMs - kind.SinceMs < WindowMs))
                continue;
            (summaries ??= []).Add(kind.Last! with
            {
                Time = DateTime.UtcNow,
                Message = string.Create(CultureInfo.InvariantCulture, $"{kind.LeftOut} more line(s) like this were left out: {kind.Last.Message}"),
            });
            (kind.SinceMs, kind.Count, kind.LeftOut, kind.Last) = (nowMs, 0, 0, null);
        }

        return summaries ?? (IReadOnlyList<LogEvent>)[];
    }

    private void RemoveOld(long nowMs)
    {
        foreach ((string key, Kind kind) in _kinds)
        {
            if (kind.LeftOut == 0 && nowMs - kind.SinceMs >= WindowMs)
                _kinds.Remove(key);
        }
    }

    private static StringBuilder PrefixOf(LogEvent line) =>
        new StringBuilder(ComparedLength + 32).Append((int)line.Level).Append(line.Category).Append(':');

    private static string KeyOf(LogEvent line)
    {
        StringBuilder key = PrefixOf(line);
        bool isHex = false;
        char before = default;
        foreach (char character in line.Message.AsSpan(0, Math.Min(line.Message.Length, ComparedLength)))
        {
            isHex = isHex ? char.IsAsciiHexDigit(character) : character == 'x' && before == '0';
            if (!isHex && !char.IsAsciiDigit(character))
                key.Append(character);
            before = character;
        }

        return key.ToString();
    }

    private sealed class Kind
    {
        public long SinceMs;
        public int Count;
        public int LeftOut;
        public LogEvent? Last;
    }
}
