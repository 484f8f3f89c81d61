using Cbd.Control.Api;
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

    [Fact]
    public void Observers_may_look_and_are_told_which_group_may_change()
    {
        var access = new PeerAccess(0, Storage, new SocketGroup("watch", 501));
        var observer = new Peer(1, 1001, 1001, [501]);
        Assert.Equal(PeerRole.Observer, access.RoleOf(observer));
        Assert.Null(access.Refusal(observer));
        Assert.Equal(
            "control client without the right: uid 1001 is in the group 'watch' and may only look; run it as root, or add that user to the group 'storage'",
            access.Refusal(observer, mayChange: true));
        Assert.Equal(access.Refusal(observer, mayChange: true), access.Admit(observer).Refusal);
        Assert.EndsWith("or start cbdd with --socket-group and a group of that user", new PeerAccess(0, null, new SocketGroup("watch", 501)).Refusal(observer, mayChange: true), StringComparison.Ordinal);
        // Who is in both may change.
        Assert.Equal(PeerRole.Operator, access.RoleOf(new Peer(1, 1001, 500, [501])));
        Assert.Equal(CbdErrorKind.Denied, Assert.Throws<CbdException>(() => access.Admit(new Peer(1, 1002, 1002, [502]))).Kind);
    }

    [Fact]
    public void Callers_are_all_but_root_and_the_own_user()
    {
        var access = new PeerAccess(1000, Storage);
        Assert.Null(access.Admit(new Peer(1, 0, 500, [500])).Caller);
        Assert.Null(access.Admit(new Peer(1, 1000, 500, [500])).Caller);
        Assert.Equal(new Caller(1001, 500, [4, 7]), access.Admit(new Peer(1, 1001, 500, [4, 7])).Caller);
    }

    [Fact]
    public void Only_operations_that_read_are_for_observers() =>
        Assert.Equal(
            ["backend-list", "channel-list", "daemon-info", "dev-list", "dump", "host-list", "tp-info", "tp-list", "wait"],
            Operations.All.Where(operation => operation.IsLook).Select(operation => operation.Name).Order(StringComparer.Ordinal));
}
