using Cbd.Host.Sessions;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Simulation;
using Cbd.Tests.Hosts;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>backend-clear of a backend that no host serves.</summary>
public sealed class A_backend_that_nobody_serves
{
    private readonly TestRegion _region = new();
    private readonly SteppedHost _host;

    public A_backend_that_nobody_serves() => _host = new SteppedHost(_region, "host").Register();

    private HostSession<ArrayMemory, SafePolicy> Session => _host.Session;

    [Fact]
    public void Is_not_cleared_while_its_host_lives_or_before_that_is_cleared()
    {
        TestHost owner = _region.Host("owner").Register();
        owner.Backends.Start(TestRegion.Disk());
        CbdException alive = Assert.Throws<CbdException>(() => Session.ClearBackend(0, force: true, fenced: true, 0));
        Assert.Contains("which is alive", alive.Message, StringComparison.Ordinal);
        owner.Kill();
        CbdException dead = Assert.Throws<CbdException>(() => Session.ClearBackend(0, force: true, fenced: true, 1));
        Assert.Contains("clear that with host-clear first", dead.Message, StringComparison.Ordinal);
        Assert.Equal(ClaimState.Active, _region.BackendWord(0).State);
        Assert.Equal(CbdErrorKind.NotFound, Assert.Throws<CbdException>(() => Session.ClearBackend(1, force: true, fenced: true, 1)).Kind);
    }

    [Fact]
    public void Is_cleared_by_force_although_blkdevs_wait_for_it()
    {
        TestHost owner = _region.Host("owner").Register(), user = _region.Host("user").Register();
        owner.Backends.Start(TestRegion.Disk());
        user.StartBlkdev(0);
        owner.Kill();
        user.ClearDead();
        Assert.Equal(ClaimState.Orphaned, _region.BackendWord(0).State);
        CbdException used = Assert.Throws<CbdException>(() => Session.ClearBackend(0, force: false, fenced: false, 0));
        Assert.Contains("has waiting blkdevs (0)", used.Message, StringComparison.Ordinal);
        Session.ClearBackend(0, force: true, fenced: false, 0);
        Assert.Equal(ClaimState.Free, _region.BackendWord(0).State);
        Assert.True(Session.IsBackendFree(0));
    }

    [Fact]
    public void Is_released_from_its_quarantine_on_the_word_of_an_operator()
    {
        TestHost owner = _region.ForeignHost("owner").Register();
        owner.Backends.Start(TestRegion.Disk());
        Assert.Equal(ClearResult.Quarantined, _region.Host("clearer").Register().Clear(owner.Id, ClearAuthority.Forced));
        CbdException quarantined = Assert.Throws<CbdException>(() => Session.ClearBackend(0, force: true, fenced: false, 0));
        Assert.Contains("--fenced", quarantined.Message, StringComparison.Ordinal);
        Session.ClearBackend(0, force: false, fenced: true, 0);
        Assert.Equal(ClaimState.Free, _region.BackendWord(0).State);
    }
}
