using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Memory;

/// <summary>Commands through io_uring, and a sleep in a ring that a doorbell ends. Time-outs that only a lost wake meets are very long.</summary>
public sealed class RingCommandTests
{
    private const int VeryLong = int.MaxValue;

    [Theory]
    [InlineData(false, IoUring.MaxCommandBytes)]
    [InlineData(true, IoUring.MaxWideCommandBytes)]
    public void A_driver_without_commands_refuses_them(bool wide, int room)
    {
        using IoUring ring = Create(wide);
        using var file = FileDescriptor.Open("/dev/urandom", OpenFlags.ReadWrite);
        Assert.Equal(0, ring.RegisterFile(file));
        // Several, so that every entry of a ring of four is used, the wide ones at their own distance.
        for (int round = 0; round < 9; round++)
            Assert.Equal(-Errno.EOPNOTSUPP, ring.RunCommand(1, new byte[room], VeryLong / 1000));
        Assert.Throws<ArgumentOutOfRangeException>(() => ring.PrepareCommand(1, new byte[room + 1], 0));
    }

    [Fact]
    public void Commands_fill_the_ring_and_come_back_with_their_cookies()
    {
        using IoUring ring = Create(wide: true);
        using var file = FileDescriptor.Open("/dev/urandom", OpenFlags.ReadWrite);
        Assert.Equal(0, ring.RegisterFile(file));
        for (ulong cookie = 0; cookie < 4; cookie++)
            Assert.True(ring.PrepareCommand(1, [], cookie));
        Assert.False(ring.PrepareCommand(1, [], 4));
        ring.Enter();
        var seen = new List<ulong>();
        while (seen.Count < 4)
        {
            if (ring.TryReap(out ulong cookie, out int result))
            {
                Assert.Equal(-Errno.EOPNOTSUPP, result);
                seen.Add(cookie);
            }
        }

        seen.Sort();
        Assert.Equal([0ul, 1, 2, 3], seen);
    }

    [Fact]
    public void A_doorbell_or_a_completion_ends_the_sleep_in_a_ring()
    {
        using var files = new TemporaryDirectory();
        using var source = RegionSource.Open(files.PathOf("region"), 1 << 16);
        using RegionMapping mapping = source.Map();
        MappedMemory memory = mapping.Memory;
        using IoUring ring = Create(wide: false);
        using var wake = new PollWake();
        var doorbell = new RingDoorbell(ring);
        Assert.True(ring.PreparePoll(wake, 5));
        for (int round = 0; round < 1000; round++)
        {
            bool rings = round % 2 == 0;
            Doorbells.Announce(memory, 128);
            var peer = new Thread(() =>
            {
                if (rings)
                    Doorbells.Ring(mapping.Memory, 128);
                else
                    wake.Signal();
            });
            peer.Start();
            bool done = false;
            while (!done)
            {
                doorbell.Wait(memory, 128, VeryLong);
                Assert.SkipWhen(doorbell.IsUnsupported, "this kernel has no futex waits in io_uring (Linux 6.7)");
                while (ring.TryReap(out ulong cookie, out int result))
                {
                    if (doorbell.TryTake(cookie, result))
                    {
                        Assert.SkipWhen(doorbell.IsUnsupported, "this kernel has no futex waits in io_uring (Linux 6.7)");
                        continue;
                    }

                    Assert.Equal(5ul, cookie);
                    wake.Clear();
                    Assert.True(ring.PreparePoll(wake, 5));
                    done = !rings;
                }

                done |= rings && memory.ReadAcquire(128) == 0;
            }

            peer.Join();
            Doorbells.Retract(memory, 128);
        }
    }

    [Fact]
    public void A_sleep_of_no_length_only_submits()
    {
        using var files = new TemporaryDirectory();
        using var source = RegionSource.Open(files.PathOf("region"), 1 << 16);
        using RegionMapping mapping = source.Map();
        using IoUring ring = Create(wide: false);
        using var wake = new PollWake();
        wake.Signal();
        Assert.True(ring.PreparePoll(wake, 5));
        new RingDoorbell(ring).Wait(mapping.Memory, 128, 0);
        Assert.Equal(0, ring.PreparedCount);
        ulong cookie;
        while (!ring.TryReap(out cookie, out _))
            ring.Enter();
        Assert.Equal(5ul, cookie);
    }

    private static IoUring Create(bool wide)
    {
        int error = wide ? IoUring.TryCreateWide(4, out IoUring? ring) : IoUring.TryCreate(4, out ring);
        Assert.SkipWhen(error is -Errno.EPERM or -Errno.ENOSYS or -Errno.EINVAL, $"io_uring is refused here: errno {-error}");
        Assert.Equal(0, error);
        return ring!;
    }
}
