using Cbd.Memory;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Simulation;
using Cbd.Tests.Hosts;
using Xunit;

namespace Cbd.Tests.Blkdevs;

/// <summary>A blkdev that outlives its process: what clearing leaves of it, and how the next process of its host takes it up.</summary>
public sealed class A_blkdev_that_is_kept
{
    private const ulong Life = 0x1122334455667788;
    private static readonly Guid s_uuid = new("bbbbbbbb-0000-0000-0000-000000000002");

    private readonly TestRegion _region = new(hosts: 5);
    private readonly TestHost _disks;
    private TestHost _user;

    public A_blkdev_that_is_kept()
    {
        _disks = _region.Host("disks").Register();
        _disks.Backends.Start(TestRegion.Disk());
        _user = NewUser();
    }

    private TestHost NewUser(Action<MemoryAccess>? hook = null, string name = "user") => _region.Host(TestRegion.Identity(name) with { HostUuid = s_uuid }, hook).Register();

    private static BlkdevClaim<ArrayMemory, SafePolicy> StartKept(TestHost host, ulong life = Life)
    {
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = host.Blkdevs.Claim(0, readOnly: false, life: life);
        blkdev.Activate([], "fuse");
        return blkdev;
    }

    private static BlkdevClaim<ArrayMemory, SafePolicy> Adopt(TestHost host, ulong epoch = 1, ulong life = Life)
    {
        host.Tracker.Sample(host.NowMs);
        Assert.Equal(StepResult.Done, host.Blkdevs.Adopt(0, epoch, life, out BlkdevClaim<ArrayMemory, SafePolicy>? claim));
        return claim!;
    }

    private static string Gone(TestHost host, int blkdev = 0, ulong epoch = 1, ulong life = Life)
    {
        host.Tracker.Sample(host.NowMs);
        return Assert.Throws<ClaimGoneException>(() => host.Blkdevs.Adopt(blkdev, epoch, life, out _)).Message;
    }

    private bool IsEntitled(ulong epoch) => BlkdevRegistry<ArrayMemory, SafePolicy>.IsEntitled(_region.Memory, _region.Geometry, 0, false, 0, epoch);

    private static ClaimWord Orphan(ulong epoch) => new(ClaimState.Orphaned, ClaimWord.NoHost, epoch);

    /// <summary>The user's host dies with a kept blkdev, and is cleared.</summary>
    private void Orphanize()
    {
        StartKept(_user);
        _user.Kill();
        _disks.ClearDead();
        Assert.Equal(Orphan(1), _region.BlkdevWord(0));
    }

    [Fact]
    public void Is_an_orphan_after_the_death_of_its_host_with_its_writer_word()
    {
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = StartKept(_user);
        _region.MakeChannel(0, ClaimState.Claimed, _user.Id, blkdev);
        _user.Kill();
        _disks.ClearDead();
        Assert.Equal(Orphan(1), _region.BlkdevWord(0));
        Assert.Equal(new WriterWord(0, 1), _region.Writer(0));
        Assert.Equal(ClaimState.Free, _region.ChannelWord(0).State);
        Assert.Equal(ClaimState.Free, _region.HostWord(_user.Id).State);
        Assert.False(IsEntitled(1));
        // It is a user of its backend, and lists have it.
        Assert.Equal([0], _disks.Backends.List().Single().Blkdevs);
        BlkdevListing listed = _disks.Blkdevs.List().Single();
        Assert.Equal((Liveness.Dead, s_uuid, Life), (listed.Liveness, listed.Body!.HostUuid, listed.Body.Life));
    }

    [Fact]
    public void Is_an_orphan_only_when_its_channels_are_drained()
    {
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = StartKept(_user);
        _region.MakeChannel(0, ClaimState.Attached, _user.Id, blkdev);
        _user.Kill();
        Assert.Equal(ClearResult.Again, _disks.Clearing.Step(_user.Id, ClearAuthority.Proof, _disks.NowMs));
        Assert.Equal((ClaimState.Closing, ClaimState.Active), (_region.ChannelWord(0).State, _region.BlkdevWord(0).State));
        // Its handler drains.
        _region.Store(_region.Geometry.ChannelOffset(0), _region.ChannelWord(0).With(ClaimState.Detached));
        _disks.ClearDead();
        Assert.Equal((ClaimState.Free, Orphan(1)), (_region.ChannelWord(0).State, _region.BlkdevWord(0)));
    }

