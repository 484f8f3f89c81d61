using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Channels;
using Cbd.Memory;

namespace Cbd.Simulation;

/// <summary>A host that serves one disk, and comes back after each crash once the disk's lock is free.</summary>
internal sealed class SimulatedBackendHost<TPolicy> : SimulatedActor
    where TPolicy : struct, IProtocolPolicy
{
    private readonly Simulator<TPolicy> _world;
    private readonly SimulatedDisk _disk;
    private readonly NativeBuffer _buffers = new(64 * 1024);
    private HandlerGroup<SimulatedMemory, TPolicy>? _group;
    private SimulatedDiskQueue? _queue;
    private SimulatedMemory _memory;
    private Guid _durabilityId;
    private long _backAt;

    public SimulatedBackendHost(Simulator<TPolicy> world, int backend, SimulatedDisk disk)
    {
        _world = world;
        _disk = disk;
        Backend = backend;
        _durabilityId = NewId();
        Start();
    }

    public int Backend { get; }

    public bool IsAlive => _group is not null;

    /// <summary>The session as the backend's entry would state it.</summary>
    public BackendSession Session { get; private set; }

    /// <summary>The blkdev that holds the writer word: id and epoch; (−1, 0) if none.</summary>
    public (int Blkdev, ulong Epoch) Writer { get; set; } = (-1, 0);

    public int Lives { get; private set; }

    /// <summary>Called when the machine died: acknowledged writes may be gone.</summary>
    public event Action? CacheLost;

    internal void Crash(bool machine)
    {
        if (!IsAlive || IsRunning)
            return;
        _world.Trace($"backend {Backend} session {Session.Epoch}: {(machine ? "machine" : "process")} dies");
        _disk.Abandon(_queue!);
        if (machine)
        {
            _disk.LoseCache();
            _durabilityId = NewId();
            CacheLost?.Invoke();
        }

        _group = null;
        _backAt = _world.Region.Now + _world.Random.Next(100, 5000);
    }

    /// <summary>An operator makes the disk larger; what follows from that takes a turn each.</summary>
    internal void GrowDisk()
    {
        if (IsAlive && !IsRunning && _disk.SizeBlocks < _disk.BlockCount)
            _disk.SizeBlocks = Math.Min(_disk.BlockCount, _disk.SizeBlocks + 1 + _world.Random.Next(4));
    }

    /// <summary>The disk has it, then the handlers take it, then the entry says it; a crash may come in between.</summary>
    private void Grow()
    {
        long has = (long)_disk.SizeBlocks * SimulatedDisk.BlockBytes;
        bool isServed = _queue!.Info.SizeBytes == has, isTold = Session.Info.SizeBytes == has;
        if ((isServed && isTold) || _world.Random.Next(4) != 0)
            return;
        if (_world.Scenario.AnnouncesGrowthFirst ? !isTold : isServed)
            Session = Session with { Info = Session.Info with { SizeBytes = has } };
        else
            _queue.Serve(has);
    }

    internal override void Turn()
    {
        if (_group is null)
        {
            // A new session starts only with the disk's lock: nothing of the old one can still land.
            if (_world.Region.Now >= _backAt && !_disk.HasLeftovers)
                Start();
            return;
        }

        for (int channel = 0; channel < _world.Geometry.ChannelCount; channel++)
        {
            if (!_group.Serves(channel))
                _group.TryAttach(channel);
        }

        Grow();
        _group.Poll();
    }

    private void Start()
    {
        _memory = new SimulatedMemory(_world.Region, _world.NextHost());
        _queue = new SimulatedDiskQueue(_disk, _world.Region, _durabilityId);
        // A take-over serves the recorded size, whatever the disk has by now.
        if (Lives > 0)
            _queue.Serve(Session.Info.SizeBytes);
        Session = new BackendSession(Session.Epoch + 1, _durabilityId, _queue.Info);
        var served = new ServedBackend(Backend, Session.Epoch, _queue, 0, _ => { }, (blkdev, epoch) => Writer == (blkdev, epoch));
        _group = new HandlerGroup<SimulatedMemory, TPolicy>(_memory, _world.Geometry, served, _queue, _buffers);
        Lives++;
        _world.Trace($"backend {Backend} session {Session.Epoch} starts");
    }

    private Guid NewId()
    {
        Span<byte> bytes = stackalloc byte[16];
        _world.Random.NextBytes(bytes);
        return new Guid(bytes);
    }
}
