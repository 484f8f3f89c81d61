using System.Text;
using Cbd.Memory;

namespace Cbd.Control.Verbs;

/// <summary>
/// Splits one line into words as a shell does with plain text: blanks separate, '…' keeps everything, "…" keeps
/// everything but \" and \\, a backslash keeps the next character. Nothing is expanded.
/// </summary>
internal static class CommandWords
{
    public static IReadOnlyList<string> Split(string line)
    {
        var words = new List<string>();
        var word = new StringBuilder();
        var inWord = false;
        var quote = '\0';
        for (var i = 0; i < line.Length; i++)
        {
            var character = line[i];
            if (quote == '\'')
            {
                if (character == quote)
                    quote = '\0';
                else
                    word.Append(character);
            }
            else if (character == '\\')
            {
                if (++i == line.Length)
                    throw new CbdException(CbdErrorKind.Invalid, $"'{line}' ends in a backslash");
                if (quote == '"' && line[i] is not ('"' or '\\'))
                    word.Append('\\');
                word.Append(line[i]);
                inWord = true;
            }
            else if (quote == '"')
            {
                if (character == quote)
                    quote = '\0';
                else
                    word.Append(character);
            }
            else if (character is '\'' or '"')
            {
                quote = character;
                inWord = true;
            }
            else if (character is ' ' or '\t' or '\n')
            {
                if (inWord)
                    words.Add(word.ToString());
                word.Clear();
                inWord = false;
            }
            else
            {
                word.Append(character);
                inWord = true;
            }
        }

        if (quote != '\0')
            throw new CbdException(CbdErrorKind.Invalid, $"'{line}' has a {quote} without its end");
        if (inWord)
            words.Add(word.ToString());
        return words;
    }
}