    /// <summary>A stop that had begun is finished, and a start that had not come far is undone.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public void Is_freed_if_it_was_closing_or_not_active_yet(bool isClosing)
    {
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = _user.Blkdevs.Claim(0, readOnly: false, life: Life);
        if (isClosing)
        {
            blkdev.Activate([], "fuse");
            blkdev.BeginClose();
        }

        _user.Kill();
        _disks.ClearDead();
        Assert.Equal(new ClaimWord(ClaimState.Free, 0, 1), _region.BlkdevWord(0));
        Assert.Equal(WriterWord.None, _region.Writer(0));
    }

    [Fact]
    public void Keeps_others_from_its_backend_and_the_error_says_how_to_give_it_up()
    {
        Orphanize();
        foreach (TestHost host in new[] { _disks, NewUser() })
        {
            CbdException busy = Assert.Throws<CbdException>(() => host.Blkdevs.Claim(0, readOnly: false));
            Assert.Equal((CbdErrorKind.Busy, true), (busy.Kind, busy.MayPass));
            Assert.Contains("reserved for blkdev 0", busy.Message, StringComparison.Ordinal);
            Assert.Contains("dev-clear -d 0", busy.Message, StringComparison.Ordinal);
        }

        Assert.Equal(ClaimState.Free, _region.BlkdevWord(1).State);
    }

    [Fact]
    public void Keeps_the_record_of_a_backend_that_has_died_too()
    {
        StartKept(_user);
        _user.Kill();
        _disks.Kill();
        TestHost other = _region.Host("other").Register();
        other.ClearDead();
        Assert.Equal(Orphan(1), _region.BlkdevWord(0));
        Assert.Equal(new ClaimWord(ClaimState.Orphaned, 0, 1), _region.BackendWord(0));
        Assert.Equal([0], other.Backends.List().Single().Blkdevs);
    }

    [Fact]
    public void Is_adopted_with_the_next_epoch_and_the_writer_word()
    {
        Orphanize();
        TestHost next = NewUser();
        BlkdevClaim<ArrayMemory, SafePolicy> adopted = Adopt(next);
        Assert.Equal((0, 2UL, "fuse", 0), (adopted.Blkdev, adopted.Epoch, adopted.Body.Name, adopted.Body.BackendId));
        Assert.Equal(new ClaimWord(ClaimState.Adopting, next.Id, 2), _region.BlkdevWord(0));
        Assert.Equal(new WriterWord(0, 2), _region.Writer(0));
        Assert.False(IsEntitled(2));
        adopted.Activate([1], "fuse again");
        Assert.True(IsEntitled(2));
        Assert.Equal((next.Id, next.Claim.Epoch, Life), (adopted.Body.HostId, adopted.Body.HostEpoch, adopted.Body.Life));
        Assert.True(adopted.Beat());
        adopted.End();
        Assert.Equal(new ClaimWord(ClaimState.Free, 0, 2), _region.BlkdevWord(0));
        Assert.Equal(WriterWord.None, _region.Writer(0));
    }

    /// <summary>Where its backend is meanwhile does not matter: it is as after any loss of it.</summary>
    [Fact]
    public void Is_adopted_while_its_backend_is_away()
    {
        Orphanize();
        _disks.Kill();
        TestHost next = NewUser();
        next.ClearDead();
        Assert.Equal(ClaimState.Orphaned, _region.BackendWord(0).State);
        BlkdevClaim<ArrayMemory, SafePolicy> adopted = Adopt(next);
        adopted.Activate([], "fuse");
        Assert.Equal(ClaimState.Active, _region.BlkdevWord(0).State);
        Assert.Equal(ClaimState.Orphaned, _region.BackendWord(0).State);
    }

    [Fact]
    public void Of_a_shared_backend_is_adopted_without_a_writer_word()
    {
        _disks.Backends.Start(TestRegion.Disk("shared", readOnly: true));
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = _user.Blkdevs.Claim(1, readOnly: true, life: Life);
        blkdev.Activate([], "fuse");
        _user.Kill();
        _disks.ClearDead();
        BlkdevClaim<ArrayMemory, SafePolicy> adopted = Adopt(NewUser());
        adopted.Activate([], "fuse");
        Assert.True(BlkdevRegistry<ArrayMemory, SafePolicy>.IsEntitled(_region.Memory, _region.Geometry, 1, true, 0, 2));
        Assert.Equal(WriterWord.None, _region.Writer(1));
    }

