using Cbd.Blocks;
using Cbd.Exports.Pumping;
using Cbd.Host;
using Xunit;

namespace Cbd.Tests.Exports.Pumping;

/// <summary>What a pump does between two turns, with a way to sleep that only writes down what was asked of it.</summary>
public sealed class PumpIdleTests
{
    private readonly List<string> _calls = [];

    [Fact]
    public void Work_is_followed_by_a_look_and_never_by_a_sleep()
    {
        Assert.Equal(7, Idle(PollMode.Sleep).Next(progressed: true, mayWait: true, outstanding: 0));
        Assert.Equal(7, Idle(PollMode.Sleep).Next(progressed: false, mayWait: false, outstanding: 3));
        Assert.Equal(["look", "look"], _calls);
    }

    [Fact]
    public void A_busy_pump_never_sleeps()
    {
        PumpIdle<Sleeper> idle = Idle(PollMode.Busy);
        idle.Next(progressed: false, mayWait: true, outstanding: 0);
        idle.Next(progressed: false, mayWait: true, outstanding: 1);
        Assert.Equal(["look in spin", "look in spin, device busy"], _calls);
    }

    [Fact]
    public void An_adaptive_pump_that_had_work_spins_before_it_sleeps()
    {
        PumpIdle<Sleeper> idle = Idle(PollMode.Adaptive);
        idle.Next(progressed: true, mayWait: true, outstanding: 1);
        while (_calls.Count < 1_000_000 && !_calls[^1].StartsWith("sleep", StringComparison.Ordinal))
            idle.Next(progressed: false, mayWait: true, outstanding: 1);
        Assert.Equal("sleep with device 100000", _calls[^1]);
        Assert.Equal("look", _calls[0]);
    }

    [Fact]
    public void With_nothing_at_the_device_it_sleeps_for_the_second_after_which_a_queue_must_be_polled()
    {
        Idle(PollMode.Sleep).Next(progressed: false, mayWait: true, outstanding: 0);
        Assert.Equal(["sleep 1000000"], _calls);
    }

    [Fact]
    public void With_requests_at_the_device_it_sleeps_for_both()
    {
        Assert.Equal(9, Idle(PollMode.Sleep).Next(progressed: false, mayWait: true, outstanding: 1));
        Assert.Equal(["sleep with device 100000"], _calls);
    }

    [Fact]
    public void Where_nothing_announces_a_completion_its_sleeps_grow_until_there_is_one()
    {
        PumpIdle<Sleeper> idle = Idle(PollMode.Sleep);
        idle.Sleeper.CannotSleepWithDevice = true;
        for (int i = 0; i < 7; i++)
            idle.Next(progressed: false, mayWait: true, outstanding: 1);
        idle.Next(progressed: true, mayWait: true, outstanding: 1);
        idle.Next(progressed: false, mayWait: true, outstanding: 1);
        Assert.Equal(
            ["sleep 50", "sleep 100", "sleep 200", "sleep 400", "sleep 800", "sleep 1000", "sleep 1000", "look", "sleep 50"],
            _calls.Where(call => !call.StartsWith("sleep with", StringComparison.Ordinal)));
    }

    private PumpIdle<Sleeper> Idle(PollMode mode) => new(new Sleeper(_calls), new NoQueue(), mode);

    private struct Sleeper(List<string> calls) : IPumpSleeper
    {
        public bool CannotSleepWithDevice { get; set; }

        public readonly int Look()
        {
            calls.Add("look");
            return 7;
        }

        public readonly int LookInSpin(bool deviceIsBusy)
        {
            calls.Add(deviceIsBusy ? "look in spin, device busy" : "look in spin");
            return 0;
        }

        public readonly int Sleep(int timeoutMicroseconds)
        {
            calls.Add($"sleep {timeoutMicroseconds}");
            return 0;
        }

        public readonly bool TrySleepWithDevice(int timeoutMicroseconds, out int events)
        {
            calls.Add($"sleep with device {timeoutMicroseconds}");
            events = 9;
            return !CannotSleepWithDevice;
        }
    }

    private sealed class NoQueue : IBlockQueue
    {
        public int Outstanding => 0;

        public bool TrySubmit(in BlockRequest request) => false;

        public int Poll(Span<BlockCompletion> completions) => 0;

        public void Wait(int timeoutMicroseconds)
        {
        }

        public void Interrupt()
        {
        }

        public void Dispose()
        {
        }
    }
}
