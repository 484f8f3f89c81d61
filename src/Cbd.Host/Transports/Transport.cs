using Cbd.Disks;
using Cbd.Host.Backends;
using Cbd.Host.Devices;
using Cbd.Host.Sessions;
using Cbd.Host.Threads;
using Cbd.Memory;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Protocol.Transports;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Transports;

/// <summary>
/// This host on one region: its membership, what drives its backends and devices, and the housekeeping thread. Verbs are
/// in <see cref="BackendVerbs"/>, <see cref="DeviceVerbs"/> and <see cref="ClearVerbs"/>, lists in <see cref="TransportLists"/>.
/// </summary>
/// <remarks>
/// <see cref="StateLock"/> covers the state machines and the lists of servers. It is held for single steps only: never while
/// another host, a disk, an export or a thread is waited for.
/// </remarks>
internal sealed class Transport
{
    internal const int StepIntervalMs = 10;

    private readonly OpenedTransport _opened;
    private readonly Housekeeping _housekeeping;

    /// <summary>Who leaves second waits for who leaves first.</summary>
    private readonly Lock _closeLock = new();

    public Transport(int id, string path, OpenedTransport opened, NodeOptions node, Action<Thread> startThread)
    {
        Id = id;
        Path = path;
        _opened = opened;
        Node = node;
        Backends = new BackendVerbs(this);
        Devices = new DeviceVerbs(this);
        Clears = new ClearVerbs(this);
        Lists = new TransportLists(this);
        _housekeeping = new Housekeeping(this);
        _housekeeping.Start(startThread);
    }

    public int Id { get; }

    public string Path { get; }

    public NodeOptions Node { get; }

    public ILogger Logger => Node.Logger;

    public TransportInfo Info => _opened.Info;

    public RegionGeometry Geometry => _opened.Info.Geometry;

    public RegionMapping Region => _opened.Region;

    /// <summary>The user whose file the region is.</summary>
    public uint RegionOwner => _opened.Source.OwnerId;

    public MappedMemory Memory => _opened.Region.Memory;

    public Membership<MappedMemory, SafePolicy> Membership => _opened.Membership;

    public HostSession<MappedMemory, SafePolicy> Session => _opened.Membership.Session;

    /// <summary>That of the present session.</summary>
    public BeatCondition Condition => (BeatCondition)Session.Condition;

    public Lock StateLock { get; } = new();

    /// <summary>The verbs that are under way.</summary>
    public RunningVerbs Verbs { get; } = new();

    /// <summary>What drives the backends that serve, or did and stop. Under <see cref="StateLock"/>.</summary>
    public List<BackendServer> BackendServers { get; } = [];

    /// <summary>What drives the devices that are active, those whose claim was lost included. Under <see cref="StateLock"/>.</summary>
    public List<DeviceServer> DeviceServers { get; } = [];

    public BackendVerbs Backends { get; }

    public DeviceVerbs Devices { get; }

    public ClearVerbs Clears { get; }

    public TransportLists Lists { get; }

    /// <summary>Nothing of it may be touched any more.</summary>
    public bool IsClosed { get; private set; }

    /// <summary>Why this transport serves nothing, or what has become of its region; null while all is well.</summary>
    public string? Failure
    {
        get
        {
            if (Session.Condition.Failure is not { } failure)
                return _housekeeping.StandsStillMs is > 0 and var still ? $"its housekeeping stands still for {still} ms: this host does not beat, and stores nothing until it does" : _housekeeping.Removal;
            LifeStatus status = Membership.Status;
            return !Session.IsCleared || status.State == LifeState.Failed ? failure
                : status.Reason == failure || status.Reason.Length == 0 ? $"{failure}; it registers anew"
                : $"{failure}; it is not registered anew yet: {status.Reason}";
        }
    }

    /// <summary>A verb begins; dispose what it returns at its end.</summary>
    public IDisposable Begin() => Verbs.TryBegin() ?? throw WasUnregistered();

    /// <summary>Throws if a verb that waits has to give up.</summary>
    public void CheckGoesOn()
    {
        if (Verbs.IsEnding)
            throw WasUnregistered();
    }

    /// <summary>Throws if it was left. Under <see cref="StateLock"/> where the region is read.</summary>
    public void CheckOpen()
    {
        if (IsClosed)
            throw WasUnregistered();
    }

    /// <summary>Throws if nothing can be changed on it. Under <see cref="StateLock"/>.</summary>
    public void CheckUsable()
    {
        CheckOpen();
        Session.CheckUsable();
    }

    /// <summary>Tells the other hosts to look, and the own housekeeping, too.</summary>
    public void AnnounceChange()
    {
        Session.AnnounceChange();
        _housekeeping.Wake();
    }

