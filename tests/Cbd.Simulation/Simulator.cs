using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;

namespace Cbd.Simulation;

/// <summary>What may go wrong in a run.</summary>
internal sealed record Scenario
{
    public VisibilityFaults Visibility { get; init; } = VisibilityFaults.None;

    /// <summary>The backend's process dies and comes back, the device's process dies and comes back; per step.</summary>
    public double BackendCrash { get; init; }

    /// <summary>The backend's machine dies and loses its disk's cache; per step.</summary>
    public double BackendMachineCrash { get; init; }
    public double DeviceCrash { get; init; }

    /// <summary>A device is stopped in order and another one started; per step.</summary>
    public double DeviceRestart { get; init; }

    /// <summary>A host stands still past every deadline; per step.</summary>
    public double Pause { get; init; }

    /// <summary>Another host runs between two accesses of one; per access.</summary>
    public double Preemption { get; init; } = 0.02;

    /// <summary>Longest time of one disk operation, in each of its two halves, microseconds.</summary>
    public int DiskDelay { get; init; } = 50;

    /// <summary>Share of the disk's operations that take that long; the others are quick.</summary>
    public double SlowShare { get; init; } = 1;

    public bool PayloadCrc { get; init; } = true;

    public int Devices { get; init; } = 1;

    /// <summary>Blocks of each disk; few of them meet each other often.</summary>
    public int Blocks { get; init; } = 48;

    /// <summary>The disk, which begins with half of its blocks, becomes larger; per step.</summary>
    public double Growth { get; init; }

    /// <summary>A defect, to see that it is noticed: a new size is told before the handlers take it.</summary>
    public bool AnnouncesGrowthFirst { get; init; }

    /// <summary>Nothing in this run excuses a reset of a channel or an error.</summary>
    public bool IsFaultless => Visibility == VisibilityFaults.None && BackendCrash == 0 && BackendMachineCrash == 0 && DeviceCrash == 0 && Pause == 0;

    public static readonly Scenario Calm = new();

    public static readonly Scenario Rough = new()
    {
        Visibility = new VisibilityFaults { Delay = 0.2, Tear = 0.5, Drop = 0.002, Flicker = 0.05 },
        Pause = 0.0004,
        DeviceRestart = 0.0003,
    };

    public static readonly Scenario Crashing = new()
    {
        Visibility = new VisibilityFaults { Delay = 0.1, Tear = 0.5, Drop = 0.001, Flicker = 0.02 },
        BackendCrash = 0.0005,
        BackendMachineCrash = 0.0001,
        DeviceCrash = 0.0003,
        DeviceRestart = 0.0003,
        Pause = 0.0003,
    };

    /// <summary>Operations outlive several deadlines, so that resets meet commands that are still at the disk.</summary>
    public static readonly Scenario SlowDisk = new()
    {
        Visibility = new VisibilityFaults { Drop = 0.003 },
        DiskDelay = 20000,
        SlowShare = 0.1,
        Blocks = 6,
        Pause = 0.001,
        BackendCrash = 0.0001,
    };

    /// <summary>The disk becomes larger in use, with deaths between the steps of that.</summary>
    public static readonly Scenario Growing = new() { Growth = 0.002, BackendCrash = 0.0005, DeviceCrash = 0.0003, DeviceRestart = 0.0005, DiskDelay = 400 };

    /// <summary>Devices of two hosts come and go, each on a backend of its own, and compete for channels.</summary>
    public static readonly Scenario Rivals = new() { Devices = 2, DeviceRestart = 0.01, DeviceCrash = 0.001, Preemption = 0.1 };
}

/// <summary>What a run did, to see that it did something.</summary>
internal sealed record SimulationSummary(long Seed, int Requests, int Errors, int Resets, int BackendLives, int DeviceLives);

