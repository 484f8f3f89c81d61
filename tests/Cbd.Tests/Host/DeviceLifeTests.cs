using Cbd.Host.Devices;
using Cbd.Host.Sessions;
using Cbd.Protocol.Format;
using Cbd.Simulation;
using Cbd.Tests.Hosts;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>A device while it starts: whatever goes wrong, and whoever stops it, nothing of it stays.</summary>
public sealed class A_device_that_starts : IDisposable
{
    private readonly TestRegion _region = new();
    private readonly SteppedHost _disks, _users;
    private readonly SteppedBackend _backend;

    public A_device_that_starts()
    {
        _disks = new SteppedHost(_region, "disks").Register();
        _users = new SteppedHost(_region, "users").Register();
        _backend = new SteppedBackend(_disks);
    }

    public void Dispose() => _backend.Dispose();

    private IEnumerable<string> Taken => _region.AllWords()
        .Where(w => w.Word.State != ClaimState.Free && !w.Name.StartsWith("host", StringComparison.Ordinal) && !w.Name.StartsWith("backend", StringComparison.Ordinal))
        .Select(w => $"{w.Name} {w.Word.State}");

    [Fact]
    public void Gives_the_channels_back_that_it_has_if_there_are_not_enough()
    {
        DeviceLife<ArrayMemory, SafePolicy> device = _users.NewDevice(0, queues: 5);
        CbdException few = Assert.Throws<CbdException>(() => device.Claim(0));
        Assert.Equal(CbdErrorKind.Exhausted, few.Kind);
        Assert.Contains("no free channel for queue 5 of 5", few.Message, StringComparison.Ordinal);
        AssertNothingIsLeft(device);
        _users.NewDevice(0, queues: 4).Claim(1);
        Assert.Equal(5, Taken.Count());
    }

    [Fact]
    public void Gives_its_channels_back_if_the_backend_has_another_disk_than_it_wants()
    {
        DeviceLife<ArrayMemory, SafePolicy> device = _users.NewDevice(0, queues: 2, identity: "file:7:7");
        device.Claim(0);
        Assert.Contains("another disk", Assert.Throws<CbdException>(() => device.Activate("nbd", 0)).Message, StringComparison.Ordinal);
        AssertNothingIsLeft(device);
    }

    [Fact]
    public void Gives_its_channels_back_if_its_name_cannot_be_published()
    {
        DeviceLife<ArrayMemory, SafePolicy> device = _users.NewDevice(0, queues: 2);
        device.Claim(0);
        Assert.Equal(CbdErrorKind.Invalid, Assert.Throws<CbdException>(() => device.Activate(new string('x', 5000), 0)).Kind);
        AssertNothingIsLeft(device);
    }

