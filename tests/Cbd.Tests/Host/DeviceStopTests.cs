using Cbd.Host.Devices;
using Cbd.Host.Sessions;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Simulation;
using Cbd.Tests.Hosts;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>A device that serves, while it is stopped, forced, refused, or its host cleared.</summary>
public sealed class A_device_that_is_stopped : IDisposable
{
    private readonly TestRegion _region = new();
    private readonly SteppedHost _disks, _users;
    private readonly SteppedBackend _backend;
    private readonly DeviceLife<ArrayMemory, SafePolicy> _device;

    public A_device_that_is_stopped()
    {
        _disks = new SteppedHost(_region, "disks").Register();
        _users = new SteppedHost(_region, "users").Register();
        _backend = new SteppedBackend(_disks);
        _device = _users.NewDevice(0, queues: 2);
        _device.Claim(0);
        _device.Activate("nbd", 0);
        StepUntil(DeviceStage.Attached);
        _device.BeginServing(_users.NowMs);
    }

    public void Dispose() => _backend.Dispose();

    private ClaimState[] States => [_region.BlkdevWord(0).State, _region.ChannelWord(0).State, _region.ChannelWord(1).State];

    [Fact]
    public void Serves_on_if_its_export_refuses()
    {
        _device.BeginStop(force: false, 1);
        Assert.Equal((DeviceStage.EndingExport, LifeState.Stopping), (_device.Stage, _device.Status.State));
        _device.RefuseStop(2);
        Assert.Equal((DeviceStage.Serving, LifeState.Running), (_device.Stage, _device.Status.State));
        Assert.Throws<InvalidOperationException>(() => _device.RefuseStop(3));
        Assert.Throws<InvalidOperationException>(() => _device.EndServing(3));
        End();
    }

    [Fact]
    public void Is_stopped_although_its_export_refuses_if_somebody_wants_it_by_force_meanwhile()
    {
        _device.BeginStop(force: false, 1);
        _device.BeginStop(force: true, 2);
        _device.RefuseStop(3);
        Assert.Equal((DeviceStage.EndingExport, LifeState.Stopping), (_device.Stage, _device.Status.State));
        _device.EndServing(4);
        StepUntil(DeviceStage.Over);
        Assert.Equal([ClaimState.Free, ClaimState.Free, ClaimState.Free], States);
    }

    [Fact]
    public void Waits_for_a_handler_that_does_not_drain_until_it_is_forced()
    {
        _device.BeginStop(force: false, 0);
        _device.EndServing(0);
        long late = _users.Session.Times.CloseMs + 1;
        _device.Step(late * 1000);
        Assert.Equal((DeviceStage.Closing, LifeState.Stopping), (_device.Stage, _device.Status.State));
        Assert.Contains("neither drains its channels nor is proven dead", _device.Status.Reason, StringComparison.Ordinal);
        _device.BeginStop(force: true, late);
        _device.Step(late * 1000);
        Assert.Equal(DeviceStage.Over, _device.Stage);
        Assert.Equal([ClaimState.Quarantined, ClaimState.Quarantined, ClaimState.Quarantined], States);
        // The handler is asked, and says that it is done: then housekeeping gives all of it back.
        _users.StepUntil(now =>
        {
            _backend.Turn();
            _users.Session.Beat(now);
            return States.All(s => s == ClaimState.Free);
        });
    }

    [Fact]
    public void Ends_by_itself_when_the_handler_drains_at_last()
    {
        _device.BeginStop(force: false, 0);
        _device.EndServing(0);
        _device.Step((_users.Session.Times.CloseMs + 1) * 1000);
        Assert.Equal(DeviceStage.Closing, _device.Stage);
        StepUntil(DeviceStage.Over);
        Assert.Equal([ClaimState.Free, ClaimState.Free, ClaimState.Free], States);
    }

    [Fact]
    public void Leaves_its_entry_alone_if_its_host_is_cleared_while_its_channels_drain()
    {
        _device.BeginStop(force: false, 0);
        _device.EndServing(0);
        _users.TakeForDead(_backend.Turn);
        var cleared = _region.AllWords().ToList();
        // The host does not know yet.
        Assert.False(_users.Session.Condition.IsFenced);
        _device.Step(1000);
        Assert.Equal(DeviceStage.Over, _device.Stage);
        Assert.Equal(cleared, _region.AllWords().ToList());
    }

    [Fact]
    public void Leaves_its_entry_alone_if_its_host_is_cleared_while_its_export_ends()
    {
        _device.BeginStop(force: false, 0);
        _users.TakeForDead(_backend.Turn);
        _users.FindOutThatItIsCleared();
        var cleared = _region.AllWords().ToList();
        // A stop that is refused by its users serves on, and fails.
        Assert.Equal(LifeState.Stopping, _device.Status.State);
        _device.RefuseStop(1);
        Assert.Equal(LifeState.Failed, _device.Status.State);
        _device.BeginStop(force: true, 2);
        _device.EndServing(3);
        Assert.All(_device.Queues, q => Assert.Equal(QueuePhase.Lost, q.Phase));
        _device.Step(4000);
        Assert.Equal((DeviceStage.Over, LifeState.Gone), (_device.Stage, _device.Status.State));
        Assert.Equal(cleared, _region.AllWords().ToList());
    }

    [Fact]
    public void Is_quiet_after_its_host_was_cleared_when_all_its_queues_are_fenced()
    {
        _users.TakeForDead(_backend.Turn);
        _users.FindOutThatItIsCleared();
        Assert.Equal((DeviceStage.Serving, LifeState.Failed), (_device.Stage, _device.Status.State));
        Assert.False(_device.IsQuiet);
        _device.Queues[0].Fence();
        Assert.False(_device.IsQuiet);
        _device.Fence();
        Assert.True(_device.IsQuiet);
    }

    private void End()
    {
        _device.BeginStop(force: false, _users.NowMs);
        _device.EndServing(_users.NowMs);
        StepUntil(DeviceStage.Over);
        Assert.Equal([ClaimState.Free, ClaimState.Free, ClaimState.Free], States);
    }

    private void StepUntil(DeviceStage stage) => _users.StepUntil(now =>
    {
        _backend.Turn();
        _device.Step(now * 1000);
        return _device.Stage == stage;
    });
}
