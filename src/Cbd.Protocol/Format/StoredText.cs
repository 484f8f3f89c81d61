using System.Text;

namespace Cbd.Protocol.Format;

/// <summary>Text in bodies: UTF-8, a length of its own, zero-padded. Checked in both directions.</summary>
internal static class StoredText
{
    private static readonly UTF8Encoding s_strict = new(false, throwOnInvalidBytes: true);

    /// <summary>Bytes of the text in UTF-8; −1 if it is not valid UTF-16.</summary>
    public static int CountBytes(string text)
    {
        try
        {
            return s_strict.GetByteCount(text);
        }
        catch (EncoderFallbackException)
        {
            return -1;
        }
    }

    /// <summary>Stores the text and zeroes the rest of the field; it must fit (a bug of the caller otherwise).</summary>
    public static int Write(string text, Span<byte> field, string name)
    {
        int count = CountBytes(text);
        if (count < 0 || count > field.Length)
            throw new InvalidOperationException($"{name} does not fit its {field.Length} bytes");
        int length = s_strict.GetBytes(text, field);
        field[length..].Clear();
        return length;
    }

    /// <summary>Reads printable text of the given length; null if the length or the bytes are not what they must be.</summary>
    public static string? Read(ReadOnlySpan<byte> field, int length)
    {
        if ((uint)length > (uint)field.Length)
            return null;
        string text;
        try
        {
            text = s_strict.GetString(field[..length]);
        }
        catch (DecoderFallbackException)
        {
            return null;
        }

        foreach (char character in text)
        {
            // Text of other hosts ends on terminals and in logs: no control characters.
            if (char.IsControl(character))
                return null;
        }

        return text;
    }
}
