using Cbd.Control.Server;
using Xunit;

namespace Cbd.Tests.Control;

public sealed class WhoMayUseTheControlSocket
{
    private static readonly SocketGroup Storage = new("storage", 500);

    [Fact]
    public void Root_and_the_daemons_own_user_always_may()
    {
        var access = new PeerAccess(1000);
        Assert.Null(access.Refusal(new Peer(1, 0, 0, [])));
        Assert.Null(access.Refusal(new Peer(1, 1000, 1000, [])));
    }

    [Fact]
    public void Others_are_refused_with_their_uid_and_the_remedy()
    {
        var refusal = new PeerAccess(1000).Refusal(new Peer(1, 1001, 500, [500]));
        Assert.Equal(
            "control client without the right: uid 1001 may not use this daemon; run it as root or uid 1000, "
            + "or start cbdd with --socket-group and a group of that user",
            refusal);
    }

    [Fact]
    public void Members_of_the_socket_group_may_by_their_first_or_any_other_group()
    {
        var access = new PeerAccess(0, Storage);
        Assert.Null(access.Refusal(new Peer(1, 1001, 500, [])));
        Assert.Null(access.Refusal(new Peer(1, 1001, 1001, [4, 500])));
        Assert.Equal(
            "control client without the right: uid 1001 may not use this daemon; run it as root, "
            + "or add that user to the group 'storage'",
            access.Refusal(new Peer(1, 1001, 1001, [4, 501])));
    }
}
