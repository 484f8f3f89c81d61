using Cbd.Host.Backends;
using Cbd.Host.Devices;
using Cbd.Host.Sessions;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Simulation;
using Cbd.Tests.Hosts;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>A host that others took for dead, and cleared, while something of it was under way.</summary>
public sealed class A_host_that_was_cleared : IDisposable
{
    private readonly TestRegion _region = new();
    private readonly SteppedHost _disks, _users;
    private readonly SteppedBackend _backend;

    public A_host_that_was_cleared()
    {
        _disks = new SteppedHost(_region, "disks").Register();
        _users = new SteppedHost(_region, "users").Register();
        _backend = new SteppedBackend(_disks);
    }

    public void Dispose() => _backend.Dispose();

    [Fact]
    public void Registers_anew_only_when_a_stop_that_was_under_way_has_ended()
    {
        _users.NewDevice(0).Claim(0);
        _backend.Life.BeginStop(force: true, leaves: false, 0);
        HostSession<ArrayMemory, SafePolicy> before = _disks.Session;
        ulong epoch = before.Claim.Epoch;
        _disks.TakeForDead();
        _disks.FindOutThatItIsCleared();
        for (int step = 0; step < 20; step++)
            Assert.Equal(StepResult.Again, _disks.Membership.StepRejoin(_disks.NowMs += 1000));
        Assert.Same(before, _disks.Session);
        _backend.Life.EndStop(_disks.NowMs);
        Rejoin(_disks);
        Assert.NotSame(before, _disks.Session);
        Assert.True(_disks.Session.Claim.Epoch > epoch || _disks.Id != before.Claim.Host);
        Assert.Equal((MembershipStage.Up, LifeState.Running), (_disks.Membership.Stage, _disks.Membership.Status.State));
        Assert.Equal(StepResult.Done, _disks.Membership.StepRejoin(_disks.NowMs));
        Assert.True(_disks.Membership.Beat(_disks.NowMs));
    }

    [Fact]
    public void Offers_its_backend_again_under_the_id_that_its_users_know()
    {
        DeviceLife<ArrayMemory, SafePolicy> device = Serve(_users.NewDevice(0));
        _disks.TakeForDead();
        _disks.FindOutThatItIsCleared();
        Assert.Equal(StepResult.Again, _disks.Membership.StepRejoin(0));
        _backend.Life.Hold(0);
        Rejoin(_disks);
        ulong session = _region.BackendWord(0).Epoch;
        using var again = new SteppedBackend(_disks, new BackendWish(0, Anew: true));
        Assert.Equal((0, session + 1), (again.Backend, again.Life.Epoch));
        _users.StepUntil(now =>
        {
            again.Turn();
            _users.Session.Look(sample: true, now * 1000);
            device.Queues[0].Poll(now * 1000, []);
            return again.Count == 1 && device.Status.State == LifeState.Running;
        });
    }

    [Fact]
    public void Keeps_the_ids_of_its_lost_devices_from_new_ones_until_they_are_stopped()
    {
        DeviceLife<ArrayMemory, SafePolicy> lost = Serve(_users.NewDevice(0));
        DeviceLife<ArrayMemory, SafePolicy> over = _users.NewDevice(0);
        over.Cancel("never begun", 0);
        _users.TakeForDead(_backend.Turn);
        _users.FindOutThatItIsCleared();
        Assert.Equal(StepResult.Again, _users.Membership.StepRejoin(0));
        lost.Fence();
        Rejoin(_users);
        Assert.Equal([lost], _users.Membership.LostDevices);
        Assert.Equal(ClaimState.Free, _region.BlkdevWord(lost.Blkdev).State);
        DeviceLife<ArrayMemory, SafePolicy> next = _users.NewDevice(0);
        next.Claim(_users.NowMs);
        Assert.NotEqual(lost.Blkdev, next.Blkdev);
        next.Cancel("", _users.NowMs);
        lost.BeginStop(force: false, _users.NowMs);
        lost.EndServing(_users.NowMs);
        lost.Step(_users.NowMs * 1000);
        Assert.True(lost.IsOver);
        _users.Membership.Forget(lost);
        Assert.Empty(_users.Membership.LostDevices);
        DeviceLife<ArrayMemory, SafePolicy> last = _users.NewDevice(0);
        last.Claim(_users.NowMs);
        Assert.Equal(lost.Blkdev, last.Blkdev);
    }

