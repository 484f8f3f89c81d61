using Cbd.Protocol.Backends;
using Cbd.Protocol.Blkdevs;
using Cbd.Blocks;
using Cbd.Protocol.Channels;
using Cbd.Disks;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;
using Cbd.Simulation;
using Cbd.Tests.Transports;
using Xunit;

namespace Cbd.Tests.Hosts;

public sealed class Clearing_a_host
{
    private readonly TestRegion _region = new();

    private static HostIdentity Foreign(string name) => TestRegion.Identity(name) with { BootId = TestRegion.OtherBootId, HostUuid = Guid.NewGuid() };

    private void AssertAllFreeBut(params string[] names) =>
        Assert.Equal(names, _region.AllWords().Where(entry => entry.Word.State != ClaimState.Free).Select(entry => entry.Name));

    /// <summary>
    /// An offered channel of a dead host, with a ctrl line as it may lie there. Where the backend's session may have served an epoch
    /// before, its handler may still store into the channel.
    /// </summary>
    /// <param name="lineEpochsBack">How many epochs before the word's the line is from; -1 without a line.</param>
    /// <param name="attachedSession">Of the line: 0 never attached, 1 to the session that is offered to, 2 to an earlier one.</param>
    /// <param name="blkdevEpochOff">What the line's epoch of the blkdev is more than the claim's.</param>
    /// <param name="blkdev">The blkdev in the line.</param>
    /// <param name="epoch">Of the word.</param>
    /// <param name="becomes">Closing: the handler is waited for. Quarantined: nothing says which session to ask.</param>
    [Theory]
    [InlineData(0, 0, 0, 0, 3, "Free")]
    [InlineData(0, 1, 0, 0, 3, "Closing")]
    [InlineData(0, 2, 0, 0, 3, "Free")]
    [InlineData(0, 0, 0, 0, 1, "Free")]
    [InlineData(1, 0, 0, 0, 3, "Closing")]
    [InlineData(1, 1, 0, 0, 3, "Closing")]
    [InlineData(1, 1, 1, 0, 3, "Free")]
    [InlineData(1, 1, 0, 1, 3, "Free")]
    [InlineData(1, 1, 0, 65535, 3, "Free")]
    [InlineData(2, 0, 0, 0, 3, "Quarantined")]
    [InlineData(-1, 0, 0, 0, 3, "Quarantined")]
    [InlineData(-1, 0, 0, 0, 1, "Free")]
    public void Drains_an_offered_channel_that_may_have_been_served(
        int lineEpochsBack, int attachedSession, int blkdevEpochOff, int blkdev, int epoch, string becomes)
    {
        TestHost survivor = _region.Host("survivor").Register();
        survivor.Backends.Start(TestRegion.Disk());
        TestHost dead = _region.Host("dead").Register();
        BlkdevClaim<ArrayMemory, SafePolicy> claim = dead.StartBlkdev(0);
        if (lineEpochsBack >= 0)
        {
            ulong session = claim.Session.Epoch;
            ulong attached = attachedSession switch { 0 => 0, 1 => session, _ => session + 1 };
            new BlkdevCtrlLine((ulong)(epoch - lineEpochsBack), 0, blkdev, 2, 0, session, claim.Epoch + (ulong)blkdevEpochOff, 0, 0, attached)
                .Store(_region.Memory, _region.Geometry, 0);
        }

        _region.Store(_region.Geometry.ChannelOffset(0), new ClaimWord(ClaimState.Offered, dead.Id, (ulong)epoch));
        dead.Kill();
        ClearResult result = survivor.Clearing.Step(dead.Id, ClearAuthority.Proof, survivor.NowMs);
        Assert.Equal(becomes, _region.ChannelWord(0).State.ToString());
        Assert.Equal(becomes == "Closing" ? ClearResult.Again : ClearResult.Cleared, result);
    }

    [Fact]
    public void Frees_all_that_a_killed_host_had()
    {
        TestHost a = _region.Host("a").Register(), b = _region.Host("b").Register();
        a.Backends.Start(TestRegion.Disk());
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = a.StartBlkdev(0);
        _region.MakeChannel(0, ClaimState.Claimed, a.Id, blkdev);
        _region.MakeChannel(1, ClaimState.Offered, a.Id, blkdev);
        _region.MakeChannel(2, ClaimState.Attached, a.Id, blkdev);
        _region.MakeChannel(3, ClaimState.Detached, a.Id, blkdev);
        a.Kill();
        b.ClearDead();
        AssertAllFreeBut("host 1");
        Assert.Equal(WriterWord.None, _region.Writer(0));
        Assert.Equal((0, 0, 0, 0), b.Clearing.CountQuarantined());
    }

