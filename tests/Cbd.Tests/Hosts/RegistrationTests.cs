using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Hosts;

public sealed class Registering_a_host
{
    private static string Refusal(Action act) => Assert.Throws<CbdException>(act).Message;

    [Fact]
    public void Takes_the_first_free_entry_and_its_lock()
    {
        var region = new TestRegion();
        TestHost a = region.Host("a").Register(), b = region.Host("b").Register();
        Assert.Equal((0, 1), (a.Id, b.Id));
        Assert.Equal(new ClaimWord(ClaimState.Active, 1, 1), region.HostWord(1));
        Assert.True(region.Locks.IsHeld(0) && region.Locks.IsHeld(1));
        b.Tracker.Sample(0);
        Assert.Equal(["a", "b"], b.Tracker.List().Select(host => host.Name));
        Assert.All(b.Tracker.List(), host => Assert.Equal(Liveness.Alive, host.Liveness));
    }

    [Theory]
    [InlineData("")]
    [InlineData("a/b")]
    [InlineData("a b")]
    [InlineData("a\nb")]
    [InlineData("0123456789012345678901234567890123456789012345678901234567890123")]
    public void Refuses_a_name_that_cannot_be(string name)
    {
        var region = new TestRegion();
        string message = Refusal(() => region.Host(name));
        Assert.Contains("host name", message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', message);
        Assert.All(region.AllWords(), entry => Assert.Equal(ClaimState.Free, entry.Word.State));
    }

    // Not a theory's data: it would not survive being written down as one.
    [Fact]
    public void Refuses_a_name_that_is_not_text() => Refuses_a_name_that_cannot_be("a" + (char)0xD800);

    [Fact]
    public void Refuses_the_name_of_a_live_host_and_gives_its_entry_back()
    {
        var region = new TestRegion();
        region.Host("a").Register();
        Assert.Contains("host 0 (pid 4711 there) is alive", Refusal(() => region.Host("a").Register()), StringComparison.Ordinal);
        Assert.Equal(ClaimState.Free, region.HostWord(1).State);
        Assert.False(region.Locks.IsHeld(1));
    }

    [Fact]
    public void Takes_over_the_name_of_a_host_that_was_killed()
    {
        var region = new TestRegion();
        region.Host("a").Register().Kill();
        TestHost again = region.Host("a").Register();
        Assert.Equal(1, again.Id);
        again.ClearDead();
        Assert.Equal(ClaimState.Free, region.HostWord(0).State);
    }

    [Fact]
    public void Waits_a_dead_time_for_its_own_name_after_a_reboot()
    {
        var region = new TestRegion();
        region.Host(TestRegion.Identity("a") with { BootId = TestRegion.OtherBootId }).Register();
        TestHost again = region.Host("a").Register();
        Assert.InRange(again.NowMs, HostIdentity.DefaultDeadMs, 2 * HostIdentity.DefaultDeadMs);
    }

    /// <summary>Two machines with one state directory: what stands still under the own uuid would count as dead.</summary>
    [Fact]
    public void Refuses_its_own_uuid_while_it_beats_on_another_machine()
    {
        var region = new TestRegion();
        TestHost twin = region.Host(TestRegion.Identity("a") with { BootId = TestRegion.OtherBootId }).Register();
        TestHost second = region.Host("b");
        string refused = "";
        for (int beat = 0; refused.Length == 0 && beat < 100; beat++)
        {
            Assert.True(twin.Claim.Beat());
            try
            {
                Assert.Equal(StepResult.Again, second.Registration.Step(second.NowMs += HostIdentity.DefaultBeatMs));
            }
            catch (CbdException e)
            {
                refused = e.Message;
            }
        }

        Assert.Equal($"host uuid {TestRegion.OwnUuid} is in use: host 0 ('a') beats with it on another machine, so the state directory of one is a copy of the other's: remove 'host-uuid' from this one's, if this is the copy, and start cbdd again", refused);
        Assert.Equal(ClaimState.Free, region.HostWord(1).State);
        Assert.Equal(ClaimState.Active, region.HostWord(0).State);
    }

    [Fact]
    public void Of_two_that_register_with_one_uuid_on_two_machines_one_becomes_active()
    {
        var region = new TestRegion();
        TestHost a = region.Host("a"), b = region.Host(TestRegion.Identity("b") with { BootId = TestRegion.OtherBootId });
        int refused = 0;
        bool isDone = false;
        for (int step = 0; step < 200 && !(isDone && refused == 1); step++)
        {
            foreach (TestHost host in (TestHost[])[a, b])
            {
                try
                {
                    if (host.Registration.Claim is { } claim)
                        Assert.True(claim.Beat());
                    else
                        isDone |= host.Registration.Step(host.NowMs += HostIdentity.DefaultBeatMs / 2) == StepResult.Done;
                }
                catch (CbdException e)
                {
                    Assert.Contains("host uuid", e.Message, StringComparison.Ordinal);
                    refused++;
                }
            }
        }

        Assert.True(isDone);
        Assert.InRange(refused, 1, 200);
        Assert.Single((ClaimState[])[region.HostWord(0).State, region.HostWord(1).State], ClaimState.Active);
    }

    [Theory]
    [InlineData("same")]
    [InlineData("another")]
    public void Clears_its_own_life_that_lost_its_power_while_it_registered(string name)
    {
        var region = new TestRegion();
        // It has the first entry, and stands between its name and the look at the others.
        TestHost before = region.Host(TestRegion.Identity("same") with { BootId = TestRegion.OtherBootId }, access =>
        {
            if (region.HostWord(0).State == ClaimState.Registering)
                throw new PowerLossException();
        });
        Assert.Throws<PowerLossException>(() => before.Registration.Step(1));
        Assert.Equal(ClaimState.Registering, region.HostWord(0).State);
        TestHost again = region.Host(name).Register();
        Assert.Equal(1, again.Id);
        Assert.InRange(again.NowMs, HostIdentity.DefaultDeadMs, 3 * HostIdentity.DefaultDeadMs);
    }

    private sealed class PowerLossException : Exception;

    [Fact]
    public void Waits_a_dead_time_for_its_own_uuid_after_a_reboot_under_another_name()
    {
        var region = new TestRegion();
        region.Host(TestRegion.Identity("before") with { BootId = TestRegion.OtherBootId }).Register();
        TestHost again = region.Host("after").Register();
        Assert.InRange(again.NowMs, HostIdentity.DefaultDeadMs, 2 * HostIdentity.DefaultDeadMs);
    }

    [Fact]
    public void Refuses_a_name_whose_host_is_not_proven_dead()
    {
        var region = new TestRegion();
        region.Host(TestRegion.Identity("a") with { BootId = TestRegion.OtherBootId, HostUuid = Guid.NewGuid() }).Register();
        Assert.Contains("nothing proves that host 0 is dead", Refusal(() => region.Host("a").Register()), StringComparison.Ordinal);
    }

    [Fact]
    public void Of_two_that_register_one_name_the_higher_id_withdraws()
    {
        var region = new TestRegion();
        TestHost low = region.Host("a");
        TestHost? high = null;
        string? refused = null;
        // Both are registering when either looks at the other's name.
        int accesses = 0;
        low = region.Host("a", _ =>
        {
            if (region.HostWord(0).State == ClaimState.Registering && accesses++ == 0)
            {
                high = region.Host("a");
                refused = Refusal(() => high.Register());
            }
        });
        low.Register();
        Assert.Contains("is being registered as host 0", refused, StringComparison.Ordinal);
        Assert.Equal(ClaimState.Free, region.HostWord(1).State);
        Assert.True(low.Claim.IsMine());
    }

    [Fact]
    public void Stores_nothing_into_an_entry_that_became_anothers_while_it_stood_still()
    {
        var region = new TestRegion();
        region.Host("a").Register();
        // It waits for the other 'a' to be settled.
        TestHost slow = region.ForeignHost("a");
        Assert.Equal(StepResult.Again, slow.Registration.Step(0));
        Assert.Equal(ClaimState.Registering, region.HostWord(1).State);
        region.Store(region.Geometry.HostOffset(1), region.HostWord(1).Freed());
        Assert.Equal(1, region.Host("b").Register().Id);
        byte[] before = new byte[region.Geometry.BytesPerHost], after = new byte[region.Geometry.BytesPerHost];
        region.Memory.Read(region.Geometry.HostOffset(1), before);
        Assert.Contains("lost its entry", Assert.Throws<CbdException>(() => slow.Registration.Step(HostIdentity.DefaultBeatMs)).Message, StringComparison.Ordinal);
        region.Memory.Read(region.Geometry.HostOffset(1), after);
        Assert.Equal(before, after);
    }

    [Fact]
    public void Waits_for_a_higher_one_to_withdraw()
    {
        var region = new TestRegion();
        region.Host("b").Register();
        TestHost? high = null;
        int accesses = 0;
        high = region.Host("a", _ =>
        {
            if (region.HostWord(1).State == ClaimState.Registering && accesses++ == 0)
            {
                // Host 0 leaves, and its entry is claimed under the same name: that one has the lower id, and waits.
                TestHost other = region.Host("a");
                region.Store(region.Geometry.HostOffset(0), region.HostWord(0).Freed());
                region.Locks.Unlock(0, region.Locks.HolderOf(0));
                Assert.Equal(StepResult.Again, other.Registration.Step(0));
                Assert.Null(other.Registration.Claim);
                other.Registration.Cancel();
            }
        });
        high.Register();
        Assert.Equal(1, high.Id);
    }

    [Fact]
    public void Says_when_all_entries_are_taken()
    {
        var region = new TestRegion(hosts: 2);
        region.Host("a").Register();
        region.Host("b").Register();
        string message = Refusal(() => region.Host("c").Register());
        Assert.Contains("all 2 are taken", message, StringComparison.Ordinal);
        Assert.Contains("--hosts", message, StringComparison.Ordinal);
    }

    [Fact]
    public void Clears_a_dead_host_when_all_entries_are_taken()
    {
        var region = new TestRegion(hosts: 2);
        region.Host("a").Register().Kill();
        region.Host("b").Register();
        Assert.Equal(0, region.Host("c").Register().Id);
    }

    [Fact]
    public void Never_uses_an_epoch_twice()
    {
        var region = new TestRegion();
        for (ulong round = 1; round <= 3; round++)
        {
            TestHost host = region.Host("a").Register();
            Assert.Equal(round, host.Claim.Epoch);
            host.Leave();
            Assert.Equal(new ClaimWord(ClaimState.Free, 0, round), region.HostWord(0));
            Assert.False(region.Locks.IsHeld(0));
        }

        region.Store(region.Geometry.HostOffset(0), new ClaimWord(ClaimState.Free, 0, ClaimWord.MaxEpoch));
        Assert.Equal(1, region.Host("a").Register().Id);
    }

    [Fact]
    public void Notices_that_it_was_cleared()
    {
        var region = new TestRegion();
        TestHost a = region.Host("a").Register(), b = region.Host("b").Register();
        Assert.True(a.Claim.Beat());
        a.Kill();
        b.ClearDead();
        Assert.False(a.Claim.Beat());
        Assert.False(a.Claim.IsMine());
        // A successor in the entry is not taken for ours either.
        region.Host("c").Register();
        byte[] before = region.Memory.Bytes.ToArray();
        Assert.False(a.Claim.Beat());
        Assert.Equal(before, region.Memory.Bytes.ToArray());
    }

    [Fact]
    public void Tells_others_when_something_changed()
    {
        var region = new TestRegion();
        TestHost a = region.Host("a").Register();
        long counter = region.Geometry.HostOffset(a.Id) + HostEntry.ChangeCounterOffset;
        ulong before = region.Memory.ReadAcquire(counter);
        a.Claim.AnnounceChange();
        Assert.NotEqual(before, region.Memory.ReadAcquire(counter));
    }

    [Fact]
    public void A_damaged_body_is_named_after_a_dead_time()
    {
        var region = new TestRegion();
        TestHost a = region.Host("a").Register();
        region.Memory.Bytes.Slice((int)region.Geometry.HostOffset(a.Id) + HostEntry.BodyOffset, 2 * BodyFrame.SizeBytes).Fill(0xFF);
        Assert.Contains("host entry 0: its body cannot be read", Refusal(() => region.Host("b").Register()), StringComparison.Ordinal);
        // The next beat heals it.
        Assert.True(a.Claim.Beat());
        region.Host("b").Register();
    }
}

public sealed class Judging_who_lives
{
    private static HostIdentity Foreign(string name) => TestRegion.Identity(name) with { BootId = TestRegion.OtherBootId, HostUuid = Guid.NewGuid() };

