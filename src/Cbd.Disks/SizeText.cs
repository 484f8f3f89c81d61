using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>
/// Sizes as people write them: bytes, or a number with K, M, G, T, P (powers of 1024; KiB and kB-like spellings with
/// "iB" or "B" mean the same, as in qemu and fio).
/// </summary>
public static class SizeText
{
    private const string Units = "KMGTPE";

    private const string Form = "a number of bytes, or with K, M, G or T, as 512M or 4GiB";

    /// <summary>The size of a disk, above zero; <paramref name="what"/> begins the error.</summary>
    /// <exception cref="CbdException">It is not such a size.</exception>
    public static long Parse(string text, string what)
    {
        if (!TryParse(text, out long sizeBytes, out string? error))
            throw new CbdException(CbdErrorKind.Invalid, $"{what}: {error}");
        return sizeBytes > 0
            ? sizeBytes
            : throw new CbdException(CbdErrorKind.Invalid, $"{what}: the size is zero; write one such as 512M");
    }

    /// <summary>False if it is not a size or does not fit 63 bits.</summary>
    public static bool TryParse(string text, out long sizeBytes, [NotNullWhen(false)] out string? error)
    {
        sizeBytes = 0;
        var digits = text.AsSpan().IndexOfAnyExceptInRange('0', '9');
        var number = digits < 0 ? text.AsSpan() : text.AsSpan(0, digits);
        var unit = digits < 0 ? "" : text[digits..].ToUpperInvariant();
        var shift = 0;
        if (unit.Length > 0 && unit != "B")
        {
            var power = Units.IndexOf(unit[0], StringComparison.Ordinal);
            if (power < 0 || unit[1..] is not ("" or "B" or "IB"))
                number = default;
            shift = (power + 1) * 10;
        }

        if (number.IsEmpty)
        {
            error = $"'{text}' is not a size; use {Form}";
            return false;
        }

        if (!long.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out var value)
            || value > long.MaxValue >> shift)
        {
            error = $"size '{text}' is too large; at most {long.MaxValue} bytes are possible";
            return false;
        }

        sizeBytes = value << shift;
        error = null;
        return true;
    }
}
