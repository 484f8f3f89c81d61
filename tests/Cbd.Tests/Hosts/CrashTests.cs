using Cbd.Protocol.Backends;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;
using Cbd.Simulation;
using Cbd.Tests.Transports;
using Xunit;

namespace Cbd.Tests.Hosts;

/// <summary>
/// Every management operation is killed before each of its stores in turn; another host then recovers by itself, and
/// nothing may be leaked, or lost, or owned twice.
/// </summary>
public sealed class A_host_killed_at_any_store
{
    /// <summary>
    /// Prepares a region with a survivor, runs the operation with a crash before its k-th store for all k, and checks
    /// after the survivor has recovered.
    /// </summary>
    private static void ForEveryCrash(Action<TestRegion, TestHost> prepare, Action<TestHost> operation, Action<TestRegion, TestHost> check, bool registered = true)
    {
        int crashes = 0;
        for (int crashAt = 0; ; crashAt++, crashes++)
        {
            var region = new TestRegion();
            TestHost survivor = region.Host("survivor").Register();
            prepare(region, survivor);
            int stores = int.MinValue;
            TestHost victim = region.Host("victim", access =>
            {
                if (access != MemoryAccess.Load && stores++ == crashAt)
                    throw new CrashException();
            });
            if (registered)
                victim.Register();
            stores = 0;
            bool crashed = false;
            try
            {
                operation(victim);
            }
            catch (CrashException)
            {
                crashed = true;
            }

            stores = int.MinValue;
            victim.Kill();
            survivor.ClearDead();
            for (int beat = 0; beat < 13; beat++)
            {
                survivor.NowMs += 1000;
                Assert.True(survivor.Claim.Beat());
                survivor.ClearDead();
            }

            check(region, survivor);
            if (!crashed)
            {
                Assert.True(crashes >= 3, $"only {crashes} stores to crash at");
                return;
            }
        }
    }

    private static void AssertOnly(TestRegion region, params string[] names) =>
        Assert.Equal(names, region.AllWords().Where(entry => entry.Word.State != ClaimState.Free).Select(entry => entry.Name));

    [Fact]
    public void While_it_registers_leaks_no_entry_and_no_lock() => ForEveryCrash(
        (_, _) => { },
        victim => victim.Register(),
        (region, _) =>
        {
            AssertOnly(region, "host 0");
            Assert.Equal(1, region.Host("victim").Register().Id);
        },
        registered: false);

    [Fact]
    public void While_it_registers_over_a_dead_namesake_leaks_neither() => ForEveryCrash(
        (region, _) => region.Host("victim").Register().Kill(),
        victim => victim.Register(),
        (region, _) => AssertOnly(region, "host 0"),
        registered: false);

    [Fact]
    public void While_it_beats_leaves_a_whole_body_until_it_is_cleared()
    {
        int crashAt = 0;
        for (bool crashed = true; crashed; crashAt++)
        {
            var region = new TestRegion();
            int stores = int.MinValue;
            TestHost victim = region.Host("victim", access =>
            {
                if (access != MemoryAccess.Load && stores++ == crashAt)
                    throw new CrashException();
            }).Register();
            stores = 0;
            crashed = false;
            try
            {
                Assert.True(victim.Claim.Beat());
            }
            catch (CrashException)
            {
                crashed = true;
            }

            Assert.True(EntryBodies<ArrayMemory>.TryReadHost(region.Memory, region.Geometry, 0, 1, out HostBody body, out string error), error);
            Assert.Equal("victim", body.Name);
            Assert.InRange(body.Heartbeat, crashed ? 1UL : 2UL, 2UL);
        }

        Assert.True(crashAt > 3);
    }

    [Fact]
    public void While_it_starts_or_stops_a_backend_leaks_no_entry() => ForEveryCrash(
        (_, _) => { },
        victim =>
        {
            BackendClaim<ArrayMemory, SafePolicy> claim = victim.Backends.Start(TestRegion.Disk());
            claim.StoreFlushError(5);
            claim.BeginClose(false);
            claim.EndClose();
        },
        (region, _) => AssertOnly(region, "host 0"));

    [Fact]
    public void While_it_takes_a_backend_over_keeps_the_record_whole() => ForEveryCrash(
        (region, survivor) =>
        {
            TestHost first = region.Host("first").Register();
            first.Backends.Start(TestRegion.Disk()).StoreFlushError(5);
            survivor.StartBlkdev(0);
            first.Kill();
            survivor.ClearDead();
        },
        victim =>
        {
            BackendClaim<ArrayMemory, SafePolicy>? claim = null;
            victim.StepUntil(now => victim.Backends.TakeOver(0, TestRegion.Disk(size: 4 << 20), false, now, out claim) == StepResult.Done);
            Assert.True(claim!.Beat());
        },
        (region, survivor) =>
        {
            AssertOnly(region, "host 0", "backend 0", "blkdev 0");
            Assert.Equal(ClaimState.Orphaned, region.BackendWord(0).State);
            BackendBody record = survivor.Backends.ReadRecord(0);
            Assert.Equal(("file:1:2", 1L << 20, 5), (record.Identity, record.SizeBytes, record.FlushError));
            BackendClaim<ArrayMemory, SafePolicy>? claim = null;
            survivor.StepUntil(now => survivor.Backends.TakeOver(0, TestRegion.Disk(), false, now, out claim) == StepResult.Done);
            Assert.Equal(5, claim!.Body.FlushError);
        });

