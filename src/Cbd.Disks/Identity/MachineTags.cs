using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>What tells this boot, and this machine over its boots, from others, as parts of identities.</summary>
internal static class MachineTags
{
    private const string MachineIdPath = "/etc/machine-id";
    private const string DmiUuidPath = "/sys/class/dmi/id/product_uuid";

    /// <summary>Of this boot.</summary>
    public static string Boot { get; } = DiskHash.Tag(ProcessIdentity.BootId.ToString("D"));

    /// <summary>Of this machine; a dash if nothing names it.</summary>
    public static string Machine { get; } = OfMachine(KernelText.Read(MachineIdPath), KernelText.Read(DmiUuidPath));

    /// <summary>
    /// Copies of a virtual machine have its machine-id, and some main boards have each other's UUID: with both, both must be equal.
    /// Root alone can read the UUID.
    /// </summary>
    public static string OfMachine(string machineId, string dmiUuid)
    {
        if (!Guid.TryParse(machineId, out _))
            machineId = "";
        return dmiUuid.Length > 0 ? $"d{DiskHash.Tag($"{machineId} {dmiUuid}")}"
            : machineId.Length > 0 ? $"i{DiskHash.Tag(machineId)}"
            : DiskTextPart.Unknown;
    }
}
