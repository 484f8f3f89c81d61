using System.Text;
using Cbd.Memory;
using Cbd.Programs.Daemon.Supervision;
using Xunit;

namespace Cbd.Tests.Supervision;

/// <summary>When the next worker is started, and when the supervisor ends.</summary>
public sealed class SupervisorRulesTests
{
    private static readonly ProcessEnd s_killed = new(null, 9);
    private static readonly ProcessEnd s_refused = new(2, null);

    [Fact]
    public void A_worker_that_refuses_to_start_ends_the_supervisor_with_its_code() =>
        Assert.Equal(AfterEnd.EndWithCode, SupervisorRules.Decide(s_refused, isStopping: false, wasAnyReady: false, wasAnyStarted: false));

    [Fact]
    public void A_worker_that_is_killed_before_it_is_ready_is_started_again() =>
        Assert.Equal(AfterEnd.Restart, SupervisorRules.Decide(s_killed, isStopping: false, wasAnyReady: false, wasAnyStarted: false));

    [Fact]
    public void A_worker_that_ends_after_one_had_started_is_started_again_however_it_ended()
    {
        foreach (ProcessEnd end in new[] { s_killed, s_refused, new ProcessEnd(0, null) })
            Assert.Equal(AfterEnd.Restart, SupervisorRules.Decide(end, isStopping: false, wasAnyReady: true, wasAnyStarted: true));
    }

    [Fact]
    public void What_waited_and_then_could_not_be_done_would_fail_again_and_what_was_told_to_end_would_not()
    {
        Assert.Equal(AfterEnd.EndWithCode, SupervisorRules.Decide(s_refused, isStopping: false, wasAnyReady: true, wasAnyStarted: false));
        Assert.Equal(AfterEnd.Restart, SupervisorRules.Decide(new ProcessEnd(0, null), isStopping: false, wasAnyReady: true, wasAnyStarted: false));
        Assert.Equal(AfterEnd.Restart, SupervisorRules.Decide(s_killed, isStopping: false, wasAnyReady: true, wasAnyStarted: false));
        // What it waited for is no time in which it served.
        Assert.Null(SupervisorRules.ServedMs(s_refused, 5000, null));
        Assert.Equal(10, SupervisorRules.ServedMs(s_refused, 5000, 10));
        Assert.Equal(5000, SupervisorRules.ServedMs(s_killed, 5000, null));
    }

    [Fact]
    public void A_stop_ends_the_supervisor_as_the_worker_ends()
    {
        Assert.Equal(AfterEnd.EndWithCode, SupervisorRules.Decide(new ProcessEnd(0, null), isStopping: true, wasAnyReady: true, wasAnyStarted: true));
        Assert.Equal(AfterEnd.EndWithCode, SupervisorRules.Decide(s_refused, isStopping: true, wasAnyReady: false, wasAnyStarted: false));
        Assert.Equal(AfterEnd.EndBySignal, SupervisorRules.Decide(s_killed, isStopping: true, wasAnyReady: true, wasAnyStarted: true));
    }

    [Fact]
    public void A_worker_that_left_all_to_the_next_one_is_followed_by_it_also_when_that_is_to_end_what_is_kept()
    {
        var parked = new ProcessEnd(SupervisorRules.ParkedExitCode, null);
        Assert.Equal(AfterEnd.GoOn, SupervisorRules.Decide(parked, isStopping: false, wasAnyReady: true, wasAnyStarted: false));
        Assert.Equal(AfterEnd.GoOn, SupervisorRules.Decide(parked, isStopping: true, wasAnyReady: true, wasAnyStarted: true));
    }

    [Fact]
    public void A_worker_that_served_for_a_second_is_started_again_at_once_each_time()
    {
        var pauses = new RestartPauses();
        for (int i = 0; i < 100; i++)
            Assert.Equal(0, pauses.Died(RestartPauses.GoodMs));
    }

    [Fact]
    public void Pauses_grow_from_one_short_life_to_the_next_up_to_a_bound_and_a_good_life_ends_them()
    {
        var pauses = new RestartPauses();
        long[] seen = [.. Enumerable.Range(0, 12).Select(i => pauses.Died(i % 2 == 0 ? null : RestartPauses.GoodMs - 1))];
        Assert.Equal([0, 100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000, 10_000], seen);
        Assert.Equal(0, pauses.Died(RestartPauses.GoodMs));
        Assert.Equal(0, pauses.Died(null));
        Assert.Equal(100, pauses.Died(null));
        for (int i = 0; i < 1000; i++)
            Assert.InRange(pauses.Died(null), 100, 10_000);
    }

    [Fact]
    public void A_message_is_what_its_lines_say_and_lines_that_are_not_known_say_nothing()
    {
        Assert.Equal(
            new WorkerMessage { Stores = true, Name = "nbd-a" },
            WorkerMessage.Parse("FDSTORE=1\nFDNAME=nbd-a\nFDPOLL=0"u8));
        Assert.Equal(new WorkerMessage { Removes = true, Name = "nbd-a" }, WorkerMessage.Parse("FDSTOREREMOVE=1\nFDNAME=nbd-a\n"u8));
        Assert.Equal(new WorkerMessage { Upgrades = true }, WorkerMessage.Parse("X_CBD_UPGRADE=1"u8));
        Assert.Equal(new WorkerMessage { IsReady = true, Status = "a=b" }, WorkerMessage.Parse("READY=1\nSTATUS=a=b"u8));
        Assert.Equal(new WorkerMessage { IsBarrier = true }, WorkerMessage.Parse("BARRIER=1"u8));
        Assert.Equal(new WorkerMessage { HasHandlers = true, Status = "starting" }, WorkerMessage.Parse("STATUS=starting\nX_CBD_SIGNALS=1"u8));
        Assert.Equal(new WorkerMessage { IsStarted = true }, WorkerMessage.Parse("X_CBD_STARTED=1"u8));
        Assert.Equal(new WorkerMessage { IsAlive = true }, WorkerMessage.Parse("WATCHDOG=1"u8));
        foreach (string other in new[] { "", "\n\n", "FDSTORE=0", "FDSTORE=1 ", "READY", "MAINPID=1", "\0\xff", "=" })
            Assert.Equal(new WorkerMessage(), WorkerMessage.Parse(Encoding.Latin1.GetBytes(other)));
    }
}
