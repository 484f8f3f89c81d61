using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;
using Cbd.Simulation;
using Cbd.Tests.Hosts;
using Cbd.Protocol.Transports;
using Xunit;

namespace Cbd.Tests.Transports;

public sealed class Formatting_a_region
{
    private static readonly RegionOptions s_small = new() { Hosts = 2, Backends = 2, Blkdevs = 2, Channels = 2, RingSlots = 2, ChannelSizeBytes = 24576 };

    private static RegionGeometry Geometry() => RegionPlan.Create(RegionPlan.MinimumBytes(s_small), s_small, Guid.NewGuid());

    private static Formatter<ArrayMemory, SafePolicy> Formatter(ArrayMemory memory, RegionGeometry geometry, bool force = false, LockTable? locks = null) =>
        new(memory, new TransportInfo { Geometry = geometry, Coherence = RegionCoherence.Hardware }, TestRegion.Identity("f"), new TestLocks(locks ?? new LockTable()), force);

    private static void Run(Formatter<ArrayMemory, SafePolicy> formatter)
    {
        for (long now = 0; now < 100_000; now += 1000)
        {
            if (formatter.Step(now) == StepResult.Done)
                return;
        }

        Assert.Fail("formatting did not end");
    }

    [Fact]
    public void Leaves_a_transport_that_can_be_read_with_nothing_but_free_entries()
    {
        RegionGeometry geometry = Geometry();
        var memory = new ArrayMemory(geometry.SizeBytes);
        Run(Formatter(memory, geometry));
        Assert.Equal(geometry, TransportInfo.Read(memory, geometry.SizeBytes).Geometry);
        Assert.True(memory.Bytes[4096..(int)geometry.ChannelAreaOffset].IndexOfAnyExcept((byte)0) < 0);
    }

    [Fact]
    public void Is_refused_over_data_without_force_and_changes_nothing()
    {
        RegionGeometry geometry = Geometry();
        var memory = new ArrayMemory(geometry.SizeBytes);
        "XFSB"u8.CopyTo(memory.Bytes);
        byte[] before = memory.Bytes.ToArray();
        CbdException refused = Assert.Throws<CbdException>(() => Run(Formatter(memory, geometry)));
        Assert.Contains("an xfs file system", refused.Message, StringComparison.Ordinal);
        Assert.Contains("--force", refused.Message, StringComparison.Ordinal);
        Assert.Equal(before, memory.Bytes.ToArray());
        Run(Formatter(memory, geometry, force: true));
        TransportInfo.Read(memory, geometry.SizeBytes);
    }

    [Fact]
    public void Is_refused_while_a_host_lives_even_with_force()
    {
        var region = new TestRegion();
        TestHost host = region.Host("web-1").Register();
        byte[] before = region.Memory.Bytes.ToArray();
        CbdException refused = Assert.Throws<CbdException>(() => Run(Formatter(region.Memory, Geometry(), force: true, region.Locks)));
        Assert.Contains("'web-1'", refused.Message, StringComparison.Ordinal);
        Assert.Equal(before, region.Memory.Bytes.ToArray());
        host.Kill();
        Run(Formatter(region.Memory, Geometry(), force: true, region.Locks));
    }

    [Fact]
    public void Is_refused_while_a_host_of_another_machine_may_live()
    {
        var region = new TestRegion();
        region.Host(TestRegion.Identity("vm-9") with { BootId = TestRegion.OtherBootId, HostUuid = Guid.NewGuid() }).Register();
        CbdException refused = Assert.Throws<CbdException>(() => Run(Formatter(region.Memory, Geometry(), force: true, region.Locks)));
        Assert.Contains("'vm-9'", refused.Message, StringComparison.Ordinal);
        Assert.Contains("host-clear", refused.Message, StringComparison.Ordinal);
    }

    private static readonly Dictionary<string, Action<TestRegion>> s_foreign = new()
    {
        ["newer version"] = region => StoreInfo(region, region.Info with { Version = 3 }),
        ["older version"] = region => StoreInfo(region, region.Info with { Version = 1 }),
        ["unknown feature"] = region => StoreInfo(region, region.Info with { Incompat = 4 }),
        ["damaged"] = region => region.Memory.Bytes[200] ^= 1,
        ["damaged region id"] = region => region.Memory.Bytes[33] ^= 1,
        ["damaged host count"] = region => region.Memory.Bytes[TransportInfo.HostAreaOffset + 12] = 0,
        ["damaged host area"] = region => region.Memory.Bytes[TransportInfo.HostAreaOffset + 7] = 0x55,
    };

