using Cbd.Host.Backends;
using Cbd.Host.Devices;
using Cbd.Host.Sessions;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Simulation;
using Cbd.Tests.Hosts;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>A host that leaves a region while something of it is under way.</summary>
public sealed class A_host_that_leaves : IDisposable
{
    private readonly TestRegion _region = new();
    private readonly SteppedHost _disks, _users;
    private readonly SteppedBackend _backend;

    public A_host_that_leaves()
    {
        _disks = new SteppedHost(_region, "disks").Register();
        _users = new SteppedHost(_region, "users").Register();
        _backend = new SteppedBackend(_disks);
    }

    public void Dispose() => _backend.Dispose();

    [Fact]
    public void Stops_its_devices_before_its_backends_and_then_gives_its_entry_back()
    {
        using var own = new SteppedBackend(_users, body: TestRegion.Disk("file:1:3"));
        DeviceLife<ArrayMemory, SafePolicy> device = _users.NewDevice(own.Backend);
        device.Claim(0);
        device.Activate("nbd", 0);
        _users.StepUntil(now =>
        {
            own.Turn();
            return device.Stage == DeviceStage.Attached;
        });
        device.BeginServing(_users.NowMs);
        _users.Membership.BeginLeave(_users.NowMs);
        Assert.Equal(StepResult.Again, _users.Membership.StepStop(_users.NowMs));
        Assert.Equal((DeviceStage.EndingExport, BackendStage.Serving), (device.Stage, own.Life.Stage));
        device.EndServing(_users.NowMs);
        _users.StepUntil(_ =>
        {
            own.Turn();
            return device.IsOver;
        });
        Assert.Equal(StepResult.Again, _users.Membership.StepStop(_users.NowMs));
        Assert.Equal(BackendStage.Draining, own.Life.Stage);
        Assert.Equal(StepResult.Again, _users.Membership.StepLeave(_users.NowMs));
        _users.StepUntil(_ => own.TryEndStop());
        Assert.Equal(StepResult.Done, _users.Membership.StepStop(_users.NowMs));
        int id = _users.Id;
        _users.StepUntil(now => _users.Membership.StepLeave(now) == StepResult.Done);
        Assert.Equal(ClaimState.Free, _region.HostWord(id).State);
        Assert.False(_region.Locks.IsHeld(id));
        Assert.False(_users.Membership.IsEntryLeft);
    }

    [Fact]
    public void Ends_starts_that_have_not_claimed_anything()
    {
        BackendLife<ArrayMemory, SafePolicy> backend = _users.NewBackend();
        DeviceLife<ArrayMemory, SafePolicy> device = _users.NewDevice(0);
        _users.Membership.BeginLeave(0);
        Assert.Equal(StepResult.Done, _users.Membership.StepStop(0));
        Assert.Equal((LifeState.Gone, LifeState.Gone), (backend.Status.State, device.Status.State));
    }

    [Fact]
    public void Leaves_its_entry_and_its_lock_to_the_end_of_its_process_if_a_disk_does_not_finish()
    {
        _backend.Life.BeginStop(force: true, leaves: true, 0);
        _backend.Life.Abandon(0);
        _disks.Membership.BeginLeave(0);
        Assert.Equal(StepResult.Done, _disks.Membership.StepStop(0));
        Assert.Equal(StepResult.Done, _disks.Membership.StepLeave(0));
        Assert.Equal(ClaimState.Active, _region.HostWord(_disks.Id).State);
        Assert.True(_region.Locks.IsHeld(_disks.Id));
    }

    [Fact]
    public void Does_not_wait_for_ever_for_a_channel_that_another_host_does_not_let_go_of()
    {
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = _users.Session.Blkdevs.Claim(0, readOnly: false);
        blkdev.Activate([0], "nbd");
        _region.MakeChannel(0, ClaimState.Attached, _users.Id, blkdev);
        _users.Membership.BeginLeave(0);
        Assert.Equal(StepResult.Done, _users.Membership.StepStop(0));
        Assert.Equal(StepResult.Again, _users.Membership.StepLeave(_users.Session.Times.LeaveMs));
        Assert.False(_users.Membership.IsEntryLeft);
        Assert.Equal(StepResult.Done, _users.Membership.StepLeave(_users.Session.Times.LeaveMs + 1));
        Assert.True(_users.Membership.IsEntryLeft);
        Assert.Equal(ClaimState.Closing, _region.ChannelWord(0).State);
    }

    [Fact]
    public void That_failed_gives_its_lock_up_and_stores_nothing()
    {
        int id = _users.Id;
        Assert.True(_users.Membership.Lose("the memory failed", cleared: false, 0));
        Assert.Equal((LifeState.Failed, false), (_users.Membership.Status.State, _users.Session.IsCleared));
        Assert.Contains("unregister it", Assert.Throws<CbdException>(_users.Session.CheckUsable).Message, StringComparison.Ordinal);
        var before = _region.AllWords().ToList();
        _users.Session.AnnounceChange();
        _users.Membership.BeginLeave(1);
        Assert.Equal(StepResult.Done, _users.Membership.StepStop(1));
        Assert.Equal(StepResult.Done, _users.Membership.StepLeave(1));
        Assert.Equal(before, _region.AllWords().ToList());
        Assert.False(_region.Locks.IsHeld(id));
    }

    [Fact]
    public void Before_it_has_registered_gives_back_the_entry_that_it_claimed()
    {
        // One of the same name on another machine is not judged yet, so that the registration waits.
        TestHost namesake = _region.ForeignHost("late").Register();
        var host = new SteppedHost(_region, "late");
        Assert.Equal(StepResult.Again, host.Membership.StepRegister(0));
        int claimed = Enumerable.Range(0, _region.Geometry.HostCount).Single(h => _region.HostWord(h).State == ClaimState.Registering);
        Assert.True(_region.Locks.IsHeld(claimed));
        Assert.False(host.Membership.HasSession);
        Assert.Throws<InvalidOperationException>(() => host.Membership.Session);
        host.Membership.CancelRegistration();
        Assert.Equal(ClaimState.Free, _region.HostWord(claimed).State);
        Assert.False(_region.Locks.IsHeld(claimed));
        Assert.Equal(ClaimState.Active, _region.HostWord(namesake.Id).State);
    }

    [Fact]
    public void Can_try_again_after_its_name_was_taken()
    {
        var host = new SteppedHost(_region, "users");
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => host.Register()).Kind);
        _users.Membership.BeginLeave(0);
        _users.Membership.StepStop(0);
        _users.StepUntil(now => _users.Membership.StepLeave(now) == StepResult.Done);
        host.Register();
        Assert.Equal(ClaimState.Active, _region.HostWord(host.Id).State);
    }
}
