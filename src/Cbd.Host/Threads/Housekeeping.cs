using Cbd.Disks;
using Cbd.Host.Backends;
using Cbd.Host.Devices;
using Cbd.Host.Sessions;
using Cbd.Host.Transports;
using Cbd.Memory;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Threads;

/// <summary>
/// The housekeeping thread of a transport: drives its membership, beats, looks around, and finishes what was stopped. It
/// sleeps on this host's doorbell between its rounds. While it stands still, this host does not beat, and past the fence time
/// no thread of it stores into the region.
/// </summary>
internal sealed class Housekeeping
{
    /// <summary>Longest time between two looks at other hosts, where no doorbell wakes us.</summary>
    private const int RoundMs = 100;

    private const int QuietWaitMs = 3_000;
    private const string Poisoned = "the memory of the region failed under an access: it was truncated, or it is broken";

    private readonly Transport _transport;
    private readonly DoorbellSleeper _sleeper = new();
    private readonly Dictionary<int, Liveness> _reportedHosts = [];
    private readonly Thread _thread;
    private volatile bool _stopping;
    private volatile bool _mayRejoin = true;
    private long _roundMs = MonotonicClock.Milliseconds;
    private bool _saysThatItStands;
    private volatile bool _isRemoved;

    public Housekeeping(Transport transport)
    {
        _transport = transport;
        _thread = new Thread(Run) { Name = $"cbd-tp{transport.Id}", IsBackground = true };
    }

    private HostSession<MappedMemory, SafePolicy> Session => _transport.Session;

    private ILogger Logger => _transport.Logger;

    public void Start(Action<Thread> start) => start(_thread);

    /// <summary>Another round, now.</summary>
    public void Wake() => _sleeper.Interrupt();

    /// <summary>This host is left: it does not register anew any more.</summary>
    public void EndRejoining() => _mayRejoin = false;

    public void Stop()
    {
        _stopping = true;
        _sleeper.Interrupt();
        _thread.Join();
        _sleeper.Dispose();
    }

    /// <summary>How long it has been in one round, ms, if that is longer than the fence time; else 0. Any thread.</summary>
    public long StandsStillMs => MonotonicClock.Milliseconds - Volatile.Read(ref _roundMs) is var ms && ms > _transport.Node.FenceMs ? ms : 0;

    /// <summary>The watchdog's look: says once that it stands still, and once that it goes on. One thread at a time.</summary>
    public void CheckThatItGoesOn()
    {
        long still = _stopping ? 0 : StandsStillMs;
        if (still > 0 == _saysThatItStands)
            return;
        _saysThatItStands = still > 0;
        if (_saysThatItStands)
            Logger.LogError("transport {Transport}: its housekeeping stands still for {Still} ms: this host does not beat, and stores nothing until it does", _transport.Id, still);
        else
            Logger.LogWarning("transport {Transport}: its housekeeping goes on", _transport.Id);
    }

    private void Run()
    {
        do
            KeepHouse();
        while (!_stopping && Session.IsCleared && TryRejoin());
    }

    /// <summary>Rounds, until the session has failed or this host leaves.</summary>
    private void KeepHouse()
    {
        long doorbell = _transport.Geometry.HostOffset(Session.Claim.Host) + HostEntry.DoorbellOffset;
        BeatCondition condition = _transport.Condition;
        long nextBeatMs = MonotonicClock.Milliseconds;
        long nextSampleMs = nextBeatMs;
        int sampleMs = Math.Max(10, Math.Min(_transport.Node.BeatMs / 2, 250));
        while (!_stopping && !condition.IsFenced)
        {
            try
            {
                long now = MonotonicClock.Milliseconds;
                Volatile.Write(ref _roundMs, now);
                if (_transport.Region.IsPoisoned)
                    Fail(Poisoned, cleared: false);
                else if (now >= nextBeatMs || condition.IsOverdueAfterSleep)
                {
                    Beat(now, condition);
                    nextBeatMs = now + _transport.Node.BeatMs;
                }

                bool sample = now >= nextSampleMs;
                if (sample)
                    nextSampleMs = now + sampleMs;
                if (!condition.IsFenced)
                    Look(sample);
                if (_transport.Node.Moved is { } moved && Session.TakeAnnouncements())
                    moved();
                FinishStops();
                if (_stopping || condition.IsFenced)
                    return;
                Sleep(doorbell, condition);
            }
            catch (CbdException e)
            {
                // One entry or disk that cannot be read must not end the beat of all.
                Logger.LogError("transport {Transport}: housekeeping: {Error}", _transport.Id, e.Message);
                Thread.Sleep(RoundMs);
            }
            catch (Exception e) when (e is InvalidOperationException or ArgumentException)
            {
                // A broken invariant of our own: this transport ends, the daemon and its other transports go on.
                Logger.LogCritical(e, "transport {Transport}: housekeeping failed", _transport.Id);
                Fail($"housekeeping failed: {e.Message}", cleared: false);
            }
        }
    }

