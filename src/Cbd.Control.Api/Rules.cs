using System.Diagnostics.CodeAnalysis;
using System.Text;

namespace Cbd.Control.Api;

/// <summary>
/// Checks of single values. What depends on the region or the disk (free entries, sizes that fit) is the host's to check.
/// Every refusal names the value and the range.
/// </summary>
internal static class Rules
{
    /// <summary>Most handlers of a backend, and most queues of a device.</summary>
    public const int MaxThreads = 128;

    /// <summary>Longest time that a start verb may take, seconds: a day.</summary>
    public const int MaxTimeoutSeconds = 24 * 3600;

    /// <summary>Longest path of a region, disk or socket, UTF-8 bytes (PATH_MAX without its end).</summary>
    public const int MaxPathBytes = 4095;

    /// <summary>Ids are indexes of entries: 0 or above.</summary>
    public static void CheckId(int? id, string what)
    {
        if (id < 0)
            throw Invalid($"{what} id {id} is negative; ids start at 0");
    }

    public static void CheckPath([NotNull] string? path, string what)
    {
        if (string.IsNullOrEmpty(path))
            throw Invalid($"the {what} path is empty; give one from /");
        if (path.Contains('\0', StringComparison.Ordinal))
            throw Invalid($"the {what} path '{path}' has a NUL in it");
        var bytes = Encoding.UTF8.GetByteCount(path);
        if (bytes > MaxPathBytes)
            throw Invalid($"the {what} path has {bytes} bytes; at most {MaxPathBytes} are possible");
    }

    public static void CheckAbsolute(string path, string what)
    {
        if (!Path.IsPathRooted(path))
            throw Invalid($"the {what} path '{path}' is relative, and a daemon has no place it is relative to; give it from /");
    }

    /// <summary>What a user calls a thing: a number alone is always an id.</summary>
    public static void CheckName(string? name, string what)
    {
        if (name is not null && !ThingName.IsValid(name))
            throw Invalid($"{what} name '{name}' is not a name: give a letter, then up to {ThingName.MaxLength - 1} letters, digits, '.', '_' or '-'");
    }

    public static void CheckRange(long? value, string what, long least, long most)
    {
        if (value is { } number && (number < least || number > most))
        {
            throw Invalid(most == long.MaxValue
                ? $"{what} is {number}; it must be at least {least}"
                : $"{what} is {number}; it must be {least} to {most}");
        }
    }

    /// <summary>Of a start verb.</summary>
    public static void CheckTimeout(int? seconds) => CheckRange(seconds, "the timeout in seconds", 1, MaxTimeoutSeconds);

    public static void CheckFaults(IReadOnlyList<string> faults)
    {
        if (faults.Count == 0)
            throw Invalid("no fault is given; give one or more, or off");
        if (faults.Contains(null!))
            throw Invalid("a fault is null; give one as error,op=read, or off");
    }

    public static CbdException Invalid(string message) => new(CbdErrorKind.Invalid, message);
}