    [Fact]
    public void Is_not_allowed_while_it_lives_whoever_vouches()
    {
        TestHost a = _region.Host("a").Register(), b = _region.Host("b").Register();
        foreach (ClearAuthority authority in new[] { ClearAuthority.Proof, ClearAuthority.Forced, ClearAuthority.Fenced })
            Assert.Equal(ClearResult.NotAllowed, b.Clear(a.Id, authority));
        Assert.True(a.Claim.IsMine());
    }

    [Fact]
    public void Waits_for_a_live_handler_to_drain()
    {
        TestHost a = _region.Host("a").Register(), b = _region.Host("b").Register();
        b.Backends.Start(TestRegion.Disk());
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = a.StartBlkdev(0);
        ClaimWord attached = _region.MakeChannel(0, ClaimState.Attached, a.Id, blkdev);
        a.Kill();
        for (int turn = 0; turn < 50; turn++)
            Assert.Equal(ClearResult.Again, b.Clearing.Step(a.Id, ClearAuthority.Proof, turn * 1000));
        Assert.Equal(attached.With(ClaimState.Closing), _region.ChannelWord(0));
        Assert.Equal(new WriterWord(blkdev.Blkdev, blkdev.Epoch), _region.Writer(0));
        _region.Store(_region.Geometry.ChannelOffset(0), attached.With(ClaimState.Detached));
        Assert.Equal(ClearResult.Cleared, b.Clearing.Step(a.Id, ClearAuthority.Proof, 51_000));
        AssertAllFreeBut("host 1", "backend 0");
        Assert.Equal(WriterWord.None, _region.Writer(0));
    }

    [Fact]
    public void Quarantines_what_a_handler_of_unknown_life_may_still_store_to()
    {
        TestHost a = _region.Host("a").Register(), b = _region.Host("b").Register(), c = _region.Host(Foreign("c")).Register();
        c.Backends.Start(TestRegion.Disk());
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = a.StartBlkdev(0);
        _region.MakeChannel(0, ClaimState.Attached, a.Id, blkdev);
        _region.MakeChannel(1, ClaimState.Claimed, a.Id, blkdev);
        a.Kill();
        b.ClearDead();
        Assert.Equal(ClaimState.Quarantined, _region.ChannelWord(0).State);
        Assert.Equal(ClaimState.Free, _region.ChannelWord(1).State);
        Assert.Equal(ClaimState.Quarantined, _region.BlkdevWord(0).State);
        Assert.Equal(new WriterWord(blkdev.Blkdev, blkdev.Epoch), _region.Writer(0));
        Assert.Equal(ClaimState.Free, _region.HostWord(a.Id).State);
        Assert.Equal((0, 0, 1, 1), b.Clearing.CountQuarantined());

        // An operator vouches for the other machine: now there is proof enough for all of it.
        Assert.Equal(ClearResult.Cleared, b.Clear(c.Id, ClearAuthority.Fenced));
        b.Clearing.Sweep(b.NowMs);
        AssertAllFreeBut("host 1");
        Assert.Equal(WriterWord.None, _region.Writer(0));
    }

    [Fact]
    public void Quarantines_all_when_forced_without_proof_and_frees_it_when_somebody_vouches()
    {
        TestHost a = _region.Host(Foreign("a")).Register(), b = _region.Host("b").Register();
        a.Backends.Start(TestRegion.Disk());
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = a.StartBlkdev(0);
        _region.MakeChannel(0, ClaimState.Attached, a.Id, blkdev);
        _region.MakeChannel(1, ClaimState.Offered, a.Id, blkdev);
        Assert.Equal(ClearResult.NotAllowed, b.Clear(a.Id, ClearAuthority.Proof));
        Assert.Equal(ClearResult.Quarantined, b.Clear(a.Id, ClearAuthority.Forced));
        Assert.Equal((1, 1, 1, 2), b.Clearing.CountQuarantined());
        Assert.False(a.Claim.Beat());
        // Nobody gets any of it, and forcing again or sweeping does not help.
        b.Clearing.Sweep(b.NowMs);
        Assert.Equal(ClearResult.Quarantined, b.Clear(a.Id, ClearAuthority.Forced));
        Assert.Equal((1, 1, 1, 2), b.Clearing.CountQuarantined());
        Assert.Equal(1, b.Backends.Start(TestRegion.Disk("other")).Backend);
        Assert.Equal(ClearResult.Cleared, b.Clear(a.Id, ClearAuthority.Fenced));
        Assert.Equal((0, 0, 0, 0), b.Clearing.CountQuarantined());
        AssertAllFreeBut("host 1", "backend 1");
    }

