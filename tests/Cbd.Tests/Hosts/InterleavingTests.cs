using Cbd.Protocol.Backends;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;
using Cbd.Simulation;
using Cbd.Tests.Transports;
using Cbd.Protocol.Transports;
using Xunit;

namespace Cbd.Tests.Hosts;

/// <summary>Hosts that do the same things at once, switched at every memory access from a seed.</summary>
public sealed class Hosts_at_once
{
    private const int Seeds = 60;

    private static void ForEverySeed(Action<int> run)
    {
        for (int seed = 1; seed <= Seeds; seed++)
        {
            try
            {
                run(seed);
            }
            catch (Exception failure)
            {
                throw new InvalidOperationException($"seed {seed}: {failure.Message}", failure);
            }
        }
    }

    private static void Require(bool holds, string what)
    {
        if (!holds)
            throw new InvalidOperationException(what);
    }

    [Fact]
    public void Exactly_one_of_those_that_register_one_name_wins() => ForEverySeed(seed => RegisterOneName(seed, tearSwaps: false));

    private static void RegisterOneName(int seed, bool tearSwaps)
    {
        var region = new TestRegion();
        using var run = new Interleaving(seed);
        int winners = 0;
        run.OnAccess = () =>
        {
            int active = Enumerable.Range(0, 4).Count(host => region.HostWord(host).State == ClaimState.Active);
            Require(active <= 1, "two active hosts of one name");
        };
        for (int i = 0; i < 3; i++)
        {
            run.Add(flow =>
            {
                TestHost host = region.Host("same", flow.Hook, tearSwaps);
                try
                {
                    host.Register();
                    winners++;
                    Require(host.Claim.IsMine(), "the winner does not own its entry");
                }
                catch (CbdException refused)
                {
                    Require(refused.Kind == CbdErrorKind.Busy, refused.Message);
                }
            });
        }

        run.Run();
        Require(winners == 1, $"{winners} winners");
        Require(region.AllWords().Count(entry => entry.Word.State != ClaimState.Free) == 1, "an entry was leaked");
    }

    [Fact]
    public void A_blkdev_sees_every_growth_of_its_backend_in_order_and_none_before_the_disk_has_it() => ForEverySeed(seed =>
    {
        const long step = 1 << 20;
        var region = new TestRegion();
        using var run = new Interleaving(seed);
        long disk = step;
        bool isOver = false;
        run.Add(flow =>
        {
            BackendClaim<ArrayMemory, SafePolicy> claim = region.Host("backend", flow.Hook).Register().Backends.Start(TestRegion.Disk(size: step));
            for (int i = 0; i < 4; i++)
            {
                disk += step;
                Require(claim.Update(body => body with { SizeBytes = disk }), "the claim was lost");
                Require(claim.Beat(), "the claim was lost");
            }

            isOver = true;
        });
        run.Add(flow =>
        {
            TestHost host = region.Host("blkdev", flow.Hook).Register();
            var watch = new BackendWatch<ArrayMemory, SafePolicy>(host.Memory, region.Geometry, 0);
            long seen = 0;
            for (bool last = false; !last;)
            {
                last = isOver;
                if (!watch.TryRefresh(out BackendSession session))
                    continue;
                Require(session.Info.SizeBytes >= seen, $"{session.Info.SizeBytes} bytes after {seen}");
                Require(session.Info.SizeBytes <= disk, $"{session.Info.SizeBytes} bytes of a disk of {disk}");
                seen = session.Info.SizeBytes;
            }

            Require(seen == disk, $"{seen} bytes at the end, and the disk has {disk}");
        });
        run.Run();
    });

    [Fact]
    public void No_entry_has_two_owners_and_none_is_lost_or_leaked() => ForEverySeed(seed => StartAndStop(seed, tearSwaps: false));

