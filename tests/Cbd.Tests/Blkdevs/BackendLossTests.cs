using Cbd.Host.Devices;
using Cbd.Protocol.Blkdevs;
using Xunit;

namespace Cbd.Tests.Blkdevs;

public sealed class A_device_whose_backend_is_away
{
    [Fact]
    public void Lets_requests_wait_for_ever_by_default()
    {
        var loss = new BackendLoss(LossPolicy.WaitForEver);
        Assert.False(loss.Step(BackendPresence.Served, 0));
        Assert.False(loss.Step(BackendPresence.Lost, 10));
        Assert.False(loss.Step(BackendPresence.Lost, long.MaxValue / 2));
        Assert.False(loss.IsFailing);
        Assert.Equal(BackendPresence.Lost, loss.Presence);
    }

    [Fact]
    public void Fails_them_at_once_if_told_so_until_it_is_served()
    {
        var loss = new BackendLoss(new LossPolicy(OnBackendLoss.Fail, 0));
        Assert.True(loss.Step(BackendPresence.Lost, 0));
        Assert.True(loss.IsFailing);
        Assert.False(loss.Step(BackendPresence.Lost, 1));
        Assert.True(loss.Step(BackendPresence.Served, 2));
        Assert.False(loss.IsFailing);
    }

    [Fact]
    public void Fails_them_when_they_waited_for_the_timeout_counted_from_the_loss()
    {
        var loss = new BackendLoss(new LossPolicy(OnBackendLoss.Queue, 1000));
        loss.Step(BackendPresence.Served, 5000);
        Assert.False(loss.Step(BackendPresence.Lost, 6000));
        Assert.False(loss.Step(BackendPresence.Lost, 6999));
        Assert.True(loss.Step(BackendPresence.Lost, 7000));
        Assert.True(loss.IsFailing);
        loss.Step(BackendPresence.Served, 8000);
        // Each loss has the whole time.
        Assert.False(loss.Step(BackendPresence.Lost, 8001));
        Assert.False(loss.Step(BackendPresence.Lost, 9000));
        Assert.True(loss.Step(BackendPresence.Lost, 9001));
    }

    [Fact]
    public void Fails_them_at_once_when_the_operator_stopped_it_and_does_not_wait_anew_while_it_is_taken_up()
    {
        var loss = new BackendLoss(LossPolicy.WaitForEver);
        loss.Step(BackendPresence.Served, 0);
        Assert.True(loss.Step(BackendPresence.Stopped, 1));
        Assert.False(loss.Step(BackendPresence.Lost, 2));
        Assert.True(loss.IsFailing);
        Assert.True(loss.Step(BackendPresence.Served, 3));
        // The next loss is a loss like any other.
        Assert.False(loss.Step(BackendPresence.Lost, 4));
        Assert.False(loss.IsFailing);
    }
}
