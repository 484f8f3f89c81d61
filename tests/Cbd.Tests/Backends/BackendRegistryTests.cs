using Cbd.Protocol.Backends;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;
using Cbd.Simulation;
using Cbd.Tests.Hosts;
using Xunit;

namespace Cbd.Tests.Backends;

public sealed class Offering_a_backend
{
    private readonly TestRegion _region = new();

    private static string Refusal(Action act) => Assert.Throws<CbdException>(act).Message;

    private static BackendClaim<ArrayMemory, SafePolicy> TakeOver(TestHost host, int backend, BackendBody body, bool fenced = false)
    {
        BackendClaim<ArrayMemory, SafePolicy>? claim = null;
        host.StepUntil(now => host.Backends.TakeOver(backend, body, fenced, now, out claim) == StepResult.Done);
        return claim!;
    }

    [Fact]
    public void A_name_stays_with_the_record_until_another_is_given()
    {
        var region = new TestRegion();
        TestHost a = region.Host("a").Register(), b = region.Host("b").Register();
        a.Backends.Start(TestRegion.Disk() with { Name = "data" });
        b.StartBlkdev(0);
        a.Kill();
        TestHost again = region.Host("c").Register();
        Assert.Equal("data", TakeOver(again, 0, TestRegion.Disk()).Body.Name);
        again.Kill();
        Assert.Equal("more", TakeOver(b, 0, TestRegion.Disk() with { Name = "more" }).Body.Name);
    }

    [Fact]
    public void Is_seen_by_other_hosts_as_it_was_published()
    {
        TestHost a = _region.Host("a").Register(), b = _region.Host("b").Register();
        BackendClaim<ArrayMemory, SafePolicy> claim = a.Backends.Start(TestRegion.Disk());
        Assert.Equal(new ClaimWord(ClaimState.Active, 0, 1), _region.BackendWord(0));
        b.Tracker.Sample(0);
        BackendListing seen = b.Backends.List().Single();
        Assert.Equal(TestRegion.Disk().InSession(1, null) with { HostId = 0, HostEpoch = 1 }, seen.Body);
        Assert.Equal(Liveness.Alive, seen.Liveness);
        var watch = new BackendWatch<ArrayMemory, SafePolicy>(b.Memory, _region.Geometry, 0);
        Assert.True(watch.TryRefresh(out BackendSession session));
        Assert.Equal((1UL, 1L << 20, 512), (session.Epoch, session.Info.SizeBytes, session.Info.LogicalBlockBytes));
        Assert.True(claim.Beat());
        Assert.False(watch.TryRefresh(out _));
        Assert.True(claim.Update(body => body with { SizeBytes = 2 << 20 }));
        Assert.True(watch.TryRefresh(out session));
        Assert.Equal(2L << 20, session.Info.SizeBytes);
        claim.EndClose();
        Assert.False(watch.TryRefresh(out _));
        Assert.False(watch.IsServed);
        Assert.Equal(new ClaimWord(ClaimState.Free, 0, 1), _region.BackendWord(0));
    }

    [Fact]
    public void A_watch_that_finds_nothing_new_reads_two_words()
    {
        TestHost a = _region.Host("a").Register();
        a.Backends.Start(TestRegion.Disk());
        int loads = 0;
        var watch = new BackendWatch<ArrayMemory, SafePolicy>(_region.Memory.With(_ => loads++), _region.Geometry, 0);
        Assert.True(watch.TryRefresh(out _));
        loads = 0;
        Assert.False(watch.TryRefresh(out _));
        Assert.Equal(2, loads);
    }

    [Fact]
    public void Says_when_all_entries_are_taken_and_what_to_do()
    {
        TestHost a = _region.Host("a").Register();
        for (int i = 0; i < 3; i++)
            Assert.Equal(i, a.Backends.Start(TestRegion.Disk($"{i}")).Backend);
        Assert.Contains("all 3 are taken: stop one with backend-stop, or format with more --backends", Refusal(() => a.Backends.Start(TestRegion.Disk())), StringComparison.Ordinal);
        Assert.Contains("backend 1 is taken", Refusal(() => a.Backends.Start(TestRegion.Disk(), 1)), StringComparison.Ordinal);
    }