    /// <summary>Three hosts register, start and stop backends and devices and leave, and all of it again; one dies.</summary>
    private static void StartAndStop(int seed, bool tearSwaps)
    {
        var region = new TestRegion();
        using var run = new Interleaving(seed);
        var owned = new HashSet<string>();
        for (int i = 0; i < 3; i++)
        {
            int number = i;
            run.Add(flow =>
            {
                var mine = new List<string>();
                void Own(string entry)
                {
                    Require(owned.Add(entry), $"{entry} has two owners");
                    mine.Add(entry);
                }

                void Disown(string entry)
                {
                    owned.Remove(entry);
                    mine.Remove(entry);
                }

                try
                {
                    for (int round = 0; round < 2; round++)
                    {
                        if (number < 2 && round == 1)
                            flow.CrashWithin(800);
                        TestHost host = region.Host($"host-{number}", flow.Hook, tearSwaps).Register();
                        Own($"host {host.Id}");
                        host.ClearDead();
                        BackendClaim<ArrayMemory, SafePolicy> backend = host.Backends.Start(TestRegion.Disk($"disk-{number}"));
                        Own($"backend {backend.Backend}");
                        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = host.StartBlkdev(backend.Backend);
                        Own($"blkdev {blkdev.Blkdev}");
                        Require(host.Claim.Beat() && backend.Beat() && blkdev.Beat(), "a live host lost an entry");
                        Require(ChannelClaims<ArrayMemory, SafePolicy>.TryClaim(host.Memory, region.Geometry, host.Id, out int channel, out ClaimWord word), "no free channel");
                        Own($"channel {channel}");
                        Require(backend.Blkdevs.SequenceEqual([blkdev.Blkdev]), "a device is on the wrong backend");
                        Disown($"channel {channel}");
                        ChannelClaims<ArrayMemory, SafePolicy>.Release(host.Memory, region.Geometry, channel, word);
                        Disown($"blkdev {blkdev.Blkdev}");
                        blkdev.End();
                        backend.BeginClose(force: false);
                        Disown($"backend {backend.Backend}");
                        backend.EndClose();
                        Require(host.Claim.IsMine(), "a live host lost its entry");
                        Disown($"host {host.Id}");
                        host.Leave();
                    }
                }
                catch (CrashException)
                {
                    foreach (string entry in mine)
                        owned.Remove(entry);
                    Kill(region, $"host-{number}");
                }
            });
        }

        run.Run();
        TestHost last = region.Host("last").Register();
        last.ClearDead();
        for (int beat = 0; beat < 13; beat++)
        {
            last.NowMs += 1000;
            last.ClearDead();
        }

        Require(region.AllWords().Count(entry => entry.Word.State != ClaimState.Free) == 1, "an entry was leaked: " + string.Join(", ", region.AllWords().Where(entry => entry.Word.State != ClaimState.Free)));
        for (int backend = 0; backend < 3; backend++)
            Require(region.Writer(backend) == WriterWord.None, "a writer word was leaked");
    }

    private static void Kill(TestRegion region, string name)
    {
        foreach (TestHost dying in region.Started.Where(started => started.Name == name))
            dying.Kill();
    }

    [Fact]
    public void One_device_at_a_time_writes_to_a_backend_that_comes_and_goes() => ForEverySeed(seed =>
    {
        var region = new TestRegion();
        TestHost server = region.Host("server").Register();
        using var run = new Interleaving(seed);
        int writers = 0, starts = 0;
        for (int i = 0; i < 3; i++)
        {
            int number = i;
            run.Add(flow =>
            {
                TestHost host = region.Host($"host-{number}", flow.Hook).Register();
                for (int round = 0; round < 4; round++)
                {
                    BlkdevClaim<ArrayMemory, SafePolicy>? blkdev = null;
                    try
                    {
                        blkdev = host.Blkdevs.Claim(0, readOnly: false);
                        blkdev.Activate([], "x");
                        starts++;
                        Require(Interlocked.Increment(ref writers) == 1, "two writers");
                        Require(region.BackendWord(0).State == ClaimState.Active || region.BackendWord(0).State == ClaimState.Closing, "a device on a backend that was freed");
                        Require(blkdev.Beat(), "a live device was lost");
                        Interlocked.Decrement(ref writers);
                        blkdev.End();
                    }
                    catch (CbdException)
                    {
                        blkdev?.End();
                    }
                }
            });
        }

        run.Add(flow =>
        {
            var backends = new BackendRegistry<ArrayMemory, SafePolicy>(region.Memory.With(flow.Hook), server.Claim, server.Tracker);
            for (int round = 0; round < 4; round++)
            {
                BackendClaim<ArrayMemory, SafePolicy> backend = backends.Start(TestRegion.Disk(), 0);
                for (bool stopped = false; !stopped;)
                {
                    try
                    {
                        backend.BeginClose(force: false);
                        backend.EndClose();
                        stopped = true;
                    }
                    catch (CbdException)
                    {
                        Require(backend.Beat(), "a refused stop lost the backend");
                    }
                }
            }
        });
        run.Run();
        Require(region.AllWords().Where(entry => !entry.Name.StartsWith("host", StringComparison.Ordinal)).All(entry => entry.Word.State == ClaimState.Free), "an entry was leaked");
        Require(region.Writer(0) == WriterWord.None, "the writer word was leaked");
    });