    [Fact]
    public void Waits_for_what_others_drain_of_its_old_claim_but_not_for_ever()
    {
        DeviceLife<ArrayMemory, SafePolicy> device = Serve(_users.NewDevice(0));
        int before = _users.Id;
        _users.BeginToTakeForDead();
        _users.FindOutThatItIsCleared();
        device.Fence();
        Assert.Equal(ClaimState.Closing, _region.ChannelWord(0).State);
        long beginMs = _users.NowMs;
        Assert.Equal(StepResult.Again, _users.Membership.StepRejoin(beginMs));
        Assert.Equal(MembershipStage.EndingOldClaim, _users.Membership.Stage);
        Assert.Equal(StepResult.Again, _users.Membership.StepRejoin(beginMs + _users.Session.Times.RejoinMs - 1));
        _users.NowMs = beginMs + _users.Session.Times.RejoinMs;
        Rejoin(_users);
        Assert.NotEqual(before, _users.Id);
        // Nobody has the old claim's lock, so that others finish what it left.
        _disks.StepUntil(now =>
        {
            _backend.Turn();
            return _region.HostWord(before).State == ClaimState.Free;
        });
        Assert.Equal(ClaimState.Free, _region.ChannelWord(0).State);
    }

    [Fact]
    public void Can_leave_before_it_is_registered_anew()
    {
        DeviceLife<ArrayMemory, SafePolicy> device = Serve(_users.NewDevice(0));
        int id = _users.Id;
        _users.BeginToTakeForDead();
        _users.FindOutThatItIsCleared();
        device.Fence();
        Assert.Equal(StepResult.Again, _users.Membership.StepRejoin(0));
        _users.Membership.BeginLeave(1);
        _users.Membership.BeginLeave(1);
        Assert.Equal(StepResult.Again, _users.Membership.StepRejoin(_users.Session.Times.RejoinMs * 2));
        Assert.Equal(StepResult.Again, _users.Membership.StepStop(2));
        Assert.Equal(StepResult.Again, _users.Membership.StepLeave(2));
        device.EndServing(3);
        device.Step(4000);
        Assert.Equal(StepResult.Done, _users.Membership.StepStop(5));
        Assert.Equal(StepResult.Done, _users.Membership.StepLeave(5));
        Assert.Equal((MembershipStage.Gone, LifeState.Gone), (_users.Membership.Stage, _users.Membership.Status.State));
        Assert.False(_region.Locks.IsHeld(id));
    }

    [Fact]
    public void That_is_being_left_does_not_become_one_that_registers_anew()
    {
        _users.Membership.BeginLeave(0);
        _users.TakeForDead();
        _users.FindOutThatItIsCleared();
        Assert.Equal((MembershipStage.Leaving, LifeState.Stopping), (_users.Membership.Stage, _users.Membership.Status.State));
        Assert.Equal(StepResult.Done, _users.Membership.StepStop(1));
        Assert.Equal(StepResult.Done, _users.Membership.StepLeave(1));
    }

    [Fact]
    public void Keeps_the_first_reason_and_shows_what_it_waits_for()
    {
        _users.TakeForDead();
        _users.FindOutThatItIsCleared();
        Assert.False(_users.Membership.Lose("another reason", cleared: false, 1));
        Assert.Equal((LifeState.Waiting, "this host was cleared"), (_users.Membership.Status.State, _users.Membership.Status.Reason));
        _users.Membership.NoteTrouble("no free entry", forGood: false, 2);
        Assert.Equal((LifeState.Waiting, "no free entry"), (_users.Membership.Status.State, _users.Membership.Status.Reason));
        _users.Membership.NoteTrouble("a disk hangs", forGood: true, 3);
        Assert.Equal((LifeState.Failed, "a disk hangs"), (_users.Membership.Status.State, _users.Membership.Status.Reason));
        _users.Membership.NoteTrouble("later", forGood: false, 4);
        Assert.Equal("a disk hangs", _users.Membership.Status.Reason);
    }

    private static void Rejoin(SteppedHost host) => host.StepUntil(now => host.Membership.StepRejoin(now) == StepResult.Done);

    private DeviceLife<ArrayMemory, SafePolicy> Serve(DeviceLife<ArrayMemory, SafePolicy> device)
    {
        device.Claim(0);
        device.Activate("nbd", 0);
        _users.StepUntil(now =>
        {
            _backend.Turn();
            device.Step(now * 1000);
            return device.Stage == DeviceStage.Attached;
        });
        device.BeginServing(_users.NowMs);
        return device;
    }
}