    [Fact]
    public void While_it_latches_a_flush_failure_leaves_the_old_value_or_the_new_one()
    {
        int crashAt = 0;
        for (bool crashed = true; crashed; crashAt++)
        {
            var region = new TestRegion();
            TestHost survivor = region.Host("survivor").Register();
            int stores = int.MinValue;
            TestHost victim = region.Host("victim", access =>
            {
                if (access != MemoryAccess.Load && stores++ == crashAt)
                    throw new CrashException();
            }).Register();
            BackendClaim<ArrayMemory, SafePolicy> claim = victim.Backends.Start(TestRegion.Disk());
            stores = 0;
            crashed = false;
            try
            {
                Assert.True(claim.StoreFlushError(5));
            }
            catch (CrashException)
            {
                crashed = true;
            }

            int stored = survivor.Backends.ReadRecord(0).FlushError;
            Assert.True(stored == 5 || (crashed && stored == 0));
        }

        Assert.True(crashAt > 3);
    }

    [Fact]
    public void While_a_backend_grows_leaves_the_old_size_or_the_new_one_for_blkdevs_and_for_the_next_session()
    {
        const long before = 1 << 20, after = 4 << 20;
        int crashAt = 0;
        for (bool crashed = true; crashed; crashAt++)
        {
            var region = new TestRegion();
            TestHost survivor = region.Host("survivor").Register();
            int stores = int.MinValue;
            TestHost victim = region.Host("victim", access =>
            {
                if (access != MemoryAccess.Load && stores++ == crashAt)
                    throw new CrashException();
            }).Register();
            BackendClaim<ArrayMemory, SafePolicy> claim = victim.Backends.Start(TestRegion.Disk(size: before));
            survivor.StartBlkdev(0);
            var watch = new BackendWatch<ArrayMemory, SafePolicy>(survivor.Memory, region.Geometry, 0);
            Assert.True(watch.TryRefresh(out _));
            stores = 0;
            crashed = false;
            try
            {
                Assert.True(claim.Update(body => body with { SizeBytes = after }));
            }
            catch (CrashException)
            {
                crashed = true;
            }

            stores = int.MinValue;
            long noticed = watch.TryRefresh(out BackendSession session) ? session.Info.SizeBytes : before;
            Assert.True(noticed == after || (crashed && noticed == before));
            victim.Kill();
            survivor.ClearDead();
            // Never below what a blkdev may have seen; and the disk has the new size by then, whatever the record says.
            long recorded = survivor.Backends.ReadRecord(0).SizeBytes;
            Assert.True(recorded == after || (crashed && recorded == before));
            Assert.True(recorded >= noticed);
            BackendClaim<ArrayMemory, SafePolicy>? next = null;
            survivor.StepUntil(now => survivor.Backends.TakeOver(0, TestRegion.Disk(size: after), false, now, out next) == StepResult.Done);
            Assert.Equal(recorded, next!.Body.SizeBytes);
        }

        Assert.True(crashAt > 3);
    }

    [Fact]
    public void While_it_starts_or_stops_a_device_leaks_neither_entry_nor_writer_word() => ForEveryCrash(
        (region, survivor) => survivor.Backends.Start(TestRegion.Disk()),
        victim =>
        {
            BlkdevClaim<ArrayMemory, SafePolicy> blkdev = victim.Blkdevs.Claim(0, false);
            Assert.True(ChannelClaims<ArrayMemory, SafePolicy>.TryClaim(victim.Memory, victim.Region.Geometry, victim.Id, out int channel, out ClaimWord word));
            blkdev.Activate([channel], "nbd");
            Assert.True(blkdev.Beat());
            ChannelClaims<ArrayMemory, SafePolicy>.Release(victim.Memory, victim.Region.Geometry, channel, word);
            blkdev.BeginClose();
            blkdev.End();
        },
        (region, survivor) =>
        {
            AssertOnly(region, "host 0", "backend 0");
            Assert.Equal(WriterWord.None, region.Writer(0));
            survivor.StartBlkdev(0);
        });

