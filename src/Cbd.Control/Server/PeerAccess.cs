using System.Buffers.Binary;
using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace Cbd.Control.Server;

/// <summary>Who is at the other end of a Unix socket, as the kernel says (unix(7): SO_PEERCRED, SO_PEERGROUPS).</summary>
internal sealed record Peer(int ProcessId, uint UserId, uint GroupId, IReadOnlyList<uint> Groups)
{
    // asm-generic/socket.h, used by x86-64 and arm64.
    private const int SolSocket = 1;
    private const int SoPeerCred = 17;
    private const int SoPeerGroups = 59;
    private const int MaxGroups = 65536; // NGROUPS_MAX of Linux

    public static Peer Of(Socket socket)
    {
        Span<byte> credentials = stackalloc byte[12]; // struct ucred: pid, uid, gid
        if (socket.GetRawSocketOption(SolSocket, SoPeerCred, credentials) != credentials.Length)
            throw new InvalidOperationException("SO_PEERCRED did not return a struct ucred");
        var groups = new byte[MaxGroups * sizeof(uint)];
        var groupBytes = socket.GetRawSocketOption(SolSocket, SoPeerGroups, groups);
        return new Peer(
            BinaryPrimitives.ReadInt32LittleEndian(credentials),
            BinaryPrimitives.ReadUInt32LittleEndian(credentials[4..]),
            BinaryPrimitives.ReadUInt32LittleEndian(credentials[8..]),
            MemoryMarshal.Cast<byte, uint>(groups.AsSpan(0, groupBytes)).ToArray());
    }
}

/// <summary>What a peer may do on the control socket.</summary>
internal enum PeerRole
{
    /// <summary>Nothing.</summary>
    Stranger,

    /// <summary>Look: the operations that change nothing.</summary>
    Observer,

    /// <summary>All operations; paths are opened with the peer's own rights.</summary>
    Operator,

    /// <summary>All operations, with the rights of the daemon: root, and the daemon's own user.</summary>
    Owner,
}

/// <summary>A peer that was let in.</summary>
/// <param name="Role">What it may do.</param>
/// <param name="Caller">Whose rights its paths are opened with; null: the daemon's.</param>
/// <param name="Refusal">Why it may not change anything, in one line; null if it may.</param>
internal sealed record AdmittedPeer(PeerRole Role, Caller? Caller, string? Refusal);

/// <summary>
/// Who may use the control socket: root and the daemon's own user always, with <c>--socket-group</c> the members of that group, and with
/// <c>--observe-group</c> those of that one, who may only look. The mode of the socket says the same; this also holds for descriptors that
/// were handed on.
/// </summary>
internal sealed class PeerAccess(uint ownUserId, SocketGroup? group = null, SocketGroup? observers = null)
{
    /// <summary>The group whose members may use the socket besides root and the own user.</summary>
    public SocketGroup? Group => group;

    /// <summary>The group whose members may look.</summary>
    public SocketGroup? Observers => observers;

    /// <summary>The group that the socket's file has; null: it is the owner's alone.</summary>
    public SocketGroup? FileGroup => group ?? observers;

    /// <summary>A file has one group: with two of them everybody may connect, and is asked then.</summary>
    public bool IsForAll => group is not null && observers is not null && group.Id != observers.Id;

    /// <summary>What this peer may do.</summary>
    public PeerRole RoleOf(Peer peer) =>
        peer.UserId == 0 || peer.UserId == ownUserId ? PeerRole.Owner
        : group is not null && IsMember(peer, group) ? PeerRole.Operator
        : observers is not null && IsMember(peer, observers) ? PeerRole.Observer
        : PeerRole.Stranger;

    /// <summary>The peer, as it is let in. Throws Denied, with the one line that refuses it.</summary>
    public AdmittedPeer Admit(Peer peer)
    {
        PeerRole role = RoleOf(peer);
        return role switch
        {
            PeerRole.Stranger => throw new CbdException(CbdErrorKind.Denied, Refusal(peer)!),
            PeerRole.Owner => new AdmittedPeer(role, null, null),
            _ => new AdmittedPeer(role, new Caller(peer.UserId, peer.GroupId, peer.Groups), Refusal(peer, mayChange: true)),
        };
    }

    /// <summary>Null, or the one line that refuses this peer.</summary>
    /// <param name="peer">Who asks.</param>
    /// <param name="mayChange">For an operation that changes something.</param>
    public string? Refusal(Peer peer, bool mayChange = false)
    {
        PeerRole role = RoleOf(peer);
        if (role >= (mayChange ? PeerRole.Operator : PeerRole.Observer))
            return null;
        var remedy = group is not null ? $"or add that user to the group '{group.Name}'"
            : observers is not null && !mayChange ? $"or add that user to the group '{observers.Name}', whose members may look"
            : "or start cbdd with --socket-group and a group of that user";
        var users = ownUserId == 0 ? "root" : $"root or uid {ownUserId}";
        return role == PeerRole.Observer
            ? $"control client without the right: uid {peer.UserId} is in the group '{observers!.Name}' and may only look; run it as {users}, {remedy}"
            : $"control client without the right: uid {peer.UserId} may not use this daemon; run it as {users}, {remedy}";
    }

    private static bool IsMember(Peer peer, SocketGroup of) => peer.GroupId == of.Id || peer.Groups.Contains(of.Id);
}

/// <summary>A group of the system.</summary>
internal sealed record SocketGroup(string Name, uint Id);