    public static TheoryData<string> Foreign { get; } = [.. s_foreign.Keys];

    private static void StoreInfo(TestRegion region, TransportInfo info) => info.Encode(region.Memory.Bytes);

    private static CbdException Refused(TestRegion region, Action<int>? afterStep = null)
    {
        byte[] before = region.Memory.Bytes.ToArray();
        Formatter<ArrayMemory, SafePolicy> formatter = Formatter(region.Memory, Geometry(), force: true, region.Locks);
        return Assert.Throws<CbdException>(() =>
        {
            for (int step = 0; step < 100; step++)
            {
                Assert.Equal(StepResult.Again, formatter.Step(step * 1000));
                afterStep?.Invoke(step);
            }
        });
    }

    [Theory]
    [MemberData(nameof(Foreign))]
    public void Is_refused_over_another_version_while_a_host_of_this_machine_lives(string kind)
    {
        var region = new TestRegion();
        TestHost host = region.Host("web-1").Register();
        s_foreign[kind](region);
        byte[] before = region.Memory.Bytes.ToArray();
        CbdException refused = Refused(region);
        Assert.Equal(CbdErrorKind.Busy, refused.Kind);
        Assert.Contains("tp-unreg", refused.Message, StringComparison.Ordinal);
        Assert.Equal(before, region.Memory.Bytes.ToArray());
        // The remedy: its daemon ends, however it ends.
        host.Kill();
        Run(Formatter(region.Memory, Geometry(), force: true, region.Locks));
        TransportInfo.Read(region.Memory, region.Memory.SizeBytes);
    }

    [Theory]
    [MemberData(nameof(Foreign))]
    public void Is_refused_over_another_version_while_a_host_of_another_machine_beats(string kind)
    {
        var region = new TestRegion();
        TestHost host = region.ForeignHost("vm-9").Register();
        s_foreign[kind](region);
        CbdException refused = Refused(region, step =>
        {
            if (step % 4 == 3)
                Assert.True(host.Claim.Beat());
        });
        Assert.Contains("alive", refused.Message, StringComparison.Ordinal);
    }

    [Theory]
    [MemberData(nameof(Foreign))]
    public void Waits_a_dead_time_over_another_version_whose_hosts_cannot_be_read(string kind)
    {
        var region = new TestRegion();
        TestHost host = region.ForeignHost("vm-9").Register();
        // Bodies of another version.
        region.Memory.Bytes.Slice((int)region.Geometry.HostOffset(host.Id) + HostEntry.BodyOffset, 1536).Fill(0x77);
        s_foreign[kind](region);
        Formatter<ArrayMemory, SafePolicy> formatter = Formatter(region.Memory, Geometry(), force: true, region.Locks);
        long doneMs = -1;
        for (long now = 0; doneMs < 0 && now < 60_000; now += 1000)
        {
            if (formatter.Step(now) == StepResult.Done)
                doneMs = now;
        }

        Assert.Equal(HostIdentity.DefaultDeadMs, doneMs);
    }

    [Theory]
    [InlineData("newer version")]
    [InlineData("damaged")]
    public void Is_refused_over_another_version_while_a_readable_host_of_another_machine_is_not_proven_dead(string kind)
    {
        var region = new TestRegion();
        region.ForeignHost("vm-9").Register();
        s_foreign[kind](region);
        CbdException refused = Refused(region);
        Assert.Contains("'vm-9'", refused.Message, StringComparison.Ordinal);
        Assert.Contains("first 4096 bytes", refused.Message, StringComparison.Ordinal);
        region.Memory.Bytes[..4096].Clear();
        Run(Formatter(region.Memory, Geometry(), force: true, region.Locks));
    }

