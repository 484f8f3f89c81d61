using Cbd.Blocks;

namespace Cbd.Exports.Nbd;

/// <summary>What a client is told of a device: size, abilities and block sizes in NBD's terms.</summary>
internal readonly record struct NbdExportInfo(
    ulong SizeBytes, NbdTransmissionFlags Flags, uint MinBlockBytes, uint PreferredBlockBytes, uint MaxBlockBytes)
{
    /// <summary>
    /// Longest read or write that is accepted, and longest payload of a reply; what clients may assume that ask for no block
    /// sizes. What is longer than the device takes goes to it in pieces.
    /// </summary>
    internal const int MaxPayloadBytes = 32 << 20;

    /// <summary>Longest write that is refused with an error; behind a longer one the connection ends.</summary>
    internal const int MaxRefusedPayloadBytes = 2 * MaxPayloadBytes;

    internal static NbdExportInfo Describe(BlockDeviceInfo device)
    {
        NbdTransmissionFlags flags =
            NbdTransmissionFlags.HasFlags | NbdTransmissionFlags.SendFlush | NbdTransmissionFlags.SendFua |
            NbdTransmissionFlags.CanMultiConn;
        if (device.CanCache)
            flags |= NbdTransmissionFlags.SendCache;
        if (device.IsRotational)
            flags |= NbdTransmissionFlags.Rotational;
        if (device.ReadOnly)
        {
            flags |= NbdTransmissionFlags.ReadOnly;
        }
        else
        {
            // Where zeroes are not fast a client learns it at once, before it has written anything.
            flags |= NbdTransmissionFlags.SendWriteZeroes | NbdTransmissionFlags.SendFastZero;
            if (device.CanDiscard)
                flags |= NbdTransmissionFlags.SendTrim;
        }

        return new NbdExportInfo(
            (ulong)device.SizeBytes,
            flags,
            (uint)device.LogicalBlockBytes,
            (uint)Math.Max(4096, device.PhysicalBlockBytes),
            MaxPayloadBytes);
    }
}