    private void Sleep(long doorbell, BeatCondition condition)
    {
        Doorbells.Announce(_transport.Memory, doorbell);
        if (!Session.HasNews())
            _sleeper.Wait(_transport.Memory, [doorbell], RoundMs * 1000, unwatchedMicroseconds: RoundMs * 1000);
        if (!condition.IsOverdueAfterSleep)
            Doorbells.Retract(_transport.Memory, doorbell);
    }

    /// <summary>That the region's file was removed, with the remedy; null while it has a name.</summary>
    public string? Removal => _isRemoved
        ? $"region '{_transport.Region.Path}' was removed: its hosts go on, and nobody else can register: stop what uses it on all of them, then format it anew with tp-reg --format"
        : null;

    private void NoteRemoval(bool isRemoved)
    {
        if (isRemoved == _isRemoved)
            return;
        _isRemoved = isRemoved;
        if (Removal is { } removal)
            Logger.LogError("transport {Transport}: {Removal}", _transport.Id, removal);
        else
            Logger.LogWarning("transport {Transport}: region '{Path}' has a name again", _transport.Id, _transport.Region.Path);
    }

    private void Beat(long now, BeatCondition condition)
    {
        if (_transport.Region.IsTruncated)
        {
            Fail(Poisoned, cleared: false);
            return;
        }

        NoteRemoval(_transport.Region.IsRemoved);
        bool wasOverdue = condition.IsOverdueAfterSleep;
        long silentMs = condition.SinceBeatMs;
        long bootNs = KernelClock.BootTimeNs;
        bool isOurs;
        lock (_transport.StateLock)
        {
            isOurs = _transport.Membership.Beat(now);
            if (isOurs)
                condition.NoteBeat(now, bootNs);
            foreach (BackendServer server in _transport.BackendServers)
                server.BeginLook();
            foreach (DeviceServer device in _transport.DeviceServers)
                device.BeginLook();
        }

        if (!isOurs)
        {
            bool poisoned = _transport.Region.IsPoisoned;
            Fail(poisoned ? Poisoned : $"this host was cleared by another, which took it for dead ({silentMs} ms after its last beat)", !poisoned);
        }
        else if (wasOverdue)
        {
            Logger.LogWarning("transport {Transport}: this host did not beat for {Gap} ms and stopped storing; its entry is still its own, and it goes on", _transport.Id, silentMs);
        }
    }

    private void Fail(string why, bool cleared)
    {
        lock (_transport.StateLock)
        {
            if (!_transport.Membership.Lose(why, cleared, MonotonicClock.Milliseconds))
                return;
        }

        Logger.LogError("transport {Transport} failed: {Why}", _transport.Id, why);
        FlightFiles.OnFailure($"transport {_transport.Id} failed: {why}");
        ReportDevices();
    }

    /// <summary>What became of the devices is told at once: the process may be ended next.</summary>
    private void ReportDevices()
    {
        DeviceServer[] devices;
        lock (_transport.StateLock)
            devices = [.. _transport.DeviceServers];
        foreach (DeviceServer device in devices)
            device.Report();
    }

    private void Look(bool sample)
    {
        DeviceServer[] devices;
        IReadOnlyList<HostSighting>? hosts = null;
        lock (_transport.StateLock)
        {
            Session.Look(sample, MonotonicClock.CoarseMicroseconds);
            devices = [.. _transport.DeviceServers];
            if (sample)
                hosts = Session.Tracker.List();
        }

        foreach (DeviceServer device in devices)
        {
            if (device.HasNewSize)
                device.ShowSizeSoon();
            device.Report();
        }

        if (hosts is not null)
            ReportHosts(hosts);
    }

