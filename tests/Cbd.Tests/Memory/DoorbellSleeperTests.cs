using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Memory;

/// <summary>The time-outs are half an hour: a test whose wake is lost hangs, it does not pass late.</summary>
public sealed class DoorbellSleeperTests : IDisposable
{
    private const int VeryLong = int.MaxValue;
    private readonly TemporaryDirectory _files = new();
    private readonly RegionSource _source;
    private readonly RegionMapping _mapping;
    private readonly RegionMapping _peer;

    public DoorbellSleeperTests()
    {
        _source = RegionSource.Open(_files.PathOf("region"), 1 << 16);
        _mapping = _source.Map();
        _peer = RegionMapping.Open(_source.Path);
    }

    public void Dispose()
    {
        _peer.Dispose();
        _mapping.Dispose();
        _source.Dispose();
        _files.Dispose();
    }

    [Fact]
    public void Interrupt_does_nothing_once_it_is_disposed_and_may_come_meanwhile()
    {
        for (int round = 0; round < 200; round++)
        {
            var sleeper = new DoorbellSleeper();
            using var started = new ManualResetEventSlim();
            bool isOver = false;
            var interrupter = new Thread(() =>
            {
                while (!Volatile.Read(ref isOver))
                {
                    sleeper.Interrupt();
                    started.Set();
                }
            });
            interrupter.Start();
            started.Wait(TestContext.Current.CancellationToken);
            sleeper.Dispose();
            sleeper.Interrupt();
            Volatile.Write(ref isOver, true);
            interrupter.Join();
        }
    }

    [Fact]
    public void Ring_of_any_watched_doorbell_ends_the_sleep_and_no_message_is_lost()
    {
        const int rounds = 20_000;
        MappedMemory memory = _mapping.Memory, peer = _peer.Memory;
        long[] doorbells = [.. Enumerable.Range(0, DoorbellSleeper.MaximumDoorbells).Select(i => i * 128L)];
        const long message = 1 << 15;
        const long answer = message + 64;
        var ringer = new Thread(() =>
        {
            for (ulong round = 1; round <= rounds; round++)
            {
                peer.WriteRelease(message, round);
                Doorbells.Ring(peer, doorbells[(int)(round % (ulong)doorbells.Length)]);
                while (peer.ReadAcquire(answer) != round)
                    Thread.SpinWait(1);
            }
        });
        using var sleeper = new DoorbellSleeper();
        ringer.Start();
        int sleeps = 0;
        for (ulong round = 1; round <= rounds; round++)
        {
            while (memory.ReadAcquire(message) != round)
            {
                AnnounceAll(memory, doorbells);
                if (memory.ReadAcquire(message) == round)
                    break;
                sleeps++;
                sleeper.Wait(memory, doorbells, VeryLong);
            }

            foreach (long doorbell in doorbells)
                Doorbells.Retract(memory, doorbell);
            memory.WriteRelease(answer, round);
        }

        ringer.Join();
        Assert.NotEqual(0, sleeps);
    }

    [Fact]
    public void Interrupt_before_the_sleep_ends_it_once()
    {
        using var sleeper = new DoorbellSleeper();
        sleeper.Interrupt();
        sleeper.Interrupt();
        sleeper.Wait(_mapping.Memory, [], VeryLong);
        sleeper.Wait(_mapping.Memory, [], 1000);
    }

    [Fact]
    public void Interrupts_of_another_thread_are_never_lost()
    {
        const int rounds = 20_000;
        using var sleeper = new DoorbellSleeper();
        int asked = 0, answered = 0;
        var asker = new Thread(() =>
        {
            for (int round = 1; round <= rounds; round++)
            {
                Volatile.Write(ref asked, round);
                sleeper.Interrupt();
                while (Volatile.Read(ref answered) != round)
                    Thread.SpinWait(1);
            }
        });
        asker.Start();
        while (answered < rounds)
        {
            if (Volatile.Read(ref asked) == answered)
                sleeper.Wait(_mapping.Memory, [], VeryLong);
            else
                Volatile.Write(ref answered, answered + 1);
        }

        asker.Join();
    }

    [Fact]
    public void Ring_stores_and_wakes_only_for_a_sleeper()
    {
        MappedMemory memory = _mapping.Memory;
        Assert.False(Doorbells.Ring(memory, 64));
        Doorbells.Announce(memory, 64);
        Assert.True(Doorbells.Ring(memory, 64));
        Assert.False(Doorbells.Ring(memory, 64));
        Doorbells.Announce(memory, 64);
        Doorbells.Retract(memory, 64);
        Assert.False(Doorbells.Ring(memory, 64));
        memory.WriteRelease(64, 0x1_0000_0001);
        Assert.False(Doorbells.Ring(memory, 64));
        Assert.Equal(0x1_0000_0001ul, memory.ReadAcquire(64));
    }

    [Fact]
    public void Sleep_ends_at_once_when_a_doorbell_was_rung_before()
    {
        using var sleeper = new DoorbellSleeper();
        _mapping.Memory.WriteRelease(0, 1);
        sleeper.Wait(_mapping.Memory, [0, 128], VeryLong);
        Assert.Equal(0ul, _mapping.Memory.ReadAcquire(128));
    }

    [Fact]
    public void Sleeps_are_bounded_where_not_all_doorbells_can_be_watched()
    {
        using var sleeper = new DoorbellSleeper();
        long[] doorbells = [.. Enumerable.Range(0, DoorbellSleeper.MaximumDoorbells + 1).Select(i => i * 128L)];
        AnnounceAll(_mapping.Memory, doorbells);
        sleeper.Wait(_mapping.Memory, doorbells, VeryLong);
        sleeper.Wait(_mapping.Memory.WithWakes(false), doorbells.AsSpan(0, 1), VeryLong);
    }

    [Fact]
    public void Sleep_that_watches_no_doorbell_ends_with_an_interrupt()
    {
        using var sleeper = new DoorbellSleeper();
        Doorbells.Announce(_mapping.Memory, 0);
        bool isOver = false;
        var asker = new Thread(() =>
        {
            Volatile.Write(ref isOver, true);
            sleeper.Interrupt();
        });
        asker.Start();
        while (!Volatile.Read(ref isOver))
            sleeper.Wait(_mapping.Memory.WithWakes(false), [0], VeryLong, unwatchedMicroseconds: VeryLong);
        asker.Join();
    }

    private static void AnnounceAll(MappedMemory memory, long[] doorbells)
    {
        foreach (long doorbell in doorbells)
            Doorbells.Announce(memory, doorbell);
    }
}
