using Cbd.Memory;

namespace Cbd.Exports.Kernel;

/// <summary>The error for a command that a driver of this kernel refused.</summary>
internal static class KernelRefusal
{
    /// <param name="device">Name of our device.</param>
    /// <param name="driver">E.g. "ublk".</param>
    /// <param name="what">What was asked for: "adding a device".</param>
    /// <param name="result">The negative errno.</param>
    /// <param name="words">What the kernel said about it; often empty.</param>
    /// <param name="remedy">What to do about this errno, if the driver has more to say than others; null if not.</param>
    internal static CbdException Of(string device, string driver, string what, int result, string words, string? remedy)
    {
        bool isDenied = result is -Errno.EPERM or -Errno.EACCES;
        string reason = words.Length == 0 ? "" : $" ({words})";
        return new CbdException(
            isDenied ? CbdErrorKind.Denied : CbdErrorKind.Failed,
            $"{device}: the kernel's {driver} refused {what}: errno {-result}{reason}; {(isDenied ? Privilege.Remedy("CAP_SYS_ADMIN") : remedy ?? "see dmesg")}");
    }
}
