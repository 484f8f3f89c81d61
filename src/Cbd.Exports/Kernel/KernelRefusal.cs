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
        // As of any call: what is short is short for a while.
        CbdErrorKind kind = new SystemCallException(what, -result).Kind;
        if (kind is not (CbdErrorKind.Exhausted or CbdErrorKind.Denied))
            kind = CbdErrorKind.Failed;
        bool isDenied = kind == CbdErrorKind.Denied;
        string reason = words.Length == 0 ? "" : $" ({words})";
        return new CbdException(
            kind,
            $"{device}: the kernel's {driver} refused {what}: errno {-result}{reason}; {(isDenied ? Privilege.Remedy("CAP_SYS_ADMIN") : remedy ?? "see dmesg")}");
    }
}
