using Cbd.Protocol.Backends;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Simulation;
using Cbd.Protocol.Transports;
using Xunit;

namespace Cbd.Tests.Hosts;

/// <summary>A small formatted region, the locks on its file, and hosts on it.</summary>
internal sealed class TestRegion
{
    public const ulong Device = 5, Inode = 77;
    public static readonly Guid BootId = new("11111111-2222-3333-4444-555555555555");
    public static readonly Guid OtherBootId = new("99999999-2222-3333-4444-555555555555");
    public static readonly Guid OwnUuid = new("aaaaaaaa-0000-0000-0000-000000000001");

    public TestRegion(int hosts = 4, int backends = 3, int blkdevs = 3, int channels = 4)
    {
        Options = new RegionOptions { Hosts = hosts, Backends = backends, Blkdevs = blkdevs, Channels = channels, RingSlots = 2, ChannelSizeBytes = 24576 };
        Geometry = RegionPlan.Create(RegionPlan.MinimumBytes(Options), Options, new Guid("0f0e0d0c-0b0a-0908-0706-050403020100"));
        Memory = new ArrayMemory(Geometry.SizeBytes);
        var formatter = new Formatter<ArrayMemory, SafePolicy>(Memory, Info, Identity("formatter"), new TestLocks(Locks), force: false);
        Assert.Equal(StepResult.Done, formatter.Step(0));
    }

    public RegionOptions Options { get; }
    public RegionGeometry Geometry { get; }
    public ArrayMemory Memory { get; }
    public LockTable Locks { get; } = new();

    /// <summary>Every host that was made.</summary>
    public List<TestHost> Started { get; } = [];
    public TransportInfo Info => new() { Geometry = Geometry, Coherence = RegionCoherence.Hardware };

    public static HostIdentity Identity(string name) => new()
    {
        Name = name,
        BootId = BootId,
        HostUuid = OwnUuid,
        Device = Device,
        Inode = Inode,
        Pid = 4711,
    };

    public static BackendBody Disk(string identity = "file:1:2", long size = 1 << 20, bool readOnly = false) => new()
    {
        Flags = readOnly ? BackendFlags.ReadOnly : BackendFlags.None,
        SizeBytes = size,
        LogicalBlockBytes = 512,
        PhysicalBlockBytes = 4096,
        DiscardGranularityBytes = 4096,
        MaxTransferBytes = 1 << 20,
        DurabilityId = new Guid("dddddddd-0000-0000-0000-000000000001"),
        Handlers = 1,
        Engine = BackendEngine.Direct,
        Identity = identity,
        Path = "/disks/" + identity,
    };

    public TestHost Host(string name, Action<MemoryAccess>? hook = null, bool tearSwaps = false) => new(this, Identity(name), hook, tearSwaps);

    public TestHost Host(HostIdentity identity, Action<MemoryAccess>? hook = null) => new(this, identity, hook, false);

    /// <summary>A host on another machine: other boot id, a uuid of its own, and locks that nobody here sees.</summary>
    public TestHost ForeignHost(string name, Action<MemoryAccess>? hook = null) =>
        new(this, Identity(name) with { BootId = OtherBootId, HostUuid = Guid.NewGuid() }, hook, false, new LockTable());

    public ClaimWord HostWord(int host) => Word(Geometry.HostOffset(host));

    public ClaimWord BackendWord(int backend) => Word(Geometry.BackendOffset(backend));

    public ClaimWord BlkdevWord(int blkdev) => Word(Geometry.BlkdevOffset(blkdev));

    public ClaimWord ChannelWord(int channel) => Word(Geometry.ChannelOffset(channel));

    public WriterWord Writer(int backend) => new(Memory.ReadAcquire(Geometry.BackendOffset(backend) + BackendEntry.WriterOffset));

    public ClaimWord Word(long offset) => new(Memory.ReadAcquire(offset));

    public void Store(long offset, ClaimWord word) => Memory.WriteRelease(offset, word.Raw);

    /// <summary>Claim words of all entries of all areas, by name.</summary>
    public IEnumerable<(string Name, ClaimWord Word)> AllWords()
    {
        for (int i = 0; i < Geometry.HostCount; i++)
            yield return ($"host {i}", HostWord(i));
        for (int i = 0; i < Geometry.BackendCount; i++)
            yield return ($"backend {i}", BackendWord(i));
        for (int i = 0; i < Geometry.BlkdevCount; i++)
            yield return ($"blkdev {i}", BlkdevWord(i));
        for (int i = 0; i < Geometry.ChannelCount; i++)
            yield return ($"channel {i}", ChannelWord(i));
    }

    /// <summary>Puts a channel into a state, as its blkdev would, naming the blkdev and the backend's session.</summary>
    public ClaimWord MakeChannel(int channel, ClaimState state, int host, BlkdevClaim<ArrayMemory, SafePolicy> blkdev)
    {
        ClaimWord word = ChannelWord(channel).Next(state, host);
        new BlkdevCtrlLine(word.Epoch, blkdev.Body.BackendId, blkdev.Blkdev, 2, 0, blkdev.Session.Epoch, blkdev.Epoch, 0, 0, 0)
            .Store(Memory, Geometry, channel);
        Store(Geometry.ChannelOffset(channel), word);
        return word;
    }
}

