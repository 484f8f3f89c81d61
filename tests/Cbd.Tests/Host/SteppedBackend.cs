using Cbd.Blocks;
using Cbd.Disks;
using Cbd.Host.Backends;
using Cbd.Memory;
using Cbd.Protocol.Backends;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Simulation;
using Cbd.Tests.Hosts;

namespace Cbd.Tests.Host;

/// <summary>A backend of a <see cref="SteppedHost"/> that serves a memory disk, turn by turn.</summary>
internal sealed class SteppedBackend : IDisposable
{
    private readonly SteppedHost _host;
    private readonly Disk _disk = Disk.Open(new DiskOptions { Path = "memory:1M" });
    private readonly NativeBuffer _buffers = new(64 << 10);
    private readonly IBlockQueue _queue;
    private readonly HandlerGroup<ArrayMemory, SafePolicy> _group;
    private readonly Queue<int> _offers = new();
    private bool _isDraining;

    public SteppedBackend(SteppedHost host, BackendWish? wish = null, BackendBody? body = null)
    {
        _host = host;
        _queue = _disk.OpenQueue(16, _buffers);
        Life = host.ClaimBackend(wish, body ?? TestRegion.Disk());
        _group = new HandlerGroup<ArrayMemory, SafePolicy>(host.Region.Memory, host.Region.Geometry, Life.MakeServed(_disk), _queue, _buffers);
        Life.BeginServing(_offers.Enqueue, host.NowMs);
    }

    public BackendLife<ArrayMemory, SafePolicy> Life { get; }

    public int Backend => Life.Backend;

    /// <summary>Channels that it serves.</summary>
    public int Count => _group.Count;

    /// <summary>One look around by its host, and one turn of its handlers.</summary>
    public void Turn()
    {
        _host.Session.Look(sample: true, _host.NowMs * 1000);
        while (_offers.TryDequeue(out int channel))
            _group.TakeOffer(channel);
        if (Life.Stage == BackendStage.Draining && !_isDraining)
        {
            _isDraining = true;
            _group.BeginStop();
        }

        _group.Poll();
    }

    /// <summary>True when nothing of it is at the disk or in a channel, and it is over.</summary>
    public bool TryEndStop()
    {
        Turn();
        if (_group.Count > 0)
            return false;
        Life.EndStop(_host.NowMs);
        Life.Session.Remove(Life);
        return true;
    }

    public void Dispose()
    {
        _queue.Dispose();
        _disk.Dispose();
        _buffers.Dispose();
    }
}
