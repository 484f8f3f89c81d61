using Cbd.Control.Api;
using Cbd.Host.Devices;
using Cbd.Host.Sessions;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Memory;
using Cbd.Protocol.Transports;

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
    private int _depth;
    private int _nextProcess;
    private int _requests, _errors, _deaths, _deviceCount, _sessionCount, _accesses;

    private readonly record struct EndedLife(SharedDisk<TPolicy> Disk, int Backend, int BackendLife, int Life, (int Channel, ulong Epoch)[] Channels);

    /// <summary>Where a daemon runs, and which life of it is there.</summary>
    private sealed class ProcessSlot(int number, int machine, string name)
    {
        public int Number => number;
        public int Machine => machine;
        public string Name => name;
        public SimulatedProcess<TPolicy>? Process { get; set; }
        public long StartAt { get; set; }
        public bool Format { get; set; }

        /// <summary>Its state directory; null if daemons have no records.</summary>
        public RecordMedium? Medium { get; set; }
    }

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
        _disks = [MakeDisk(0, false, 0), MakeDisk(1, true, 1), MakeDisk(2, false, 1, 2)];
        _slots = [new ProcessSlot(0, 0, "a"), new ProcessSlot(1, 0, "b"), new ProcessSlot(2, 1, "c"), new ProcessSlot(3, 1, "d"), new ProcessSlot(4, 2, "e")];
        _operator = new Operator<TPolicy>(this);
        _recordOperator = new RecordOperator<TPolicy>(this, _operator);
        _watch = new CrashWatch<TPolicy>(this);
        Region.Swapped = Swapped;
        foreach (ProcessSlot slot in _slots)
            slot.StartAt = _random.Next(0, 3000);
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

    internal TransportInfo NewInfo()
    {
        var options = new RegionOptions { Hosts = 7, Backends = 5, Blkdevs = 5, Channels = 9, RingSlots = 8, ChannelSizeBytes = 49152, PayloadCrc = _scenario.PayloadCrc };
        return new TransportInfo
        {
            Geometry = RegionPlan.Create(RegionPlan.MinimumBytes(options), options, Machine.NewId(_random)),
            Coherence = RegionCoherence.Hardware,
        };
    }

    internal ClaimWord Word(long offset) => new(Region.Word(offset));

    internal bool Chance(double probability) => probability > 0 && _random.NextDouble() < probability;

    /// <summary>Called before every access to the region by a process.</summary>
    internal void BeforeAccess(SimulatedProcess<TPolicy> process, MemoryAccess access)
    {
        ThrowIfDead(process);
        _accesses++;
        if (_target is not null && !IsTargetHit && !IsCalming && (_accesses & 3) == 0)
            Aim();
        if (access != MemoryAccess.Load && _random.Next(32) == 0)
            CheckBodies();
        if (!IsCalming && access != MemoryAccess.Load && Chance(_scenario.Crash))
            Kill(process);
        ThrowIfDead(process);
        if (_depth < DepthLimit)
        {
            if (Chance(_scenario.Preemption))
                RunSomebody();
            if (!IsCalming && Chance(_scenario.Pause))
            {
                Trace($"process {process.Number} stands still");
                // A CPU that is taken away has stored what it wanted to.
                Region.Fence(process.Number);
                process.PausedUntil = Region.Now + _random.Next(1, 4 * DeadMicroseconds);
            }
        }

        SimulatedThread<TPolicy>? thread = _running.Count > 0 ? _running.Peek() : null;
        if (thread is not null && _depth < DepthLimit && !IsCalming && Chance(_scenario.Stall))
        {
            Region.Fence(process.Number);
            thread.StalledUntil = Region.Now + _random.Next(1, 2 * DeadMicroseconds);
        }

        while (!process.IsDead && (!process.CanRun || thread?.StalledUntil > Region.Now && !IsCalming))
            Step(faults: !IsCalming);
        ThrowIfDead(process);
    }

    internal void Exit(SimulatedProcess<TPolicy> process)
    {
        process.Die();
        process.MarkGone();
        Forget(process);
    }

    internal void Kill(params ReadOnlySpan<SimulatedProcess<TPolicy>> processes)
    {
        // The kernel takes a process off its CPU, which drains its stores, before it lets go of the locks that prove its death.
        foreach (SimulatedProcess<TPolicy> process in processes)
            Region.Fence(process.Number);
        End(processes);
    }

    private void End(params ReadOnlySpan<SimulatedProcess<TPolicy>> processes)
    {
        _watch.BeforeDeath(processes);
        foreach (SimulatedProcess<TPolicy> process in processes)
        {
            Trace($"process {process.Number} ('{process.Slot}', {process.Describe()}, host {process.Host?.Host}) is killed");
            _deaths++;
            process.Die();
            Forget(process);
        }

        CheckBodies();
    }

    internal void PowerOff(Machine machine, long backAt)
    {
        if (!machine.IsUp)
            return;
        SimulatedProcess<TPolicy>[] processes = [.. Living.Where(p => p.Machine == machine)];
        Trace($"machine {machine.Number} loses power");
        End(processes);
        machine.PowerOff(backAt);
        foreach (SimulatedProcess<TPolicy> process in processes)
            Region.LoseStores(process.Number);
        foreach (SharedDisk<TPolicy> disk in _disks)
            disk.LosePower(machine.Number);
    }

    /// <summary>The next life of some daemon begins with tp-reg --format --force.</summary>
    internal void FormatSoon() => _slots[_random.Next(_slots.Length)].Format = true;

    /// <summary>Every machine is off at once, and what was in the memory that they share is gone.</summary>
    internal void LoseRegion()
    {
        foreach (Machine machine in _machines)
            PowerOff(machine, Region.Now + _random.Next(1000, DeadMicroseconds));
        Trace("the region is gone");
        Region.Clear();
        IsFormatted = false;
        _watch.Formatted();
    }

    /// <summary>All daemons die, and one of them formats the region anew.</summary>
    internal void ReplaceRegion()
    {
        Kill([.. Living]);
        FormatSoon();
    }

    /// <summary>The state directory of some daemon is copied to another machine.</summary>
    internal void CopyRecord()
    {
        ProcessSlot from = _slots[_random.Next(_slots.Length)];
        ProcessSlot to = _slots[_random.Next(_slots.Length)];
        if (from.Machine == to.Machine || from.Medium!.IsCopy || _slots.Any(s => s.Medium!.IsCopy))
            return;
        if (to.Process is { } process)
            Kill(process);
        bool isKnown = _random.Next(2) == 0;
        to.Medium!.CopyFrom(from.Medium, from.Machine, isKnown);
        Trace($"daemon {to.Number} gets the state directory of {from.Number}{(isKnown ? "" : ", which does not say whose it is")}");
        Records!.Replaced(to.Number, to.Medium.OwnerMachine < 0 ? from.Number : -1);
    }

    internal int DaemonCount => _slots.Length;

    /// <summary>The region is gone, and records want the one that was there: an operator has it formatted.</summary>
    internal void FormatWhereNobodyMay()
    {
        if (Inspection.ReadAcquire(TransportInfo.MagicOffset) == TransportInfo.Magic || _slots.Any(s => s.Format || s.Process is { IsFormatting: true }) || _slots[0].Process is not { Wanted.MayFormat: false } process)
            return;
        _slots[0].Format = true;
        Kill(process);
    }

    /// <summary>An operator removes the state directory that is a copy.</summary>
    internal void RemoveCopies()
    {
        foreach (ProcessSlot slot in _slots.Where(s => s.Medium!.IsCopy))
        {
            if (slot.Process is { } process)
                Kill(process);
            slot.Medium!.Remove(Machine.NewId(_random));
            Records!.Replaced(slot.Number, -1);
        }
    }

    internal void LeaveSoon(SimulatedProcess<TPolicy> process)
    {
        if (process.IsUp)
            process.Leave();
        else if (!process.IsLeaving)
            Exit(process);
    }

    internal bool HasOwnName(SimulatedProcess<TPolicy> process) => process.Name == _slots[process.Slot].Name;

    /// <summary>The process that had this host entry last is dead, and its machine is off.</summary>
    internal bool IsMachineOffOf(int host) => _lastOn.TryGetValue(host, out SimulatedProcess<TPolicy>? process) && process.IsDead && !process.Machine.IsUp;

    /// <summary>The process that had this host entry last is dead, and nothing of it can reach a disk.</summary>
    internal bool IsProcessDeadOf(int host) => _lastOn.TryGetValue(host, out SimulatedProcess<TPolicy>? process) && process.IsDead && !Living.Any(p => p.Holds(host)) && _disks.All(d => !d.Disk.HasLeftovers);

    private static void ThrowIfDead(SimulatedProcess<TPolicy> process)
    {
        if (process.IsDead)
            throw new CrashException();
    }

    private void Forget(SimulatedProcess<TPolicy> process)
    {
        ProcessSlot slot = _slots[process.Slot];
        if (slot.Process != process)
            return;
        slot.Process = null;
        Records?.Died(slot.Number);
        slot.StartAt = Region.Now + _random.Next(500, DeadMicroseconds / 2);
    }

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
        IsInMemory = number == 0 && _scenario.IsInMemory,
    };

    private void Step(bool faults)
    {
        // Sometimes nothing happens anywhere for a while, but never so long that a beat is missed by that.
        Region.Now += _random.Next(64) == 0 ? _random.Next(100, 1500) : _random.Next(1, 12);
        Region.Settle();
        foreach (SharedDisk<TPolicy> disk in _disks)
            disk.Disk.Advance(Region.Now);
        foreach (Machine machine in _machines)
        {
            if (!machine.IsUp && Region.Now >= machine.BackAt)
                machine.Boot();
        }

        foreach (ProcessSlot slot in _slots)
        {
            if (slot.Process is null && Region.Now >= slot.StartAt && _machines[slot.Machine].IsUp && !_isEnding)
                Start(slot);
        }

        if (faults)
            Disturb();
        else if (IsCalming)
            Repair();
        _watch.Check();
        EndLives();
        if (_random.Next(64) == 0)
            CheckBodies();
        RunSomebody();
    }

    private void Repair()
    {
        if (Records is null)
            _operator.Repair();
        else if (!_isEnding)
            _recordOperator.Repair();
    }

    private void Start(ProcessSlot slot)
    {
        // Now and then a daemon is given another's name, by mistake.
        string name = Records is null && !IsCalming && _random.Next(8) == 0 ? _slots[_random.Next(_slots.Length)].Name : slot.Name;
        slot.Process = new SimulatedProcess<TPolicy>(this, slot.Number, ++_nextProcess, _machines[slot.Machine], name, slot.Format && (!IsCalming || Records is not null), slot.Medium);
        slot.Format = false;
        Trace($"process {_nextProcess} ('{slot.Number}') starts");
    }

    private void Disturb()
    {
        if (Chance(_scenario.MachineCrash))
            PowerOff(_machines[_random.Next(_machines.Length)], Region.Now + _random.Next(1000, 2 * DeadMicroseconds));
        if (Chance(_scenario.Suspend))
        {
            Machine machine = _machines[_random.Next(_machines.Length)];
            Trace($"machine {machine.Number} is suspended");
            machine.Suspend(_random.Next(1000, 5 * DeadMicroseconds));
            foreach (SimulatedProcess<TPolicy> process in Living.Where(p => p.Machine == machine))
                Region.Fence(process.Number);
        }

        if (Chance(_scenario.Operate))
        {
            if (Records is null)
                _operator.Act();
            else
                _recordOperator.Act();
        }

        if (_target is not null && !IsTargetHit)
            Aim();
    }

    private void Aim()
    {
        SimulatedProcess<TPolicy>[] victims = _watch.FindVictims(_target!);
        // In some runs as soon as it is there, in others later.
        if (victims.Length == 0 || !Chance((_seed % 3) switch { 0 => 0.05, 1 => 0.3, _ => 0.7 }))
            return;
        IsTargetHit = true;
        Kill(victims);
    }

    private void RunSomebody()
    {
        int count = 0;
        SimulatedThread<TPolicy>? chosen = null;
        foreach (ProcessSlot slot in _slots)
        {
            if (slot.Process is not { CanRun: true } process)
                continue;
            Consider(process.Main);
            foreach (SimulatedDevice<TPolicy> device in process.Devices)
            {
                foreach (SimulatedThread<TPolicy> thread in device.Threads)
                    Consider(thread);
            }
        }

        if (chosen is not null)
            Run(chosen);

        void Consider(SimulatedThread<TPolicy> thread)
        {
            if (!thread.IsRunning && _random.Next(++count) == 0)
                chosen = thread;
        }
    }

    private void Run(SimulatedThread<TPolicy> thread)
    {
        _depth++;
        thread.IsRunning = true;
        _running.Push(thread);
        try
        {
            thread.Turn();
        }
        catch (CrashException) when (thread.Process.IsDead)
        {
            // The process ended in the middle of this.
        }
        finally
        {
            thread.IsRunning = false;
            _running.Pop();
            _depth--;
        }
    }
}