/// <summary>The byte locks of one file, by host entry, and which process holds each.</summary>
internal sealed class LockTable
{
    private readonly Dictionary<int, object> _holders = [];

    public bool TryLock(int host, object process)
    {
        lock (_holders)
            return _holders.TryAdd(host, process);
    }

    public void Unlock(int host, object process)
    {
        lock (_holders)
        {
            Assert.Same(process, _holders[host]);
            _holders.Remove(host);
        }
    }

    public bool IsHeld(int host)
    {
        lock (_holders)
            return _holders.ContainsKey(host);
    }

    public object HolderOf(int host)
    {
        lock (_holders)
            return _holders[host];
    }

    /// <summary>The process is dead: the kernel drops its locks.</summary>
    public void Kill(object process)
    {
        lock (_holders)
        {
            foreach (int host in _holders.Where(pair => ReferenceEquals(pair.Value, process)).Select(pair => pair.Key).ToList())
                _holders.Remove(host);
        }
    }
}

/// <summary>One process's view of a <see cref="LockTable"/>.</summary>
internal sealed class TestLocks(LockTable table) : IHostLocks
{
    public bool TryLock(int host) => table.TryLock(host, this);

    public void Unlock(int host) => table.Unlock(host, this);

    public bool IsHeld(int host, ulong device, ulong inode)
    {
        Assert.Equal(TestRegion.Device, device);
        Assert.Equal(TestRegion.Inode, inode);
        return table.IsHeld(host);
    }

    public void Kill() => table.Kill(this);
}

/// <summary>One process that is a host.</summary>
internal sealed class TestHost
{
    public TestHost(TestRegion region, HostIdentity identity, Action<MemoryAccess>? hook, bool tearSwaps, LockTable? locks = null)
    {
        Region = region;
        Name = identity.Name;
        lock (region.Started)
            region.Started.Add(this);
        Memory = region.Memory.With(hook, tearSwaps);
        Locks = new TestLocks(locks ?? region.Locks);
        Tracker = new LivenessTracker<ArrayMemory, SafePolicy>(Memory, region.Geometry, identity, Locks);
        Clearing = new Clearing<ArrayMemory, SafePolicy>(Memory, region.Geometry, Tracker);
        Registration = new HostRegistration<ArrayMemory, SafePolicy>(Memory, region.Geometry, identity, Locks, Tracker, Clearing);
    }

    public TestRegion Region { get; }
    public string Name { get; }
    public ArrayMemory Memory { get; }
    public TestLocks Locks { get; }
    public LivenessTracker<ArrayMemory, SafePolicy> Tracker { get; }
    public Clearing<ArrayMemory, SafePolicy> Clearing { get; }
    public HostRegistration<ArrayMemory, SafePolicy> Registration { get; }
    public long NowMs { get; set; }
    public HostClaim<ArrayMemory, SafePolicy> Claim => Registration.Claim ?? throw new InvalidOperationException("not registered");
    public int Id => Claim.Host;

    public BackendRegistry<ArrayMemory, SafePolicy> Backends => new(Memory, Claim, Tracker);
    public BlkdevRegistry<ArrayMemory, SafePolicy> Blkdevs => new(Memory, Claim, Tracker);

    /// <summary>Registers, letting its own time pass; fails the test if that does not end.</summary>
    public TestHost Register()
    {
        StepUntil(now => Registration.Step(now) == StepResult.Done);
        return this;
    }

    public BlkdevClaim<ArrayMemory, SafePolicy> StartBlkdev(int backend, bool readOnly = false)
    {
        BlkdevClaim<ArrayMemory, SafePolicy> blkdev = Blkdevs.Claim(backend, readOnly);
        blkdev.Activate([], "nbd");
        return blkdev;
    }

    /// <summary>Clears every host that is proven dead, and sweeps, until nothing moves.</summary>
    public void ClearDead() => StepUntil(now =>
    {
        bool any = Clearing.ClearDeadHosts(now);
        Clearing.Sweep(now);
        return !any;
    });

    public ClearResult Clear(int host, ClearAuthority authority)
    {
        var result = ClearResult.Again;
        StepUntil(now => (result = Clearing.Step(host, authority, now)) != ClearResult.Again);
        return result;
    }

    public void Leave() => StepUntil(now => Claim.Leave(Clearing, now) == StepResult.Done);

    public void StepUntil(Func<long, bool> step)
    {
        for (int turn = 0; turn < 200; turn++)
        {
            if (step(NowMs))
                return;
            NowMs += HostIdentity.DefaultBeatMs;
        }

        throw new InvalidOperationException("still 'again' after 200 beats");
    }

    /// <summary>SIGKILL.</summary>
    public void Kill() => Locks.Kill();
}
