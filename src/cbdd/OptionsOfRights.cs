using System.Globalization;
using Cbd.Control.Server;
using Cbd.Host;
using Cbd.Memory;

namespace Cbd.Programs.Daemon;

/// <summary>The options that name users and groups, with their numbers.</summary>
/// <param name="Peers">Who may use the control socket.</param>
/// <param name="Access">Whose files are believed, and who gets what is made.</param>
/// <param name="IsRunDirectoryForAll">Users that have no group of the run directory have a socket in it.</param>
internal sealed record OptionsOfRights(PeerAccess Peers, AccessOptions Access, bool IsRunDirectoryForAll)
{
    /// <exception cref="CbdException">There is no such user or group.</exception>
    public static OptionsOfRights Read(DaemonOptions options)
    {
        var peers = new PeerAccess(ControlSyscalls.EffectiveUserId, FindGroup(options.SocketGroup, "--socket-group"), FindGroup(options.ObserveGroup, "--observe-group"));
        var access = new AccessOptions
        {
            Trust = options.TrustOwners is not { } owners ? OwnerTrust.Default
                : new OwnerTrust(any: owners.Count == 0, [.. owners.Select(owner => FindUser(owner, "--trust-owner").User)]),
            RegionMode = options.RegionMode,
            RegionGroup = FindGroup(options.RegionGroup, "--region-group")?.Id,
            SocketMode = options.SocketMode ?? AccessOptions.OwnerOnly,
            SocketOwner = FindOwner(options.SocketOwner),
            AllowedPaths = options.AllowedPaths,
        };
        return new OptionsOfRights(peers, access, peers.IsForAll || access.SocketOwner is not null || options.SocketMode is { } mode && (mode & ~AccessOptions.OwnerOnly) != 0);
    }

    private static SocketGroup? FindGroup(string? name, string option)
    {
        if (name is null)
            return null;
        if (uint.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out var id) && id != uint.MaxValue)
            return new SocketGroup(name, id);
        return ControlSyscalls.FindGroupId(name) is { } found
            ? new SocketGroup(name, found)
            : throw new CbdException(CbdErrorKind.NotFound, $"there is no group '{name}' on this machine; make it with groupadd, or give another {option}");
    }

    private static (uint User, uint? Group) FindUser(string name, string option)
    {
        if (uint.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out var id) && id != uint.MaxValue)
            return (id, null);
        return ControlSyscalls.FindUser(name) is { } found
            ? (found.User, found.Group)
            : throw new CbdException(CbdErrorKind.NotFound, $"there is no user '{name}' on this machine; make it with useradd, or give another {option}");
    }

    private static FileOwner? FindOwner(string? text)
    {
        if (text is null)
            return null;
        var parts = text.Split(':');
        if (parts.Length > 2 || parts.Contains(""))
            throw new CbdException(CbdErrorKind.Invalid, $"--socket-owner is '{text}'; give USER or USER:GROUP");
        var (user, group) = FindUser(parts[0], "--socket-owner");
        return new FileOwner(user, parts.Length == 2 ? FindGroup(parts[1], "--socket-owner")!.Id : group);
    }
}