    /// <summary>
    /// Stops that were accepted, and whose verb did not wait for their end. Closing a disk or an export may take long, so that a
    /// thread of the pool does it.
    /// </summary>
    private void FinishStops()
    {
        DeviceServer[] devices;
        BackendServer[] backends;
        lock (_transport.StateLock)
        {
            devices = [.. _transport.DeviceServers.Where(d => d.Life.Stage is DeviceStage.Closing or DeviceStage.Over)];
            // Those of a claim that was cleared are in no session that looks around.
            foreach (DeviceServer device in devices)
            {
                if (device.Life.Session.Condition.IsFenced)
                    device.Life.Step(MonotonicClock.CoarseMicroseconds);
            }

            backends = [.. _transport.BackendServers.Where(b => b.Life.Stage == BackendStage.Draining)];
        }

        foreach (DeviceServer device in devices)
        {
            if (device.TryTakeFinish())
                PoolWork.Queue(() => Finish(() => _transport.Devices.TryFinishStop(device)));
        }

        foreach (BackendServer backend in backends)
        {
            if (backend.TryTakeFinish())
                PoolWork.Queue(() => FinishBackend(backend));
        }
    }

    private void FinishBackend(BackendServer backend) => Finish(() =>
    {
        bool done = false;
        try
        {
            return done = _transport.Backends.TryFinishStop(backend, timeoutMs: 0);
        }
        finally
        {
            if (!done)
                backend.GiveFinishBack();
        }
    });

    private void Finish(Func<bool> finish)
    {
        // Who leaves finishes what is stopping, and waits for this.
        using IDisposable? verb = _transport.Verbs.TryBegin();
        if (verb is null)
            return;
        try
        {
            finish();
        }
        catch (Exception e)
        {
            // Nobody else would see it, and it would end the process.
            Logger.LogError(e, "transport {Transport}: a stop does not finish", _transport.Id);
        }
    }

    private void ReportHosts(IReadOnlyList<HostSighting> hosts)
    {
        foreach (HostSighting host in hosts)
        {
            if (host.Host == Session.Claim.Host || host.Body is null || (_reportedHosts.TryGetValue(host.Host, out Liveness before) && before == host.Liveness))
                continue;
            _reportedHosts[host.Host] = host.Liveness;
            if (host.Liveness == Liveness.Alive)
                Logger.LogInformation("transport {Transport}: host {Host} ('{Name}') is alive", _transport.Id, host.Host, host.Name);
            else
                Logger.LogWarning("transport {Transport}: host {Host} ('{Name}') is {Liveness}", _transport.Id, host.Host, host.Name, host.Liveness == Liveness.Dead ? "dead" : "not heard of, and not proven dead");
        }

        Session.Condition.HasRemoteHosts = hosts.Any(h => h.Body is { } body && body.BootId != ProcessIdentity.BootId);
        foreach (int host in _reportedHosts.Keys)
        {
            if (!hosts.Any(h => h.Host == host) && _reportedHosts.Remove(host, out Liveness last))
                Logger.LogInformation("transport {Transport}: host {Host} is gone{How}", _transport.Id, host, last == Liveness.Dead ? " and cleared" : "");
        }
    }

    /// <summary>Registers anew after this host was cleared. False if the transport stays failed, or is being left.</summary>
    private bool TryRejoin()
    {
        List<(BackendServer Server, Disk Disk)> held = [];
        bool isQuiet = false;
        try
        {
            isQuiet = TryQuiet(held);
        }
        catch (CbdException e)
        {
            Logger.LogError("transport {Transport}: {Error}", _transport.Id, e.Message);
        }

        if (!isQuiet)
        {
            GiveBack(held);
            // For good: what hangs may still reach its disk.
            lock (_transport.StateLock)
                _transport.Membership.NoteTrouble($"{Session.Condition.Failure}; a disk does not finish its requests; restart the daemon when it answers again", forGood: true, MonotonicClock.Milliseconds);
            Logger.LogError("transport {Transport}: not registered anew: a disk does not finish its requests; restart the daemon when it answers again", _transport.Id);
            return false;
        }

        string trouble = "";
        while (_mayRejoin && !_stopping)
        {
            Volatile.Write(ref _roundMs, MonotonicClock.Milliseconds);
            try
            {
                if (StepRejoin(held))
                    return true;
            }
            catch (CbdException e)
            {
                if (trouble != e.Message)
                    Logger.LogError("transport {Transport}: not registered anew yet: {Reason}", _transport.Id, e.Message);
                trouble = e.Message;
                lock (_transport.StateLock)
                    _transport.Membership.NoteTrouble(e.Message, forGood: false, MonotonicClock.Milliseconds);
                Thread.Sleep(RoundMs);
            }
            catch (Exception e) when (e is InvalidOperationException or ArgumentException or OutOfMemoryException)
            {
                // A broken invariant of our own, or no thread: this transport ends, the daemon and its other transports go on.
                Logger.LogCritical(e, "transport {Transport}: not registered anew", _transport.Id);
                lock (_transport.StateLock)
                    _transport.Membership.NoteTrouble(e.Message, forGood: true, MonotonicClock.Milliseconds);
                break;
            }

            Thread.Sleep(Transport.StepIntervalMs);
        }

        GiveBack(held);
        return false;
    }

