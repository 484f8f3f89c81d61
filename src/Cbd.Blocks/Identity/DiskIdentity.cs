namespace Cbd.Blocks;

/// <summary>
/// Which disk it is: a text that begins with the kind of the disk, as <see cref="FileDiskName"/> and <see cref="BlockDiskName"/> have it.
/// <c>memory:</c> and <c>null:</c> disks have a random number in each life. A text of another kind is compared as a whole.
/// </summary>
/// <param name="Text">Printable ASCII without spaces, at most <see cref="MaxBytes"/> long.</param>
/// <param name="OldText">What the version before says of a disk that is open here; empty for a record, and for disks that have none.</param>
/// <param name="Life">Hash of the boot and the old text; what the version before told disks apart by within one boot.</param>
internal readonly record struct DiskIdentity(string Text, string OldText = "", ulong Life = 0)
{
    /// <summary>Longest text.</summary>
    public const int MaxBytes = 128;

    /// <summary>Compares a record, or what a device knows, with a disk that is there now.</summary>
    public static DiskComparison Compare(DiskIdentity record, DiskIdentity disk) => Judge(record, disk).Comparison;

    /// <summary>
    /// It is the disk; or <see cref="Compare"/> cannot tell, and names speak for one disk: a disk that is started beside such a record is
    /// taken for its disk until an operator says otherwise. Without these, nothing but a kind says so.
    /// </summary>
    public static bool MayBe(DiskIdentity record, DiskIdentity disk) => Judge(record, disk) is (DiskComparison.Same, _) or (DiskComparison.CannotTell, true);

    /// <summary>A disk that no other process can open.</summary>
    public static bool IsInMemory(string text) => KindOf(text) is "memory" or "null";

    /// <summary>The disk is in memory and replaces another one that was: its contents are gone, and its operator knows.</summary>
    public static bool BeginsAnew(string record, string disk) => IsInMemory(record) && KindOf(record) == KindOf(disk);

    private static (DiskComparison Comparison, bool IsAlike) Judge(DiskIdentity record, DiskIdentity disk)
    {
        if (KindOf(record.Text) != KindOf(disk.Text))
            return (DiskComparison.Different, false);
        if (FileDiskName.TryParse(record.Text, out FileDiskName? recordFile) && FileDiskName.TryParse(disk.Text, out FileDiskName? file))
            return recordFile.CompareWith(file);
        if (BlockDiskName.TryParse(record.Text, out BlockDiskName? recordDevice) && BlockDiskName.TryParse(disk.Text, out BlockDiskName? device))
            return recordDevice.CompareWith(device);
        return OldDiskName.IsOld(record.Text) || OldDiskName.IsOld(disk.Text)
            ? OldDiskName.Judge(record, disk)
            : (record.Text == disk.Text ? DiskComparison.Same : DiskComparison.Different, false);
    }

    private static string KindOf(string text) => text.IndexOf(':', StringComparison.Ordinal) is >= 0 and var end ? text[..end] : text;
}
