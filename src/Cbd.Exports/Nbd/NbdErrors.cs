using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Exports.Nbd;

/// <summary>The one place where errno becomes an NBD error.</summary>
internal static class NbdErrors
{
    /// <summary>The error that a client sees for a positive errno; 0 stays 0, and what NBD has no word for is EIO.</summary>
    internal static NbdError FromErrno(int errno) => errno switch
    {
        0 => NbdError.None,
        Errno.EPERM => NbdError.NotPermitted,
        Errno.ENOMEM => NbdError.NoMemory,
        Errno.EINVAL => NbdError.Invalid,
        Errno.ENOSPC or Errno.EFBIG or Errno.EDQUOT => NbdError.NoSpace,
        Errno.EOVERFLOW => NbdError.Overflow,
        Errno.EOPNOTSUPP => NbdError.NotSupported,
        Errno.ESHUTDOWN => NbdError.Shutdown,
        _ => NbdError.Io,
    };

    /// <summary>
    /// A device's errno as it may be answered: "too large" and "not supported" have meanings of their own in NBD, which
    /// only fast zeroes can take from a device.
    /// </summary>
    internal static int OfDevice(int errno, BlockFlags flags) => errno switch
    {
        Errno.EOVERFLOW => Errno.EIO,
        Errno.EOPNOTSUPP when (flags & BlockFlags.FastZero) == 0 => Errno.EIO,
        _ => errno,
    };
}
