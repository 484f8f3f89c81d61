using Cbd.Protocol.Backends;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;
using Cbd.Host.Backends;
using Cbd.Host.Devices;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Sessions;

/// <summary>
/// This host on one transport: its claim, its backends and devices there, and the housekeeping thread that beats, looks
/// for offers, watches backends and clears the dead. The lock covers the registries and the tables; it is never held
/// while another host is waited for.
/// </summary>
internal sealed partial class TransportService
{
    /// <summary>
    /// One verb that starts or stops something at a time; taken before <see cref="_lock"/>, and never by housekeeping,
    /// so that other hosts may be waited for under it.
    /// </summary>
    private readonly Lock _verbs = new();
    private readonly Lock _lock = new();
    private bool _closed;
    private readonly NodeOptions _node;
    private readonly ILogger _logger;
    private OpenedTransport _opened;
    private readonly MappedMemory _memory;
    private BackendRegistry<MappedMemory, SafePolicy> _backendRegistry;
    private BlkdevRegistry<MappedMemory, SafePolicy> _blkdevRegistry;
    private readonly Dictionary<int, BackendService> _backends = [];
    private readonly Dictionary<int, DeviceService> _devices = [];
    private volatile TransportCondition _condition;

    public TransportService(int id, string path, OpenedTransport opened, NodeOptions node)
    {
        Id = id;
        Path = path;
        _opened = opened;
        _node = node;
        _logger = node.Logger;
        _condition = new TransportCondition(node.FenceMs);
        _memory = opened.Region.Memory;
        _backendRegistry = new BackendRegistry<MappedMemory, SafePolicy>(_memory, opened.Host, opened.Tracker);
        _blkdevRegistry = new BlkdevRegistry<MappedMemory, SafePolicy>(_memory, opened.Host, opened.Tracker);
        _seenChanges = new ulong[Geometry.HostCount];
        _housekeeping = new Thread(KeepHouse) { Name = $"cbd-tp{id}", IsBackground = true };
        _housekeeping.Start();
    }

    public int Id { get; }

    public string Path { get; }

    public TransportInfo Info => _opened.Info;

    public RegionGeometry Geometry => _opened.Info.Geometry;

    public RegionMapping Region => _opened.Region;

    public HostClaim<MappedMemory, SafePolicy> Host => _opened.Host;

    /// <summary>Why this transport serves nothing; null while all is well.</summary>
    public string? Failure => _condition.Failure is not { } failure ? null
        : !_wasCleared ? failure
        : _rejoinTrouble.Length == 0 ? $"{failure}; it registers anew"
        : $"{failure}; it is not registered anew yet: {_rejoinTrouble}";

    /// <summary>Entries of the region that nobody may reuse yet.</summary>
    public QuarantineCounts CountQuarantined()
    {
        lock (_lock)
        {
            if (_closed)
                return default;
            (int hosts, int backends, int blkdevs, int channels) = _opened.Clearing.CountQuarantined();
            return new QuarantineCounts(hosts, backends, blkdevs, channels);
        }
    }

    private LivenessTracker<MappedMemory, SafePolicy> Tracker => _opened.Tracker;

    /// <summary>Throws if this transport is not usable any more. Under <see cref="_lock"/> where the region is read.</summary>
    private void CheckUsable()
    {
        CheckOpen();
        if (_wasCleared && Failure is { } cleared)
            throw new CbdException(CbdErrorKind.Failed, $"transport {Id}: {cleared}: try again in a moment");
        if (_condition.Failure is { } failure)
            throw new CbdException(CbdErrorKind.Failed, $"transport {Id} failed: {failure}: unregister it (tp-unreg) and register again");
    }

    private void CheckOpen()
    {
        if (_closed)
            throw new CbdException(CbdErrorKind.NotFound, $"transport {Id} was unregistered meanwhile: see tp-list");
    }

    /// <summary>Names what keeps this transport from being unregistered; empty if nothing does.</summary>
    private string DescribeUse()
    {
        lock (_lock)
        {
            var parts = new List<string>();
            if (_backends.Count > 0)
                parts.Add($"backend {string.Join(", ", _backends.Keys.Order())}");
            if (_devices.Count + _lostDevices.Count > 0)
                parts.Add($"device {string.Join(", ", _devices.Keys.Concat(_lostDevices.Select(d => d.Device)).Order())}");
            return string.Join(" and ", parts);
        }
    }

    /// <summary>Leaves if nothing of this host is on it any more, or it failed; throws, naming what there is, if not.</summary>
    public void Unregister()
    {
        Interlocked.Increment(ref _closers);
        try
        {
            UnregisterUnused();
        }
        finally
        {
            Interlocked.Decrement(ref _closers);
        }
    }

    private void UnregisterUnused()
    {
        lock (_verbs)
        {
            CheckOpen();
            if (Failure is null && DescribeUse() is { Length: > 0 } use)
                throw new CbdException(CbdErrorKind.Busy, $"transport {Id} has {use} of this host: stop {(use.Contains(" and ", StringComparison.Ordinal) || use.Contains(',', StringComparison.Ordinal) ? "them" : "it")} first (backend-stop, dev-stop)");
            Close();
        }
    }

    /// <summary>
    /// Leaves: what is still there is stopped, the claim given up, the region unmapped. Never throws for what other
    /// hosts do; what could not be given back is cleared by them.
    /// </summary>
    public void Close()
    {
        // A host that registers anew holds the verbs' lock: it gives way.
        Interlocked.Increment(ref _closers);
        lock (_verbs)
        {
            if (!_closed)
                CloseAll();
        }
    }

    private void CloseAll()
    {
        bool fenced = _condition.IsFenced;
        bool abandoned = false;
        foreach (DeviceService device in Devices())
            Try($"device {device.Device}", () => { if (fenced) device.StopFenced(); else device.Stop(force: true); });
        foreach (BackendService backend in Backends())
        {
            Try($"backend {backend.Backend}", () => { if (fenced) backend.StopFenced(); else StopService(backend, force: true); });
            abandoned |= backend.IsAbandoned;
        }

        StopHousekeeping();
        StopAllLost();
        // With a disk that hangs, threads still use the mapping, and the entries are not free: the end of this process
        // is what others wait for.
        if (!fenced && !abandoned)
            Leave();
        lock (_lock)
        {
            _closed = true;
            _devices.Clear();
            _backends.Clear();
            if (abandoned)
                return;
            _opened.Region.Dispose();
            _opened.Source.Dispose();
        }
    }

    private void Leave()
    {
        long limit = MonotonicClock.Milliseconds + 5000;
        while (Host.Leave(_opened.Clearing, MonotonicClock.Milliseconds) == StepResult.Again)
        {
            if (MonotonicClock.Milliseconds > limit)
            {
                _logger.LogWarning("transport {Transport}: another host does not let go of a channel; the entry is left to be cleared", Id);
                return;
            }

            Thread.Sleep(5);
        }

        AnnounceChange();
    }

    private void Try(string what, Action action)
    {
        try
        {
            action();
        }
        catch (CbdException e)
        {
            _logger.LogError("transport {Transport}: stopping {What}: {Error}", Id, what, e.Message);
        }
    }

    private DeviceService[] Devices()
    {
        lock (_lock)
            return [.. _devices.Values];
    }

    private BackendService[] Backends()
    {
        lock (_lock)
            return [.. _backends.Values];
    }
}
