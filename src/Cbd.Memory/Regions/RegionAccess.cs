namespace Cbd.Memory;

/// <summary>Whose regions are used, and who may use those that are made. Modes are permission bits.</summary>
public sealed record RegionAccess
{
    private const uint OthersRead = 4;
    private const uint OthersWrite = 2;
    private const uint Others = 7;

    /// <summary>Whose files are believed.</summary>
    public OwnerTrust Trust { get; init; } = OwnerTrust.Default;

    /// <summary>The rights that the region is opened and made with; null: those of this process.</summary>
    public PathRights? Rights { get; init; }

    /// <summary>Mode of a file that is made.</summary>
    public uint Mode { get; init; } = DefaultMode;

    /// <summary>Its group; null: as the kernel gives it.</summary>
    public uint? Group { get; init; }

    public const uint DefaultMode = 0x180;

    /// <summary>
    /// Refuses what leads root to a file that a stranger chose: a directory of a stranger on the way, or a link that a stranger made.
    /// </summary>
    internal void CheckWay(string path)
    {
        // Who opens it with another user's rights is led no further than that user could go.
        if (!Trust.IsRoot || Rights is not null)
            return;
        Trust.CheckDirectory(path.LastIndexOf('/') is > 0 and var end ? path[..end] : "/", $"directory of region '{path}',", "give another --path", isShared: true);
        if (FileStatus.TryGet(path, out FileStatus link, followLinks: false) == 0 && link.Type == FileType.SymbolicLink && !Trust.Trusts(link.OwnerId))
            throw Refused(path, $"is a link that {OwnerTrust.Name(link.OwnerId)} made", "give the path that it leads to", link.OwnerId);
    }

    /// <summary>
    /// Refuses root a region that a stranger owns or may write to: that user would read and write every block.
    /// </summary>
    internal void Check(string path, in FileStatus status)
    {
        if (!Trust.IsRoot || Trust.IsNamed(status.OwnerId))
            return;
        if (!Trust.Trusts(status.OwnerId) && status.OwnerId != Rights?.UserId)
            throw Refused(path, $"belongs to {OwnerTrust.Name(status.OwnerId)} (mode {OwnerTrust.Mode(status)}), who could read and write every block in it", "remove it and make it with tp-reg --format --size, or give another --path", status.OwnerId);
        if ((status.Permissions & OthersWrite & ~Mode) != 0)
            throw Refused(path, $"can be written by everybody (owner {OwnerTrust.Name(status.OwnerId)}, mode {OwnerTrust.Mode(status)})", $"remove it and make it with tp-reg --format --size, or chmod o-rwx '{path}'", status.OwnerId);
    }

    /// <summary>Refuses root to format a file that has another name: it may be one that a stranger chose.</summary>
    internal void CheckNames(string path, in FileStatus status)
    {
        if (Trust.IsRoot && !Trust.IsNamed(status.OwnerId) && status.Type == FileType.Regular && status.LinkCount > 1)
            throw Refused(path, $"has {status.LinkCount} names (hard links; owner {OwnerTrust.Name(status.OwnerId)}, mode {OwnerTrust.Mode(status)}), so that it may be another file", "give one with a single name", status.OwnerId);
    }

    /// <summary>Refuses root a region that everybody may read.</summary>
    internal void CheckReaders(string path, in FileStatus status)
    {
        if (Trust.IsRoot && !Trust.IsNamed(status.OwnerId) && (status.Permissions & OthersRead & ~Mode) != 0)
            throw Refused(path, $"can be read by everybody (owner {OwnerTrust.Name(status.OwnerId)}, mode {OwnerTrust.Mode(status)})", $"chmod o-rwx '{path}'", status.OwnerId);
    }

    /// <summary>The mode that a file gets which is formatted: what others may is taken away, unless the operator chose a mode.</summary>
    internal uint ModeOf(in FileStatus status) => Mode != DefaultMode ? Mode : status.Permissions & ~Others;

    private static CbdException Refused(string path, string why, string remedy, uint owner) =>
        new(CbdErrorKind.Denied, $"region '{path}' {why}: {remedy}, or start cbdd with --trust-owner {owner}");
}
