using System.Globalization;

namespace Cbd.Memory;

/// <summary>Rights of this process, and what to do about one that it has not.</summary>
public static class Privilege
{
    /// <summary>CAP_SYS_ADMIN.</summary>
    public const int Administrator = 21;

    /// <summary>CAP_IPC_LOCK: memory is locked without a limit.</summary>
    internal const int LockMemory = 14;

    /// <summary>This process has the capability, as the kernel says it (proc_pid_status(5)); false where there is no /proc.</summary>
    public static bool Has(int capability)
    {
        const string key = "CapEff:";
        try
        {
            string? line = File.ReadLines("/proc/self/status").FirstOrDefault(line => line.StartsWith(key, StringComparison.Ordinal));
            return line is not null &&
                ulong.TryParse(line.AsSpan(key.Length).Trim(), NumberStyles.HexNumber, CultureInfo.InvariantCulture, out ulong bits) &&
                (bits >> capability & 1) != 0;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            return false;
        }
    }

    /// <summary>The remedy for a missing capability. Root that lacks one was started without it: "run as root" would not help.</summary>
    /// <param name="capability">Its name, such as CAP_SYS_ADMIN; or several.</param>
    public static string Remedy(string capability) => Remedy(capability, LibC.GetEffectiveUserId() == 0);

    internal static string Remedy(string capability, bool isRoot) => isRoot
        ? $"root has not {capability} here: allow it (CapabilityBoundingSet= of the unit, --cap-add of the container)"
        : $"run cbdd as root, or give it {capability} (AmbientCapabilities= of its unit)";
}