    [Fact]
    public void Is_not_taken_for_gone_while_a_dead_claim_of_its_host_is_left()
    {
        StartKept(_user);
        _user.Kill();
        TestHost next = NewUser(name: "next");
        next.Tracker.Sample(0);
        Assert.Equal(StepResult.Again, next.Blkdevs.Adopt(0, 1, Life, out BlkdevClaim<ArrayMemory, SafePolicy>? claim));
        Assert.Null(claim);
        Assert.Equal(_user.Id, next.Blkdevs.FindOwnDead());
        next.ClearDead();
        Assert.Equal(-1, next.Blkdevs.FindOwnDead());
        Adopt(next);
    }

    [Fact]
    public void Is_adopted_by_its_own_host_and_for_its_own_attachment_alone()
    {
        Orphanize();
        Assert.Contains("of another host", Gone(_disks), StringComparison.Ordinal);
        TestHost next = NewUser();
        Assert.Contains("of this host", Gone(next, life: Life + 1), StringComparison.Ordinal);
        Assert.Contains("given up", Gone(next, epoch: 2), StringComparison.Ordinal);
        Assert.Contains("does not exist", Gone(next, blkdev: 7), StringComparison.Ordinal);
        Assert.Equal((Orphan(1), new WriterWord(0, 1)), (_region.BlkdevWord(0), _region.Writer(0)));
        Adopt(next);
    }

    [Fact]
    public void Is_gone_if_an_operator_gave_it_up()
    {
        Orphanize();
        Assert.False(_disks.Clearing.ReleaseOrphan(0, Orphan(7)));
        Assert.True(_disks.Clearing.ReleaseOrphan(0, Orphan(1)));
        Assert.Equal((new ClaimWord(ClaimState.Free, 0, 1), WriterWord.None), (_region.BlkdevWord(0), _region.Writer(0)));
        Assert.Contains("given up", Gone(NewUser()), StringComparison.Ordinal);
        _disks.StartBlkdev(0);
    }

    [Fact]
    public void Frees_the_record_of_its_backend_when_it_is_given_up()
    {
        Orphanize();
        _disks.Kill();
        TestHost other = _region.Host("other").Register();
        other.ClearDead();
        Assert.Equal(ClaimState.Orphaned, _region.BackendWord(0).State);
        Assert.True(other.Clearing.ReleaseOrphan(0, Orphan(1)));
        Assert.Equal(ClaimState.Free, _region.BackendWord(0).State);
    }

    [Fact]
    public void Is_given_up_by_whoever_comes_after_one_that_died_in_the_middle_of_it()
    {
        Orphanize();
        _region.Store(_region.Geometry.BlkdevOffset(0), new ClaimWord(ClaimState.Clearing, ClaimWord.NoHost, 1));
        _disks.Clearing.Sweep(_disks.NowMs);
        Assert.Equal((new ClaimWord(ClaimState.Free, 0, 1), WriterWord.None), (_region.BlkdevWord(0), _region.Writer(0)));
    }

    [Fact]
    public void Is_gone_if_its_writer_word_is_anothers()
    {
        Orphanize();
        _region.Memory.WriteRelease(_region.Geometry.BackendOffset(0) + BackendEntry.WriterOffset, new WriterWord(2, 9).Raw);
        Assert.Contains("writer word", Gone(NewUser()), StringComparison.Ordinal);
        Assert.Equal(ClaimState.Free, _region.BlkdevWord(0).State);
        Assert.Equal(new WriterWord(2, 9), _region.Writer(0));
    }

    [Fact]
    public void Is_quarantined_by_force_without_proof_and_gone_then()
    {
        TestHost far = _region.Host(TestRegion.Identity("far") with { Inode = 78, HostUuid = s_uuid }).Register();
        _user.Leave();
        StartKept(far);
        Assert.Equal(ClearResult.Quarantined, _disks.Clear(far.Id, ClearAuthority.Forced));
        Assert.Equal(ClaimState.Quarantined, _region.BlkdevWord(0).State);
        Assert.Equal(ClearResult.Cleared, _disks.Clear(far.Id, ClearAuthority.Fenced));
        Assert.Equal((new ClaimWord(ClaimState.Free, 0, 1), WriterWord.None), (_region.BlkdevWord(0), _region.Writer(0)));
        Assert.Contains("given up", Gone(NewUser()), StringComparison.Ordinal);
    }

