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

/// <summary>
/// Who may use the control socket: root and the daemon's own user always, and with <c>--socket-group</c> the members
/// of that group. The mode of the socket says the same; this also holds for descriptors that were handed on.
/// </summary>
internal sealed class PeerAccess(uint ownUserId, SocketGroup? group = null)
{
    /// <summary>The group whose members may use the socket besides root and the own user.</summary>
    public SocketGroup? Group => group;

    /// <summary>Null if this user may use the socket whatever its groups are.</summary>
    public bool IsAlwaysAllowed(uint userId) => userId == 0 || userId == ownUserId;

    /// <summary>Null, or the one line that refuses this peer.</summary>
    public string? Refusal(Peer peer)
    {
        if (IsAlwaysAllowed(peer.UserId))
            return null;
        if (group is not null && (peer.GroupId == group.Id || peer.Groups.Contains(group.Id)))
            return null;
        var remedy = group is null
            ? "or start cbdd with --socket-group and a group of that user"
            : $"or add that user to the group '{group.Name}'";
        var users = ownUserId == 0 ? "root" : $"root or uid {ownUserId}";
        return $"control client without the right: uid {peer.UserId} may not use this daemon; run it as {users}, {remedy}";
    }
}

/// <summary>A group of the system.</summary>
internal sealed record SocketGroup(string Name, uint Id);
