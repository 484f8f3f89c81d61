using Cbd.Host.Backends;
using Cbd.Host.Devices;
using Cbd.Host.Sessions;
using Cbd.Protocol.Format;
using Cbd.Simulation;
using Cbd.Tests.Hosts;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>What a device makes of what becomes of its backend.</summary>
public sealed class A_device_that_looks_at_its_backend : IDisposable
{
    private readonly TestRegion _region = new();
    private readonly SteppedHost _users;
    private readonly List<SteppedBackend> _started = [];
    private SteppedHost _disks = null!;
    private SteppedBackend _backend = null!;
    private DeviceLife<ArrayMemory, SafePolicy> _device = null!;

    public A_device_that_looks_at_its_backend() => _users = new SteppedHost(_region, "users").Register();

    public void Dispose() => _started.ForEach(b => b.Dispose());

    [Fact]
    public void Fails_its_requests_when_the_operator_stopped_it_and_goes_on_with_the_next_session()
    {
        Serve();
        Stop(leaves: false);
        Look();
        Assert.Equal((LifeState.Waiting, "the operator of its host stopped the backend"), (_device.Status.State, _device.Status.Reason));
        Assert.True(_device.IsFailing);
        Start(new BackendWish(0), TestRegion.Disk());
        Look();
        Assert.Equal((LifeState.Running, false), (_device.Status.State, _device.IsFailing));
    }

    [Fact]
    public void Waits_when_its_host_left()
    {
        Serve();
        Stop(leaves: true);
        Look();
        Assert.Equal((LifeState.Waiting, "the last session of the backend is over, and nobody has started it again"), (_device.Status.State, _device.Status.Reason));
        Assert.False(_device.IsFailing);
    }

    [Fact]
    public void Waits_while_it_is_cleared()
    {
        Serve();
        _region.Store(_region.Geometry.BackendOffset(0), _region.BackendWord(0).With(ClaimState.Clearing));
        Look();
        Assert.Equal((LifeState.Waiting, "the backend is being taken over or cleared"), (_device.Status.State, _device.Status.Reason));
    }

    [Fact]
    public void Says_that_a_host_of_another_machine_is_not_heard_of_and_goes_on_when_it_is()
    {
        Serve(isFar: true);
        Beat(_disks);
        Look();
        Assert.Equal(LifeState.Running, _device.Status.State);
        for (int beat = 0; beat <= _disks.Identity.DeadMs / _disks.Identity.BeatMs; beat++)
            Look();
        Assert.Equal((LifeState.Waiting, "the backend's host is not heard of, and not proven dead"), (_device.Status.State, _device.Status.Reason));
        Beat(_disks);
        Look();
        Assert.Equal(LifeState.Running, _device.Status.State);
    }

    [Fact]
    public void Fails_for_good_when_it_was_given_up()
    {
        Serve();
        Stop(leaves: true);
        _users.Session.ClearBackend(0, force: true, fenced: false, _users.NowMs);
        Look();
        Assert.Equal((LifeState.Failed, "backend 0 was cleared: stop the device"), (_device.Status.State, _device.Status.Reason));
        Assert.Equal(ClaimState.Free, _device.BackendWord.State);
    }

    [Theory]
    [InlineData("file:9:9", 1 << 20, "is another disk now")]
    [InlineData("file:1:2", 1 << 19, "must not become smaller")]
    public void Fails_for_good_when_it_comes_back_as_something_else(string identity, long size, string why)
    {
        Serve();
        int before = _device.SizeNews;
        Stop(leaves: true);
        // Nobody looks between the end of the one and the start of the other.
        _users.Session.ClearBackend(0, force: true, fenced: false, _users.NowMs);
        Start(new BackendWish(null), TestRegion.Disk(identity, size));
        Assert.Equal(0, _backend.Backend);
        Look();
        Assert.Equal(LifeState.Failed, _device.Status.State);
        Assert.Contains(why, _device.Status.Reason, StringComparison.Ordinal);
        Assert.Equal(before + 1, _device.SizeNews);
    }

    [Fact]
    public void Fails_when_the_disk_was_in_memory_and_began_anew()
    {
        Serve(identity: "memory:1");
        Stop(leaves: true);
        Start(new BackendWish(0), TestRegion.Disk("memory:2"));
        Look();
        Assert.Equal(LifeState.Failed, _device.Status.State);
        Assert.Equal("the disk of backend 0 was in memory and began anew, its data is gone (memory:2, was memory:1): dev-stop, then dev-start", _device.Status.Reason);
    }

    [Fact]
    public void Goes_on_with_a_disk_that_an_operator_has_confirmed()
    {
        const string Before = "file:0,41:12:-:-:-:11111111:-", Now = "file:0,42:12:-:-:-:22222222:-";
        Serve(identity: Before);
        Stop(leaves: true);
        Start(new BackendWish(0), TestRegion.Disk(Now));
        Look();
        Assert.Equal(LifeState.Running, _device.Status.State);
    }

    [Fact]
    public void Has_the_size_that_it_has_grown_to()
    {
        Serve();
        int before = _device.SizeNews;
        Assert.True(_backend.Life.Claim!.Update(body => body with { SizeBytes = 2 << 20 }));
        Look();
        Assert.Equal(before + 1, _device.SizeNews);
        Assert.Equal(2 << 20, _device.State!.Info.SizeBytes);
        Assert.Equal(LifeState.Running, _device.Status.State);
    }

    [Fact]
    public void Looks_no_more_once_its_own_host_was_cleared()
    {
        Serve();
        _users.TakeForDead(_backend.Turn);
        _users.FindOutThatItIsCleared();
        string why = _device.Status.Reason;
        Stop(leaves: true);
        Look();
        Assert.Equal((LifeState.Failed, why), (_device.Status.State, _device.Status.Reason));
    }

    private void Serve(bool isFar = false, string identity = "file:1:2")
    {
        _disks = new SteppedHost(_region, "disks", isFar).Register();
        Start(new BackendWish(null), TestRegion.Disk(identity));
        _device = _users.NewDevice(0);
        _device.Claim(_users.NowMs);
        _device.Activate("nbd", _users.NowMs);
        _users.StepUntil(now =>
        {
            Beat(_disks);
            _backend.Turn();
            _device.Step(now * 1000);
            return _device.Stage == DeviceStage.Attached;
        });
        _device.BeginServing(_users.NowMs);
        Assert.Equal(LifeState.Running, _device.Status.State);
    }

    private void Start(BackendWish wish, BackendBody body)
    {
        _backend = new SteppedBackend(_disks, wish, body);
        _started.Add(_backend);
    }

    private void Stop(bool leaves)
    {
        _backend.Life.BeginStop(force: true, leaves, _disks.NowMs);
        _disks.StepUntil(_ => _backend.TryEndStop());
    }

    private static void Beat(SteppedHost host) => Assert.True(host.Membership.Beat(host.NowMs));

    /// <summary>A beat later, the users look around.</summary>
    private void Look()
    {
        _users.NowMs += _users.Identity.BeatMs;
        _users.Session.Look(sample: true, _users.NowMs * 1000);
    }
}
