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

    private static bool IsTransfer(BlockDeviceInfo info, in BlockRequest request) =>
        IsRange(info, request) && request.Length <= info.MaxTransferBytes &&
        request.Data.Buffer is not null && request.Data.Length == request.Length;

    private static bool IsRange(BlockDeviceInfo info, in BlockRequest request) =>
        request.Length > 0 && request.Offset >= 0 && request.Offset <= info.SizeBytes &&
        request.Length <= info.SizeBytes - request.Offset &&
        ((request.Offset | request.Length) & (info.LogicalBlockBytes - 1)) == 0;
}