    [Fact]
    public void Is_not_started_under_an_id_that_its_process_has_in_use_whatever_the_region_says()
    {
        TestHost a = _region.Host("a").Register();
        Assert.Equal(1, a.Backends.Start(TestRegion.Disk(), isServedHere: id => id == 0).Backend);
        Assert.Equal(ClaimState.Free, _region.BackendWord(0).State);
        Assert.Equal(2, a.Blkdevs.Claim(1, readOnly: false, isUsedHere: id => id < 2).Blkdev);
    }

    [Fact]
    public void Can_be_started_under_an_id_that_is_free()
    {
        TestHost a = _region.Host("a").Register();
        Assert.Equal(2, a.Backends.Start(TestRegion.Disk(), 2).Backend);
        Assert.Contains("ids go from 0 to 2", Refusal(() => a.Backends.Start(TestRegion.Disk(), 3)), StringComparison.Ordinal);
    }

    [Fact]
    public void Refuses_what_cannot_be_published()
    {
        TestHost a = _region.Host("a").Register();
        Assert.Contains("size is 1000", Refusal(() => a.Backends.Start(TestRegion.Disk(size: 1000))), StringComparison.Ordinal);
        Assert.Contains("path is not 1 to 511", Refusal(() => a.Backends.Start(TestRegion.Disk() with { Path = new string('x', 512) })), StringComparison.Ordinal);
        Assert.Contains("handlers is 129", Refusal(() => a.Backends.Start(TestRegion.Disk() with { Handlers = 129 })), StringComparison.Ordinal);
        Assert.Equal(ClaimState.Free, _region.BackendWord(0).State);
    }

    [Fact]
    public void Is_not_stopped_while_in_use_unless_forced_and_then_stays_as_a_record()
    {
        TestHost a = _region.Host("a").Register();
        BackendClaim<ArrayMemory, SafePolicy> claim = a.Backends.Start(TestRegion.Disk());
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = a.StartBlkdev(0);
        Assert.Contains("in use by blkdev 0", Refusal(() => claim.BeginClose(force: false)), StringComparison.Ordinal);
        Assert.Equal(ClaimState.Active, _region.BackendWord(0).State);
        claim.BeginClose(force: true);
        claim.EndClose();
        Assert.Equal(ClaimState.Orphaned, _region.BackendWord(0).State);
        blkdev.End();
        Assert.Equal(ClaimState.Free, _region.BackendWord(0).State);
    }

    [Fact]
    public void A_latched_flush_failure_outlives_the_session_until_it_is_cleared()
    {
        TestHost a = _region.Host("a").Register(), b = _region.Host("b").Register();
        BackendClaim<ArrayMemory, SafePolicy> first = a.Backends.Start(TestRegion.Disk());
        b.StartBlkdev(0);
        Assert.True(first.StoreFlushError(5));
        a.Kill();
        BackendClaim<ArrayMemory, SafePolicy> second = TakeOver(b, 0, TestRegion.Disk());
        Assert.Equal((2UL, 5), (second.Session, second.Body.FlushError));
        Assert.True(second.StoreFlushError(0));
        Assert.Equal(0, b.Backends.ReadRecord(0).FlushError);
        Assert.False(first.StoreFlushError(7));
        Assert.Equal(0, b.Backends.ReadRecord(0).FlushError);
    }

    [Fact]
    public void Is_taken_over_from_an_orphan_and_from_a_killed_host_alike()
    {
        TestHost a = _region.Host("a").Register(), b = _region.Host("b").Register();
        a.Backends.Start(TestRegion.Disk());
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = b.StartBlkdev(0);
        a.Kill();
        // Not cleared yet: the lock proves it.
        BackendClaim<ArrayMemory, SafePolicy> second = TakeOver(b, 0, TestRegion.Disk(size: 4 << 20));
        Assert.Equal(new ClaimWord(ClaimState.Active, b.Id, 2), _region.BackendWord(0));
        Assert.Equal(1L << 20, second.Body.SizeBytes);
        b.ClearDead();
        Assert.True(second.IsMine());
        second.BeginClose(force: true);
        second.EndClose();
        Assert.Equal(ClaimState.Orphaned, _region.BackendWord(0).State);
        Assert.Equal(3UL, TakeOver(b, 0, TestRegion.Disk()).Session);
        Assert.Equal(new WriterWord(blkdev.Blkdev, blkdev.Epoch), _region.Writer(0));
    }

