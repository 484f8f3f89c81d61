using Cbd.Disks;
using Cbd.Host.Backends;
using Cbd.Host.Sessions;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Format;
using Cbd.Simulation;
using Cbd.Tests.Hosts;
using Xunit;

namespace Cbd.Tests.Host;

public sealed class A_backend_of_a_host
{
    private readonly TestRegion _region = new();
    private readonly SteppedHost _host;
    private readonly TestHost _user;

    public A_backend_of_a_host()
    {
        _host = new SteppedHost(_region, "host").Register();
        _user = _region.Host("user").Register();
    }

    [Fact]
    public void Is_over_at_once_if_it_is_stopped_while_it_waits_for_its_disk()
    {
        BackendLife<ArrayMemory, SafePolicy> life = _host.NewBackend();
        life.AwaitDisk("somebody has it", 1);
        Assert.Equal((LifeState.Waiting, "somebody has it"), (life.Status.State, life.Status.Reason));
        life.BeginStop(force: false, leaves: false, 2);
        Assert.Equal((BackendStage.Over, LifeState.Gone), (life.Stage, life.Status.State));
        Assert.Throws<InvalidOperationException>(() => life.BeginClaim(TestRegion.Disk(), 3));
        Assert.Equal(-1, life.Backend);
        Assert.Equal(ClaimState.Free, _region.BackendWord(0).State);
    }

    [Fact]
    public void Waits_for_the_judgement_on_its_old_session_and_gives_up_after_a_time()
    {
        ClaimWord undecided = LeaveARecord().With(ClaimState.Clearing);
        _region.Store(_region.Geometry.BackendOffset(0), undecided);
        BackendLife<ArrayMemory, SafePolicy> life = _host.NewBackend(new BackendWish(0));
        life.BeginClaim(TestRegion.Disk(), 0);
        Assert.False(life.TryClaim(0));
        Assert.Equal(LifeState.Waiting, life.Status.State);
        Assert.False(life.TryClaim(_host.Session.Times.TakeOverMs));
        CbdException late = Assert.Throws<CbdException>(() => life.TryClaim(_host.Session.Times.TakeOverMs + 1));
        Assert.Equal(CbdErrorKind.TimedOut, late.Kind);
        Assert.True(life.IsOver);
        Assert.Equal(undecided, _region.BackendWord(0));
    }

    [Fact]
    public void Is_over_if_it_is_stopped_while_it_waits_for_that_judgement()
    {
        ClaimWord undecided = LeaveARecord().With(ClaimState.Clearing);
        _region.Store(_region.Geometry.BackendOffset(0), undecided);
        BackendLife<ArrayMemory, SafePolicy> life = _host.NewBackend(new BackendWish(0));
        life.BeginClaim(TestRegion.Disk(), 0);
        Assert.False(life.TryClaim(0));
        life.BeginStop(force: true, leaves: true, 1);
        Assert.Equal(BackendStage.Over, life.Stage);
        life.EndStop(2);
        Assert.Equal(undecided, _region.BackendWord(0));
    }

    [Fact]
    public void Gives_its_entry_back_if_its_handlers_cannot_be_started()
    {
        BackendLife<ArrayMemory, SafePolicy> life = _host.ClaimBackend();
        Assert.Equal(ClaimState.Active, _region.BackendWord(0).State);
        // A stop does not end it: its start is still under way, and does.
        life.BeginStop(force: true, leaves: true, 1);
        Assert.Equal(BackendStage.Claimed, life.Stage);
        life.EndStop(1);
        Assert.Equal(ClaimState.Free, _region.BackendWord(0).State);
    }

    [Fact]
    public void That_was_being_started_when_its_host_was_cleared_serves_nothing_and_touches_nothing()
    {
        BackendLife<ArrayMemory, SafePolicy> waits = _host.NewBackend();
        BackendLife<ArrayMemory, SafePolicy> claims = _host.NewBackend(new BackendWish(null));
        claims.BeginClaim(TestRegion.Disk("file:3:3"), 0);
        BackendLife<ArrayMemory, SafePolicy> claimed = _host.ClaimBackend();
        _host.TakeForDead();
        _host.FindOutThatItIsCleared();
        ClaimWord cleared = _region.BackendWord(0);
        Assert.Equal(ClaimState.Free, cleared.State);
        Assert.Throws<CbdException>(() => waits.BeginClaim(TestRegion.Disk(), 1));
        Assert.Throws<CbdException>(() => claims.TryClaim(1));
        Assert.True(claims.IsOver);
        CbdException late = Assert.Throws<CbdException>(() => claimed.BeginServing(_ => Assert.Fail("an offer"), 1));
        Assert.Contains("try again in a moment", late.Message, StringComparison.Ordinal);
        waits.EndStop(1);
        claimed.EndStop(1);
        Assert.Equal((LifeState.Gone, LifeState.Gone), (waits.Status.State, claimed.Status.State));
        Assert.Equal(cleared, _region.BackendWord(0));
        Assert.DoesNotContain(_region.AllWords(), w => w.Name.StartsWith("backend", StringComparison.Ordinal) && w.Word.State != ClaimState.Free);
    }

    [Fact]
    public void In_use_refuses_a_stop_and_serves_on()
    {
        using var backend = new SteppedBackend(_host);
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = _user.StartBlkdev(backend.Backend);
        CbdException used = Assert.Throws<CbdException>(() => backend.Life.BeginStop(force: false, leaves: false, 1));
        Assert.Equal(CbdErrorKind.Busy, used.Kind);
        Assert.Equal((BackendStage.Serving, LifeState.Running), (backend.Life.Stage, backend.Life.Status.State));
        Assert.Equal(ClaimState.Active, _region.BackendWord(backend.Backend).State);
        blkdev.End();
        backend.Life.BeginStop(force: false, leaves: false, 2);
        Assert.True(backend.TryEndStop());
        Assert.Equal(ClaimState.Free, _region.BackendWord(backend.Backend).State);
    }