    /// <summary>That the machine is off is as good as proof; its disk is waited for by nobody else.</summary>
    [Fact]
    public void Is_an_orphan_when_an_operator_vouches_for_the_death_of_its_host()
    {
        TestHost far = _region.Host(TestRegion.Identity("far") with { Inode = 78, HostUuid = s_uuid }).Register();
        StartKept(far);
        Assert.Equal(ClearResult.Cleared, _disks.Clear(far.Id, ClearAuthority.Fenced));
        Assert.Equal(Orphan(1), _region.BlkdevWord(0));
    }

    [Fact]
    public void Is_quarantined_if_one_of_its_channels_is()
    {
        TestHost far = _region.ForeignHost("far").Register();
        far.Backends.Start(TestRegion.Disk("far"));
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = _user.Blkdevs.Claim(1, readOnly: false, life: Life);
        blkdev.Activate([], "fuse");
        _region.MakeChannel(0, ClaimState.Attached, _user.Id, blkdev);
        _user.Kill();
        _disks.ClearDead();
        Assert.Equal((ClaimState.Quarantined, ClaimState.Quarantined), (_region.ChannelWord(0).State, _region.BlkdevWord(0).State));
    }

    [Fact]
    public void Is_parked_by_its_own_host()
    {
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = StartKept(_user);
        blkdev.Park();
        Assert.False(blkdev.Beat());
        Assert.Equal((Orphan(1), new WriterWord(0, 1)), (_region.BlkdevWord(0), _region.Writer(0)));
        Adopt(_user).Activate([], "fuse");
        // One that leaves in order, with a blkdev that nobody stopped.
        _user.Leave();
        Assert.Equal(Orphan(2), _region.BlkdevWord(0));
    }

    [Fact]
    public void Is_left_as_it_was_by_an_adoption_that_is_given_back()
    {
        Orphanize();
        BlkdevClaim<ArrayMemory, SafePolicy> adopted = Adopt(NewUser());
        adopted.End();
        Assert.Equal((Orphan(2), new WriterWord(0, 2)), (_region.BlkdevWord(0), _region.Writer(0)));
        Adopt(_region.Started[^1]).Activate([], "fuse");
        Assert.True(IsEntitled(3));
    }

    [Fact]
    public void Is_listed_for_its_own_host_as_an_orphan()
    {
        Orphanize();
        TestHost next = NewUser();
        Assert.Equal([(0, Orphan(1), Life)], next.Blkdevs.ListOwnOrphans());
        Assert.Empty(_disks.Blkdevs.ListOwnOrphans());
    }

