namespace Cbd.Blocks;

/// <summary>
/// The identities of the version before, which stand in records: <c>file:MAJOR:MINOR:INODE:GENERATION</c> and
/// <c>block:MAJOR:MINOR:HASH</c> of all that names the device. They say which disk it is within one boot alone.
/// </summary>
internal static class OldDiskName
{
    /// <summary>End of the identity of a file whose file system has no generations.</summary>
    public const string NoGeneration = ":-";

    private const int FileParts = 5;
    private const int BlockParts = 4;

    /// <summary>The text has one of these forms.</summary>
    public static bool IsOld(string text) => text.Split(':') is [FileDiskName.Kind, _, _, _, _] or [BlockDiskName.Kind, _, _, _];

    /// <summary>Compares two texts of one kind, of which at least one is old.</summary>
    public static (DiskComparison Comparison, bool IsAlike) Judge(DiskIdentity record, DiskIdentity disk)
    {
        if (disk.OldText.Length > 0 && record.Text == disk.OldText)
            return (record.Life == disk.Life && IsCertain(disk) ? DiskComparison.Same : DiskComparison.CannotTell, true);
        string[] before = record.Text.Split(':');
        if (before.Length == BlockParts && before[0] == BlockDiskName.Kind)
        {
            string[] now = disk.OldText.Split(':');
            return (now.Length == BlockParts && now[^1] != before[^1] ? DiskComparison.Different : DiskComparison.CannotTell, false);
        }

        if (!TryParseFile(record.Text, out ulong recordInode, out string recordGeneration) || !TryParseFile(disk.Text, out ulong inode, out string generation))
            return (record.Text == disk.Text ? DiskComparison.Same : DiskComparison.Different, false);
        bool? isSame = DiskTextPart.AreEqual(recordGeneration, generation);
        return recordInode != inode || isSame == false ? (DiskComparison.Different, false) : (DiskComparison.CannotTell, isSame == true);
    }

    /// <summary>Inode and generation of a file, from either form.</summary>
    private static bool TryParseFile(string text, out ulong inode, out string generation)
    {
        (inode, generation) = (0, DiskTextPart.Unknown);
        if (FileDiskName.TryParse(text, out FileDiskName? file))
        {
            (inode, generation) = (file.Inode, file.Generation);
            return true;
        }

        string[] parts = text.Split(':');
        if (parts.Length != FileParts || parts[0] != FileDiskName.Kind || !DiskTextPart.TryParse(parts[3], out inode) || !DiskTextPart.IsHashOrUnknown(parts[4]))
            return false;
        generation = parts[4];
        return true;
    }

    /// <summary>The version before could tell the uses of one number apart.</summary>
    private static bool IsCertain(DiskIdentity disk) =>
        BlockDiskName.TryParse(disk.Text, out BlockDiskName? device) ? device.IsLifeKnown : !disk.OldText.EndsWith(NoGeneration, StringComparison.Ordinal);
}