    private static (TestHost Observer, TestHost Other) Pair(HostIdentity other)
    {
        var region = new TestRegion();
        TestHost observed = region.Host(other).Register();
        return (region.Host("me").Register(), observed);
    }

    /// <summary>An earlier life of the observer, which only looks: it does not register while that life may be one.</summary>
    private static (TestHost Observer, TestHost Other) Lives()
    {
        var region = new TestRegion();
        return (region.Host("me"), region.Host(TestRegion.Identity("a") with { BootId = TestRegion.OtherBootId }).Register());
    }

    private static Liveness Watch(TestHost observer, TestHost other, int beats, bool beating, int gapMs = 1000)
    {
        for (int beat = 0; beat < beats; beat++)
        {
            if (beating)
                Assert.True(other.Claim.Beat());
            observer.NowMs += gapMs;
            observer.Tracker.Sample(observer.NowMs);
        }

        return observer.Tracker.Get(other.Id).Liveness;
    }

    [Fact]
    public void The_lock_decides_at_once_on_one_kernel()
    {
        (TestHost observer, TestHost other) = Pair(TestRegion.Identity("a"));
        Assert.Equal(Liveness.Alive, Watch(observer, other, 1, beating: false));
        Assert.Equal(Liveness.Alive, Watch(observer, other, 100, beating: false));
        other.Kill();
        Assert.Equal(Liveness.Dead, Watch(observer, other, 1, beating: false));
    }

