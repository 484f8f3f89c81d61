using System.Globalization;

namespace Cbd.Blocks;

/// <summary>Parts of identities. They come out of shared memory: what is not as it should be makes the whole text one of no known form.</summary>
internal static class DiskTextPart
{
    /// <summary>Stands for what is not known.</summary>
    public const string Unknown = "-";

    /// <summary>Eight hexadecimal digits.</summary>
    public static bool IsHash(ReadOnlySpan<char> text) => text.Length == 8 && uint.TryParse(text, NumberStyles.AllowHexSpecifier, CultureInfo.InvariantCulture, out _);

    /// <summary>The same, or what is not known.</summary>
    public static bool IsHashOrUnknown(string text) => text == Unknown || IsHash(text);

    /// <summary>One of the letters with eight hexadecimal digits, or what is not known.</summary>
    public static bool IsTagOrUnknown(string text, string letters) =>
        text == Unknown || (text.Length > 0 && letters.Contains(text[0], StringComparison.Ordinal) && IsHash(text.AsSpan(1)));

    /// <summary>A number in decimal digits.</summary>
    public static bool TryParse(string text, out ulong number) => ulong.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out number);

    /// <summary>Whether both are known and equal, or known and not equal; null if one is not known.</summary>
    public static bool? AreEqual(string one, string other) => one == Unknown || other == Unknown ? null : one == other;
}
