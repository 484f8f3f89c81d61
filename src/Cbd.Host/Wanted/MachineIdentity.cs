namespace Cbd.Host.Wanted;

/// <summary>
/// Which machine this is, as far as it can be told: the machine id of the system and the uuid of the hardware. Machines that were
/// made from one image have the same id, and others that were given the same uuid, so neither says that two machines are one.
/// That either differs says that they are two.
/// </summary>
internal sealed record MachineIdentity
{
    public string? MachineId { get; init; }
    public string? DmiUuid { get; init; }

    /// <summary>What differs, in words; null if nothing that is known of both does.</summary>
    public string? FindDifference(MachineIdentity other) =>
        MachineId is { } id && other.MachineId is { } otherId && id != otherId ? $"its machine id is {otherId} and this machine's {id}"
        : DmiUuid is { } uuid && other.DmiUuid is { } otherUuid && uuid != otherUuid ? $"its hardware has the uuid {otherUuid} and this one's {uuid}"
        : null;
}
