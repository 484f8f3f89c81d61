using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;

namespace Cbd.Control.Verbs;

/// <summary>
/// Where a verb's result goes, and whether a person reads it; and where notes go, which are no part of the result.
/// Single-threaded.
/// </summary>
internal sealed class VerbOutput(TextWriter writer, bool toTerminal, Action<string>? note = null, TextWriter? progress = null)
{
    /// <summary>Where a person sees how far a verb is; null if nobody looks.</summary>
    public TextWriter? Progress => progress;

    /// <summary>"json", "table", or null: a table on a terminal, else JSON.</summary>
    public string? Format { get; set; }

    public void Line(string text) => writer.Write(OneLine.From(text) + "\n");

    public void Line(long number) => Line(number.ToString(CultureInfo.InvariantCulture));

    /// <summary>A device that was started.</summary>
    public void Device(StartedDevice device)
    {
        Line(device.Node);
        Note(device.Note);
    }

    /// <summary>What the user may not expect, in one line; nothing if it is null.</summary>
    public void Note(string? text)
    {
        if (text is not null)
            note?.Invoke(text);
    }

    /// <summary>A list: JSON of <paramref name="items"/>, or a table with one row for each.</summary>
    public void List<T>(IReadOnlyList<T> items, params (string Header, Func<T, string> Cell)[] columns)
    {
        if (IsJson)
            writer.Write(Json(items) + "\n");
        else
            WriteTable(columns.Select(c => c.Header), items.Select(item => columns.Select(c => c.Cell(item)).ToArray()));
    }

    /// <summary>One thing: its JSON, or a table of its keys and values.</summary>
    public void Object<T>(T item)
    {
        var text = Json(item);
        if (IsJson)
        {
            writer.Write(text + "\n");
            return;
        }

        using var document = JsonDocument.Parse(text);
        WriteTable(null, document.RootElement.EnumerateObject().Select(p => new[] { p.Name, p.Value.ValueKind == JsonValueKind.String ? p.Value.GetString()! : p.Value.GetRawText() }));
    }

    /// <summary>One thing: its JSON, or the rows that a person wants of it.</summary>
    public void Object<T>(T item, JsonTypeInfo<T> json, IEnumerable<(string Name, string Value)> rows)
    {
        if (IsJson)
            writer.Write(JsonSerializer.Serialize(item, json) + "\n");
        else
            WriteTable(null, rows.Select(row => new[] { row.Name, row.Value }));
    }

    /// <summary>JSON where it was asked for, else a text of its own.</summary>
    public void Text<T>(T item, Action<TextWriter> write)
    {
        if (Format == "json")
            writer.Write(Json(item) + "\n");
        else
            write(writer);
    }

    /// <summary>Bytes as a person reads them, exact: 512M, or the number itself.</summary>
    public static string Size(long bytes)
    {
        const string units = "KMGTPE";
        var unit = -1;
        while (bytes != 0 && bytes % 1024 == 0 && unit < units.Length - 1)
        {
            bytes /= 1024;
            unit++;
        }

        return bytes.ToString(CultureInfo.InvariantCulture) + (unit < 0 ? "" : units[unit]);
    }

    private static string Json<T>(T item) => JsonSerializer.Serialize(item, ControlJson.Readable.Of<T>());

    private bool IsJson => Format is null ? !toTerminal : Format == "json";

    private void WriteTable(IEnumerable<string>? headers, IEnumerable<string[]> rows)
    {
        var lines = new List<string[]>();
        if (headers is not null)
            lines.Add([.. headers]);
        foreach (var row in rows)
            lines.Add([.. row.Select(cell => cell.Length == 0 ? "-" : OneLine.From(cell))]);
        if (lines.Count == 0)
            return;
        var widths = new int[lines[0].Length];
        foreach (var line in lines)
        {
            for (var i = 0; i < widths.Length; i++)
                widths[i] = Math.Max(widths[i], line[i].Length);
        }

        var text = new StringBuilder();
        foreach (var line in lines)
        {
            var start = text.Length;
            for (var i = 0; i < widths.Length; i++)
                text.Append(line[i].PadRight(widths[i] + 2));
            while (text.Length > start && text[^1] == ' ')
                text.Length--;
            text.Append('\n');
        }

        writer.Write(text.ToString());
    }
}
