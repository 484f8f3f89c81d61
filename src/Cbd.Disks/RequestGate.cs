using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>The one place where disks check requests; behind it ranges and payloads are known to be good.</summary>
internal static class RequestGate
{
    private const BlockFlags KnownFlags = BlockFlags.ForceUnitAccess | BlockFlags.NoUnmap | BlockFlags.FastZero;

    /// <summary>0, or the errno that the request is answered with.</summary>
    public static int Check(BlockDeviceInfo info, in BlockRequest request)
    {
        if ((request.Flags & ~KnownFlags) != 0)
            return Errno.EINVAL;
        switch (request.Operation)
        {
            case BlockOperation.Flush:
                return request.Offset == 0 && request.Length == 0 ? 0 : Errno.EINVAL;
            case BlockOperation.Read:
                return IsTransfer(info, request) ? 0 : Errno.EINVAL;
            case BlockOperation.Write:
                if (info.ReadOnly)
                    return Errno.EPERM;
                return IsTransfer(info, request) ? 0 : Errno.EINVAL;
            case BlockOperation.Discard:
            case BlockOperation.WriteZeroes:
                if (info.ReadOnly)
                    return Errno.EPERM;
                return IsRange(info, request) ? 0 : Errno.EINVAL;
            case BlockOperation.BlockStatus:
                return IsRange(info, request) && request.Data.Buffer is not null &&
                    request.Data.Length >= BlockExtent.EncodedSizeBytes ? 0 : Errno.EINVAL;
            case BlockOperation.Cache:
                return IsRange(info, request) ? 0 : Errno.EINVAL;
            default:
                return Errno.EINVAL;
        }
    }

    /// <summary>Whether a read or a write may have the range.</summary>
    public static bool IsTransfer(BlockDeviceInfo info, long offset, long length) =>
        IsRange(info, offset, length) && length <= info.MaxTransferBytes;

    private static bool IsTransfer(BlockDeviceInfo info, in BlockRequest request) =>
        IsTransfer(info, request.Offset, request.Length) &&
        request.Data.Buffer is not null && request.Data.Length == request.Length;

    private static bool IsRange(BlockDeviceInfo info, in BlockRequest request) => IsRange(info, request.Offset, request.Length);

    private static bool IsRange(BlockDeviceInfo info, long offset, long length) =>
        length > 0 && offset >= 0 && offset <= info.SizeBytes && length <= info.SizeBytes - offset &&
        ((offset | length) & (info.LogicalBlockBytes - 1)) == 0;
}