    private void GiveBack(List<(BackendServer Server, Disk Disk)> held)
    {
        foreach ((BackendServer server, Disk disk) in held)
        {
            disk.Dispose();
            lock (_transport.StateLock)
                _transport.BackendServers.Remove(server);
        }

        held.Clear();
    }

    /// <summary>Ends what the lost session drives. Disks stay open. False if one does not finish what it was asked.</summary>
    private bool TryQuiet(List<(BackendServer Server, Disk Disk)> held)
    {
        BackendServer[] backends;
        DeviceServer[] devices;
        lock (_transport.StateLock)
        {
            backends = [.. _transport.BackendServers];
            devices = [.. _transport.DeviceServers];
        }

        foreach (BackendServer backend in backends)
        {
            if (backend.Life.Stage == BackendStage.Abandoned)
                return false;
            bool serves = backend.Life.Stage == BackendStage.Serving;
            backend.BeginEnd();
            // One that was being stopped is closed by who stops it.
            if (!serves)
                continue;
            if (!backend.TryEndKeepingDisk(_transport.Node.DiskWaitMs, out Disk? disk))
            {
                lock (_transport.StateLock)
                    backend.Life.Abandon(MonotonicClock.Milliseconds);
                backend.Abandon();
                return false;
            }

            // Null: this host is being left, and the disk is closed.
            if (disk is null)
                continue;
            held.Add((backend, disk));
            lock (_transport.StateLock)
                backend.Life.Hold(MonotonicClock.Milliseconds);
        }

        FinishStops();
        foreach (DeviceServer device in devices)
        {
            device.AwaitFence(QuietWaitMs);
            device.Report();
        }

        return true;
    }

    /// <summary>True when this host is registered anew; its backends are offered again by another thread, which may have to wait.</summary>
    private bool StepRejoin(List<(BackendServer Server, Disk Disk)> held)
    {
        List<(BackendLife<MappedMemory, SafePolicy> Life, StartBackendOptions Options, Disk Disk)> again = [];
        FinishStops();
        lock (_transport.StateLock)
        {
            if (_transport.Membership.StepRejoin(MonotonicClock.Milliseconds) == StepResult.Again)
                return false;
            foreach ((BackendServer server, Disk disk) in held)
            {
                _transport.BackendServers.Remove(server);
                again.Add((new BackendLife<MappedMemory, SafePolicy>(Session, server.Life.WishAnew, MonotonicClock.Milliseconds), server.Options, disk));
            }
        }

        _reportedHosts.Clear();
        Logger.LogWarning("transport {Transport}: registered anew as host {Host} ('{Name}')", _transport.Id, Session.Claim.Host, Session.Claim.Name);
        // It may have to wait for others, so it has a thread of its own, if one can be had.
        if (!NeededThread.TryBegin(new Thread(() => OfferAnew(again)) { Name = $"cbd-tp{_transport.Id}-offer", IsBackground = true }))
            PoolWork.Queue(() => OfferAnew(again));
        return true;
    }

    private void OfferAnew(List<(BackendLife<MappedMemory, SafePolicy> Life, StartBackendOptions Options, Disk Disk)> again)
    {
        using IDisposable? operation = _transport.Verbs.TryBegin();
        foreach ((BackendLife<MappedMemory, SafePolicy> life, StartBackendOptions options, Disk disk) in again)
        {
            try
            {
                if (operation is not null)
                    _transport.Backends.StartAnew(life, options, disk);
                else
                    disk.Dispose();
            }
            catch (Exception e)
            {
                // No thread or memory for its handlers, say: it would end the process.
                Logger.LogError(e, "backend {Backend}: not offered again", life.Backend);
                _transport.Node.BackendLost?.Invoke(_transport.Path, life.Backend, $"it was not offered again: {e.Message}");
            }
        }
    }
}
