using System.Globalization;
using Cbd.Blocks;
using Cbd.Memory;
using static Cbd.Memory.Errno;

namespace Cbd.Disks;

/// <summary>The words of <see cref="FaultSpec"/>s.</summary>
internal static class FaultText
{
    private const int MaxDelayMs = 600_000;

    private static readonly (string Name, FaultKind Kind)[] s_kinds =
        [("error", FaultKind.Error), ("delay", FaultKind.Delay), ("short", FaultKind.Short), ("stuck", FaultKind.Stuck)];

    private static readonly (string Name, BlockOperation Operation)[] s_operations =
    [
        ("read", BlockOperation.Read), ("write", BlockOperation.Write), ("flush", BlockOperation.Flush),
        ("discard", BlockOperation.Discard), ("write-zeroes", BlockOperation.WriteZeroes),
    ];

    /// <summary>What disks and file systems fail with. EBADMSG is not among them: between hosts it asks to send again.</summary>
    private static readonly (string Name, int Errno)[] s_errnos =
    [
        ("EIO", EIO), ("ENXIO", ENXIO), ("ENOMEM", ENOMEM), ("EBUSY", EBUSY), ("ENODEV", ENODEV), ("EFBIG", EFBIG),
        ("ENOSPC", ENOSPC), ("EROFS", EROFS), ("ETIMEDOUT", ETIMEDOUT), ("EDQUOT", EDQUOT), ("EOPNOTSUPP", EOPNOTSUPP),
    ];

    private static string Kinds => string.Join(", ", s_kinds.Select(k => k.Name));

    public static string Name(FaultKind kind) => s_kinds.First(k => k.Kind == kind).Name;

    public static string Name(BlockOperation operation) => s_operations.First(o => o.Operation == operation).Name;

    public static string NameOfErrno(int errno) => s_errnos.First(e => e.Errno == errno).Name;

    public static FaultSpec Parse(string text)
    {
        string[] parts = text.Split(',');
        FaultKind kind = Choose(s_kinds, parts[0]) ?? throw Wrong(text, $"kind '{parts[0]}' is not known", $"begin with one of {Kinds}");
        var spec = new FaultSpec { Kind = kind };
        var seen = new HashSet<string>();
        foreach (string part in parts.AsSpan(1))
        {
            int equals = part.IndexOf('=', StringComparison.Ordinal);
            string key = equals < 0 ? part : part[..equals];
            if (equals < 0)
                throw Wrong(text, $"'{part}' has no value", "write key=value");
            if (!seen.Add(key))
                throw Wrong(text, $"{key} is given twice", "give it once");
            spec = Set(text, spec, key, part[(equals + 1)..]);
        }

        if (kind == FaultKind.Delay && spec.DelayMs == 0)
            throw Wrong(text, "ms is missing", "say how long, as in delay,ms=20");
        if (spec.HasRange && spec.Operation == BlockOperation.Flush)
            throw Wrong(text, "op=flush has no range", "leave offset and length out");
        if (spec.Length != long.MaxValue && spec.Offset > long.MaxValue - spec.Length)
            throw Wrong(text, $"offset {spec.Offset} and length {spec.Length} end beyond 63 bits", "give a smaller range");
        if (kind == FaultKind.Short && spec.Operation is not (null or BlockOperation.Read or BlockOperation.Write))
            throw Wrong(text, $"op={Name(spec.Operation.Value)} transfers nothing that could end short", "use op=read, op=write or op=any");
        return spec;
    }

    private static FaultSpec Set(string text, FaultSpec spec, string key, string value)
    {
        switch (key)
        {
            case "op":
                BlockOperation? operation = Choose(s_operations, value);
                if (operation is null && value != "any")
                    throw Wrong(text, $"op '{value}' is not known", $"use {string.Join(", ", s_operations.Select(o => o.Name))} or any");
                return spec with { Operation = operation };
            case "rate":
                bool isRate = double.TryParse(value, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double rate) && rate is > 0 and <= 1;
                return isRate ? spec with { Rate = rate } : throw Wrong(text, $"rate '{value}' is not a probability", "use a number above 0 and at most 1, as in rate=0.01");
            case "offset":
                return spec with { Offset = ParseSize(text, key, value) };
            case "length":
                long length = ParseSize(text, key, value);
                return length > 0 ? spec with { Length = length } : throw Wrong(text, "length is 0", "use at least 1, or leave it out");
            case "count":
                return spec with { Count = ParseNumber(text, key, value, 1, long.MaxValue) };
            case "seed":
                return spec with { Seed = (ulong)ParseNumber(text, key, value, 0, long.MaxValue) };
            case "errno" when spec.Kind == FaultKind.Error:
                return spec with
                {
                    Errno = Choose(s_errnos, value) ?? throw Wrong(text, $"errno '{value}' is not one that disks fail with", $"use one of {string.Join(", ", s_errnos.Select(e => e.Name))}"),
                };
            case "ms" when spec.Kind == FaultKind.Delay:
                return spec with { DelayMs = (int)ParseNumber(text, key, value, 1, MaxDelayMs) };
            default:
                string own = spec.Kind switch { FaultKind.Error => "errno, ", FaultKind.Delay => "ms, ", _ => "" };
                throw Wrong(text, $"key '{key}' is not one of {Name(spec.Kind)}", $"use {own}op, rate, offset, length, count, seed");
        }
    }

    private static long ParseSize(string text, string key, string value) =>
        SizeText.TryParse(value, out long bytes, out string? error) ? bytes : throw Wrong(text, $"{key}: {error}", "correct it");

    private static long ParseNumber(string text, string key, string value, long least, long most) =>
        long.TryParse(value, NumberStyles.None, CultureInfo.InvariantCulture, out long number) && number >= least && number <= most
            ? number
            : throw Wrong(text, $"{key} is '{value}'", $"use a whole number from {least} to {most}");

    private static T? Choose<T>((string Name, T Value)[] words, string word)
        where T : struct
    {
        foreach ((string name, T value) in words)
        {
            if (name == word)
                return value;
        }

        return null;
    }

    private static CbdException Wrong(string text, string what, string remedy) => new(CbdErrorKind.Invalid, $"fault '{text}': {what}; {remedy}");
}
