namespace Cbd.Memory;

/// <summary>What to do about a right that this process has not.</summary>
public static class Privilege
{
    /// <summary>The remedy for a missing capability. Root that lacks one was started without it: "run as root" would not help.</summary>
    /// <param name="capability">Its name, such as CAP_SYS_ADMIN; or several.</param>
    public static string Remedy(string capability) => Remedy(capability, LibC.GetEffectiveUserId() == 0);

    internal static string Remedy(string capability, bool isRoot) => isRoot
        ? $"root has not {capability} here: allow it (CapabilityBoundingSet= of the unit, --cap-add of the container)"
        : $"run cbdd as root, or give it {capability} (AmbientCapabilities= of its unit)";
}