    [Fact]
    public void Has_another_durability_id_only_after_a_session_in_another_life_of_the_disk()
    {
        TestHost a = _region.Host("a").Register();
        BackendBody here = TestRegion.Disk(), elsewhere = here with { DurabilityId = new Guid("eeeeeeee-0000-0000-0000-000000000001") };
        BackendClaim<ArrayMemory, SafePolicy> started = a.Backends.Start(here);
        Guid first = started.Body.DurabilityId;
        a.StartBlkdev(0);
        started.BeginClose(force: true);
        started.EndClose();
        Guid Next(BackendBody body)
        {
            BackendClaim<ArrayMemory, SafePolicy> claim = TakeOver(a, 0, body);
            claim.BeginClose(force: true);
            claim.EndClose();
            return claim.Body.DurabilityId;
        }

        Assert.Equal(first, Next(here));
        Assert.Equal(first, Next(here));
        Guid second = Next(elsewhere);
        Assert.NotEqual(first, second);
        Assert.Equal(second, Next(elsewhere));
        // A device that stood still from the first session on has seen nothing of what was between.
        Guid third = Next(here);
        Assert.NotEqual(first, third);
        Assert.NotEqual(second, third);
        Assert.Equal(third, Next(here));
    }

    [Fact]
    public void Is_not_taken_over_by_another_disk_or_another_mode()
    {
        TestHost a = _region.Host("a").Register(), b = _region.Host("b").Register();
        a.Backends.Start(TestRegion.Disk());
        b.StartBlkdev(0);
        Assert.Contains("is served by host 0 ('a'), which is alive", Refusal(() => TakeOver(b, 0, TestRegion.Disk())), StringComparison.Ordinal);
        a.Kill();
        b.ClearDead();
        Assert.Contains("is not the disk of backend 0", Refusal(() => TakeOver(b, 0, TestRegion.Disk("file:9:9"))), StringComparison.Ordinal);
        Assert.Contains("is writable, not read-only: start it without --read-only", Refusal(() => TakeOver(b, 0, TestRegion.Disk(readOnly: true))), StringComparison.Ordinal);
        Assert.Contains("has blocks of 512 bytes, not 4096", Refusal(() => TakeOver(b, 0, TestRegion.Disk() with { LogicalBlockBytes = 4096 })), StringComparison.Ordinal);
        Assert.Contains("fewer than the 1048576", Refusal(() => TakeOver(b, 0, TestRegion.Disk(size: 512 << 10))), StringComparison.Ordinal);
        Assert.Contains("backend 1 does not exist", Refusal(() => TakeOver(b, 1, TestRegion.Disk())), StringComparison.Ordinal);
        Assert.Contains("backend 3 does not exist", Refusal(() => TakeOver(b, 3, TestRegion.Disk())), StringComparison.Ordinal);
        Assert.Equal(new ClaimWord(ClaimState.Orphaned, 0, 1), _region.BackendWord(0));
    }

    [Fact]
    public void Of_a_machine_that_may_live_is_taken_over_only_when_somebody_vouches()
    {
        TestHost a = _region.Host(TestRegion.Identity("a") with { BootId = TestRegion.OtherBootId, HostUuid = Guid.NewGuid() }).Register();
        TestHost b = _region.Host("b").Register();
        BackendClaim<ArrayMemory, SafePolicy> old = a.Backends.Start(TestRegion.Disk());
        b.StartBlkdev(0);
        Assert.Contains("--fenced", Refusal(() => TakeOver(b, 0, TestRegion.Disk())), StringComparison.Ordinal);
        Assert.Equal(2UL, TakeOver(b, 0, TestRegion.Disk(), fenced: true).Session);
        Assert.False(old.Beat());
    }

    [Fact]
    public void A_host_that_was_cleared_starts_nothing()
    {
        TestHost a = _region.Host("a").Register(), b = _region.Host("b").Register();
        BackendRegistry<ArrayMemory, SafePolicy> backends = a.Backends;
        a.Kill();
        b.ClearDead();
        Assert.Contains("host 0 was cleared", Refusal(() => backends.Start(TestRegion.Disk())), StringComparison.Ordinal);
        Assert.Equal(ClaimState.Free, _region.BackendWord(0).State);
    }
}
