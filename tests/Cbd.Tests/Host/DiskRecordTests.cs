using Cbd.Host.Backends;
using Cbd.Host.Sessions;
using Cbd.Protocol.Backends;
using Cbd.Protocol.Format;
using Cbd.Simulation;
using Cbd.Tests.Hosts;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>A disk is started without the id of the entry that it has in the region already.</summary>
public sealed class A_disk_that_has_a_record
{
    private readonly TestRegion _region = new();
    private readonly SteppedHost _host;
    private readonly TestHost _other;

    public A_disk_that_has_a_record()
    {
        _host = new SteppedHost(_region, "host").Register();
        _other = _region.Host("other").Register();
    }

    [Fact]
    public void Is_taken_over_under_its_id()
    {
        ClaimWord record = LeaveARecord();
        BackendLife<ArrayMemory, SafePolicy> life = _host.ClaimBackend();
        Assert.Equal((0, record.Epoch + 1, true), (life.Backend, life.Epoch, life.IsTakeOver));
    }

    [Fact]
    public void Is_not_taken_for_another_disk_nor_for_itself_in_another_boot()
    {
        LeaveARecord();
        Assert.Equal(1, _host.ClaimBackend(body: TestRegion.Disk("file:9:9")).Backend);
        Assert.Equal(2, _host.ClaimBackend(body: TestRegion.Disk() with { DurabilityId = new Guid("eeeeeeee-0000-0000-0000-000000000001") }).Backend);
    }

    [Fact]
    public void Is_another_backend_where_nothing_tells_the_disk_from_a_later_one_with_its_number()
    {
        LeaveARecord();
        BackendLife<ArrayMemory, SafePolicy> life = _host.NewBackend();
        life.BeginClaim(TestRegion.Disk(), 0, isIdentityCertain: false);
        Assert.True(life.TryClaim(0));
        Assert.Equal(1, life.Backend);
    }

    [Fact]
    public void Stays_one_backend_however_long_its_record_is_waited_for()
    {
        ClaimWord undecided = LeaveARecord().With(ClaimState.Clearing);
        _region.Store(_region.Geometry.BackendOffset(0), undecided);
        BackendLife<ArrayMemory, SafePolicy> life = _host.NewBackend();
        life.BeginClaim(TestRegion.Disk(), 0);
        for (int step = 0; step < 3; step++)
            Assert.False(life.TryClaim(step));
        Assert.Equal((0, LifeState.Waiting), (life.Backend, life.Status.State));
        Assert.Equal(CbdErrorKind.TimedOut, Assert.Throws<CbdException>(() => life.TryClaim(_host.Session.Times.TakeOverMs + 1)).Kind);
        Assert.Equal(ClaimState.Free, _region.BackendWord(1).State);
    }

    [Fact]
    public void Waits_for_the_end_of_a_session_that_has_given_the_disk_back_already()
    {
        BackendClaim<ArrayMemory, SafePolicy> before = _other.Backends.Start(TestRegion.Disk());
        before.BeginClose(force: false);
        BackendLife<ArrayMemory, SafePolicy> life = _host.NewBackend();
        life.BeginClaim(TestRegion.Disk(), 0);
        Assert.False(life.TryClaim(0));
        Assert.Equal((LifeState.Waiting, "the disk is backend 0, whose session is just ending, or beginning"), (life.Status.State, life.Status.Reason));
        before.EndClose();
        Assert.True(life.TryClaim(1));
        Assert.Equal((0, 2UL), (life.Backend, life.Epoch));
    }

    [Fact]
    public void Is_refused_if_its_session_does_not_end()
    {
        _other.Backends.Start(TestRegion.Disk());
        BackendLife<ArrayMemory, SafePolicy> life = _host.NewBackend();
        life.BeginClaim(TestRegion.Disk(), 0);
        Assert.False(life.TryClaim(0));
        CbdException refused = Assert.Throws<CbdException>(() => life.TryClaim(_host.Session.Times.TakeOverMs + 1));
        Assert.Equal(CbdErrorKind.Busy, refused.Kind);
        Assert.Contains("backend 0 is served by host", refused.Message, StringComparison.Ordinal);
        Assert.Equal(ClaimState.Free, _region.BackendWord(1).State);
    }

    [Fact]
    public void May_be_served_by_many_while_nobody_writes_it()
    {
        _other.Backends.Start(TestRegion.Disk(readOnly: true));
        Assert.Equal(1, _host.ClaimBackend(body: TestRegion.Disk(readOnly: true)).Backend);
    }

    [Fact]
    public void Is_refused_in_another_mode_than_the_recorded_one()
    {
        LeaveARecord();
        CbdException refused = Assert.Throws<CbdException>(() => _host.ClaimBackend(body: TestRegion.Disk(readOnly: true)));
        Assert.Equal(CbdErrorKind.Invalid, refused.Kind);
        Assert.Contains("backend 0 is writable", refused.Message, StringComparison.Ordinal);
        Assert.Equal(ClaimState.Free, _region.BackendWord(1).State);
    }

    /// <summary>Backend 0 as a record of a session that is over, for the blkdev that waits for the next.</summary>
    private ClaimWord LeaveARecord()
    {
        BackendClaim<ArrayMemory, SafePolicy> before = _other.Backends.Start(TestRegion.Disk());
        _other.StartBlkdev(before.Backend);
        before.BeginClose(force: true);
        before.EndClose();
        ClaimWord record = _region.BackendWord(0);
        Assert.Equal(ClaimState.Orphaned, record.State);
        return record;
    }
}
