using System.Diagnostics.CodeAnalysis;

namespace Cbd.Blocks;

/// <summary>
/// A block device as a disk: <c>block:NAME:PARTITION:BOOT:MACHINE</c>.
/// <list type="table">
/// <item><term>NAME</term><description><c>wwid=</c>, <c>dm=</c>, <c>md=</c> or <c>serial=</c> with what the kernel says, or <c>~</c> and its hash if that
/// is long or has other characters than letters, digits and <c>. _ + = -</c>; <c>loop=</c> with the hash of what names the file below and
/// its part; else <c>dev=MAJOR,MINOR,SEQUENCE</c>, which says something within one boot</description></item>
/// <item><term>PARTITION</term><description>its number and first sector, as <c>p1@2048</c>; a dash for a whole device</description></item>
/// <item><term>BOOT, MACHINE</term><description>as of a file (<see cref="FileDiskName"/>)</description></item>
/// </list>
/// </summary>
/// <param name="Name">As above.</param>
/// <param name="Partition">As above.</param>
/// <param name="Boot">As above.</param>
/// <param name="Machine">As above.</param>
internal sealed record BlockDiskName(string Name, string Partition, string Boot, string Machine)
{
    /// <summary>What the text begins with.</summary>
    public const string Kind = "block";

    /// <summary>What a name begins with that is a number.</summary>
    public const string Number = "dev=";

    private const int PartCount = 5;

    /// <summary>Something names the device besides its number.</summary>
    public bool IsNamed => !Name.StartsWith(Number, StringComparison.Ordinal);

    /// <summary>
    /// No other device of any machine has the name. An address that was administered locally may be on any number of virtual machines.
    /// </summary>
    public bool IsUniqueEverywhere => StartsWith("wwid=naa.") || StartsWith("wwid=uuid.") || (StartsWith("wwid=eui.") && !StartsWith("wwid=eui.5254"));

    /// <summary>The kernel numbers each life of a device (Linux 5.15), or something names it.</summary>
    public bool IsLifeKnown => IsNamed || !Name.EndsWith($",{DiskTextPart.Unknown}", StringComparison.Ordinal);

    /// <summary>The text that is stored.</summary>
    public override string ToString() => $"{Kind}:{Name}:{Partition}:{Boot}:{Machine}";

    /// <summary>False if the text is of another form.</summary>
    public static bool TryParse(string text, [NotNullWhen(true)] out BlockDiskName? name)
    {
        string[] parts = text.Split(':');
        name = null;
        if (parts.Length != PartCount || parts[0] != Kind || !IsName(parts[1]) || parts[2].Length == 0 ||
            !DiskTextPart.IsHash(parts[3]) || !DiskTextPart.IsTagOrUnknown(parts[4], "di"))
            return false;
        name = new BlockDiskName(parts[1], parts[2], parts[3], parts[4]);
        return true;
    }

    /// <summary>What this and another device are to each other, and whether more than the kind speaks for one device.</summary>
    public (DiskComparison Comparison, bool IsAlike) CompareWith(BlockDiskName other)
    {
        bool isSameBoot = Boot == other.Boot;
        bool isSameMachine = isSameBoot || DiskTextPart.AreEqual(Machine, other.Machine) == true;
        if (Partition != other.Partition)
            return (DiskComparison.Different, false);
        // The file below a loop device is not found by every process, nor always: it may be removed, or in another namespace.
        if (IsLoopBesideNumber(Name, other.Name) || IsLoopBesideNumber(other.Name, Name))
            return (DiskComparison.CannotTell, isSameMachine);
        // The number of a device says nothing after a boot, and the kernel may have learned to name it.
        if (KindOfName != other.KindOfName)
            return (isSameBoot ? DiskComparison.Different : DiskComparison.CannotTell, false);
        if (IsNamed)
        {
            return Name != other.Name ? (DiskComparison.Different, false)
                : isSameMachine || IsUniqueEverywhere ? (DiskComparison.Same, true)
                : (DiskComparison.CannotTell, true);
        }

        bool isSameNumber = Name[..Name.LastIndexOf(',')] == other.Name[..other.Name.LastIndexOf(',')];
        if (!isSameBoot)
            return (DiskComparison.CannotTell, isSameNumber && isSameMachine);
        return !isSameNumber ? (DiskComparison.Different, false)
            : Name == other.Name && IsLifeKnown ? (DiskComparison.Same, true)
            : (DiskComparison.CannotTell, true);
    }

    private static bool IsLoopBesideNumber(string a, string b) =>
        a.StartsWith("loop=", StringComparison.Ordinal) && b.StartsWith("dev=7,", StringComparison.Ordinal);

    private string KindOfName => Name[..Name.IndexOf('=', StringComparison.Ordinal)];

    private static bool IsName(string text) =>
        text.StartsWith(Number, StringComparison.Ordinal) ? text.Split(',').Length == 3 : text.Contains('=', StringComparison.Ordinal);

    private bool StartsWith(string text) => Name.StartsWith(text, StringComparison.Ordinal);
}
