using Cbd.Control.Server;
using Xunit;

namespace Cbd.Tests.Control;

/// <summary>Who has to leave when another client comes, without sockets.</summary>
public sealed class ClientsOfTheControlSocket
{
    private readonly ControlConnections _clients = new(3);
    private readonly List<string> _ended = [];

    [Fact]
    public void The_one_that_has_done_nothing_for_longest_leaves()
    {
        ControlConnection a = Enter("a"), b = Enter("b"), c = Enter("c");
        _clients.BeginVerb(a);
        _clients.EndVerb(a);
        Enter("d");
        Assert.Equal(["b"], _ended);
        Enter("e");
        Enter("f");
        Assert.Equal(["b", "c", "a"], _ended);
        _clients.Leave(b);
        _clients.Leave(c);
        Enter("g");
        Assert.Equal("d", _ended[^1]);
    }

    [Fact]
    public void A_client_whose_verb_is_under_way_stays_and_where_all_do_a_new_one_is_refused()
    {
        ControlConnection[] working = [Enter("a"), Enter("b"), Enter("c")];
        Array.ForEach(working, _clients.BeginVerb);
        Assert.False(_clients.TryEnter(new ControlConnection(() => _ended.Add("d"))));
        Assert.Empty(_ended);
        _clients.EndVerb(working[1]);
        Enter("e");
        Assert.Equal(["b"], _ended);
        _clients.Leave(working[0]);
        Enter("f");
        Assert.Equal(["b"], _ended);
    }

    [Fact]
    public void A_verb_that_ends_behind_its_connection_brings_nothing_back()
    {
        ControlConnection gone = Enter("gone");
        _clients.BeginVerb(gone);
        _clients.Leave(gone);
        _clients.EndVerb(gone);
        Enter("a");
        Enter("b");
        Enter("c");
        Assert.Empty(_ended);
    }

    private ControlConnection Enter(string name)
    {
        var client = new ControlConnection(() => _ended.Add(name));
        Assert.True(_clients.TryEnter(client));
        return client;
    }
}
