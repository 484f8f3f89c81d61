using Cbd.Host.Backends;
using Cbd.Memory;
using Cbd.Protocol.Format;
using Cbd.Simulation;
using Cbd.Tests.Hosts;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>backend-resize, against a disk that goes wrong, and a stop that comes in between.</summary>
public sealed class A_backend_that_grows : IDisposable, IGrowingDisk
{
    private const long Before = 1 << 20, After = 2 << 20;

    private readonly TestRegion _region = new();
    private readonly SteppedHost _host;
    private readonly SteppedBackend _backend;
    private readonly List<string> _steps = [];
    private long _bytes = Before;
    private int _syncError;
    private Action _onGrow = () => { };

    public A_backend_that_grows()
    {
        _host = new SteppedHost(_region, "host").Register();
        _backend = new SteppedBackend(_host);
    }

    public void Dispose() => _backend.Dispose();

    private long Published => _backend.Life.Claim!.Body.SizeBytes;

    [Fact]
    public void Has_the_size_on_its_medium_before_anybody_is_told()
    {
        Assert.Equal(After, BackendGrowth.Grow(_backend.Life, this, After));
        Assert.Equal([$"grow {After}, told {Before}", $"sync, told {Before}", $"serve {After}, told {Before}"], _steps);
        Assert.Equal((After, $"disk of {After}"), (Published, _backend.Life.Claim!.Body.Path));
    }

    [Fact]
    public void Takes_the_size_that_its_disk_has_if_none_is_given()
    {
        _bytes = After;
        Assert.Equal(After, BackendGrowth.Grow(_backend.Life, this, null));
        Assert.Equal(After, Published);
    }

    [Theory]
    [InlineData(Before + 1, null, CbdErrorKind.Invalid)]
    [InlineData(Before, Before + 1, CbdErrorKind.Invalid)]
    [InlineData(Before, Before / 2, CbdErrorKind.Busy)]
    [InlineData(Before / 2, After, CbdErrorKind.Corrupt)]
    public void Refuses_a_size_that_cannot_be(long present, long? wanted, CbdErrorKind kind)
    {
        _bytes = present;
        Assert.Equal(kind, Assert.Throws<CbdException>(() => BackendGrowth.Grow(_backend.Life, this, wanted)).Kind);
        Assert.Empty(_steps);
        Assert.Equal(Before, Published);
    }

    [Fact]
    public void Counts_a_failure_to_reach_the_medium_as_a_failed_flush()
    {
        _syncError = Errno.EIO;
        CbdException failed = Assert.Throws<CbdException>(() => BackendGrowth.Grow(_backend.Life, this, After));
        Assert.Contains($"errno {Errno.EIO}", failed.Message, StringComparison.Ordinal);
        Assert.Equal((Errno.EIO, Errno.EIO), (_backend.Life.Served!.FlushError, _backend.Life.Claim!.Body.FlushError));
        Assert.Equal(Before, Published);
    }

    [Fact]
    public void Serves_no_more_than_the_disk_has_if_something_makes_it_smaller_again()
    {
        _onGrow = () => _bytes = Before;
        CbdException smaller = Assert.Throws<CbdException>(() => BackendGrowth.Grow(_backend.Life, this, After));
        Assert.Contains("made it smaller", smaller.Message, StringComparison.Ordinal);
        Assert.Equal(Before, Published);
    }

    [Fact]
    public void Finishes_although_a_stop_is_accepted_meanwhile_and_its_record_has_the_size()
    {
        _region.Host("user").Register().StartBlkdev(_backend.Backend);
        _onGrow = () => _backend.Life.BeginStop(force: true, leaves: false, 1);
        BackendGrowth.Grow(_backend.Life, this, After);
        Assert.True(_backend.TryEndStop());
        Assert.Equal(ClaimState.Orphaned, _region.BackendWord(_backend.Backend).State);
        Assert.Equal(After, _host.Session.Backends.ReadRecord(_backend.Backend).SizeBytes);
    }

    [Fact]
    public void Fails_if_its_host_is_cleared_meanwhile()
    {
        _region.Host("user").Register().StartBlkdev(_backend.Backend);
        _onGrow = () => _host.TakeForDead();
        CbdException cleared = Assert.Throws<CbdException>(() => BackendGrowth.Grow(_backend.Life, this, After));
        Assert.Contains("was cleared by another", cleared.Message, StringComparison.Ordinal);
        Assert.Equal(Before, _host.Session.Backends.ReadRecord(_backend.Backend).SizeBytes);
    }

    long IGrowingDisk.MeasureBytes() => _bytes;

    void IGrowingDisk.Grow(long sizeBytes)
    {
        _steps.Add($"grow {sizeBytes}, told {Published}");
        _bytes = Math.Max(_bytes, sizeBytes);
        _onGrow();
    }

    int IGrowingDisk.Sync()
    {
        _steps.Add($"sync, told {Published}");
        return _syncError;
    }

    void IGrowingDisk.Serve(long sizeBytes) => _steps.Add($"serve {sizeBytes}, told {Published}");

    string IGrowingDisk.PathAt(long sizeBytes) => $"disk of {sizeBytes}";
}
