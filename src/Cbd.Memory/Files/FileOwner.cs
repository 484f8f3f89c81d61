namespace Cbd.Memory;

/// <summary>To whom a file is given.</summary>
/// <param name="User">The user.</param>
/// <param name="Group">The group; null: it stays as it is.</param>
/// <param name="IsWanted">Somebody said so: where it cannot be given to them, that is an error.</param>
public readonly record struct FileOwner(uint User, uint? Group, bool IsWanted = true);