    [Fact]
    public void While_it_clears_another_leaves_what_the_next_one_finishes() => ForEveryCrash(
        (region, survivor) =>
        {
            survivor.Backends.Start(TestRegion.Disk("survivors"));
            TestHost dead = region.Host("dead").Register();
            dead.Backends.Start(TestRegion.Disk());
            dead.Backends.Start(TestRegion.Disk("unused"));
            survivor.StartBlkdev(1);
            BlkdevClaim<ArrayMemory, SafePolicy> blkdev = dead.StartBlkdev(0), own = dead.StartBlkdev(2);
            region.MakeChannel(0, ClaimState.Detached, dead.Id, blkdev);
            region.MakeChannel(1, ClaimState.Attached, dead.Id, own);
            region.MakeChannel(2, ClaimState.Offered, dead.Id, own);
            dead.Kill();
        },
        victim => victim.ClearDead(),
        (region, _) =>
        {
            AssertOnly(region, "host 0", "backend 0", "backend 1", "blkdev 0");
            Assert.Equal(ClaimState.Orphaned, region.BackendWord(1).State);
            Assert.Equal(WriterWord.None, region.Writer(0));
        });

    [Fact]
    public void While_it_forces_another_into_quarantine_leaves_what_the_next_one_finishes() => ForEveryCrash(
        (region, survivor) =>
        {
            TestHost gone = region.Host(TestRegion.Identity("gone") with { BootId = TestRegion.OtherBootId, HostUuid = Guid.NewGuid() }).Register();
            gone.Backends.Start(TestRegion.Disk());
            BlkdevClaim<ArrayMemory, SafePolicy> blkdev = gone.StartBlkdev(0);
            region.MakeChannel(0, ClaimState.Attached, gone.Id, blkdev);
            region.MakeChannel(1, ClaimState.Offered, gone.Id, blkdev);
        },
        victim => victim.Clear(1, ClearAuthority.Forced),
        (region, survivor) =>
        {
            Assert.Equal(ClearResult.Quarantined, survivor.Clear(1, ClearAuthority.Forced));
            Assert.Equal((1, 1, 1, 2), survivor.Clearing.CountQuarantined());
            Assert.Equal(ClearResult.Cleared, survivor.Clear(1, ClearAuthority.Fenced));
            AssertOnly(region, "host 0");
        });

    [Fact]
    public void While_it_stops_a_backend_by_force_keeps_the_record_for_the_device() => ForEveryCrash(
        (region, survivor) => { },
        victim =>
        {
            BackendClaim<ArrayMemory, SafePolicy> claim = victim.Backends.Start(TestRegion.Disk());
            // The device is the survivor's.
            victim.Region.Started[0].StartBlkdev(0);
            claim.BeginClose(force: true);
            claim.MarkStopped();
            claim.EndClose();
        },
        (region, survivor) =>
        {
            if (region.BackendWord(0).State == ClaimState.Free)
            {
                AssertOnly(region, "host 0");
                return;
            }

            AssertOnly(region, "host 0", "backend 0", "blkdev 0");
            Assert.Equal(ClaimState.Orphaned, region.BackendWord(0).State);
            // Stopped or died: the record is whole, and the next session serves.
            Assert.Equal("file:1:2", survivor.Backends.ReadRecord(0).Identity);
            BackendClaim<ArrayMemory, SafePolicy>? next = null;
            survivor.StepUntil(now => survivor.Backends.TakeOver(0, TestRegion.Disk(), false, now, out next) == StepResult.Done);
            Assert.False(next!.Body.IsStopped);
        });

    [Fact]
    public void While_it_ends_its_own_quarantine_leaves_what_an_operator_finishes()
    {
        for (int crashAt = 0; ; crashAt++)
        {
            var region = new TestRegion();
            TestHost survivor = region.Host("survivor").Register();
            int stores = int.MinValue;
            TestHost late = region.ForeignHost("late", access =>
            {
                if (access != MemoryAccess.Load && stores++ == crashAt)
                    throw new CrashException();
            }).Register();
            late.Backends.Start(TestRegion.Disk());
            BlkdevClaim<ArrayMemory, SafePolicy> blkdev = late.StartBlkdev(0);
            region.MakeChannel(0, ClaimState.Claimed, late.Id, blkdev);
            Assert.Equal(ClearResult.Quarantined, survivor.Clear(late.Id, ClearAuthority.Forced));
            stores = 0;
            bool crashed = false;
            try
            {
                late.Leave();
            }
            catch (CrashException)
            {
                crashed = true;
            }

            stores = int.MinValue;
            Assert.Equal(ClearResult.Cleared, survivor.Clear(1, ClearAuthority.Fenced));
            AssertOnly(region, "host 0");
            if (!crashed)
            {
                Assert.True(crashAt > 3, $"only {crashAt} stores to crash at");
                return;
            }
        }
    }

    [Fact]
    public void While_it_leaves_is_cleared_like_any_other() => ForEveryCrash(
        (_, _) => { },
        victim =>
        {
            victim.Backends.Start(TestRegion.Disk());
            victim.StartBlkdev(0);
            victim.Leave();
        },
        (region, _) => AssertOnly(region, "host 0"));
}
