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
    private const string Known = "file:0123456789abcdef0123456789abcdef:1234:0a0b0c0d:11111111:-:22222222:-";
    private const string WithoutGeneration = "file:0123456789abcdef0123456789abcdef:1234:-:-:-:22222222:-";

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
    public void Is_taken_over_in_another_boot_and_not_taken_for_another_disk()
    {
        LeaveARecord();
        Assert.Equal(1, _host.ClaimBackend(body: TestRegion.Disk("file:9:9")).Backend);
        Assert.Equal(0, _host.ClaimBackend(body: TestRegion.Disk() with { DurabilityId = new Guid("eeeeeeee-0000-0000-0000-000000000001") }).Backend);
    }

    [Fact]
    public void Is_refused_where_nothing_tells_the_disk_from_a_later_one_with_its_number_until_an_operator_says()
    {
        LeaveARecord(WithoutGeneration);
        CbdException refused = Assert.Throws<CbdException>(() => _host.ClaimBackend(body: TestRegion.Disk(WithoutGeneration)));
        Assert.Equal(CbdErrorKind.Busy, refused.Kind);
        Assert.Contains($"nothing tells whether '/disks/{WithoutGeneration}' ({WithoutGeneration}) is the disk of backend 0", refused.Message, StringComparison.Ordinal);
        Assert.Contains("start it with -b 0; if not, give that record up: backend-clear -b 0 --force", refused.Message, StringComparison.Ordinal);
        Assert.Equal(ClaimState.Free, _region.BackendWord(1).State);
        Assert.Equal(1, _host.ClaimBackend(body: TestRegion.Disk("file:9:9")).Backend);
        Assert.Equal(0, _host.ClaimBackend(new BackendWish(0), TestRegion.Disk(WithoutGeneration)).Backend);
    }

    [Fact]
    public void Is_refused_under_its_id_if_only_a_record_says_so_and_nothing_tells()
    {
        LeaveARecord(WithoutGeneration);
        var life = new BackendLife<ArrayMemory, SafePolicy>(_host.Session, new BackendWish(0, IsConfirmed: false), 0);
        life.BeginClaim(TestRegion.Disk(WithoutGeneration), 0);
        Assert.Contains("nothing tells whether", Assert.Throws<CbdException>(() => life.TryClaim(0)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Is_known_by_the_identity_of_the_version_before_and_keeps_that_for_its_devices()
    {
        const string Old = "file:254:1:1234:0a0b0c0d";
        LeaveARecord(Old);
        BackendBody disk = TestRegion.Disk(Known) with { OldIdentity = Old };
        CbdException refused = Assert.Throws<CbdException>(() => _host.ClaimBackend(body: disk with { DurabilityId = new Guid("eeeeeeee-0000-0000-0000-000000000001") }));
        Assert.Contains("nothing tells whether", refused.Message, StringComparison.Ordinal);
        Assert.Equal(0, _host.ClaimBackend(body: disk).Backend);
        Assert.Equal(Old, _host.Session.Backends.ReadRecord(0).Identity);
    }

    [Fact]
    public void Is_left_to_the_host_that_has_taken_the_disk_up_while_this_one_had_no_claim()
    {
        _other.Backends.Start(TestRegion.Disk());
        BackendLife<ArrayMemory, SafePolicy> life = _host.NewBackend(new BackendWish(1, Anew: true));
        life.BeginClaim(TestRegion.Disk(), 0);
        Assert.Contains("the disk of backend 1 is backend 0 by now", Assert.Throws<CbdException>(() => life.TryClaim(0)).Message, StringComparison.Ordinal);
        Assert.Equal(ClaimState.Free, _region.BackendWord(1).State);
    }

    [Fact]
    public void Is_not_taken_over_under_the_id_of_another_one()
    {
        LeaveARecord(Known);
        _other.Backends.Start(TestRegion.Disk(WithoutGeneration));
        CbdException refused = Assert.Throws<CbdException>(() => _host.ClaimBackend(new BackendWish(1), TestRegion.Disk(Known)));
        Assert.Equal($"'/disks/{Known}' is the disk of backend 0, not of 1: start it without -b", refused.Message);
    }

    [Fact]
    public void Is_refused_beside_a_record_that_may_be_its_own_and_is_not_decided_yet_only_when_it_is()
    {
        ClaimWord record = LeaveARecord(WithoutGeneration);
        _region.Store(_region.Geometry.BackendOffset(0), record.With(ClaimState.Clearing));
        BackendLife<ArrayMemory, SafePolicy> life = _host.NewBackend();
        life.BeginClaim(TestRegion.Disk(WithoutGeneration), 0);
        Assert.False(life.TryClaim(0));
        _region.Store(_region.Geometry.BackendOffset(0), record);
        Assert.Contains("nothing tells whether", Assert.Throws<CbdException>(() => life.TryClaim(1)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Is_not_asked_for_beside_a_disk_that_is_served_elsewhere()
    {
        _other.Backends.Start(TestRegion.Disk(WithoutGeneration));
        Assert.Equal(1, _host.ClaimBackend(body: TestRegion.Disk(WithoutGeneration)).Backend);
    }

    [Fact]
    public void Is_not_what_a_new_claim_has_found_in_its_entry()
    {
        BackendClaim<ArrayMemory, SafePolicy> before = _other.Backends.Start(TestRegion.Disk());
        before.BeginClose(force: false);
        before.EndClose();
        // Somebody claims the free entry for another disk, and has not published what it is yet.
        _region.Store(_region.Geometry.BackendOffset(0), _region.BackendWord(0).Next(ClaimState.Claiming, _other.Claim.Host));
        Assert.Equal(1, _host.ClaimBackend(body: TestRegion.Disk()).Backend);
    }

    [Fact]
    public void Is_refused_with_the_reason_while_another_claim_of_it_does_not_end()
    {
        ClaimWord record = LeaveARecord();
        _region.Store(_region.Geometry.BackendOffset(0), record.Next(ClaimState.Claiming, _other.Claim.Host));
        BackendLife<ArrayMemory, SafePolicy> life = _host.NewBackend();
        life.BeginClaim(TestRegion.Disk(), 0);
        Assert.False(life.TryClaim(0));
        CbdException refused = Assert.Throws<CbdException>(() => life.TryClaim(_host.Session.Times.TakeOverMs + 1));
        Assert.Equal((CbdErrorKind.TimedOut, true), (refused.Kind, refused.Message.StartsWith("backend 0 is being claimed by host", StringComparison.Ordinal)));
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

    [Fact]
    public void Is_given_up_by_a_host_that_began_with_it_at_the_same_moment_as_another()
    {
        BackendLife<ArrayMemory, SafePolicy>? other = null;
        TestHost? host = null;
        bool isBegun = false;
        host = _region.Host("late", _ =>
        {
            // It has claimed entry 0, and nobody can see yet for which disk.
            if (isBegun && other is null && _region.BackendWord(0).State == ClaimState.Claiming)
                other = _host.ClaimBackend(body: TestRegion.Disk());
        }).Register();
        isBegun = true;
        CbdException refused = Assert.Throws<RivalClaimException>(() => host.Backends.Start(TestRegion.Disk(), search: host.Backends.SearchFor(TestRegion.Disk())));
        Assert.Contains("is being started by another host as backend 1 right now", refused.Message, StringComparison.Ordinal);
        Assert.Equal((1, BackendStage.Claimed), (other!.Backend, other.Stage));
        Assert.Equal(ClaimState.Free, _region.BackendWord(0).State);
    }

    [Fact]
    public void That_has_two_records_names_the_verb_that_ends_it()
    {
        BackendClaim<ArrayMemory, SafePolicy>[] before = [_other.Backends.Start(TestRegion.Disk()), _other.Backends.Start(TestRegion.Disk())];
        foreach (BackendClaim<ArrayMemory, SafePolicy> claim in before)
        {
            _other.StartBlkdev(claim.Backend);
            claim.BeginClose(force: true);
            claim.EndClose();
        }

        CbdException refused = Assert.Throws<CbdException>(() => _host.ClaimBackend(body: TestRegion.Disk()));
        Assert.Equal(CbdErrorKind.Busy, refused.Kind);
        Assert.EndsWith("see backend-list --all, and give up the one with the older data: backend-clear -b 1 --force, or backend-clear -b 0 --force", refused.Message, StringComparison.Ordinal);
        _host.Session.ClearBackend(1, force: true, fenced: false, 0);
        Assert.Equal(0, _host.ClaimBackend(body: TestRegion.Disk()).Backend);
    }

    /// <summary>Backend 0 as a record of a session that is over, for the blkdev that waits for the next.</summary>
    private ClaimWord LeaveARecord(string identity = "file:1:2")
    {
        BackendClaim<ArrayMemory, SafePolicy> before = _other.Backends.Start(TestRegion.Disk(identity));
        _other.StartBlkdev(before.Backend);
        before.BeginClose(force: true);
        before.EndClose();
        ClaimWord record = _region.BackendWord(0);
        Assert.Equal(ClaimState.Orphaned, record.State);
        return record;
    }
}