    [Fact]
    public void Several_clearers_and_a_take_over_leave_one_session() => ForEverySeed(seed =>
    {
        var region = new TestRegion();
        TestHost dead = region.Host("dead").Register(), user = region.Host("user").Register();
        dead.Backends.Start(TestRegion.Disk()).StoreFlushError(5);
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = user.StartBlkdev(0);
        BlkdevClaim<ArrayMemory, SafePolicy> own;
        dead.Backends.Start(TestRegion.Disk("own"));
        own = dead.StartBlkdev(1);
        region.MakeChannel(0, ClaimState.Attached, dead.Id, own);
        dead.Kill();
        using var run = new Interleaving(seed);
        int sessions = 0;
        for (int i = 0; i < 2; i++)
        {
            int number = i;
            run.Add(flow =>
            {
                TestHost host = region.Host($"host-{number}", flow.Hook).Register();
                host.ClearDead();
                BackendClaim<ArrayMemory, SafePolicy>? claim = null;
                try
                {
                    host.StepUntil(now => host.Backends.TakeOver(0, TestRegion.Disk(), false, now, out claim) == StepResult.Done);
                    sessions++;
                    Require(claim!.Beat() && claim.Body.FlushError == 5, "the session lost its entry or the latch");
                }
                catch (CbdException refused)
                {
                    Require(refused.Message.Contains("alive", StringComparison.Ordinal), refused.Message);
                }

                host.ClearDead();
            });
        }

        run.Run();
        Require(sessions == 1, $"{sessions} sessions");
        Require(region.BackendWord(0).State == ClaimState.Active && region.BackendWord(1).State == ClaimState.Free, "the wrong backend was cleared");
        Require(region.Writer(0) == new WriterWord(blkdev.Blkdev, blkdev.Epoch) && blkdev.IsMine(), "the device of a live host was cleared");
        Require(region.ChannelWord(0).State == ClaimState.Free, "a channel was leaked");
    });