    public void CheckHousekeeping() => _housekeeping.CheckThatItGoesOn();

    /// <summary>Leaves if nothing of this host is on it any more, or it failed; throws, naming what there is, if not.</summary>
    public void Unregister()
    {
        lock (_closeLock)
        {
            if (TryBeginEndUnused())
                CloseAll();
        }
    }

    /// <summary>
    /// Lets no verb begin any more; throws, with nothing changed, if something of this host is on it. In one step: a start is seen
    /// here, or sees that it comes too late.
    /// </summary>
    private bool TryBeginEndUnused()
    {
        lock (StateLock)
        {
            CheckOpen();
            if (!Session.Condition.IsFenced && DescribeUse() is { Length: > 0 } use)
                throw new CbdException(CbdErrorKind.Busy, $"transport {Id} has {use} of this host: stop {(use.Contains(" and ", StringComparison.Ordinal) || use.Contains(',', StringComparison.Ordinal) ? "them" : "it")} first (backend-stop, dev-stop)");
            return Verbs.TryBeginEnd();
        }
    }

    /// <summary>
    /// Leaves: what is still there is stopped, the claim given up, the region unmapped. Never throws for what other
    /// hosts do; what could not be given back is cleared by them.
    /// </summary>
    public void Close()
    {
        lock (_closeLock)
        {
            if (Verbs.TryBeginEnd())
                CloseAll();
        }
    }

    private void CloseAll()
    {
        Verbs.AwaitEnd();
        _housekeeping.EndRejoining();
        lock (StateLock)
            Membership.BeginLeave(MonotonicClock.Milliseconds);
        StopAll();
        _housekeeping.Stop();
        Leave();
        lock (StateLock)
        {
            IsClosed = true;
            DeviceServers.Clear();
            BackendServers.Clear();
            if (Session.OwnBackends.Any(b => b.Stage == BackendStage.Abandoned))
                return;
            _opened.Region.Dispose();
            _opened.Source.Dispose();
        }
    }

    /// <summary>The server of a device that is not over; null if there is none. Under <see cref="StateLock"/>.</summary>
    public DeviceServer? FindDevice(int device) => DeviceServers.Find(d => d.Device == device);

    /// <summary>The server of a backend that is not over; null if there is none. Under <see cref="StateLock"/>.</summary>
    public BackendServer? FindBackend(int backend) => BackendServers.Find(b => b.Backend == backend);

    private CbdException WasUnregistered() => new(CbdErrorKind.NotFound, $"transport {Id} was unregistered meanwhile: see tp-list");

    /// <summary>Names what keeps this transport from being unregistered; empty if nothing does.</summary>
    private string DescribeUse()
    {
        var parts = new List<string>();
        int[] backends = [.. Session.OwnBackends.Where(b => b.Stage != BackendStage.Over).Select(b => b.Backend).Order()];
        int[] devices = [.. Session.OwnDevices.Concat(Membership.LostDevices).Where(d => !d.IsOver).Select(d => d.Blkdev).Distinct().Order()];
        if (backends.Length > 0)
            parts.Add($"backend {string.Join(", ", backends.Select(Name))}");
        if (devices.Length > 0)
            parts.Add($"device {string.Join(", ", devices.Select(Name))}");
        return string.Join(" and ", parts);

        static string Name(int id) => id < 0 ? "(being started)" : $"{id}";
    }

    /// <summary>Stops devices, then backends; what does not end in time is left to the end of this process.</summary>
    private void StopAll()
    {
        while (true)
        {
            DeviceServer[] devices;
            BackendServer[] backends;
            lock (StateLock)
            {
                if (Membership.StepStop(MonotonicClock.Milliseconds) == StepResult.Done)
                    return;
                devices = [.. DeviceServers];
                backends = [.. BackendServers.Where(b => b.Life.Stage == BackendStage.Draining)];
            }

            foreach (DeviceServer device in devices)
                Try($"device {device.Device}", () => Devices.TryFinishStop(device));
            foreach (BackendServer backend in backends)
                Try($"backend {backend.Backend}", () => Backends.FinishStop(backend, force: true));
            Thread.Sleep(1);
        }
    }

    private void Leave()
    {
        while (true)
        {
            lock (StateLock)
            {
                if (Membership.StepLeave(MonotonicClock.Milliseconds) == StepResult.Done)
                    break;
            }

            Thread.Sleep(5);
        }

        if (Membership.IsEntryLeft)
            Logger.LogWarning("transport {Transport}: another host does not let go of a channel; the entry is left to be cleared", Id);
    }

    private void Try(string what, Action action)
    {
        try
        {
            action();
        }
        catch (CbdException e)
        {
            Logger.LogError("transport {Transport}: stopping {What}: {Error}", Id, what, e.Message);
        }
    }
}