    /// <summary>
    /// A death at any access of an adoption leaves what the next adopter takes up: never a free entry, nor a writer word that is somebody
    /// else's to take.
    /// </summary>
    [Fact]
    public void Survives_a_death_at_any_access_of_an_adoption()
    {
        int crashes = 0;
        for (bool crashed = true; crashed; crashes++)
        {
            var run = new A_blkdev_that_is_kept();
            run.Orphanize();
            int left = -1;
            TestHost dying = run.NewUser(_ =>
            {
                if (left >= 0 && left-- == 0)
                    throw new OperationCanceledException();
            });
            BlkdevRegistry<ArrayMemory, SafePolicy> registry = dying.Blkdevs;
            dying.Tracker.Sample(0);
            left = crashes;
            crashed = false;
            try
            {
                registry.Adopt(0, 1, Life, out BlkdevClaim<ArrayMemory, SafePolicy>? claim);
                claim!.Activate([3], "fuse");
            }
            catch (OperationCanceledException)
            {
                crashed = true;
            }

            left = -1;
            dying.Kill();
            // Neither before it is cleared nor after that anybody else gets the backend.
            Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => run._disks.Blkdevs.Claim(0, false)).Kind);
            run._disks.ClearDead();
            ClaimWord orphan = run._region.BlkdevWord(0);
            Assert.Equal((ClaimState.Orphaned, ClaimWord.NoHost), (orphan.State, orphan.Host));
            Assert.Equal([0], run._disks.Backends.List().Single().Blkdevs);
            Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => run._disks.Blkdevs.Claim(0, false)).Kind);
            BlkdevClaim<ArrayMemory, SafePolicy> adopted = Adopt(run.NewUser());
            adopted.Activate([], "fuse");
            Assert.Equal(orphan.Epoch + 1, adopted.Epoch);
            Assert.True(run.IsEntitled(adopted.Epoch));
            adopted.End();
            Assert.Equal((ClaimState.Free, WriterWord.None), (run._region.BlkdevWord(0).State, run._region.Writer(0)));
        }

        Assert.True(crashes > 30, $"{crashes} accesses");
    }

    /// <summary>The same, and an operator gives up what is left.</summary>
    [Fact]
    public void Leaves_no_writer_word_behind_when_it_is_given_up_after_a_death_at_any_access()
    {
        bool crashed = true;
        for (int crashAt = 0; crashed; crashAt++)
        {
            var run = new A_blkdev_that_is_kept();
            run.Orphanize();
            int left = -1;
            TestHost dying = run.NewUser(_ =>
            {
                if (left >= 0 && left-- == 0)
                    throw new OperationCanceledException();
            });
            BlkdevRegistry<ArrayMemory, SafePolicy> registry = dying.Blkdevs;
            dying.Tracker.Sample(0);
            left = crashAt;
            crashed = false;
            try
            {
                registry.Adopt(0, 1, Life, out _);
            }
            catch (OperationCanceledException)
            {
                crashed = true;
            }

            left = -1;
            dying.Kill();
            run._disks.ClearDead();
            Assert.True(run._disks.Clearing.ReleaseOrphan(0, run._region.BlkdevWord(0)));
            Assert.Equal((ClaimState.Free, WriterWord.None), (run._region.BlkdevWord(0).State, run._region.Writer(0)));
            run._disks.StartBlkdev(0);
        }
    }

    /// <summary>Made after its host was cleared, an adoption is nobody's to clear: it ends when it stood still for a dead-time.</summary>
    [Fact]
    public void Is_an_orphan_again_after_an_adoption_that_stands_still()
    {
        Orphanize();
        TestHost next = NewUser();
        Adopt(next);
        next.Kill();
        _region.Store(_region.Geometry.HostOffset(next.Id), _region.HostWord(next.Id).Freed());
        for (int beat = 0; beat <= 12; beat++)
            _disks.Clearing.Sweep(beat * 1000);
        Assert.Equal((Orphan(2), new WriterWord(0, 2)), (_region.BlkdevWord(0), _region.Writer(0)));
    }

    [Fact]
    public void Is_quarantined_by_force_in_the_middle_of_an_adoption()
    {
        Orphanize();
        TestHost far = _region.Host(TestRegion.Identity("far") with { Inode = 78, HostUuid = s_uuid }).Register();
        Adopt(far);
        Assert.Equal(ClearResult.Quarantined, _disks.Clear(far.Id, ClearAuthority.Forced));
        Assert.Equal(new ClaimWord(ClaimState.Quarantined, far.Id, 2), _region.BlkdevWord(0));
        Assert.Equal(ClearResult.Cleared, _disks.Clear(far.Id, ClearAuthority.Fenced));
        Assert.Equal((ClaimState.Free, WriterWord.None), (_region.BlkdevWord(0).State, _region.Writer(0)));
    }

    /// <summary>
    /// Clearing goes by the host id of a word, and no host has the id of an orphan: hosts that know no orphans of blkdevs clear others and
    /// leave it alone. Their counts and judgements of such an id are these.
    /// </summary>
    [Fact]
    public void Has_a_host_id_as_an_orphan_that_no_host_has()
    {
        Assert.True(ClaimWord.NoHost >= 32768);
        Orphanize();
        _disks.Tracker.Sample(0);
        Assert.Equal(Liveness.Unknown, _disks.Tracker.Of(ClaimWord.NoHost, 1));
        Assert.All(_disks.Clearing.CountQuarantinedByHost(), count => Assert.Equal(0, count));
        TestHost dead = _region.Host("dead").Register();
        dead.Kill();
        _disks.ClearDead();
        Assert.Equal(Orphan(1), _region.BlkdevWord(0));
    }
}
