using System.Globalization;
using Cbd.Blocks;

namespace Cbd.Exports.Kernel;

/// <summary>What a block device of this kernel is for its users, as the kernel says in <c>/sys/block</c>.</summary>
/// <param name="SizeBytes">Size, bytes.</param>
/// <param name="LogicalBlockBytes">Logical block, bytes.</param>
/// <param name="ReadOnly">It takes no writes.</param>
internal sealed record KernelDisk(long SizeBytes, int LogicalBlockBytes, bool ReadOnly)
{
    /// <summary>The kernel counts sizes in sectors of 512 bytes.</summary>
    private const int SectorBytes = 512;

    /// <summary>Null if the kernel says nothing of that node.</summary>
    internal static KernelDisk? Read(string node)
    {
        string directory = $"/sys/block/{Path.GetFileName(node)}";
        return long.TryParse(KernelFiles.Line($"{directory}/size"), NumberStyles.None, CultureInfo.InvariantCulture, out long sectors) &&
            int.TryParse(KernelFiles.Line($"{directory}/queue/logical_block_size"), NumberStyles.None, CultureInfo.InvariantCulture, out int block) &&
            KernelFiles.Line($"{directory}/ro") is { Length: > 0 } readOnly
            ? new KernelDisk(sectors * SectorBytes, block, readOnly.Trim() == "1")
            : null;
    }

    /// <summary>
    /// Why the device, as it is now, cannot go on as this one; null if it can. It may have grown, and an operator may have set this one read-only.
    /// </summary>
    internal string? FindDifference(BlockDeviceInfo device, string node) =>
        device.LogicalBlockBytes != LogicalBlockBytes ? $"its blocks have {device.LogicalBlockBytes} bytes now, and the kernel knows {LogicalBlockBytes}"
        : device.ReadOnly && !ReadOnly ? "it is read-only now, and the kernel writes to it"
        : device.SizeBytes < SizeBytes ? $"it has {device.SizeBytes} bytes now, and {node} has {SizeBytes}: a device in use does not shrink"
        : null;
}
