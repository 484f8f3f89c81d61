using Cbd.Blocks;
using Cbd.Protocol.Channels;
using Cbd.Memory;

namespace Cbd.Simulation.Region;

/// <summary>The user of one queue: writes stamped blocks, reads, flushes, and checks what comes back.</summary>
internal sealed class DeviceUser<TPolicy>
    where TPolicy : struct, IProtocolPolicy
{
    private const int Slots = 6;
    private const int MaxBlocks = 4;

    private readonly World<TPolicy> _world;
    private SimulatedDevice<TPolicy> _device;
    private Queue<SimulatedMemory, TPolicy> _queue;
    private readonly int _number;
    private readonly NativeBuffer _buffer;
    private readonly Sent?[] _inFlight = new Sent?[Slots];
    private readonly BlockCompletion[] _completions = new BlockCompletion[Slots];
    private bool _isForgotten;
    private bool _released;

    /// <summary>Slots of requests that the process before had taken, in their order: sent again before anything new.</summary>
    private readonly Queue<int> _repeats = new();
    private int _repeating;

    /// <param name="Session">The device's session when it was sent.</param>
    private sealed record Sent(BlockOperation Operation, BlockFlags Flags, int Block, int Count, long Began, long[] Ids, ulong Session)
    {
        public bool ReachesMedium => Operation == BlockOperation.Flush || (Operation == BlockOperation.Write && (Flags & BlockFlags.ForceUnitAccess) != 0);
    }

    public DeviceUser(World<TPolicy> world, SimulatedDevice<TPolicy> device, Queue<SimulatedMemory, TPolicy> queue, int number)
    {
        _world = world;
        _device = device;
        _queue = queue;
        _number = number;
        _buffer = world.TakeBuffer();
    }

    public int FailedFlushes { get; private set; }

    public bool HasFlushInFlight => Array.Exists(_inFlight, s => s is { Operation: BlockOperation.Flush });

    /// <summary>Next block of the last reading of the whole disk; −1 while there is none.</summary>
    public int FinalBlock { get; set; } = -1;

    public bool IsIdle => Array.TrueForAll(_inFlight, s => s is null) && (FinalBlock < 0 || FinalBlock >= BlockCount);

    /// <summary>Blocks that the device has, as its user sees it.</summary>
    private int BlockCount => (int)(_device.State!.Info.SizeBytes / SimulatedDisk.BlockBytes);

    /// <summary>What the process before had taken is not all answered yet: no user of the device sends anything new.</summary>
    public bool IsRepeating => _repeating > 0;

    /// <summary>Another process has taken the device up: what is not answered is sent again.</summary>
    public void TakeUp(SimulatedDevice<TPolicy> device, Queue<SimulatedMemory, TPolicy> queue)
    {
        (_device, _queue) = (device, queue);
        _isForgotten = false;
        _repeats.Clear();
        foreach (int slot in Enumerable.Range(0, Slots).Where(i => _inFlight[i] is not null).OrderBy(i => _inFlight[i]!.Began))
            _repeats.Enqueue(slot);
        _repeating = _repeats.Count;
    }

    public string Describe() => $"channel {_queue.Channel}: {_queue.Outstanding} requests in the queue, not answered: {string.Join(", ", _inFlight.Where(s => s is not null).Select(s => $"{s!.Operation} {s.Block}+{s.Count}"))}";

    private SharedDisk<TPolicy> Disk => _device.Disk;

    public void Turn(long nowMicroseconds)
    {
        Repeat();
        Submit();
        bool held = _device.State!.IsHeld;
        int inFlight = _queue.InFlight;
        int own = _queue.ResetCount;
        int resets = _device.Queues.Sum(q => q.ResetCount);
        bool attached = _queue.Phase == QueuePhase.Attached;
        ulong session = _device.State.SessionEpoch;
        int count = _queue.Poll(nowMicroseconds, _completions);
        if (held && _device.State.IsHeld && _queue.InFlight > inFlight && resets == _device.Queues.Sum(q => q.ResetCount))
            throw new SimulationException($"channel {_queue.Channel} issued new commands while a queue of the device repeats what was in flight");
        if (!attached && _queue.Phase == QueuePhase.Attached && session == _device.State.SessionEpoch && _queue.ResetCount == own &&
            !_device.State.AllEntered(_device.State.DurabilityGeneration) && _queue.Session == session)
            throw new SimulationException($"channel {_queue.Channel} is attached to a session behind a loss while another queue of the device has not left the one before");
        for (int i = 0; i < count && !_isForgotten; i++)
            Receive(_completions[i]);
    }

    /// <summary>The device is being stopped: answers do not matter any more.</summary>
    public void Forget()
    {
        _isForgotten = true;
        _repeats.Clear();
        _repeating = 0;
        Array.Clear(_inFlight);
    }

    /// <summary>This host was cleared: the thread that drives the queue gives it up.</summary>
    public void Fence() => _queue.Fence();

    public void Release()
    {
        Forget();
        if (!_released)
            _world.ReturnBuffer(_buffer);
        _released = true;
    }

    private void Submit()
    {
        int slot = Array.IndexOf(_inFlight, null);
        if (slot < 0 || _device.HasFailed || _device.IsRepeating)
            return;
        if (FinalBlock >= 0)
        {
            if (FinalBlock < BlockCount && _number == 0)
                Send(slot, BlockOperation.Read, BlockFlags.None, FinalBlock, 1);
            FinalBlock++;
            return;
        }

        if (_world.IsCalming || !_world.Chance(_world.Scenario.Submit))
            return;
        int block = _world.Random.Next(BlockCount);
        int count = Math.Min(1 + _world.Random.Next(MaxBlocks), BlockCount - block);
        if (_world.Chance(_world.Scenario.FlushShare))
        {
            Send(slot, BlockOperation.Flush, BlockFlags.None, 0, 0);
            return;
        }

        switch (_world.Random.Next(22))
        {
            case < 8:
                Send(slot, BlockOperation.Read, BlockFlags.None, block, count);
                break;
            case 8:
                Send(slot, BlockOperation.Write, BlockFlags.ForceUnitAccess, block, count);
                break;
            default:
                Send(slot, BlockOperation.Write, BlockFlags.None, block, count);
                break;
        }
    }

    private void Repeat()
    {
        while (_repeats.TryPeek(out int slot))
        {
            Sent sent = _inFlight[slot]!;
            if (!_queue.TryRepeat(Request(slot, sent.Operation, sent.Flags, sent.Block, sent.Count), sent.Session))
                return;
            _world.TraceIo($"disk {Disk.Number}: process {_device.Process.Number} channel {_queue.Channel} repeats {sent.Operation} {sent.Block}+{sent.Count} [{string.Join(' ', sent.Ids)}] slot {slot}");
            _repeats.Dequeue();
        }
    }

    private BlockRequest Request(int slot, BlockOperation operation, BlockFlags flags, int block, int count) => new(
        (ulong)slot, operation, flags, (long)block * SimulatedDisk.BlockBytes, (long)count * SimulatedDisk.BlockBytes,
        count > 0 ? new BufferSlice(_buffer, slot * MaxBlocks * SimulatedDisk.BlockBytes, count * SimulatedDisk.BlockBytes) : default);

    private void Send(int slot, BlockOperation operation, BlockFlags flags, int block, int count)
    {
        long[] ids = [];
        var data = new BufferSlice(_buffer, slot * MaxBlocks * SimulatedDisk.BlockBytes, count * SimulatedDisk.BlockBytes);
        if (operation == BlockOperation.Write)
        {
            ids = new long[count];
            for (int i = 0; i < count; i++)
            {
                ids[i] = Disk.History.BeginWrite(block + i, (flags & BlockFlags.ForceUnitAccess) != 0);
                BlockStamp.Write(data.Slice(i * SimulatedDisk.BlockBytes, SimulatedDisk.BlockBytes).Span, block + i, ids[i]);
            }
        }

        _inFlight[slot] = new Sent(operation, flags, block, count, Disk.History.Begin(), ids, _device.State!.SessionEpoch);
        _world.CountRequest();
        _world.TraceIo($"disk {Disk.Number}: process {_device.Process.Number} channel {_queue.Channel} sends {operation} {block}+{count} {flags} [{string.Join(' ', ids)}] slot {slot}");
        if (!_queue.TrySubmit(Request(slot, operation, flags, block, count)))
            _inFlight[slot] = null;
    }

    private void Receive(in BlockCompletion completion)
    {
        int slot = (int)completion.Cookie;
        Sent sent = _inFlight[slot] ?? throw new SimulationException($"request {slot} was answered twice");
        _inFlight[slot] = null;
        if (_repeating > 0)
            _repeating--;
        _world.TraceIo($"disk {Disk.Number}: process {_device.Process.Number} channel {_queue.Channel} slot {slot} {sent.Operation} {sent.Block}+{sent.Count} answered, error {completion.Error}");
        bool success = completion.Error == 0;
        if (!success)
            ReceiveError(sent, completion.Error);
        else if (Disk.HasFailedFlush && sent.Began > Disk.FailedFlushAt && sent.Operation is BlockOperation.Flush or BlockOperation.Write)
            throw new SimulationException($"{sent.Operation} succeeded on disk {Disk.Number} although a flush had failed before it was sent, and nobody cleared that");
        ReadOnlySpan<byte> data = _buffer.GetSpan(slot * MaxBlocks * SimulatedDisk.BlockBytes, sent.Count * SimulatedDisk.BlockBytes);
        // The user of a device that has failed knows that what no flush covered may be gone, with what is answered from now on.
        bool isPromised = success && (!_device.HasFailed || sent.ReachesMedium);
        for (int i = 0; i < sent.Count; i++)
        {
            if (sent.Operation == BlockOperation.Write)
                Disk.History.EndWrite(sent.Block + i, sent.Ids[i], isPromised, isGivenUp: !success && _device.State!.IsFailing && !_device.HasFailed);
            else if (sent.Operation == BlockOperation.Read && success)
                Disk.History.CheckRead(sent.Block + i, BlockStamp.Read(data.Slice(i * SimulatedDisk.BlockBytes, SimulatedDisk.BlockBytes), sent.Block + i), sent.Began);
        }

        if (sent.Operation == BlockOperation.Flush && success)
        {
            Disk.History.EndFlush(sent.Began);
            CheckCover();
        }
    }

    /// <summary>A device that owes no flush has nothing at the disk that was answered and may be lost.</summary>
    private void CheckCover()
    {
        if (_device.State!.HasUncoveredWrites || _device.HasFailed || Disk.IsLossPending)
            return;
        foreach ((int block, long id) in Disk.Disk.Dirty)
        {
            if (Disk.History.IsOwed(block, id, _device.Life))
                throw new SimulationException($"the device counts everything as covered, although write {id} of block {block} was answered and is in the disk's cache alone");
        }
    }

    private void ReceiveError(Sent sent, int error)
    {
        _world.CountError();
        if (sent.Operation == BlockOperation.Flush)
            FailedFlushes++;
        if (!sent.ReachesMedium)
            return;
        // Whoever reads this knows that what no flush covered may be gone.
        Disk.Forgive();
        if (error == SimulatedDisk.FlushErrno && !Disk.HasFailedFlush && sent.Began > Disk.ClearedAt)
        {
            Disk.HasFailedFlush = true;
            Disk.FailedFlushAt = Disk.History.Begin();
        }
    }
}