    [Fact]
    public void Sees_hosts_of_another_version_with_other_entries()
    {
        var region = new TestRegion();
        TransportInfo larger = region.Info with { Version = 3, Geometry = region.Geometry with { BytesPerHost = 4096, HostCount = 2 } };
        StoreInfo(region, larger);
        long second = larger.Geometry.HostOffset(1);
        region.Memory.WriteRelease(second, new ClaimWord(ClaimState.Active, 1, 5).Raw);
        Assert.Contains("host entry 1 changes", Refused(region, _ =>
            region.Memory.WriteRelease(second + 3000, region.Memory.ReadAcquire(second + 3000) + 1)).Message, StringComparison.Ordinal);
        region.Memory.WriteRelease(second, new ClaimWord(ClaimState.Free, 0, 5).Raw);
        Assert.Equal(StepResult.Done, Formatter(region.Memory, Geometry(), force: true, region.Locks).Step(0));
    }

    [Fact]
    public void Is_refused_over_anything_that_a_process_of_this_machine_has_locked()
    {
        var region = new TestRegion();
        TestHost host = region.Host("web-1").Register();
        region.Memory.Bytes[..4096].Fill(0x11);
        Assert.Contains("lslocks", Refused(region).Message, StringComparison.Ordinal);
        host.Kill();
        Run(Formatter(region.Memory, Geometry(), force: true, region.Locks));
    }

