namespace Cbd.Programs.Daemon.State;

/// <summary>
/// Which machine this is, as far as it can be told: the machine id of the system and the uuid of the hardware. Machines that were
/// made from one image have the same id, and others that were given the same uuid, so neither says that two machines are one.
/// That either differs says that they are two.
/// </summary>
internal sealed record MachineIdentity
{
    public string? MachineId { get; init; }
    public string? DmiUuid { get; init; }

    /// <param name="root">The directory that stands for <c>/</c>.</param>
    public static MachineIdentity Read(string root = "/") => new()
    {
        MachineId = Text(Path.Combine(root, "etc/machine-id")),
        DmiUuid = Text(Path.Combine(root, "sys/class/dmi/id/product_uuid")),
    };

    /// <summary>What differs, in words; null if nothing that is known of both does.</summary>
    public string? FindDifference(MachineIdentity other) =>
        MachineId is { } id && other.MachineId is { } otherId && id != otherId ? $"its machine id is {otherId} and this machine's {id}"
        : DmiUuid is { } uuid && other.DmiUuid is { } otherUuid && uuid != otherUuid ? $"its hardware has the uuid {otherUuid} and this one's {uuid}"
        : null;

    private static string? Text(string path)
    {
        try
        {
            using var file = new StreamReader(path);
            var buffer = new char[128];
            var text = new string(buffer, 0, file.ReadBlock(buffer)).Trim().ToLowerInvariant();
            // "uninitialized" before the first boot; some firmware has no uuid of its own.
            return text.Length is >= 32 and <= 36 && text.All(c => char.IsAsciiHexDigit(c) || c == '-') && text.Any(c => c is not ('0' or 'f' or '-')) ? text : null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return null;
        }
    }
}