    [Fact]
    public void Frees_a_quarantined_host_when_proof_comes_later()
    {
        TestHost a = _region.Host(TestRegion.Identity("a") with { Inode = 78 }).Register(), b = _region.Host("b").Register();
        a.Backends.Start(TestRegion.Disk());
        Assert.Equal(ClearResult.Quarantined, b.Clear(a.Id, ClearAuthority.Forced));
        a.Kill();
        // This one sees the file under the same inode, so the lock tells it.
        var locks = new InodeLocks(_region.Locks);
        HostIdentity identity = TestRegion.Identity("c") with { Inode = 78 };
        var tracker = new LivenessTracker<ArrayMemory, SafePolicy>(_region.Memory, _region.Geometry, identity, locks);
        var clearing = new Clearing<ArrayMemory, SafePolicy>(_region.Memory, _region.Geometry, tracker);
        Assert.True(clearing.ClearDeadHosts(0));
        AssertAllFreeBut("host 1");
    }

    [Fact]
    public void Keeps_the_record_of_a_backend_that_others_use()
    {
        TestHost a = _region.Host("a").Register(), b = _region.Host("b").Register();
        a.Backends.Start(TestRegion.Disk());
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = b.StartBlkdev(0);
        a.Kill();
        b.ClearDead();
        Assert.Equal(new ClaimWord(ClaimState.Orphaned, 0, 1), _region.BackendWord(0));
        Assert.Equal([0], b.Backends.List().Single().Blkdevs);
        Assert.Equal("file:1:2", b.Backends.ReadRecord(0).Identity);
        blkdev.End();
        AssertAllFreeBut("host 1");
    }

    [Fact]
    public void Leaves_what_a_successor_claimed_alone()
    {
        TestHost a = _region.Host("a").Register(), b = _region.Host("b").Register();
        a.Backends.Start(TestRegion.Disk());
        a.Kill();
        bool done = false;
        // A clearer that stands still before its swap, while another clears everything and a successor comes.
        TestHost slow = _region.Host("slow", access =>
        {
            if (access == MemoryAccess.Swap && !done && _region.HostWord(0).State == ClaimState.Clearing)
            {
                done = true;
                b.ClearDead();
                TestHost successor = _region.Host("successor").Register();
                Assert.Equal(0, successor.Id);
                Assert.Equal(0, successor.Backends.Start(TestRegion.Disk("its own")).Backend);
            }
        });
        slow.Clearing.Step(0, ClearAuthority.Proof, 0);
        Assert.True(done);
        Assert.Equal(new ClaimWord(ClaimState.Active, 0, 2), _region.HostWord(0));
        Assert.Equal(new ClaimWord(ClaimState.Active, 0, 2), _region.BackendWord(0));
    }

    [Fact]
    public void Frees_claims_that_stand_still_in_claiming_for_a_dead_time()
    {
        TestHost b = _region.Host("b").Register();
        _region.Store(_region.Geometry.HostOffset(2), new ClaimWord(ClaimState.Claiming, 2, 5));
        _region.Store(_region.Geometry.BackendOffset(1), new ClaimWord(ClaimState.Claiming, 3, 5));
        _region.Store(_region.Geometry.BlkdevOffset(1), new ClaimWord(ClaimState.Claiming, 3, 5));
        for (int beat = 0; beat <= 9; beat++)
        {
            b.Clearing.ClearDeadHosts(beat * 1000);
            b.Clearing.Sweep(beat * 1000);
        }

        AssertAllFreeBut("host 0", "host 2", "backend 1", "blkdev 1");
        for (int beat = 10; beat <= 12; beat++)
        {
            b.Clearing.ClearDeadHosts(beat * 1000);
            b.Clearing.Sweep(beat * 1000);
        }

        AssertAllFreeBut("host 0");
        Assert.Equal(5UL, _region.BackendWord(1).Epoch);
    }