    [Theory]
    [InlineData(true, false, true)]
    [InlineData(true, true, false)]
    public void Says_in_its_record_that_it_was_stopped_but_not_that_its_host_leaves(bool force, bool leaves, bool said)
    {
        using var backend = new SteppedBackend(_host);
        _user.StartBlkdev(backend.Backend);
        backend.Life.BeginStop(force, leaves, 1);
        // A second stop finds it stopping, and changes nothing.
        backend.Life.BeginStop(force: true, leaves: !leaves, 2);
        Assert.True(backend.TryEndStop());
        Assert.Equal(ClaimState.Orphaned, _region.BackendWord(backend.Backend).State);
        Assert.Equal(said, _user.Backends.ReadRecord(backend.Backend).IsStopped);
    }

    [Fact]
    public void Drops_offers_once_it_stops_and_says_what_it_waits_for()
    {
        BackendLife<ArrayMemory, SafePolicy> life = _host.ClaimBackend();
        int offers = 0;
        using Disk disk = Disk.Open(new DiskOptions { Path = "memory:1M" });
        life.MakeServed(disk);
        life.BeginServing(_ => offers++, 0);
        life.StopTakesLong("it serves", 1);
        Assert.Equal(LifeState.Running, life.Status.State);
        life.Offer(1);
        life.BeginStop(force: false, leaves: false, 2);
        life.Offer(1);
        Assert.Equal(1, offers);
        life.StopTakesLong("the disk hangs", 3);
        Assert.Equal((LifeState.Stopping, "the disk hangs"), (life.Status.State, life.Status.Reason));
    }

    [Fact]
    public void Whose_disk_does_not_finish_keeps_its_entry_whatever_is_done_to_it()
    {
        using var backend = new SteppedBackend(_host);
        backend.Life.BeginStop(force: true, leaves: false, 1);
        backend.Life.Abandon(2);
        Assert.Equal((BackendStage.Abandoned, LifeState.Failed), (backend.Life.Stage, backend.Life.Status.State));
        Assert.Contains("does not finish", backend.Life.Status.Reason, StringComparison.Ordinal);
        backend.Life.Abandon(3);
        backend.Life.BeginStop(force: true, leaves: true, 4);
        backend.Life.EndStop(5);
        backend.Life.Hold(6);
        Assert.Equal(BackendStage.Abandoned, backend.Life.Stage);
        Assert.True(backend.Life.MayTouchDisk);
        Assert.Equal(ClaimState.Closing, _region.BackendWord(backend.Backend).State);
    }

    [Fact]
    public void Of_a_host_that_was_cleared_is_held_for_the_next_claim()
    {
        using var backend = new SteppedBackend(_host);
        _user.StartBlkdev(backend.Backend);
        _host.TakeForDead();
        _host.FindOutThatItIsCleared();
        Assert.False(backend.Life.IsQuiet);
        backend.Life.Hold(1);
        Assert.Equal((BackendStage.Held, LifeState.Waiting), (backend.Life.Stage, backend.Life.Status.State));
        Assert.True(backend.Life.IsQuiet);
        ClaimWord record = _region.BackendWord(backend.Backend);
        Assert.Equal(ClaimState.Orphaned, record.State);
        backend.Life.Hold(2);
        backend.Life.EndStop(3);
        backend.Life.Abandon(4);
        backend.Life.Beat();
        Assert.Equal(BackendStage.Held, backend.Life.Stage);
        Assert.Equal(record, _region.BackendWord(backend.Backend));
    }

    [Fact]
    public void Is_had_again_under_its_id_whether_its_record_is_left_or_its_entry_is_free()
    {
        ClaimWord record = LeaveARecord();
        BackendLife<ArrayMemory, SafePolicy> taken = _host.ClaimBackend(new BackendWish(0, Anew: true));
        Assert.Equal((0, record.Epoch + 1), (taken.Backend, taken.Epoch));
        Assert.True(taken.IsTakeOver);
        BackendLife<ArrayMemory, SafePolicy> free = _host.ClaimBackend(new BackendWish(2, Anew: true), TestRegion.Disk("file:9:9"));
        Assert.Equal((2, ClaimState.Active), (free.Backend, _region.BackendWord(2).State));
        Assert.Throws<CbdException>(() => _host.ClaimBackend(new BackendWish(1)));
    }

    [Fact]
    public void Takes_its_steps_in_order()
    {
        using Disk disk = Disk.Open(new DiskOptions { Path = "memory:1M" });
        BackendLife<ArrayMemory, SafePolicy> life = _host.NewBackend();
        Assert.Throws<InvalidOperationException>(() => life.TryClaim(0));
        Assert.Throws<InvalidOperationException>(() => life.MakeServed(disk));
        Assert.Throws<InvalidOperationException>(() => life.BeginServing(_ => { }, 0));
        life.BeginClaim(TestRegion.Disk(), 0);
        Assert.Throws<InvalidOperationException>(() => life.BeginClaim(TestRegion.Disk(), 0));
    }

    /// <summary>Backend 0 as a record of a session that is over, for the blkdev that waits for the next.</summary>
    private ClaimWord LeaveARecord()
    {
        using (var before = new SteppedBackend(_host))
        {
            _user.StartBlkdev(0);
            before.Life.BeginStop(force: true, leaves: true, 0);
            Assert.True(before.TryEndStop());
        }

        Assert.Equal(ClaimState.Orphaned, _region.BackendWord(0).State);
        return _region.BackendWord(0);
    }
}