/// <summary>
/// Runs hosts with devices and hosts with backends in one thread over simulated memory and simulated time. The seed
/// decides everything; the same seed replays the same run.
/// </summary>
internal sealed class Simulator<TPolicy>
    where TPolicy : struct, IProtocolPolicy
{
    private readonly Scenario _scenario;
    private readonly Random _random;
    private readonly List<SimulatedActor> _actors = [];
    private readonly List<SimulatedDisk> _disks = [];
    private readonly List<SimulatedBackendHost<TPolicy>> _backends = [];
    private readonly List<SimulatedDeviceHost<TPolicy>> _devices = [];
    private readonly long _seed;
    private int _depth;

    public Simulator(long seed, Scenario scenario)
    {
        _seed = seed;
        _scenario = scenario;
        _random = new Random(unchecked((int)(seed * 7919 + seed / int.MaxValue)));
        Geometry = new RegionGeometry
        {
            RegionId = new Guid((int)seed, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
            SizeBytes = 4 << 20,
            HostAreaOffset = 4096,
            BytesPerHost = 4096,
            HostCount = 8,
            BackendAreaOffset = 65536,
            BytesPerBackend = 4096,
            BackendCount = 8,
            BlkdevAreaOffset = 131072,
            BytesPerBlkdev = 4096,
            BlkdevCount = 8,
            ChannelAreaOffset = 262144,
            BytesPerChannel = 65536,
            ChannelCount = 2 + 2 * scenario.Devices,
            RingSlots = 8,
            PayloadCrc = scenario.PayloadCrc,
        };
        Geometry.Validate(Geometry.SizeBytes);
        Region = new SimulatedRegion(Geometry.SizeBytes, _random) { Faults = scenario.Visibility };
        Region.BeforeAccess = Preempt;
        for (int i = 0; i < scenario.Devices; i++)
        {
            var disk = new SimulatedDisk(scenario.Blocks, _random) { MaxDelay = scenario.DiskDelay, SlowShare = scenario.SlowShare };
            if (scenario.Growth > 0)
                disk.SizeBlocks = scenario.Blocks / 2;
            var history = new History(disk.BlockCount);
            var backend = new SimulatedBackendHost<TPolicy>(this, i, disk);
            _disks.Add(disk);
            _backends.Add(backend);
            _devices.Add(new SimulatedDeviceHost<TPolicy>(this, i, backend, history));
        }

        _actors.AddRange(_backends);
        _actors.AddRange(_devices);
    }

    public RegionGeometry Geometry { get; }

    public SimulatedRegion Region { get; }

    /// <summary>Who claimed which channel last; two at once is the failure that claim words must prevent.</summary>
    internal Dictionary<int, SimulatedDeviceHost<TPolicy>> ChannelOwners { get; } = [];

    internal Random Random => _random;

    internal Scenario Scenario => _scenario;

    /// <summary>No more new faults.</summary>
    internal bool IsCalming { get; private set; }

    private readonly Queue<string> _events = new();
    private int _nextHost;

    /// <summary>Remembers what happened; the last events are part of a failure's message.</summary>
    internal void Trace(string what)
    {
        _events.Enqueue($"{Region.Now}: {what}");
        if (_events.Count > 24)
            _events.Dequeue();
    }

    /// <summary>A number for a new life of a host, never used before.</summary>
    internal int NextHost() => 1 + _nextHost++ % 60000;

    /// <summary>Runs the scenario, stops the faults, waits for quiet, checks the disk. Throws on any violation.</summary>
    public SimulationSummary Run(int steps)
    {
        try
        {
            for (int i = 0; i < steps; i++)
                Step(faults: true);
            IsCalming = true;
            Region.Faults = VisibilityFaults.None;
            foreach (SimulatedActor actor in _actors)
                actor.PausedUntil = 0;
            Quiesce("requests outstanding after the faults stopped", d => d.IsQuiet);
            foreach (SimulatedDeviceHost<TPolicy> device in _devices)
                device.BeginFinalRead();
            Quiesce("the final read does not end", d => d.IsQuiet);
            foreach (SimulatedDeviceHost<TPolicy> device in _devices)
                device.BeginStop();
            Quiesce("a device does not stop", d => d.IsStopped);
            for (int channel = 0; channel < Geometry.ChannelCount; channel++)
            {
                var word = new ClaimWord(Region.Word(Geometry.ChannelOffset(channel)));
                if (word.State != ClaimState.Free)
                    throw new SimulationException($"channel {channel} leaked: {word}");
            }
        }
        catch (Exception e) when (e is SimulationException or InvalidOperationException or ArgumentException or IndexOutOfRangeException)
        {
            // The others are always-on checks of the product.
            throw new SimulationException($"at {Region.Now}: {e.Message}\n  {string.Join("\n  ", _events)}", e);
        }

        var summary = new SimulationSummary(
            _seed, _devices.Sum(d => d.Requests), _devices.Sum(d => d.Errors), _devices.Sum(d => d.Resets), _backends.Sum(b => b.Lives), _devices.Sum(d => d.Lives));
        if (_scenario.IsFaultless && (summary.Resets > 0 || summary.Errors > 0))
            throw new SimulationException($"{summary.Resets} resets and {summary.Errors} errors although nothing went wrong");
        return summary;
    }

    private void Quiesce(string otherwise, Func<SimulatedDeviceHost<TPolicy>, bool> done)
    {
        for (int i = 0; i < 400_000; i++)
        {
            if (_devices.TrueForAll(d => done(d)))
                return;
            Step(faults: false);
        }

        throw new SimulationException($"{otherwise}: {string.Join("; ", _devices.Select(d => d.Describe()))}");
    }

    private void Step(bool faults)
    {
        Region.Now += _random.Next(1, 20);
        Region.Settle();
        foreach (SimulatedDisk disk in _disks)
            disk.Advance(Region.Now);
        SimulatedActor actor = _actors[_random.Next(_actors.Count)];
        if (faults)
            Disturb();
        Turn(actor);
    }

    private void Disturb()
    {
        if (Chance(_scenario.Pause))
            _actors[_random.Next(_actors.Count)].PausedUntil = Region.Now + _random.Next(1000, 20000);
        if (Chance(_scenario.BackendCrash))
            _backends[_random.Next(_backends.Count)].Crash(machine: false);
        if (Chance(_scenario.BackendMachineCrash))
            _backends[_random.Next(_backends.Count)].Crash(machine: true);
        if (Chance(_scenario.Growth))
            _backends[_random.Next(_backends.Count)].GrowDisk();
        if (Chance(_scenario.DeviceCrash))
            _devices[_random.Next(_devices.Count)].Crash();
        if (Chance(_scenario.DeviceRestart))
            _devices[_random.Next(_devices.Count)].BeginRestart();
    }

    private bool Chance(double probability) => probability > 0 && _random.NextDouble() < probability;

    private void Preempt()
    {
        if (_depth >= 2 || !Chance(_scenario.Preemption))
            return;
        Turn(_actors[_random.Next(_actors.Count)]);
    }

    private void Turn(SimulatedActor actor)
    {
        if (actor.IsRunning || actor.PausedUntil > Region.Now)
            return;
        _depth++;
        actor.IsRunning = true;
        try
        {
            actor.Turn();
        }
        finally
        {
            actor.IsRunning = false;
            _depth--;
        }
    }
}

/// <summary>Something that the scheduler runs.</summary>
internal abstract class SimulatedActor
{
    internal bool IsRunning { get; set; }

    internal long PausedUntil { get; set; }

    internal abstract void Turn();
}
