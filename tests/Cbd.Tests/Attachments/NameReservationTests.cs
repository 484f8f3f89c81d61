using Cbd.Exports.Kernel;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Attachments;

/// <summary>Names that daemons want while they do not run.</summary>
public sealed class NameReservationTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly AttachPlaces _places;
    private readonly string _ours, _theirs;

    public NameReservationTests()
    {
        _places = new AttachPlaces { Nodes = _directory.PathOf("dev"), Registry = _directory.PathOf("registry") };
        _ours = "1 " + Directory.CreateDirectory(_directory.PathOf("ours")).FullName;
        _theirs = "2 " + Directory.CreateDirectory(_directory.PathOf("theirs")).FullName;
    }

    public void Dispose() => _directory.Dispose();

    [Fact]
    public void A_name_that_one_daemon_wants_is_refused_to_another()
    {
        var ours = new NameReservations(_places, _ours);
        var theirs = new NameReservations(_places, _theirs);
        ours.Reserve("data");
        ours.Reserve("data");
        var refused = Assert.Throws<CbdException>(() => theirs.Reserve("data"));
        Assert.Equal(CbdErrorKind.Busy, refused.Kind);
        Assert.Contains($"'data' is wanted by another cbdd of this machine, with the state directory '{_ours[2..]}'", refused.Message);
        Assert.Null(ours.OtherOwnerOf("data"));
        Assert.Equal(_ours[2..], theirs.OtherOwnerOf("data"));
        // The same path in another container.
        Assert.Throws<CbdException>(() => new NameReservations(_places, "3 " + _ours[2..]).Reserve("data"));
        Assert.Null(theirs.OtherOwnerOf("cbd0"));
    }

    [Fact]
    public void What_a_daemon_wants_no_more_is_free_and_what_others_want_stays()
    {
        var ours = new NameReservations(_places, _ours);
        var theirs = new NameReservations(_places, _theirs);
        ours.Reserve("a");
        ours.Reserve("b");
        theirs.Reserve("c");
        ours.Keep(["b", "c", "d"]);
        theirs.Reserve("a");
        Assert.Throws<CbdException>(() => theirs.Reserve("b"));
        Assert.Throws<CbdException>(() => theirs.Reserve("d"));
        Assert.Throws<CbdException>(() => ours.Reserve("c"));
    }

    [Fact]
    public void A_state_directory_that_is_gone_wants_nothing()
    {
        new NameReservations(_places, _theirs).Reserve("a");
        Directory.Delete(_theirs[2..]);
        new NameReservations(_places, _ours).Reserve("a");
        Directory.CreateDirectory(_theirs[2..]);
        Assert.Throws<CbdException>(() => new NameReservations(_places, _theirs).Reserve("a"));
    }

    [Fact]
    public void What_is_no_reservation_reserves_nothing()
    {
        Directory.CreateDirectory(_places.Registry);
        Directory.CreateDirectory(Path.Combine(_places.Registry, "a.wanted"));
        File.WriteAllText(Path.Combine(_places.Registry, "b.wanted"), "");
        File.WriteAllText(Path.Combine(_places.Registry, "c.wanted"), new string('/', 5000));
        File.WriteAllText(Path.Combine(_places.Registry, "d.wanted"), "no\0path\n");
        var ours = new NameReservations(_places, _ours);
        foreach (string name in (string[])["a", "b", "c", "d"])
            ours.Reserve(name);
        ours.Keep([]);
        Assert.True(Directory.Exists(Path.Combine(_places.Registry, "a.wanted")));
    }

    [Fact]
    public void Without_a_registry_nothing_is_reserved_and_nothing_refused()
    {
        File.WriteAllText(_places.Registry, "in the way");
        var ours = new NameReservations(_places, _ours);
        ours.Reserve("a");
        ours.Keep(["a"]);
        Assert.Null(ours.OtherOwnerOf("a"));
    }
}
