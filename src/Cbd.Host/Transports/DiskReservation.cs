using System.Globalization;
using System.Text;
using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Host.Transports;

/// <summary>
/// One reservation of a disk, a small text file: a line with what it is, and one for each of these. Everything in it was written by others:
/// what is not as it should be is no reservation.
/// </summary>
/// <param name="Identity">Of the disk.</param>
/// <param name="Region">Path of the region that has its record.</param>
/// <param name="RegionId">Of that region; another one at its path is not it.</param>
/// <param name="Backend">Id of the record.</param>
/// <param name="Host">Name of the host that serves it, or did.</param>
internal sealed record DiskReservation(string Identity, string Region, Guid RegionId, int Backend, string Host)
{
    private const string FirstLine = "cbd disk 1";
    /// <summary>Longest file.</summary>
    public const int MostBytes = 8192;
    private const int MostTextBytes = 4096;
    private const int HostNameBytes = 64;

    /// <summary>Root wrote it, or this user.</summary>
    public bool IsOurs { get; private init; } = true;

    /// <summary>The file that it was read from; empty for a new one.</summary>
    public string File { get; private init; } = "";

    /// <summary>
    /// Name of the file of a session of a record; without a session, what all of the record's begin with. The version before named files by
    /// disk: names say nothing to who reads.
    /// </summary>
    public static string NameOf(Guid regionId, int backend, ulong? session) => string.Create(CultureInfo.InvariantCulture, $"{regionId:N}-{backend}-{session}");

    /// <summary>The session whose file has that name, or that name with a dot and a random id; null if it is no file of that record.</summary>
    public static ulong? SessionIn(string name, Guid regionId, int backend)
    {
        string first = NameOf(regionId, backend, null);
        if (!name.StartsWith(first, StringComparison.Ordinal))
            return null;
        string[] rest = name[first.Length..].Split('.');
        return rest.Length <= 2 && ulong.TryParse(rest[0], NumberStyles.None, CultureInfo.InvariantCulture, out ulong session) && (rest.Length == 1 || Guid.TryParseExact(rest[1], "N", out _))
            ? session
            : null;
    }

    /// <summary>What its file has.</summary>
    public byte[] ToBytes() => Encoding.UTF8.GetBytes(string.Create(CultureInfo.InvariantCulture, $"{FirstLine}\n{Identity}\n{Region}\n{RegionId:N}\n{Backend}\n{Host}\n"));

    /// <summary>
    /// The reservation in a file; null if there is none, or none that is trusted: of root, of this user, or of the disk's owner. Waits for
    /// nobody, whatever the file is. Throws if the machine has nothing left to read it with, or the file cannot be read from its medium.
    /// </summary>
    public static DiskReservation? TryRead(string path, uint? diskOwner)
    {
        int error = FileDescriptor.TryOpen(path, OpenFlags.ReadOnly | OpenFlags.NonBlocking | OpenFlags.NoFollow | OpenFlags.NoTerminal, 0, out FileDescriptor? descriptor);
        ThrowIfUnknown(path, -error);
        if (error != 0)
            return null;
        using FileDescriptor file = descriptor!;
        FileStatus status = file.GetStatus();
        if (status.Type != FileType.Regular || (status.OwnerId != 0 && status.OwnerId != ControlSyscalls.EffectiveUserId && status.OwnerId != diskOwner))
            return null;
        Span<byte> bytes = stackalloc byte[MostBytes];
        int length = 0;
        while (length < bytes.Length && file.Read(bytes[length..]) is > 0 and var count)
            length += count;
        return length < bytes.Length && TryParse(bytes[..length]) is { } found
            ? found with { File = path, IsOurs = status.OwnerId == 0 || status.OwnerId == ControlSyscalls.EffectiveUserId }
            : null;
    }

    /// <summary>Throws if an errno does not say whether there is a reservation at a path.</summary>
    public static void ThrowIfUnknown(string path, int errno)
    {
        if (Exhaustion.RemedyOf(errno) is { } remedy)
            throw new CbdException(CbdErrorKind.Exhausted, $"reservations of disks in '{path}' cannot be read (errno {errno}){remedy}");
        if (errno == Errno.EIO)
            throw new CbdException(CbdErrorKind.Failed, $"reservations of disks in '{path}' cannot be read (errno {errno}): see the kernel's log; give another directory with --disks-dir");
    }

    internal static DiskReservation? TryParse(ReadOnlySpan<byte> bytes)
    {
        string text;
        try
        {
            text = new UTF8Encoding(false, throwOnInvalidBytes: true).GetString(bytes);
        }
        catch (DecoderFallbackException)
        {
            return null;
        }

        return text.Split('\n') is [FirstLine, var identity, var region, var id, var number, var host, ""] &&
            IsText(identity, DiskIdentity.MaxBytes) && IsText(region, MostTextBytes) && region[0] == '/' && IsText(host, HostNameBytes) &&
            Guid.TryParseExact(id, "N", out Guid regionId) && int.TryParse(number, NumberStyles.None, CultureInfo.InvariantCulture, out int backend)
            ? new DiskReservation(identity, region, regionId, backend, host)
            : null;
    }

    private static bool IsText(string text, int most) => text.Length > 0 && text.Length <= most && !text.Any(char.IsControl);
}