    [Fact]
    public void A_host_that_was_cleared_by_mistake_takes_nothing_from_its_successor()
    {
        int met = 0;
        ForEverySeed(seed =>
        {
            var region = new TestRegion();
            using var run = new Interleaving(seed);
            Action<MemoryAccess>? hook = null;
            TestHost mistaken = region.ForeignHost("mistaken", access => hook?.Invoke(access)).Register();
            Assert.Equal(0, mistaken.Id);
            run.Add(flow =>
            {
                // It does not beat, and works on as if it owned everything, whoever says it is dead.
                hook = flow.Hook;
                for (int round = 0; round < 6; round++)
                {
                    BackendClaim<ArrayMemory, SafePolicy>? backend = null;
                    BlkdevClaim<ArrayMemory, SafePolicy>? blkdev = null;
                    try
                    {
                        backend = mistaken.Backends.Start(TestRegion.Disk("mistaken"));
                        blkdev = mistaken.Blkdevs.Claim(backend.Backend, false);
                        blkdev.Activate([], "x");
                        backend.StoreFlushError(7);
                    }
                    catch (CbdException)
                    {
                        met++;
                    }

                    blkdev?.End();
                    backend?.EndClose();
                }
            });
            TestHost? successor = null;
            BackendClaim<ArrayMemory, SafePolicy>? kept = null;
            BlkdevClaim<ArrayMemory, SafePolicy>? device = null;
            run.Add(flow =>
            {
                var judge = region.Host("judge", flow.Hook);
                Require(judge.Clear(0, ClearAuthority.Fenced) == ClearResult.Cleared, "not cleared");
                successor = region.Host("successor", flow.Hook).Register();
                Require(successor.Id == 0, "not the same entry");
                kept = successor.Backends.Start(TestRegion.Disk("successor"));
                for (int attempt = 0; device is null; attempt++)
                {
                    try
                    {
                        device = successor.StartBlkdev(kept.Backend);
                    }
                    catch (CbdException damaged) when (attempt < 10 && damaged.Kind == CbdErrorKind.Corrupt)
                    {
                        // A store of the other that was on its way hit the body; the next beat heals it.
                        Require(kept.Beat(), "the successor lost its backend");
                    }
                }

                Require(kept.Beat() && device.Beat() && successor.Claim.Beat(), "the successor lost an entry");
            });
            run.Run();
            Require(kept!.Beat() && device!.Beat() && successor!.Claim.Beat(), "the successor lost an entry");
            Require(kept!.Beat() && device!.Beat(), "the successor lost an entry");
            Require(successor!.Backends.ReadRecord(kept!.Backend) is { Identity: "successor", FlushError: 0 }, "the body is not the successor's");
            Require(region.Writer(kept!.Backend) == new WriterWord(device!.Blkdev, device.Epoch), "the writer word is not the successor's");
            Require(region.AllWords().Count(entry => entry.Word.State != ClaimState.Free) == 3, "an entry was leaked");
        });
        Assert.True(met > 0);
    }

    [Fact]
    public void Of_a_formatter_and_a_host_that_registers_exactly_one_succeeds() => ForEverySeed(seed =>
    {
        var region = new TestRegion();
        using var run = new Interleaving(seed);
        bool registered = false, formatted = false;
        RegionGeometry anew = region.Geometry with { RegionId = Guid.NewGuid() };
        run.Add(flow =>
        {
            TestHost host = region.Host("host", flow.Hook);
            try
            {
                host.Register();
                registered = true;
            }
            catch (CbdException refused)
            {
                Require(refused.Message.Contains("formatt", StringComparison.Ordinal) || refused.Message.Contains("lost its entry", StringComparison.Ordinal), refused.Message);
            }
        });
        run.Add(flow =>
        {
            var formatter = new Formatter<ArrayMemory, SafePolicy>(
                region.Memory.With(flow.Hook), region.Info with { Geometry = anew }, TestRegion.Identity("formatter"), new TestLocks(region.Locks), force: true);
            try
            {
                for (long now = 0; formatter.Step(now) != StepResult.Done; now += 1000)
                    Require(now < 200_000, "formatting did not end");
                formatted = true;
            }
            catch (CbdException refused)
            {
                Require(refused.Message.Contains("'host'", StringComparison.Ordinal), refused.Message);
            }
        });
        run.Run();
        Require(registered != formatted, $"registered {registered}, formatted {formatted}");
        TransportInfo info = TransportInfo.Read(region.Memory, region.Geometry.SizeBytes);
        Require(info.Geometry == (formatted ? anew : region.Geometry), "the wrong transport is there");
        Require(region.HostWord(0).State == (registered ? ClaimState.Active : ClaimState.Free), $"the host entry is {region.HostWord(0)}");
    });

    [Fact]
    public void With_swaps_that_are_not_atomic_these_tests_fail()
    {
        int caught = 0;
        for (int seed = 1; seed <= Seeds; seed++)
        {
            try
            {
                RegisterOneName(seed, tearSwaps: true);
                StartAndStop(seed, tearSwaps: true);
            }
            catch (InvalidOperationException)
            {
                caught++;
            }
        }

        Assert.True(caught > 0);
    }
}
