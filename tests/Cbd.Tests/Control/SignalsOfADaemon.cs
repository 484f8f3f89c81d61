using System.Runtime.InteropServices;
using Cbd.Programs.Daemon;
using Xunit;

namespace Cbd.Tests.Control;

public sealed class SignalsOfADaemon
{
    [Fact]
    public void The_first_asks_for_the_end_and_a_second_at_once_is_one_with_it()
    {
        var ended = new List<PosixSignal>();
        using var stop = new StopSignal(ended.Add, () => 7);
        Assert.False(stop.IsSet);
        stop.Handle(PosixSignal.SIGTERM);
        stop.Handle(PosixSignal.SIGINT);
        Assert.True(stop.IsSet);
        Assert.Equal(PosixSignal.SIGTERM, stop.Wait());
        Assert.Empty(ended);
    }

    [Fact]
    public void A_second_that_comes_later_ends_the_daemon_at_once()
    {
        var ended = new List<PosixSignal>();
        long now = 7;
        using var stop = new StopSignal(ended.Add, () => now);
        stop.Handle(PosixSignal.SIGTERM);
        now += StopSignal.OneSignalMs;
        stop.Handle(PosixSignal.SIGINT);
        Assert.Equal([PosixSignal.SIGINT], ended);
    }
}
