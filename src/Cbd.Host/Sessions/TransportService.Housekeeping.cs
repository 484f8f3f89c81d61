using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;
using Cbd.Host.Backends;
using Cbd.Host.Devices;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Sessions;

/// <summary>The housekeeping of a transport: one thread that sleeps on this host's doorbell between its rounds.</summary>
internal sealed partial class TransportService
{
    /// <summary>Longest time between two looks at other hosts, where no doorbell wakes us.</summary>
    private const int RoundMs = 100;

    private const string Poisoned = "the memory of the region failed under an access: it was truncated, or it is broken";

    private readonly DoorbellSleeper _sleeper = new();
    private readonly ulong[] _seenChanges;
    private readonly Dictionary<int, Liveness> _reportedHosts = [];
    private readonly Thread _housekeeping;
    private volatile bool _stopping;

    /// <summary>Tells the other hosts to look at this host's channels and entries, and wakes those of this kernel.</summary>
    private void AnnounceChange()
    {
        Host.AnnounceChange();
        for (int host = 0; host < Geometry.HostCount; host++)
            Doorbells.Ring(_memory, Geometry.HostOffset(host) + HostEntry.DoorbellOffset);
    }

    private void StopHousekeeping()
    {
        _stopping = true;
        _sleeper.Interrupt();
        _housekeeping.Join();
        _sleeper.Dispose();
    }

    private void KeepHouse()
    {
        do
            KeepHouseWhileRegistered();
        while (!_stopping && _wasCleared && TryRejoin());
    }

    private void KeepHouseWhileRegistered()
    {
        long doorbell = Geometry.HostOffset(Host.Host) + HostEntry.DoorbellOffset;
        long nextBeatMs = MonotonicClock.Milliseconds;
        long nextSampleMs = nextBeatMs;
        int sampleMs = Math.Max(10, Math.Min(_node.BeatMs / 2, 250));
        while (!_stopping && !_condition.IsFenced)
        {
            try
            {
                long now = MonotonicClock.Milliseconds;
                if (_opened.Region.IsPoisoned)
                    Fail(Poisoned);
                else if (now >= nextBeatMs || _condition.IsOverdueAfterSleep)
                {
                    Beat(now);
                    nextBeatMs = now + _node.BeatMs;
                }

                bool sample = now >= nextSampleMs;
                if (sample)
                    nextSampleMs = now + sampleMs;
                if (!_condition.IsFenced)
                    Look(now, sample);
                if (_stopping || _condition.IsFenced)
                    return;
                Doorbells.Announce(_memory, doorbell);
                if (!HasNews())
                    _sleeper.Wait(_memory, [doorbell], RoundMs * 1000, unwatchedMicroseconds: RoundMs * 1000);
                if (!_condition.IsOverdueAfterSleep)
                    Doorbells.Retract(_memory, doorbell);
            }
            catch (CbdException e)
            {
                // One entry or disk that cannot be read must not end the beat of all.
                _logger.LogError("transport {Transport}: housekeeping: {Error}", Id, e.Message);
                Thread.Sleep(RoundMs);
            }
            catch (Exception e) when (e is InvalidOperationException or ArgumentException)
            {
                // A broken invariant of our own: this transport ends, the daemon and its other transports go on.
                _logger.LogCritical(e, "transport {Transport}: housekeeping failed", Id);
                Fail($"housekeeping failed: {e.Message}");
            }
        }
    }

    private void Beat(long now)
    {
        if (_opened.Region.IsTruncated)
        {
            Fail(Poisoned);
            return;
        }

        lock (_lock)
        {
            bool wasOverdue = _condition.IsOverdueAfterSleep;
            long silentMs = _condition.SinceBeatMs;
            long bootNs = KernelClock.BootTimeNs;
            if (!Host.Beat())
            {
                _wasCleared = !_opened.Region.IsPoisoned;
                Fail(_opened.Region.IsPoisoned ? Poisoned : $"this host was cleared by another, which took it for dead ({silentMs} ms after its last beat)");
                return;
            }

            _condition.NoteBeat(now, bootNs);
            if (wasOverdue)
                _logger.LogWarning("transport {Transport}: this host did not beat for {Gap} ms and stopped storing; its entry is still its own, and it goes on", Id, silentMs);
            foreach (BackendService backend in _backends.Values)
                backend.Claim.Beat();
            foreach (DeviceService device in _devices.Values)
                device.Beat();
            _opened.Clearing.Sweep(now);
        }
    }

