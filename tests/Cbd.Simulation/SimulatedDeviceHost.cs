using Cbd.Protocol.Blkdevs;
using Cbd.Blocks;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;

namespace Cbd.Simulation;

/// <summary>
/// A host with one device of two queues and a user on each, who write stamped blocks, read, flush and check. Crashes,
/// is cleared by another host, and comes back; or stops its device in order and starts it again.
/// </summary>
internal sealed class SimulatedDeviceHost<TPolicy> : SimulatedActor
    where TPolicy : struct, IProtocolPolicy
{
    private const int QueueCount = 2;
    private const int RequestsPerUser = 12;
    private const int MaxBlocks = 5;

    private readonly Simulator<TPolicy> _world;
    private readonly SimulatedBackendHost<TPolicy> _backend;
    private readonly History _history;
    private readonly BlockCompletion[] _completions = new BlockCompletion[16];
    private readonly int _blkdev;
    private readonly List<(int Channel, int Host)> _toClear = [];
    private Queue<SimulatedMemory, TPolicy>[] _queues = [];
    private User[] _users = [];
    private BlkdevState? _device;
    private SimulatedMemory _memory;
    private int _host;
    private ulong _epoch;
    private bool _stopping;
    private bool _finished;
    private bool _finalRead;
    private int _finalBlock;
    private long _backAt;

    private sealed class User
    {
        public NativeBuffer Buffer { get; } = new(RequestsPerUser * MaxBlocks * SimulatedDisk.BlockBytes);
        public Sent?[] InFlight { get; } = new Sent?[RequestsPerUser];
    }

    private sealed record Sent(BlockOperation Operation, int Block, int Count, long Began, long[] Ids);

    public SimulatedDeviceHost(Simulator<TPolicy> world, int blkdev, SimulatedBackendHost<TPolicy> backend, History history)
    {
        _world = world;
        _blkdev = blkdev;
        _backend = backend;
        _history = history;
        backend.CacheLost += () =>
        {
            // A device that has been told, or is gone, may lose what no flush covered. One that goes on may not.
            bool gone = _device is null || _device.Failure is not null;
            _history.ForgiveUnflushed(presentLifeToo: gone);
            _lossPending = !gone;
        };
    }

    private bool _lossPending;

    /// <summary>Blocks that the device has, as its backend last told it.</summary>
    private int Blocks => (int)(_device!.Info.SizeBytes / SimulatedDisk.BlockBytes);

    public int Requests { get; private set; }

    public int Errors { get; private set; }

    public int Resets { get; private set; }

    public int Lives { get; private set; }

    public bool IsQuiet => _device is not null && !_stopping && !_lossPending && Array.TrueForAll(_users, u => Array.TrueForAll(u.InFlight, s => s is null)) &&
        (!_finalRead || _finalBlock >= Blocks) && _device.Failure is null;

    public bool IsStopped => _finished && _device is null && _toClear.Count == 0;

    /// <summary>Believes that it may use the channel.</summary>
    internal bool Uses(int channel) => Array.Exists(_queues, q => q.Channel == channel && q.Phase is not (QueuePhase.Closed or QueuePhase.Lost));

    public string Describe() =>
        $"device {_blkdev}: host {_host}, failure {_device?.Failure ?? "none"}, stopping {_stopping}, to clear {_toClear.Count}, " +
        string.Join(", ", _queues.Select(q => $"channel {q.Channel} {q.Phase} outstanding {q.Outstanding} in flight {q.InFlight} word {new ClaimWord(_world.Region.Word(_world.Geometry.ChannelOffset(q.Channel)))}"));

    public void BeginFinalRead() => _finalRead = true;

    public void BeginStop()
    {
        _finished = true;
        BeginRestart();
    }

    internal void BeginRestart()
    {
        if (_device is null || _stopping || IsRunning)
            return;
        _stopping = true;
        _world.Trace($"device {_blkdev} host {_host} stops");
        foreach (Queue<SimulatedMemory, TPolicy> queue in _queues)
            queue.BeginClose();
        if (_lossPending)
            ForgiveLoss();
        ForgetInFlight();
    }

    internal void Crash()
    {
        if (_device is null || IsRunning)
            return;
        _world.Trace($"device {_blkdev} host {_host} dies");
        foreach (Queue<SimulatedMemory, TPolicy> queue in _queues)
        {
            Resets += queue.ResetCount;
            if (queue.Phase is not (QueuePhase.Closed or QueuePhase.Lost))
                _toClear.Add((queue.Channel, _host));
        }

        ForgetInFlight();
        _queues = [];
        _device = null;
        _stopping = false;
        if (_lossPending)
            ForgiveLoss();
        _backAt = _world.Region.Now + _world.Random.Next(100, 5000);
    }

    internal override void Turn()
    {
        if (_toClear.Count > 0)
            Clear();
        if (_device is null)
        {
            if (_toClear.Count == 0 && !_finished && _world.Region.Now >= _backAt && _backend.IsAlive)
                Start();
            return;
        }

        if (_backend.IsAlive && (_device.SessionEpoch != _backend.Session.Epoch || _device.Info.SizeBytes != _backend.Session.Info.SizeBytes))
        {
            _device.Adopt(_backend.Session);
            _world.Trace($"device {_blkdev} host {_host} adopts session {_backend.Session.Epoch}");
        }

        _device.IsBackendLost = _device.IsBackendOver = !_backend.IsAlive;
        for (int i = 0; i < _queues.Length; i++)
        {
            if (!_stopping)
                Submit(_queues[i], _users[i]);
            int count = _queues[i].Poll(_world.Region.Now, _completions);
            for (int j = 0; j < count && !_stopping; j++)
                Receive(_users[i], _completions[j]);
        }

        if (_lossPending && (_device.Failure is not null || Array.TrueForAll(_queues, q => q.Phase == QueuePhase.Attached) && _backend.IsAlive && _device.SessionEpoch == _backend.Session.Epoch))
        {
            if (_device.Failure is not null)
                ForgiveLoss();
            _lossPending = false;
        }

        if (_device.Failure is not null && !_stopping)
        {
            // What a user does who reads the error: stop the device, look at the data, start it again.
            _stopping = true;
            _world.Trace($"device {_blkdev} host {_host} failed: {_device.Failure}");
            foreach (Queue<SimulatedMemory, TPolicy> queue in _queues)
                queue.BeginClose();
            ForgetInFlight();
        }

        if (_stopping && Array.TrueForAll(_queues, q => q.Phase is QueuePhase.Closed or QueuePhase.Lost))
            EndStop();
    }

    private void ForgiveLoss()
    {
        _history.ForgiveUnflushed(presentLifeToo: true);
        _lossPending = false;
    }

    private void Start()
    {
        _host = _world.NextHost();
        _memory = new SimulatedMemory(_world.Region, _host);
        _backend.Writer = (_blkdev, ++_epoch);
        var claims = new List<(int Channel, ClaimWord Word)>();
        while (claims.Count < QueueCount && ChannelClaims<SimulatedMemory, TPolicy>.TryClaim(_memory, _world.Geometry, _host, out int channel, out ClaimWord word))
        {
            if (_world.ChannelOwners.TryGetValue(channel, out SimulatedDeviceHost<TPolicy>? owner) && owner.Uses(channel))
                throw new SimulationException($"channel {channel} was claimed by host {_host} while host {owner._host} has it");
            _world.ChannelOwners[channel] = this;
            claims.Add((channel, word));
        }

        if (claims.Count < QueueCount)
            throw new SimulationException("there are channels enough for everybody, and one was not free");
        _device = new BlkdevState(_blkdev, _epoch, _backend.Backend, _backend.Session, QueueCount);
        var options = new QueueOptions { DeadlineMicroseconds = 1500, PieceBytes = 1024, FruitlessResets = 1000 };
        _queues = [.. claims.Select((c, i) => new Queue<SimulatedMemory, TPolicy>(_memory, _world.Geometry, c.Channel, c.Word, _device, i, options, () => { }))];
        _users = [.. claims.Select(_ => new User())];
        foreach (Queue<SimulatedMemory, TPolicy> queue in _queues)
            queue.Offer();
        Lives++;
        _history.Life++;
        _world.Trace($"device {_blkdev} host {_host} starts");
    }

    private void EndStop()
    {
        foreach (Queue<SimulatedMemory, TPolicy> queue in _queues)
        {
            Resets += queue.ResetCount;
            if (queue.Phase == QueuePhase.Lost)
                throw new SimulationException($"channel {queue.Channel} was taken away from a living host: {_device!.Failure}");
        }

        _queues = [];
        _backend.Writer = (-1, 0);
        _device = null;
        _stopping = false;
        if (_lossPending)
            ForgiveLoss();
    }

    /// <summary>What a living host does for a dead one, with proof of its death.</summary>
    private void Clear()
    {
        foreach ((int channel, int host) in _toClear.ToArray())
        {
            long offset = _world.Geometry.ChannelOffset(channel);
            ClaimWord word = ClaimOperations<SimulatedMemory, TPolicy>.Read(_memory, offset);
            if (word.Host != host)
            {
                _toClear.Remove((channel, host));
                continue;
            }

            bool known = BlkdevCtrlLine.TryLoadLatest(_memory, _world.Geometry, channel, word.Epoch, out BlkdevCtrlLine ctrl);
            bool handlerGone = !_backend.IsAlive || (known && ctrl.Session != _backend.Session.Epoch);
            ChannelClearing<SimulatedMemory, TPolicy>.Step(
                _memory, _world.Geometry, channel, word, isDead: true, () => known && ctrl.MayBeDraining && !handlerGone, () => handlerGone ? HandlerEnd.Over : HandlerEnd.Alive, () => true);
        }

        if (_toClear.Count == 0)
            _backend.Writer = (-1, 0);
    }

    private void Submit(Queue<SimulatedMemory, TPolicy> queue, User user)
    {
        int slot = Array.IndexOf(user.InFlight, null);
        if (slot < 0 || _device!.Failure is not null)
            return;
        if (_finalRead)
        {
            if (_finalBlock < Blocks && queue == _queues[0])
                Send(queue, user, slot, BlockOperation.Read, BlockFlags.None, _finalBlock++, 1);
            return;
        }

        if (_world.IsCalming || _world.Random.Next(3) == 0)
            return;
        int block = _world.Random.Next(Blocks);
        int count = Math.Min(1 + _world.Random.Next(MaxBlocks), Blocks - block);
        switch (_world.Random.Next(20))
        {
            case 0:
                Send(queue, user, slot, BlockOperation.Flush, BlockFlags.None, 0, 0);
                break;
            case < 8:
                Send(queue, user, slot, BlockOperation.Read, BlockFlags.None, block, count);
                break;
            case 8:
                Send(queue, user, slot, BlockOperation.Write, BlockFlags.ForceUnitAccess, block, count);
                break;
            default:
                Send(queue, user, slot, BlockOperation.Write, BlockFlags.None, block, count);
                break;
        }
    }

    private void Send(Queue<SimulatedMemory, TPolicy> queue, User user, int slot, BlockOperation operation, BlockFlags flags, int block, int count)
    {
        long[] ids = [];
        var data = new BufferSlice(user.Buffer, slot * MaxBlocks * SimulatedDisk.BlockBytes, count * SimulatedDisk.BlockBytes);
        if (operation == BlockOperation.Write)
        {
            ids = new long[count];
            for (int i = 0; i < count; i++)
            {
                ids[i] = _history.BeginWrite(block + i, (flags & BlockFlags.ForceUnitAccess) != 0);
                BlockStamp.Write(data.Slice(i * SimulatedDisk.BlockBytes, SimulatedDisk.BlockBytes).Span, block + i, ids[i]);
            }
        }

        user.InFlight[slot] = new Sent(operation, block, count, _history.Begin(), ids);
        Requests++;
        var request = new BlockRequest((ulong)slot, operation, flags, (long)block * SimulatedDisk.BlockBytes, (long)count * SimulatedDisk.BlockBytes, count > 0 ? data : default);
        if (!queue.TrySubmit(request))
        {
            // The table of the queue is full; the writes were never begun.
            user.InFlight[slot] = null;
        }
    }

    private void Receive(User user, in BlockCompletion completion)
    {
        int slot = (int)completion.Cookie;
        Sent sent = user.InFlight[slot] ?? throw new SimulationException($"request {slot} was answered twice");
        user.InFlight[slot] = null;
        if (completion.Error != 0)
            Errors++;
        if (completion.Error == Errno.EINVAL)
            throw new SimulationException($"blocks {sent.Block}+{sent.Count} were refused, and the device has {Blocks}");
        ReadOnlySpan<byte> data = user.Buffer.GetSpan(slot * MaxBlocks * SimulatedDisk.BlockBytes, sent.Count * SimulatedDisk.BlockBytes);
        for (int i = 0; i < sent.Count; i++)
        {
            if (sent.Operation == BlockOperation.Write)
                _history.EndWrite(sent.Block + i, sent.Ids[i], completion.Error == 0);
            else if (sent.Operation == BlockOperation.Read && completion.Error == 0)
                _history.CheckRead(sent.Block + i, BlockStamp.Read(data.Slice(i * SimulatedDisk.BlockBytes, SimulatedDisk.BlockBytes), sent.Block + i), sent.Began);
        }

        if (sent.Operation == BlockOperation.Flush && completion.Error == 0)
            _history.EndFlush(sent.Began);
    }

    private void ForgetInFlight()
    {
        foreach (User user in _users)
            Array.Clear(user.InFlight);
    }
}