    [Fact]
    public void A_foreign_host_is_alive_while_its_heart_beats_and_unknown_when_it_stands_still()
    {
        (TestHost observer, TestHost other) = Pair(Foreign("a"));
        Assert.Equal(Liveness.Alive, Watch(observer, other, 30, beating: true));
        Assert.Equal(Liveness.Alive, Watch(observer, other, 9, beating: false));
        Assert.Equal(Liveness.Unknown, Watch(observer, other, 2, beating: false));
        Assert.True(observer.Tracker.Get(other.Id).Settled);
        Assert.Equal(Liveness.Alive, Watch(observer, other, 1, beating: true));
    }

    [Fact]
    public void Only_a_claim_that_stood_still_and_is_not_proven_dead_is_silent()
    {
        (TestHost observer, TestHost other) = Pair(Foreign("a"));
        ulong epoch = other.Claim.Epoch;
        Assert.False(observer.Tracker.IsSilent(other.Id, epoch), "not looked at for long enough");
        Watch(observer, other, 3, beating: true);
        Assert.False(observer.Tracker.IsSilent(other.Id, epoch));
        Watch(observer, other, 11, beating: false);
        Assert.True(observer.Tracker.IsSilent(other.Id, epoch));
        Assert.False(observer.Tracker.IsSilent(other.Id, epoch + 1), "another claim");
        Assert.False(observer.Tracker.IsSilent(other.Id, epoch - 1), "a claim that is over");
        // Ids come from the region.
        Assert.False(observer.Tracker.IsSilent(ushort.MaxValue, epoch));
        Assert.False(observer.Tracker.IsSilent(-1, epoch));
        (observer, other) = Lives();
        Watch(observer, other, 11, beating: false);
        Assert.False(observer.Tracker.IsSilent(other.Id, other.Claim.Epoch), "proven dead");
    }

