using Cbd.Memory;

namespace Cbd.Host;

/// <summary>Whose files this host believes, and to whom it gives what it makes. Modes are permission bits.</summary>
internal sealed record AccessOptions
{
    /// <summary>Read and write for the owner alone.</summary>
    public const uint OwnerOnly = 0x180;

    /// <summary>Whose regions, directories and keys are used.</summary>
    public OwnerTrust Trust { get; init; } = OwnerTrust.Default;

    /// <summary>Mode of regions that are formatted here.</summary>
    public uint RegionMode { get; init; } = OwnerOnly;

    /// <summary>Their group; null: this process's.</summary>
    public uint? RegionGroup { get; init; }

    /// <summary>Mode of NBD sockets.</summary>
    public uint SocketMode { get; init; } = OwnerOnly;

    /// <summary>Their owner; null: who asks for the device, or else this process's user.</summary>
    public FileOwner? SocketOwner { get; init; }

    /// <summary>What callers other than root and this process's user may open, with this process's rights, and nothing else; empty: what they may open themselves.</summary>
    public IReadOnlyList<string> AllowedPaths { get; init; } = [];

    /// <summary>The rights that a caller's paths are opened with; null: those of this process.</summary>
    public PathRights? RightsOf(Caller? caller) =>
        caller is null ? null : new PathRights(caller.UserId, caller.GroupId, caller.Groups, AllowedPaths);
}