    [Fact]
    public void Gives_its_channels_back_if_the_backend_is_stopped_between_its_claim_and_its_name()
    {
        DeviceLife<ArrayMemory, SafePolicy> device = _users.NewDevice(0, queues: 2);
        device.Claim(0);
        _backend.Life.BeginStop(force: false, leaves: false, 0);
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => device.Activate("nbd", 0)).Kind);
        Assert.True(_backend.TryEndStop());
        AssertNothingIsLeft(device);
        Assert.Equal(ClaimState.Free, _region.BackendWord(0).State);
    }

    [Fact]
    public void Gives_back_channels_that_others_have_quarantined_meanwhile()
    {
        DeviceLife<ArrayMemory, SafePolicy> device = _users.NewDevice(0, queues: 2);
        device.Claim(0);
        (int channel, ClaimWord word) = device.Channels[1];
        _region.Store(_region.Geometry.ChannelOffset(channel), word.With(ClaimState.Quarantined));
        device.Cancel("its address is taken", 1);
        AssertNothingIsLeft(device);
        Assert.Equal("its address is taken", device.StartTrouble);
    }

    [Fact]
    public void Claims_nothing_after_its_host_was_cleared_and_gives_back_what_it_had()
    {
        DeviceLife<ArrayMemory, SafePolicy> late = _users.NewDevice(0);
        DeviceLife<ArrayMemory, SafePolicy> claimed = _users.NewDevice(0);
        claimed.Claim(0);
        _users.TakeForDead();
        _users.FindOutThatItIsCleared();
        Assert.Throws<CbdException>(() => late.HasToWait(1));
        Assert.Throws<CbdException>(() => late.Claim(1));
        Assert.Throws<CbdException>(() => claimed.Activate("nbd", 1));
        Assert.True(late.IsOver && claimed.IsOver);
        Assert.Empty(Taken);
    }

    [Theory]
    [InlineData("nothing")]
    [InlineData("its claim")]
    [InlineData("an offer")]
    [InlineData("its handlers")]
    public void Is_over_if_it_is_stopped_when_it_has(string what)
    {
        DeviceLife<ArrayMemory, SafePolicy> device = _users.NewDevice(0, queues: 2);
        if (what != "nothing")
            device.Claim(0);
        if (what is "an offer" or "its handlers")
            device.Activate("nbd", 0);
        if (what == "its handlers")
            StepUntil(device, DeviceStage.Attached);
        device.BeginStop(force: false, 1);
        // A second stop is the same stop.
        device.BeginStop(force: false, 2);
        if (what == "its claim")
            Assert.Throws<CbdException>(() => device.Activate("nbd", 3));
        else if (what != "nothing")
            Assert.Throws<CbdException>(() => device.BeginServing(3));
        StepUntil(device, DeviceStage.Over);
        AssertNothingIsLeft(device);
    }

    [Fact]
    public void Is_taken_back_if_its_channels_are_not_served_in_time()
    {
        DeviceLife<ArrayMemory, SafePolicy> device = _users.NewDevice(0, queues: 2);
        device.Claim(0);
        device.Activate("nbd", 0);
        device.Step(_users.Session.Times.AttachMs * 1000);
        Assert.Equal("", device.StartTrouble);
        device.Step((_users.Session.Times.AttachMs + 1) * 1000);
        Assert.Contains("did not attach all of 2 queues", device.StartTrouble, StringComparison.Ordinal);
        device.Step((_users.Session.Times.AttachMs + 2) * 1000);
        AssertNothingIsLeft(device);
    }

    [Fact]
    public void Is_taken_back_if_its_backend_is_given_up_meanwhile()
    {
        DeviceLife<ArrayMemory, SafePolicy> device = _users.NewDevice(0);
        device.Claim(0);
        device.Activate("nbd", 0);
        _backend.Life.BeginStop(force: true, leaves: true, 0);
        Assert.True(_backend.TryEndStop());
        _users.Session.ClearBackend(0, force: true, fenced: false, 0);
        device.Watch(1);
        StepUntil(device, DeviceStage.Over);
        Assert.Contains("backend 0 was cleared", device.StartTrouble, StringComparison.Ordinal);
        AssertNothingIsLeft(device);
    }

    [Fact]
    public void Quarantines_a_channel_whose_handler_does_not_let_go_without_being_forced()
    {
        DeviceLife<ArrayMemory, SafePolicy> device = _users.NewDevice(0);
        device.Claim(0);
        device.Activate("nbd", 0);
        _backend.Turn();
        Assert.Equal(1, _backend.Count);
        device.BeginStop(force: false, 0);
        device.Step(0);
        Assert.Equal(DeviceStage.Closing, device.Stage);
        device.Step((_users.Session.Times.CloseMs + 1) * 1000);
        Assert.Equal(DeviceStage.Over, device.Stage);
        Assert.Equal(["blkdev 0 Quarantined", "channel 0 Quarantined"], Taken);
    }

    [Fact]
    public void Waits_for_the_clearing_of_a_dead_one_on_its_backend_but_not_for_ever()
    {
        TestHost dead = _region.Host("dead").Register();
        dead.StartBlkdev(0);
        DeviceLife<ArrayMemory, SafePolicy> device = _users.NewDevice(0);
        Assert.False(device.HasToWait(1));
        dead.Kill();
        DeviceLife<ArrayMemory, SafePolicy> waiting = _users.NewDevice(0);
        Assert.True(waiting.HasToWait(1));
        Assert.Contains("blkdev 0 of a dead host", waiting.Status.Reason, StringComparison.Ordinal);
        Assert.False(waiting.HasToWait(1 + _users.Session.Times.ClearingMs));
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => waiting.Claim(2)).Kind);
        _users.Session.Look(sample: true, 3000);
        Assert.False(device.HasToWait(4));
        device.Claim(4);
    }

    private void StepUntil(DeviceLife<ArrayMemory, SafePolicy> device, DeviceStage stage) => _users.StepUntil(now =>
    {
        _backend.Turn();
        device.Step(now * 1000);
        return device.Stage == stage;
    });

    private void AssertNothingIsLeft(DeviceLife<ArrayMemory, SafePolicy> device)
    {
        Assert.Equal((DeviceStage.Over, LifeState.Gone), (device.Stage, device.Status.State));
        Assert.Empty(Taken);
        Assert.Equal(WriterWord.None, _region.Writer(0));
    }
}
