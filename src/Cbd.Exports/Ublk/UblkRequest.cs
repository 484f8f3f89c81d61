using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Exports.Ublk;

/// <summary>The gate between the block layer's requests and ours, and the one translator of their ends.</summary>
internal static class UblkRequest
{
    /// <summary>
    /// Returns 0 and what the device is to do, or the errno with which the request is refused. The descriptor is a
    /// private copy; whether the range is inside the device is the queue's check.
    /// </summary>
    /// <param name="room">The tag's buffer.</param>
    internal static int Translate(in UblkIoDescriptor descriptor, int tag, BufferSlice room, out BlockRequest request)
    {
        request = default;
        BlockOperation operation;
        bool hasPayload = false;
        switch (descriptor.OperationFlags & UblkProtocol.OperationMask)
        {
            case UblkProtocol.OperationRead:
                operation = BlockOperation.Read;
                hasPayload = true;
                break;
            case UblkProtocol.OperationWrite:
                operation = BlockOperation.Write;
                hasPayload = true;
                break;
            case UblkProtocol.OperationFlush:
                request = new BlockRequest((ulong)tag, BlockOperation.Flush, BlockFlags.None, 0, 0, default);
                return 0;
            case UblkProtocol.OperationDiscard:
                operation = BlockOperation.Discard;
                break;
            case UblkProtocol.OperationWriteZeroes:
                operation = BlockOperation.WriteZeroes;
                break;
            default:
                return Errno.EOPNOTSUPP;
        }

        long length = (long)descriptor.Sectors << UblkProtocol.SectorShift;
        if (length == 0 || descriptor.StartSector > long.MaxValue >> UblkProtocol.SectorShift || (hasPayload && length > room.Length))
            return Errno.EINVAL;
        BlockFlags flags = BlockFlags.None;
        if (operation != BlockOperation.Read && (descriptor.OperationFlags & UblkProtocol.FlagForceUnitAccess) != 0)
            flags |= BlockFlags.ForceUnitAccess;
        if (operation == BlockOperation.WriteZeroes && (descriptor.OperationFlags & UblkProtocol.FlagNoUnmap) != 0)
            flags |= BlockFlags.NoUnmap;
        BufferSlice data = hasPayload ? room.Slice(0, (int)length) : default;
        request = new BlockRequest((ulong)tag, operation, flags, (long)descriptor.StartSector << UblkProtocol.SectorShift, length, data);
        return 0;
    }

    /// <summary>
    /// The result that the kernel is given: bytes for reads and writes, 0 for the others, or a negative errno.
    /// </summary>
    /// <param name="payloadBytes">Payload of the request.</param>
    internal static int ResultOf(in BlockCompletion completion, BlockOperation operation, int payloadBytes)
    {
        if (completion.Error != 0)
            return -completion.Error;
        return operation switch
        {
            // A read of less is an error of ours: the kernel would ask for the rest of it again and again.
            BlockOperation.Read => completion.Result == payloadBytes ? payloadBytes : -Errno.EIO,
            BlockOperation.Write => payloadBytes,
            _ => 0,
        };
    }
}
