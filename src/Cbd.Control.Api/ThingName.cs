namespace Cbd.Control.Api;

/// <summary>
/// What a user calls a device or a backend: a letter, then letters, digits, '.', '_' and '-', 31 in all. A number is always
/// an id, and no name.
/// </summary>
public static class ThingName
{
    public const int MaxLength = 31;

    public static bool IsValid(string name) =>
        name.Length is >= 1 and <= MaxLength && char.IsAsciiLetter(name[0]) &&
        name.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '_' or '-');
}