    /// <summary>A machine that is suspended there goes on with the rest of the body, whatever became of the entry.</summary>
    [Theory]
    [InlineData(false, false)]
    [InlineData(false, true)]
    [InlineData(true, false)]
    [InlineData(true, true)]
    public void Keeps_an_entry_whose_claimer_may_stand_still_in_the_middle_of_its_body(bool isBlkdev, bool forced)
    {
        TestHost b = _region.Host("b").Register();
        b.Backends.Start(TestRegion.Disk("shared", readOnly: true));
        TestHost? slow = null;
        bool isAsleep = false;
        long entry = isBlkdev ? _region.Geometry.BlkdevOffset(0) : _region.Geometry.BackendOffset(1);
        slow = _region.ForeignHost("slow", access =>
        {
            if (access != MemoryAccess.Store || isAsleep || _region.Word(entry).State != ClaimState.Claiming)
                return;
            isAsleep = true;
            for (int beat = 0; beat < 30; beat++)
            {
                b.Clearing.ClearDeadHosts(b.NowMs += HostIdentity.DefaultBeatMs);
                b.Clearing.Sweep(b.NowMs);
            }

            if (forced)
                Assert.Equal(ClearResult.Quarantined, b.Clear(slow!.Id, ClearAuthority.Forced));
            if (isBlkdev)
                b.StartBlkdev(0, readOnly: true);
            else
                b.Backends.Start(TestRegion.Disk("own"));
        }).Register();
        Exception? refused = Record.Exception(() =>
        {
            if (isBlkdev)
                slow.StartBlkdev(0, readOnly: true);
            else
                slow.Backends.Start(TestRegion.Disk("other"));
        });

        Assert.True(isAsleep);
        Assert.Equal(forced, refused is CbdException);
        int count = 0;
        for (int i = 0; i < 3; i++)
        {
            ClaimWord word = isBlkdev ? _region.BlkdevWord(i) : _region.BackendWord(i);
            if (word.State != ClaimState.Active)
                continue;
            count++;
            bool isWhole = isBlkdev
                ? EntryBodies<ArrayMemory>.TryReadBlkdev(_region.Memory, _region.Geometry, i, word.Epoch, out _, out string error)
                : EntryBodies<ArrayMemory>.TryReadBackend(_region.Memory, _region.Geometry, i, word.Epoch, out _, out error);
            Assert.True(isWhole, error);
        }

        Assert.Equal((isBlkdev ? 1 : 2) + (forced ? 0 : 1), count);
        // With proof it is all given back.
        Assert.Equal(ClearResult.Cleared, b.Clear(slow.Id, ClearAuthority.Fenced));
        b.ClearDead();
        AssertAllFreeBut(isBlkdev ? ["host 0", "backend 0", "blkdev 1"] : ["host 0", "backend 0", "backend 2"]);
    }

    /// <summary>Nothing but that it stands still proves the death of one that another machine had, and CLEARING does not show that.</summary>
    [Fact]
    public void Of_a_host_that_died_while_it_registered_goes_on_after_a_clearer_that_died()
    {
        TestHost b = _region.Host("b").Register();
        TestHost dead = _region.ForeignHost("dead", _ =>
        {
            if (_region.HostWord(1).State == ClaimState.Registering)
                throw new CrashException();
        });
        Assert.Throws<CrashException>(dead.Register);
        int swaps = 0;
        TestHost dying = _region.Host("dying", access =>
        {
            if (access == MemoryAccess.Swap && swaps++ == 1)
                throw new CrashException();
        });
        Record.Exception(() => Watch(dying));
        Assert.NotEqual(ClaimState.Registering, _region.HostWord(1).State);
        Watch(b);
        AssertAllFreeBut("host 0");

        static void Watch(TestHost host)
        {
            for (int beat = 0; beat < 30; beat++)
                host.Clearing.ClearDeadHosts(host.NowMs += HostIdentity.DefaultBeatMs);
        }
    }

