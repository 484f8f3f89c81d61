using System.Text;

namespace Cbd.Control.Api;

/// <summary>Messages are one line each, whatever names of files or hosts are quoted in them.</summary>
internal static class OneLine
{
    /// <summary>Null for an empty text: what has nothing to say is left out.</summary>
    public static string? OrNull(string? text) => string.IsNullOrEmpty(text) ? null : text;

    /// <summary>The text with control characters written as \n, \t or \xNN; the same object if there are none.</summary>
    public static string From(string text)
    {
        var firstControl = text.AsSpan().IndexOfAnyInRange('\0', '\x1f');
        if (firstControl < 0 && !text.AsSpan().ContainsAnyInRange('\x7f', '\x9f'))
            return text;
        var line = new StringBuilder(text.Length + 16);
        foreach (var character in text)
        {
            _ = character switch
            {
                '\n' => line.Append("\\n"),
                '\r' => line.Append("\\r"),
                '\t' => line.Append("\\t"),
                _ when char.IsControl(character) => line.Append("\\x").Append(((int)character).ToString("x2")),
                _ => line.Append(character),
            };
        }

        return line.ToString();
    }
}
