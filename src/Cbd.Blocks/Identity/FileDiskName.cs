using System.Diagnostics.CodeAnalysis;
using System.Globalization;

namespace Cbd.Blocks;

/// <summary>
/// A file as a disk: <c>file:FILESYSTEM:INODE:GENERATION:BIRTH:MEDIUM:BOOT:MACHINE</c>. What is not known is a dash. The first four tell
/// files apart. The others are for the case that these are equal, since a file system may be copied as a whole.
/// <list type="table">
/// <item><term>FILESYSTEM</term><description>UUID of the file system in 32 hexadecimal digits, with <c>/NUMBER</c> of the subvolume where there
/// are any; else <c>MAJOR,MINOR</c> of its device, which says something within one boot</description></item>
/// <item><term>INODE</term><description>decimal</description></item>
/// <item><term>GENERATION</term><description>which use of the inode it is, 8 hexadecimal digits</description></item>
/// <item><term>BIRTH</term><description>hash of the time when the inode came into being, 8 hexadecimal digits</description></item>
/// <item><term>MEDIUM</term><description>hash of what names the block device of the file system: w and 8 digits if no other device in the world has
/// that name, s if another machine may have it; n and the hash of the device's number and sequence within this boot</description></item>
/// <item><term>BOOT</term><description>hash of the boot id</description></item>
/// <item><term>MACHINE</term><description>d and the hash of DMI UUID and machine-id, or i and that of the machine-id alone</description></item>
/// </list>
/// </summary>
/// <param name="FileSystem">As above.</param>
/// <param name="Inode">As above.</param>
/// <param name="Generation">As above.</param>
/// <param name="Birth">As above.</param>
/// <param name="Medium">As above.</param>
/// <param name="Boot">As above.</param>
/// <param name="Machine">As above.</param>
internal sealed record FileDiskName(string FileSystem, ulong Inode, string Generation, string Birth, string Medium, string Boot, string Machine)
{
    /// <summary>What the text begins with.</summary>
    public const string Kind = "file";

    private const int PartCount = 8;
    private const int UuidDigits = 32;

    /// <summary>The text that is stored.</summary>
    public override string ToString() =>
        string.Create(CultureInfo.InvariantCulture, $"{Kind}:{FileSystem}:{Inode}:{Generation}:{Birth}:{Medium}:{Boot}:{Machine}");

    /// <summary>False if the text is of another form.</summary>
    public static bool TryParse(string text, [NotNullWhen(true)] out FileDiskName? name)
    {
        string[] parts = text.Split(':');
        name = null;
        if (parts.Length != PartCount || parts[0] != Kind || !IsFileSystem(parts[1]) || !DiskTextPart.TryParse(parts[2], out ulong inode) ||
            !DiskTextPart.IsHashOrUnknown(parts[3]) || !DiskTextPart.IsHashOrUnknown(parts[4]) || !DiskTextPart.IsTagOrUnknown(parts[5], "wsn") ||
            !DiskTextPart.IsHash(parts[6]) || !DiskTextPart.IsTagOrUnknown(parts[7], "di"))
            return false;
        name = new FileDiskName(parts[1], inode, parts[3], parts[4], parts[5], parts[6], parts[7]);
        return true;
    }

    /// <summary>What this and another file are to each other, and whether more than the kind speaks for one file.</summary>
    public (DiskComparison Comparison, bool IsAlike) CompareWith(FileDiskName other)
    {
        bool isSameBoot = Boot == other.Boot;
        bool isSameMachine = isSameBoot || DiskTextPart.AreEqual(Machine, other.Machine) == true;
        bool? fileSystem = HasUuid && other.HasUuid ? FileSystem == other.FileSystem
            : !HasUuid && !other.HasUuid && isSameBoot && FileSystem == other.FileSystem ? true : null;
        bool? generation = DiskTextPart.AreEqual(Generation, other.Generation);
        bool? birth = DiskTextPart.AreEqual(Birth, other.Birth);
        if (fileSystem == false || generation == false || birth == false)
            return (DiskComparison.Different, false);
        // A file system that numbers its inodes anew with each mount has no UUID either.
        if (Inode != other.Inode)
            return fileSystem is null && birth == true ? (DiskComparison.CannotTell, true) : (DiskComparison.Different, false);
        // Without either an inode's number may have come to another file.
        bool isSameUse = generation == true || birth == true;
        if (fileSystem is null)
            return (DiskComparison.CannotTell, isSameUse || isSameMachine);
        bool? medium = CompareMedium(other, isSameBoot);
        bool isProven = isSameUse && medium != false && (isSameMachine || (medium == true && Medium[0] == 'w'));
        return (isProven ? DiskComparison.Same : DiskComparison.CannotTell, true);
    }

    private bool HasUuid => !FileSystem.Contains(',', StringComparison.Ordinal);

    /// <summary>Null if the two say nothing of each other.</summary>
    private bool? CompareMedium(FileDiskName other, bool isSameBoot) =>
        Medium[0] != other.Medium[0] || (Medium[0] == 'n' && !isSameBoot) ? null : DiskTextPart.AreEqual(Medium, other.Medium);

    private static bool IsFileSystem(string text)
    {
        if (text.Split(',') is [string major, string minor])
            return DiskTextPart.TryParse(major, out _) && DiskTextPart.TryParse(minor, out _);
        string[] parts = text.Split('/');
        return parts[0].Length == UuidDigits && parts[0].All(char.IsAsciiHexDigitLower) && (parts.Length == 1 || (parts.Length == 2 && DiskTextPart.TryParse(parts[1], out _)));
    }
}