    [Fact]
    public void Gives_a_quarantined_device_back_when_an_operator_says_so()
    {
        TestHost a = _region.Host("a").Register(), b = _region.Host("b").Register(), c = _region.Host(Foreign("c")).Register();
        c.Backends.Start(TestRegion.Disk());
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = a.StartBlkdev(0);
        _region.MakeChannel(0, ClaimState.Attached, a.Id, blkdev);
        a.Kill();
        b.ClearDead();
        Assert.Equal(StepResult.Done, b.Clearing.ReleaseBlkdev(1, _region.BlkdevWord(1), b.NowMs));
        Assert.Equal(ClaimState.Quarantined, _region.BlkdevWord(0).State);
        Assert.Equal(StepResult.Done, b.Clearing.ReleaseBlkdev(0, _region.BlkdevWord(0), b.NowMs));
        AssertAllFreeBut("host 1", "host 2", "backend 0");
        Assert.Equal(WriterWord.None, _region.Writer(0));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Nobody_can_vouch_for_a_handler_that_lives_but_it_can_itself(bool device)
    {
        TestHost a = _region.Host(Foreign("a")).Register(), b = _region.Host("b").Register();
        b.Backends.Start(TestRegion.Disk());
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = a.StartBlkdev(0);
        // As clearing leaves it while the backend's host stands still: nothing says that its handler is done.
        ClaimWord quarantined = _region.MakeChannel(0, ClaimState.Quarantined, a.Id, blkdev);
        _region.Store(_region.Geometry.BlkdevOffset(0), _region.BlkdevWord(0).With(ClaimState.Quarantined));
        if (device)
            Assert.Equal(StepResult.Again, b.Clearing.ReleaseBlkdev(0, _region.BlkdevWord(0), b.NowMs));
        else
            Assert.Equal(ClearResult.Cleared, b.Clear(a.Id, ClearAuthority.Fenced));
        b.Clearing.Sweep(b.NowMs);
        Assert.Equal(quarantined, _region.ChannelWord(0));
        Assert.Equal(new WriterWord(blkdev.Blkdev, blkdev.Epoch), _region.Writer(0));

        using Disk disk = Disk.Open(new DiskOptions { Path = "memory:1M" });
        using var buffers = new NativeBuffer(_region.Geometry.BytesPerChannel);
        using IBlockQueue queue = disk.OpenQueue(1, buffers);
        var served = new ServedBackend(0, _region.BackendWord(0).Epoch, disk, 0, _ => { }, (_, _) => true);
        var group = new HandlerGroup<ArrayMemory, SafePolicy>(b.Memory, _region.Geometry, served, queue, buffers);
        group.ReportDrained(1);
        group.ReportDrained(0);
        if (device)
            Assert.Equal(StepResult.Done, b.Clearing.ReleaseBlkdev(0, _region.BlkdevWord(0), b.NowMs));
        b.Clearing.Sweep(b.NowMs);
        Assert.Equal(ClaimState.Free, _region.ChannelWord(0).State);
        Assert.Equal(ClaimState.Free, _region.BlkdevWord(0).State);
        Assert.Equal(WriterWord.None, _region.Writer(0));
    }

    [Fact]
    public void Leaving_hands_over_what_others_use_and_frees_the_rest()
    {
        TestHost a = _region.Host("a").Register(), b = _region.Host("b").Register();
        a.Backends.Start(TestRegion.Disk());
        a.Backends.Start(TestRegion.Disk("second"));
        b.StartBlkdev(0);
        BlkdevClaim<ArrayMemory, SafePolicy> own = a.StartBlkdev(1);
        _region.MakeChannel(0, ClaimState.Attached, a.Id, own);
        a.Leave();
        AssertAllFreeBut("host 1", "backend 0", "blkdev 0");
        Assert.Equal(ClaimState.Orphaned, _region.BackendWord(0).State);
        Assert.False(_region.Locks.IsHeld(0));
    }

    [Fact]
    public void Does_nothing_to_words_that_cannot_be()
    {
        TestHost a = _region.Host("a").Register(), b = _region.Host("b").Register();
        a.Kill();
        _region.Store(_region.Geometry.ChannelOffset(0), new ClaimWord((ClaimState)200, a.Id, 9));
        _region.Store(_region.Geometry.ChannelOffset(1), new ClaimWord(ClaimState.Quarantined, 60000, 9));
        _region.Store(_region.Geometry.BackendOffset(1), new ClaimWord(ClaimState.Active, 60000, 9));
        _region.Store(_region.Geometry.BlkdevOffset(1), new ClaimWord(ClaimState.Quarantined, 60000, 9));
        b.ClearDead();
        AssertAllFreeBut("host 1", "backend 1", "blkdev 1", "channel 0", "channel 1");
        Assert.Equal(Liveness.Unknown, b.Backends.List().Single().Liveness);
    }

    private sealed class InodeLocks(LockTable table) : IHostLocks
    {
        public bool TryLock(int host) => table.TryLock(host, this);

        public void Unlock(int host) => table.Unlock(host, this);

        public bool IsHeld(int host, ulong device, ulong inode) => table.IsHeld(host);
    }
}