    /// <summary>Nothing of this host is stored into the region from here on; users get EIO.</summary>
    private void Fail(string why)
    {
        if (!_condition.TryFail(why))
            return;
        _logger.LogError("transport {Transport} failed: {Why}", Id, why);
        FlightFiles.OnFailure($"transport {Id} failed: {why}");
        lock (_lock)
        {
            foreach (DeviceService device in _devices.Values)
                device.Fail($"transport {Id} failed: {why}");
        }
    }

    private void Look(long now, bool sample)
    {
        lock (_lock)
        {
            if (sample)
            {
                if (_opened.Clearing.ClearDeadHosts(now))
                    AnnounceChange();
                ReportHosts();
            }

            if (_backends.Count > 0 && (TakeNews() || sample))
                LookForOffers();
            foreach (DeviceService device in _devices.Values)
            {
                device.WatchBackend(Tracker);
                if (device.HasNewSize)
                    ShowSizeSoon(device);
            }
        }
    }

    private bool HasNews()
    {
        for (int host = 0; host < Geometry.HostCount; host++)
        {
            if (_memory.ReadAcquire(Geometry.HostOffset(host) + HostEntry.ChangeCounterOffset) != _seenChanges[host])
                return _backends.Count > 0;
        }

        return false;
    }

    private bool TakeNews()
    {
        bool any = false;
        for (int host = 0; host < Geometry.HostCount; host++)
        {
            ulong changes = _memory.ReadAcquire(Geometry.HostOffset(host) + HostEntry.ChangeCounterOffset);
            any |= changes != _seenChanges[host];
            _seenChanges[host] = changes;
        }

        return any;
    }

    private void LookForOffers()
    {
        for (int channel = 0; channel < Geometry.ChannelCount; channel++)
        {
            ClaimWord word = ClaimOperations<MappedMemory, SafePolicy>.Read(_memory, Geometry.ChannelOffset(channel));
            if (word.State is ClaimState.Offered or ClaimState.Quarantined &&
                BlkdevCtrlLine.TryLoadLatest(_memory, Geometry, channel, word.Epoch, out BlkdevCtrlLine offer) &&
                (word.State == ClaimState.Quarantined || offer.Epoch == word.Epoch) &&
                _backends.TryGetValue(offer.Backend, out BackendService? backend) &&
                backend.Claim.Session == offer.Session &&
                !(word.State == ClaimState.Quarantined && HandlerCtrlLine.IsDrained(_memory, Geometry, channel, word.Epoch, offer.Session)))
                backend.Offer(channel);
        }
    }

    private void ReportHosts()
    {
        foreach (HostSighting host in Tracker.List())
        {
            if (host.Host == Host.Host || host.Body is null || (_reportedHosts.TryGetValue(host.Host, out Liveness before) && before == host.Liveness))
                continue;
            _reportedHosts[host.Host] = host.Liveness;
            if (host.Liveness == Liveness.Alive)
                _logger.LogInformation("transport {Transport}: host {Host} ('{Name}') is alive", Id, host.Host, host.Name);
            else
                _logger.LogWarning("transport {Transport}: host {Host} ('{Name}') is {Liveness}", Id, host.Host, host.Name, host.Liveness == Liveness.Dead ? "dead" : "not heard of, and not proven dead");
        }

        _condition.HasRemoteHosts = Tracker.List().Any(h => h.Body is { } body && body.BootId != ProcessIdentity.BootId);
        foreach (int host in _reportedHosts.Keys)
        {
            if (Tracker.Get(host).Word.State == ClaimState.Free && _reportedHosts.Remove(host, out Liveness last))
                _logger.LogInformation("transport {Transport}: host {Host} is gone{How}", Id, host, last == Liveness.Dead ? " and cleared" : "");
        }
    }
}