    [Fact]
    public void Our_own_uuid_under_another_boot_is_dead_after_a_dead_time()
    {
        (TestHost observer, TestHost other) = Lives();
        Assert.NotEqual(Liveness.Dead, Watch(observer, other, 9, beating: false));
        Assert.Equal(Liveness.Dead, Watch(observer, other, 2, beating: false));
    }

    [Fact]
    public void A_clone_with_our_uuid_that_beats_is_alive()
    {
        (TestHost observer, TestHost other) = Lives();
        Assert.Equal(Liveness.Alive, Watch(observer, other, 30, beating: true));
    }

    [Fact]
    public void One_kernel_but_another_file_proves_nothing()
    {
        (TestHost observer, TestHost other) = Pair(TestRegion.Identity("a") with { Inode = 78 });
        other.Kill();
        Assert.Equal(Liveness.Unknown, Watch(observer, other, 30, beating: false));
    }

    [Fact]
    public void An_observer_that_slept_accuses_nobody()
    {
        (TestHost observer, TestHost other) = Lives();
        Watch(observer, other, 3, beating: true);
        Assert.Equal(Liveness.Alive, Watch(observer, other, 50, beating: false, gapMs: 60_000));
        Assert.Equal(Liveness.Dead, Watch(observer, other, 10, beating: false, gapMs: 1000));
    }

    [Fact]
    public void A_heartbeat_never_seems_to_go_back()
    {
        (TestHost observer, TestHost other) = Pair(Foreign("a"));
        Watch(observer, other, 5, beating: true);
        // Damage the newest copy: the older one is valid, but it is not news.
        BodyPlace place = BodyPlace.OfHost(other.Region.Geometry, other.Id);
        Span<byte> frame = stackalloc byte[BodyFrame.SizeBytes];
        Assert.True(Body<Cbd.Simulation.ArrayMemory>.TryRead(other.Region.Memory, place, other.Claim.Epoch, frame, out BodyStamp newest, out _));
        other.Region.Memory.Bytes[(int)place.CopyOffset(newest.Copy)] ^= 1;
        Assert.Equal(Liveness.Unknown, Watch(observer, other, 11, beating: false));
    }
}
