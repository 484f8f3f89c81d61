using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Exports.Nbd;

/// <summary>The one gate that every request of a client passes before anything is done with it.</summary>
internal static class NbdRequestCheck
{
    /// <summary>
    /// Returns 0 and what the device is to do, or the errno with which the request is refused. Flags that do not
    /// belong to a command, or were not offered, are refused; FUA belongs to every command.
    /// </summary>
    internal static int Check(
        in NbdRequestHeader header, BlockDeviceInfo device, NbdTransmissionFlags offered,
        out BlockOperation operation, out BlockFlags flags)
    {
        flags = (header.Flags & NbdCommandFlags.ForceUnitAccess) != 0 ? BlockFlags.ForceUnitAccess : BlockFlags.None;
        NbdCommandFlags allowed = NbdCommandFlags.ForceUnitAccess;
        bool known = true;
        bool writes = false;
        switch (header.Command)
        {
            case NbdCommand.Read:
                operation = BlockOperation.Read;
                flags = BlockFlags.None;
                break;
            case NbdCommand.Write:
                operation = BlockOperation.Write;
                writes = true;
                break;
            case NbdCommand.Flush:
                operation = BlockOperation.Flush;
                flags = BlockFlags.None;
                break;
            case NbdCommand.Trim:
                operation = BlockOperation.Discard;
                writes = true;
                known = device.ReadOnly || (offered & NbdTransmissionFlags.SendTrim) != 0;
                break;
            case NbdCommand.Cache:
                operation = BlockOperation.Cache;
                flags = BlockFlags.None;
                known = (offered & NbdTransmissionFlags.SendCache) != 0;
                break;
            case NbdCommand.WriteZeroes:
                operation = BlockOperation.WriteZeroes;
                writes = true;
                allowed |= NbdCommandFlags.NoHole;
                if ((offered & NbdTransmissionFlags.SendFastZero) != 0)
                    allowed |= NbdCommandFlags.FastZero;
                if ((header.Flags & NbdCommandFlags.NoHole) != 0)
                    flags |= BlockFlags.NoUnmap;
                if ((header.Flags & NbdCommandFlags.FastZero) != 0)
                    flags |= BlockFlags.FastZero;
                break;
            default:
                operation = default;
                return Errno.EINVAL;
        }

        if (!known)
            return Errno.EINVAL;
        if (writes && device.ReadOnly)
            return Errno.EPERM;
        if ((header.Flags & ~allowed) != 0)
            return Errno.EINVAL;
        if (operation == BlockOperation.Flush)
            return header is { Offset: 0, Length: 0 } ? 0 : Errno.EINVAL;
        return CheckRange(header, device, operation);
    }

    private static int CheckRange(in NbdRequestHeader header, BlockDeviceInfo device, BlockOperation operation)
    {
        bool hasPayload = operation is BlockOperation.Read or BlockOperation.Write;
        if (header.Length == 0 || (hasPayload && header.Length > NbdExportInfo.MaxPayloadBytes))
            return Errno.EINVAL;
        ulong size = (ulong)device.SizeBytes;
        if (header.Offset > size || header.Length > size - header.Offset)
            return operation is BlockOperation.Write or BlockOperation.WriteZeroes ? Errno.ENOSPC : Errno.EINVAL;
        ulong blockMask = (ulong)device.LogicalBlockBytes - 1;
        return ((header.Offset | header.Length) & blockMask) == 0 ? 0 : Errno.EINVAL;
    }
}
