using Cbd.Control.Api;
using Cbd.Host.Devices;
using Cbd.Host.Sessions;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Simulation.Region;

/// <summary>What a run did, to see that it did something, and which cells of the crash matrix it showed.</summary>
internal sealed record WorldSummary(long Seed, int Requests, int Errors, int Deaths, int Devices, int Sessions, int Accesses, IReadOnlyDictionary<string, int> Covered);

/// <summary>
/// A region with everything on it, in one thread and in virtual time: three machines, five processes, three disks,
/// devices that come and go, an operator. Everything that the seed decides is replayed by it. Each memory access is a
/// place where another thread may run, where the process may stand still for long, or die.
/// </summary>
internal sealed partial class World<TPolicy>
    where TPolicy : struct, IProtocolPolicy
{
    internal const int BeatMs = 5;
    internal const int DeadMs = 40;
    private const int DepthLimit = 3;
    private const int DeadMicroseconds = DeadMs * 1000;

    internal static HostTimes Times { get; } = new(BeatMs, DeadMs)
    {
        AttachMs = DeadMs,
        CloseMs = 2 * DeadMs,
        ClearingMs = DeadMs,
        TakeOverMs = 3 * DeadMs,
        RejoinMs = 2 * DeadMs,
        LeaveMs = 4 * DeadMs,
    };

    private readonly WorldScenario _scenario;
    private readonly MatrixCell? _target;
    private readonly Random _random;
    private readonly long _seed;
    private readonly Machine[] _machines;
    private readonly SharedDisk<TPolicy>[] _disks;
    private readonly ProcessSlot[] _slots;
    private readonly Operator<TPolicy> _operator;
    private readonly RecordOperator<TPolicy> _recordOperator;
    private readonly CrashWatch<TPolicy> _watch;
    private readonly Stack<NativeBuffer> _buffers = new();

    /// <summary>Threads in the middle of a turn; each is interrupted by the next.</summary>
    private readonly Stack<SimulatedThread<TPolicy>> _running = new();
    private readonly Queue<string> _events = new();
    private readonly HashSet<(Guid Region, long Offset, ulong Epoch)> _claims = [];
    private readonly List<SimulatedSession<TPolicy>> _sessions = [];
    private readonly List<SimulatedDevice<TPolicy>> _liveDevices = [];
    private readonly List<EndedLife> _ended = [];
    private readonly Dictionary<int, ulong> _claimEpochs = [];
    private readonly Dictionary<long, int> _backendLives = [];
    private readonly Dictionary<long, int> _backendEnds = [];

    /// <summary>Epoch in which an entry was last freed: what it has of that, and of earlier ones, is nobody's.</summary>
    private readonly Dictionary<long, ulong> _freedEpochs = [];
    private readonly Dictionary<int, (int Life, BodyStamp Stamp)> _records = [];
    private readonly Dictionary<int, SimulatedProcess<TPolicy>> _lastOn = [];
    private readonly bool _isInMemory;
    private int _depth;
    private int _nextProcess;
    private int _requests, _errors, _deaths, _deviceCount, _sessionCount, _accesses;

    private readonly record struct EndedLife(SharedDisk<TPolicy> Disk, int Backend, int BackendLife, int Life, (int Channel, ulong Epoch)[] Channels);

    /// <param name="target">A cell of the crash matrix to aim at: processes die in that state, and only there.</param>
    public World(long seed, WorldScenario scenario, MatrixCell? target = null)
    {
        _seed = seed;
        _scenario = scenario;
        _target = target;
        _random = new Random(unchecked((int)(seed * 7919 + seed / int.MaxValue + (target?.Name.Length ?? 0))));
        RegionGeometry geometry = NewInfo().Geometry;
        Geometry = geometry;
        Region = new SimulatedRegion(geometry.SizeBytes, _random)
        {
            Faults = scenario.Visibility,
            FencedBytes = geometry.ChannelAreaOffset,
        };
        Inspection = new SimulatedMemory(Region, -1);
        _machines = [new Machine(0, Region, _random), new Machine(1, Region, _random), new Machine(2, Region, _random)];
        _isInMemory = scenario.IsInMemory || Chance(scenario.MemoryShare);
        _disks = [MakeDisk(0, false, 0), MakeDisk(1, true, 1), MakeDisk(2, false, 1, 2)];
        _slots = [new ProcessSlot(0, 0, "a"), new ProcessSlot(1, 0, "b"), new ProcessSlot(2, 1, "c"), new ProcessSlot(3, 1, "d"), new ProcessSlot(4, 2, "e")];
        _operator = new Operator<TPolicy>(this);
        _recordOperator = new RecordOperator<TPolicy>(this, _operator);
        _watch = new CrashWatch<TPolicy>(this);
        Region.Swapped = Swapped;
        foreach (ProcessSlot slot in _slots)
            slot.StartAt = _random.Next(0, 3000);
        if (scenario.Keep > 0)
        {
            foreach (ProcessSlot slot in _slots)
                slot.HostUuid = Machine.NewId(_random);
        }

        if (!scenario.HasRecords)
            return;
        Records = new RecordWatch<TPolicy>(this);
        foreach (ProcessSlot slot in _slots)
            slot.Medium = new RecordMedium(Machine.NewId(_random));
    }

    /// <summary>What daemons with records want; null if they have none.</summary>
    internal RecordWatch<TPolicy>? Records { get; }

    internal SimulatedRegion Region { get; }

    /// <summary>Reads what is visible to all, without any fault and without letting anybody run.</summary>
    internal SimulatedMemory Inspection { get; }

    /// <summary>As the region is formatted now.</summary>
    internal RegionGeometry Geometry { get; private set; }

    internal bool IsFormatted { get; private set; }

    internal Random Random => _random;

    internal WorldScenario Scenario => _scenario;

    internal IReadOnlyList<Machine> Machines => _machines;

    internal IReadOnlyList<SharedDisk<TPolicy>> Disks => _disks;

    internal bool IsCalming { get; private set; }

    /// <summary>When a process last found that its entry was not its own any more while it registered.</summary>
    internal long StraySeen { get; set; } = -1;

    internal IEnumerable<SimulatedProcess<TPolicy>> Living => _slots.Select(s => s.Process).OfType<SimulatedProcess<TPolicy>>().Where(p => !p.IsDead);

    internal IReadOnlyList<SimulatedSession<TPolicy>> Sessions => _sessions;

    internal IReadOnlyList<SimulatedDevice<TPolicy>> Devices => _liveDevices;

    internal MatrixCell? Target => _target;

    internal bool IsTargetHit { get; private set; }

    /// <summary>The process whose compare-and-swap was the last on the magic.</summary>
    internal int LastMagicSwap { get; private set; }

    /// <summary>The process in which an operator frees a record with the blkdevs on it; 0 for none.</summary>
    internal int GivingUp { get; set; }

    /// <summary>Runs, stops the faults, waits for quiet, reads everything, takes everything down. Throws on any violation.</summary>
    public WorldSummary Run(int steps)
    {
        if (Log is not null)
        {
            foreach (SharedDisk<TPolicy> disk in _disks)
                disk.Disk.Log = what => Trace($"disk {disk.Number}: {what}");
        }

        try
        {
            for (int i = 0; i < steps && !(IsTargetHit && _watch.IsEmpty); i++)
                Step(faults: true);
            Settle();
        }
        catch (Exception e) when (e is SimulationException or InvalidOperationException or ArgumentException or IndexOutOfRangeException or NullReferenceException)
        {
            // The others are always-on checks of the product.
            throw new SimulationException($"at {Region.Now}: {e.Message}\n  {string.Join("\n  ", _events)}", e);
        }
        finally
        {
            foreach (NativeBuffer buffer in _buffers)
                buffer.Dispose();
        }

        return new WorldSummary(_seed, _requests, _errors, _deaths, _deviceCount, _sessionCount, _accesses, _watch.Covered);
    }

    /// <summary>Gets every event and every request, for looking into one seed.</summary>
    public Action<string>? Log { get; init; }

    internal void TraceIo(FormattableString what)
    {
        if (Log is not null)
            Trace(FormattableString.Invariant(what));
    }

    internal void Trace(string what)
    {
        Log?.Invoke($"{Region.Now}: {what}");
        _events.Enqueue($"{Region.Now}: {what}");
        if (_events.Count > 40)
            _events.Dequeue();
    }

    /// <summary>What the next device is told to do while its backend is away.</summary>
    internal LossPolicy NextLossPolicy() => !Chance(_scenario.Impatience) ? LossPolicy.WaitForEver
        : _random.Next(2) == 0 ? new LossPolicy(OnBackendLoss.Fail, 0)
        : new LossPolicy(OnBackendLoss.Queue, _random.Next(1, 2 * DeadMs));

    internal void CountRequest() => _requests++;

    internal void CountError() => _errors++;

    internal NativeBuffer TakeBuffer() => _buffers.Count > 0 ? _buffers.Pop() : new NativeBuffer(64 * 1024);

    internal void ReturnBuffer(NativeBuffer buffer) => _buffers.Push(buffer);

    internal bool Chance(double probability) => probability > 0 && _random.NextDouble() < probability;

    private SharedDisk<TPolicy> MakeDisk(int number, bool buffered, params int[] machines) => new(
        number,
        new SimulatedDisk(_scenario.Blocks, _random)
        {
            MaxDelay = _scenario.DiskDelay,
            SlowShare = _scenario.SlowShare,
            FailShare = _scenario.DiskFail,
            FlushFailShare = _scenario.FlushFail,
            IsBuffered = buffered,
            SizeBlocks = _scenario.Blocks - _scenario.SpareBlocks,
            DurableBlocks = _scenario.Blocks - _scenario.SpareBlocks,
        },
        machines)
    {
        IsInMemory = number == 0 && _isInMemory,
        IsDevice = _scenario.HasRecords,
    };
}
