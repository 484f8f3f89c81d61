using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Exports.Nbd;

/// <summary>The one gate that every request of a client passes before anything is done with it.</summary>
internal static class NbdRequestCheck
{
    /// <summary>
    /// Returns 0 and what the device is to do, or the errno with which the request is refused and why. Flags that do not
    /// belong to a command, or were not offered, are refused; FUA belongs to every command.
    /// </summary>
    internal static int Check(
        in NbdRequestHeader header, BlockDeviceInfo device, NbdTransmissionFlags offered, in NbdSession session,
        out BlockOperation operation, out BlockFlags flags, out NbdRefusal refusal)
    {
        flags = (header.Flags & NbdCommandFlags.ForceUnitAccess) != 0 ? BlockFlags.ForceUnitAccess : BlockFlags.None;
        NbdCommandFlags allowed = NbdCommandFlags.ForceUnitAccess;
        refusal = NbdRefusal.None;
        bool writes = false;
        switch (header.Command)
        {
            case NbdCommand.Read:
                operation = BlockOperation.Read;
                flags = BlockFlags.None;
                // One chunk carries all of every read.
                if (session.HasChunks)
                    allowed |= NbdCommandFlags.DontFragment;
                break;
            case NbdCommand.Write:
                operation = BlockOperation.Write;
                writes = true;
                if (session.ExtendedHeaders)
                {
                    allowed |= NbdCommandFlags.PayloadLength;
                    refusal = (header.Flags & NbdCommandFlags.PayloadLength) == 0 ? NbdRefusal.PayloadMissing : NbdRefusal.None;
                }

                break;
            case NbdCommand.Flush:
                operation = BlockOperation.Flush;
                flags = BlockFlags.None;
                break;
            case NbdCommand.Trim:
                operation = BlockOperation.Discard;
                writes = true;
                if (!device.ReadOnly && (offered & NbdTransmissionFlags.SendTrim) == 0)
                    refusal = NbdRefusal.NotOffered;
                break;
            case NbdCommand.Cache:
                operation = BlockOperation.Cache;
                flags = BlockFlags.None;
                if ((offered & NbdTransmissionFlags.SendCache) == 0)
                    refusal = NbdRefusal.NotOffered;
                break;
            case NbdCommand.WriteZeroes:
                operation = BlockOperation.WriteZeroes;
                writes = true;
                allowed |= NbdCommandFlags.NoHole | NbdCommandFlags.FastZero;
                if ((header.Flags & NbdCommandFlags.NoHole) != 0)
                    flags |= BlockFlags.NoUnmap;
                if ((header.Flags & NbdCommandFlags.FastZero) != 0)
                    flags |= BlockFlags.FastZero;
                break;
            case NbdCommand.BlockStatus:
                operation = BlockOperation.BlockStatus;
                flags = BlockFlags.None;
                allowed |= NbdCommandFlags.OneExtent;
                if (!session.HasAllocation)
                    refusal = NbdRefusal.NoContext;
                break;
            default:
                operation = default;
                refusal = NbdRefusal.UnknownCommand;
                return Errno.EINVAL;
        }

        if (refusal != NbdRefusal.None)
            return Errno.EINVAL;
        if (writes && device.ReadOnly)
            return Refuse(Errno.EPERM, NbdRefusal.ReadOnly, out refusal);
        NbdCommandFlags foreign = header.Flags & ~allowed;
        if (foreign != 0)
        {
            bool isPayload = session.ExtendedHeaders && foreign == NbdCommandFlags.PayloadLength;
            return Refuse(Errno.EINVAL, isPayload ? NbdRefusal.PayloadUnexpected : NbdRefusal.UnknownFlags, out refusal);
        }

        if (operation == BlockOperation.Flush)
            return header is { Offset: 0, Length: 0 } ? 0 : Refuse(Errno.EINVAL, NbdRefusal.FlushWithRange, out refusal);
        int errno = CheckRange(header, device, operation, session, out refusal);
        if (errno == 0 && (flags & BlockFlags.FastZero) != 0 && !device.CanZeroFast)
            return Refuse(Errno.EOPNOTSUPP, NbdRefusal.NotFast, out refusal);
        return errno;
    }

    private static int CheckRange(
        in NbdRequestHeader header, BlockDeviceInfo device, BlockOperation operation, in NbdSession session, out NbdRefusal refusal)
    {
        if (header.Length == 0)
            return Refuse(Errno.EINVAL, NbdRefusal.Empty, out refusal);
        if (operation is BlockOperation.Read or BlockOperation.Write && header.Length > NbdExportInfo.MaxPayloadBytes)
        {
            // A reply in chunks might be split: only there a client expects to hear that the read was too long for it.
            bool overflows = operation == BlockOperation.Read && session.HasChunks;
            return Refuse(overflows ? Errno.EOVERFLOW : Errno.EINVAL, NbdRefusal.TooLong, out refusal);
        }

        ulong size = (ulong)device.SizeBytes;
        if (header.Offset > size || header.Length > size - header.Offset)
        {
            bool needsSpace = operation is BlockOperation.Write or BlockOperation.WriteZeroes;
            return Refuse(needsSpace ? Errno.ENOSPC : Errno.EINVAL, NbdRefusal.PastEnd, out refusal);
        }

        ulong blockMask = (ulong)device.LogicalBlockBytes - 1;
        if (((header.Offset | header.Length) & blockMask) != 0)
            return Refuse(Errno.EINVAL, NbdRefusal.Unaligned, out refusal);
        refusal = NbdRefusal.None;
        return 0;
    }

    private static int Refuse(int errno, NbdRefusal why, out NbdRefusal refusal)
    {
        refusal = why;
        return errno;
    }
}
