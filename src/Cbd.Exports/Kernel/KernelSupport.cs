using Cbd.Memory;

namespace Cbd.Exports.Kernel;

/// <summary>
/// What the kinds of attachment ask of this kernel and this process, and the words for what is missing: the rest of a
/// sentence, with the remedy.
/// </summary>
internal static class KernelSupport
{
    /// <summary>E.g. "6.18.0-cloud".</summary>
    internal static string Release => KernelFiles.Line("/proc/sys/kernel/osrelease").Trim();

    /// <summary>This process may do what only root may: CAP_SYS_ADMIN.</summary>
    internal static bool IsAdministrator => Privilege.Has(Privilege.Administrator);

    /// <summary>Why this process is not enough for <paramref name="purpose"/>; null if it is.</summary>
    internal static string? WhyNoAdministrator(string purpose) =>
        IsAdministrator ? null : $"this process lacks CAP_SYS_ADMIN, which {purpose} needs: {Privilege.Remedy("CAP_SYS_ADMIN")}";

    /// <summary>The module is loaded, or built in with something to show.</summary>
    internal static bool HasModule(string module) => Directory.Exists($"/sys/module/{module}");

    internal static string WhyNoModule(string module, string remark) => $"the module is not loaded: load it with 'modprobe {module}' ({remark})";

    /// <summary>Opens a node of the kernel; null, and why that cannot be had.</summary>
    /// <param name="path">The node.</param>
    /// <param name="module">The module that makes it.</param>
    /// <param name="remark">What the module needs, in parentheses; may be empty.</param>
    /// <param name="whyNot">Empty if it was opened.</param>
    internal static FileDescriptor? TryOpenNode(string path, string module, string remark, out string whyNot)
    {
        int error = FileDescriptor.TryOpen(path, OpenFlags.ReadWrite, 0, out FileDescriptor? file);
        whyNot = -error switch
        {
            0 => "",
            Errno.ENOENT or Errno.ENXIO or Errno.ENODEV when !HasModule(module) =>
                $"{path} does not exist or has no driver: load the module with 'modprobe {module}'{remark}",
            Errno.ENOENT or Errno.ENXIO or Errno.ENODEV =>
                $"{path} does not exist or has no driver although the module {module} is loaded: give this container the node",
            Errno.EACCES or Errno.EPERM => $"{path} may not be opened (errno {-error}): {(IsAdministrator ? "allow the device in the container (--device, DeviceAllow= of the unit)" : $"{Privilege.Remedy("CAP_SYS_ADMIN")}, and the device in its container")}",
            _ => $"{path} cannot be opened (errno {-error})",
        };
        return error == 0 ? file : null;
    }
}