    [Fact]
    public void A_host_of_another_version_that_claims_between_the_two_looks_makes_the_formatter_step_back()
    {
        var region = new TestRegion();
        StoreInfo(region, region.Info with { Version = 3 });
        int swaps = 0;
        ArrayMemory raced = region.Memory.With(access =>
        {
            if (access == MemoryAccess.Swap && swaps++ == 0)
                region.Memory.WriteRelease(region.Geometry.HostOffset(1), new ClaimWord(ClaimState.Claiming, 1, 1).Raw);
        });
        Formatter<ArrayMemory, SafePolicy> formatter = Formatter(raced, Geometry(), force: true, region.Locks);
        Assert.Equal(StepResult.Again, formatter.Step(0));
        Assert.Equal(TransportInfo.Magic, region.Memory.ReadAcquire(0));
        Assert.Contains("host entry 1 changes", Assert.Throws<CbdException>(() => formatter.Step(1000)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Goes_ahead_when_this_machine_was_rebooted_under_its_last_host()
    {
        var region = new TestRegion();
        region.Host(TestRegion.Identity("me") with { BootId = TestRegion.OtherBootId }).Register();
        Run(Formatter(region.Memory, Geometry(), force: true, region.Locks));
        Assert.Equal(ClaimState.Free, region.HostWord(0).State);
    }

    [Fact]
    public void Killed_before_any_store_leaves_what_was_there_or_something_not_formatted()
    {
        RegionGeometry geometry = Geometry();
        for (int crashAt = 0; ; crashAt++)
        {
            var memory = new ArrayMemory(geometry.SizeBytes);
            int stores = 0;
            bool crashed = false;
            ArrayMemory crashing = memory.With(access =>
            {
                if (access != MemoryAccess.Load && stores++ == crashAt)
                    throw new CrashException();
            });
            try
            {
                Run(Formatter(crashing, geometry));
            }
            catch (CrashException)
            {
                crashed = true;
            }

            if (!crashed)
            {
                Assert.True(crashAt > 5, $"only {crashAt} stores");
                TransportInfo.Read(memory, geometry.SizeBytes);
                return;
            }

            CbdException refused = Assert.Throws<CbdException>(() => TransportInfo.Read(memory, geometry.SizeBytes));
            Assert.Contains(crashAt == 0 ? "nothing but zeroes" : "formatting was interrupted", refused.Message, StringComparison.Ordinal);
            // Whoever comes next needs no force.
            Run(Formatter(memory, Geometry()));
            TransportInfo.Read(memory, geometry.SizeBytes);
        }
    }

    [Fact]
    public void Does_not_take_over_from_a_formatter_that_is_at_work()
    {
        RegionGeometry geometry = Geometry();
        var memory = new ArrayMemory(geometry.SizeBytes);
        memory.WriteRelease(0, ((ulong)TransportInfo.FormattingMark << 32) | 7);
        Formatter<ArrayMemory, SafePolicy> formatter = Formatter(memory, geometry);
        for (long now = 0; now < 60_000; now += 1000)
        {
            Assert.Equal(StepResult.Again, formatter.Step(now));
            memory.WriteRelease(0, memory.ReadAcquire(0) + 1);
        }
    }

    [Fact]
    public void A_formatter_that_was_overtaken_stops()
    {
        RegionGeometry geometry = Geometry();
        var memory = new ArrayMemory(geometry.SizeBytes);
        int stores = 0;
        ArrayMemory disturbed = memory.With(access =>
        {
            if (access != MemoryAccess.Load && ++stores == 6)
                memory.WriteRelease(0, ((ulong)TransportInfo.FormattingMark << 32) | 7);
        });
        CbdException refused = Assert.Throws<CbdException>(() => Run(Formatter(disturbed, geometry)));
        Assert.Contains("another host", refused.Message, StringComparison.Ordinal);
    }

    /// <summary>Before each of its stores: the one that took over has formatted and has a host by then, and none of it is touched.</summary>
    [Fact]
    public void A_formatter_that_stood_still_leaves_its_successors_region_alone()
    {
        RegionGeometry old = Geometry(), ours = Geometry(), theirs = Geometry();
        bool reached = true;
        for (int moment = 2; reached; moment++)
        {
            var memory = new ArrayMemory(old.SizeBytes);
            Run(Formatter(memory, old));
            for (long at = old.ChannelAreaOffset; at < old.SizeBytes; at += 1024)
                memory.WriteRelease(at, ulong.MaxValue);
            byte[] left = [];
            int stores = 0;
            reached = false;
            ArrayMemory disturbed = memory.With(access =>
            {
                if (access == MemoryAccess.Load || ++stores != moment)
                    return;
                reached = true;
                memory.WriteRelease(0, 0);
                Run(Formatter(memory, theirs, force: true));
                memory.WriteRelease(theirs.HostOffset(0), 0x0200000000000001);
                memory.WriteRelease(theirs.ChannelOffset(0), 0x0300000000000001);
                left = new byte[memory.SizeBytes];
                memory.Read(0, left);
            });
            Exception? refused = Record.Exception(() => Run(Formatter(disturbed, ours, force: true)));
            if (!reached)
            {
                Assert.Null(refused);
                Assert.True(moment > 20, $"it was formatted with {moment - 1} stores");
                break;
            }

            Assert.Contains("another host", Assert.IsType<CbdException>(refused).Message, StringComparison.Ordinal);
            var found = new byte[memory.SizeBytes];
            memory.Read(0, found);
            Assert.True(found.AsSpan().SequenceEqual(left), $"a formatter that stood still before its store {moment} changed its successor's region");
        }
    }

    [Fact]
    public void A_host_that_claims_between_the_two_looks_makes_the_formatter_step_back()
    {
        var region = new TestRegion();
        TestHost? late = null;
        int swaps = 0;
        ArrayMemory raced = region.Memory.With(access =>
        {
            // Just before the formatter takes the magic, and after it has looked at the hosts.
            if (access == MemoryAccess.Swap && swaps++ == 0)
                late = region.Host("late").Register();
        });
        Formatter<ArrayMemory, SafePolicy> formatter = Formatter(raced, Geometry(), force: true, region.Locks);
        Assert.Equal(StepResult.Again, formatter.Step(0));
        Assert.True(late!.Claim.IsMine());
        Assert.Equal(region.Geometry, TransportInfo.Read(region.Memory, region.Geometry.SizeBytes).Geometry);
        Assert.Contains("'late'", Assert.Throws<CbdException>(() => formatter.Step(1000)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_host_that_claims_while_it_is_formatted_gives_up()
    {
        var region = new TestRegion();
        TestHost host = region.Host("late");
        region.Memory.WriteRelease(0, ((ulong)TransportInfo.FormattingMark << 32) | 7);
        Assert.Contains("formatted", Assert.Throws<CbdException>(() => host.Register()).Message, StringComparison.Ordinal);
        Assert.Equal(ClaimState.Free, region.HostWord(0).State);
        Assert.False(region.Locks.IsHeld(0));
    }
}

/// <summary>The process was killed at this access.</summary>
internal sealed class CrashException : Exception;
