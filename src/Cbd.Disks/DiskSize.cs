using System.Globalization;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>Sizes as operators write them: bytes, or a number with K, M, G or T (powers of 1024), iB or B optional.</summary>
public static class DiskSize
{
    /// <summary>The size in bytes; <paramref name="what"/> is quoted in the error.</summary>
    /// <exception cref="CbdException">It is not such a size, or not above zero, or too large.</exception>
    public static long Parse(string text, string what)
    {
        ReadOnlySpan<char> rest = text;
        if (rest.EndsWith("iB", StringComparison.OrdinalIgnoreCase))
            rest = rest[..^2];
        else if (rest.EndsWith("B", StringComparison.OrdinalIgnoreCase))
            rest = rest[..^1];
        bool hadSuffix = rest.Length != text.Length;
        int shift = rest.IsEmpty ? 0 : char.ToUpperInvariant(rest[^1]) switch
        {
            'K' => 10,
            'M' => 20,
            'G' => 30,
            'T' => 40,
            _ => 0,
        };
        if (shift != 0)
            rest = rest[..^1];
        if (!long.TryParse(rest, NumberStyles.None, CultureInfo.InvariantCulture, out long count) ||
            (shift == 0 && hadSuffix && text.Length - rest.Length == 2))
        {
            throw new CbdException(
                CbdErrorKind.Invalid, $"{what}: '{text}' is not a size; write a number with K, M, G or T, such as 512M or 4GiB");
        }
        if (count == 0)
            throw new CbdException(CbdErrorKind.Invalid, $"{what}: the size is zero; write one such as 512M");
        if (count > long.MaxValue >> shift)
            throw new CbdException(CbdErrorKind.Invalid, $"{what}: the size {text} is too large; write one such as 4G");
        return count << shift;
    }
}
