using Cbd.Protocol.Backends;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;
using Cbd.Simulation;
using Xunit;

namespace Cbd.Tests.Hosts;

/// <summary>A host that slept past its lease, on a machine whose death nobody can prove, and wakes up late.</summary>
public sealed class A_host_that_wakes_up_late
{
    private readonly TestRegion _region = new();
    private readonly TestHost _late, _other;

    public A_host_that_wakes_up_late()
    {
        _late = _region.ForeignHost("late").Register();
        _other = _region.Host("other").Register();
    }

    private IEnumerable<string> Taken() => _region.AllWords().Where(entry => entry.Word.State != ClaimState.Free).Select(entry => entry.Name);

    [Fact]
    public void Keeps_all_it_has_while_nobody_cleared_it()
    {
        _late.Backends.Start(TestRegion.Disk());
        Assert.Equal(ClearResult.NotAllowed, _other.Clear(_late.Id, ClearAuthority.Proof));
        Assert.True(_late.Claim.Beat());
        Assert.Equal(ClaimState.Active, _region.BackendWord(0).State);
    }

    [Fact]
    public void Finds_itself_quarantined_and_gives_all_of_it_back_since_it_knows_that_it_has_stopped()
    {
        _late.Backends.Start(TestRegion.Disk());
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = _late.StartBlkdev(0);
        _region.MakeChannel(0, ClaimState.Claimed, _late.Id, blkdev);
        Assert.Equal(ClearResult.Quarantined, _other.Clear(_late.Id, ClearAuthority.Forced));
        Assert.Equal((1, 1, 1, 1), _other.Clearing.CountQuarantined());
        Assert.Equal(3, _other.Clearing.CountQuarantinedByHost()[_late.Id]);
        Assert.False(_late.Claim.Beat());
        _late.Leave();
        Assert.Equal((0, 0, 0, 0), _other.Clearing.CountQuarantined());
        Assert.Equal([$"host {_other.Id}"], Taken());
        Assert.Equal(WriterWord.None, _region.Writer(0));
    }

    [Fact]
    public void Does_nothing_to_its_successors_when_it_was_vouched_dead()
    {
        int id = _late.Id;
        _late.Backends.Start(TestRegion.Disk());
        Assert.Equal(ClearResult.Cleared, _other.Clear(id, ClearAuthority.Fenced));
        TestHost successor = _region.Host("successor").Register();
        Assert.Equal(id, successor.Id);
        BackendClaim<ArrayMemory, SafePolicy> disk = successor.Backends.Start(TestRegion.Disk("other"));
        var before = _region.AllWords().ToList();
        Assert.False(_late.Claim.Beat());
        _late.Leave();
        Assert.Equal(before, _region.AllWords().ToList());
        Assert.True(successor.Claim.Beat());
        Assert.True(disk.Beat());
    }

    [Fact]
    public void Registers_anew_under_another_epoch_and_takes_its_backend_up_under_its_id()
    {
        _late.Backends.Start(TestRegion.Disk());
        BlkdevClaim<ArrayMemory, SafePolicy> user = _other.StartBlkdev(0);
        ulong oldEpoch = _late.Claim.Epoch, oldSession = _region.BackendWord(0).Epoch;
        int oldId = _late.Id;
        Assert.Equal(ClearResult.Cleared, _other.Clear(oldId, ClearAuthority.Fenced));
        Assert.Equal(ClaimState.Orphaned, _region.BackendWord(0).State);

        Assert.False(_late.Claim.Beat());
        _late.Leave();
        _late.Claim.GiveUp();
        _late.Tracker.OwnHost = -1;
        _late.Tracker.OwnHostHasStopped = false;
        var again = new HostRegistration<ArrayMemory, SafePolicy>(
            _late.Memory, _region.Geometry, TestRegion.Identity("late") with { BootId = TestRegion.OtherBootId, HostUuid = Guid.NewGuid() }, _late.Locks, _late.Tracker, _late.Clearing);
        _late.StepUntil(now => again.Step(now) == StepResult.Done);
        Assert.True(again.Claim!.Epoch > oldEpoch || again.Claim.Host != oldId);
        var backends = new BackendRegistry<ArrayMemory, SafePolicy>(_late.Memory, again.Claim, _late.Tracker);
        BackendClaim<ArrayMemory, SafePolicy>? taken = null;
        _late.StepUntil(now => backends.TakeOver(0, TestRegion.Disk(), fenced: false, now, out taken) == StepResult.Done);
        Assert.Equal(oldSession + 1, taken!.Session);
        Assert.Equal([user.Blkdev], taken.Blkdevs);
    }
}

/// <summary>A backend that its operator stops while devices use it.</summary>
public sealed class A_backend_that_is_stopped_by_force
{
    private readonly TestRegion _region = new();
    private readonly TestHost _owner, _user;
    private readonly BackendClaim<ArrayMemory, SafePolicy> _backend;
    private readonly BackendWatch<ArrayMemory, SafePolicy> _watch;

    public A_backend_that_is_stopped_by_force()
    {
        _owner = _region.Host("owner").Register();
        _user = _region.Host("user").Register();
        _backend = _owner.Backends.Start(TestRegion.Disk());
        _user.StartBlkdev(0);
        _watch = new BackendWatch<ArrayMemory, SafePolicy>(_region.Memory, _region.Geometry, 0);
    }

    [Fact]
    public void Says_so_in_its_record_until_the_next_session()
    {
        Assert.True(_watch.TryRefresh(out _));
        _backend.BeginClose(force: true);
        Assert.False(_watch.TryRefresh(out _));
        Assert.False(_watch.IsStopped);
        Assert.True(_backend.MarkStopped());
        Assert.False(_watch.TryRefresh(out _));
        Assert.True(_watch.IsStopped);
        _backend.EndClose();
        Assert.Equal(ClaimState.Orphaned, _region.BackendWord(0).State);
        Assert.False(_watch.TryRefresh(out _));
        Assert.True(_watch.IsStopped);
        Assert.True(_user.Backends.List().Single().Body!.IsStopped);

        BackendClaim<ArrayMemory, SafePolicy>? next = null;
        _owner.StepUntil(now => _owner.Backends.TakeOver(0, TestRegion.Disk(), fenced: false, now, out next) == StepResult.Done);
        Assert.False(next!.Body.IsStopped);
        Assert.True(_watch.TryRefresh(out _));
        Assert.False(_watch.IsStopped);
    }

    [Fact]
    public void Does_not_say_so_when_its_host_only_leaves()
    {
        _owner.Leave();
        Assert.False(_watch.TryRefresh(out _));
        Assert.Equal(ClaimState.Orphaned, _watch.Word.State);
        Assert.False(_watch.IsStopped);
    }
}
