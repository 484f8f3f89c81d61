using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Hosts;

/// <summary>
/// Registers this host on a formatted region: a state machine that is stepped until it is done. It takes the lock byte
/// of a free entry first, claims the entry, looks at the magic again (a formatter may be at work), publishes its name as
/// REGISTERING, and looks at all other names and uuids before it becomes ACTIVE: an active host of the same name wins, or
/// one that beats with the same uuid on another machine, and of two registering ones the lower id. One thread at a time.
/// </summary>
internal sealed class HostRegistration<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    private readonly TMemory _memory;
    private readonly RegionGeometry _geometry;
    private readonly HostIdentity _identity;
    private readonly IHostLocks _locks;
    private readonly LivenessTracker<TMemory, TPolicy> _tracker;
    private readonly Clearing<TMemory, TPolicy> _clearing;
    private HostClaim<TMemory, TPolicy>? _claim;
    private long _publishedMs;
    private bool _done;

    /// <param name="memory">The region.</param>
    /// <param name="geometry">Its validated geometry.</param>
    /// <param name="identity">Who registers.</param>
    /// <param name="locks">The locks of the region's file.</param>
    /// <param name="tracker">This host's tracker; it learns which entry is its own.</param>
    /// <param name="clearing">This host's clearing, for dead hosts that are in the way.</param>
    public HostRegistration(
        TMemory memory, RegionGeometry geometry, HostIdentity identity, IHostLocks locks,
        LivenessTracker<TMemory, TPolicy> tracker, Clearing<TMemory, TPolicy> clearing)
    {
        identity.Validate();
        _memory = memory;
        _geometry = geometry;
        _identity = identity;
        _locks = locks;
        _tracker = tracker;
        _clearing = clearing;
    }

    /// <summary>The claim; null until it is done.</summary>
    public HostClaim<TMemory, TPolicy>? Claim => _done ? _claim : null;

    /// <summary>
    /// One step. Throws <see cref="CbdException"/> if the host cannot be registered; its entry is given up then. Call it
    /// again after a beat (or sooner) while it answers Again: others register under the same name, or a dead host in the
    /// way is being cleared or not proven dead yet. That ends after a dead-time or two.
    /// </summary>
    /// <param name="nowMs">This host's monotonic clock.</param>
    public StepResult Step(long nowMs)
    {
        if (_done)
            return StepResult.Done;
        _tracker.Sample(nowMs);
        try
        {
            if (_claim is null && !TryClaim(nowMs))
                return StepResult.Again;
            if (!AreNamesClear(_claim!, nowMs))
                return StepResult.Again;
            if (!_claim!.TryAdvance(ClaimState.Active))
                throw Lost();
        }
        catch (CbdException)
        {
            Cancel();
            throw;
        }

        _done = true;
        return StepResult.Done;
    }

    /// <summary>Gives up a registration that is not done.</summary>
    public void Cancel()
    {
        if (_done || _claim is null)
            return;
        _claim.Withdraw();
        _claim = null;
        _tracker.OwnHost = -1;
    }

    private bool TryClaim(long nowMs)
    {
        HostClaim<TMemory, TPolicy>? claim = TakeFreeEntry();
        if (claim is null)
        {
            if (ClearDead(nowMs))
                return false;
            throw new CbdException(CbdErrorKind.Exhausted, $"no free host entry: all {_geometry.HostCount} are taken: clear a dead host with host-clear, or format with more --hosts");
        }

        _claim = claim;
        _tracker.OwnHost = claim.Host;
        CheckMagic();
        // If this stood still, the entry may be another's by now, and so is its body.
        if (!claim.Beat())
            throw Lost();
        _publishedMs = nowMs;
        // A full fence, so that of two hosts that register one name at least one sees the other.
        if (!claim.TryAdvance(ClaimState.Registering))
            throw Lost();
        return true;
    }

    private HostClaim<TMemory, TPolicy>? TakeFreeEntry()
    {
        var entries = EntryRegistry<TMemory, TPolicy>.Hosts(_memory, _geometry);
        for (int host = 0; host < entries.Count; host++)
        {
            if (!entries.IsClaimable(host, out _) || !_locks.TryLock(host))
                continue;
            if (entries.TryClaim(host, ClaimState.Claiming, host, out ClaimWord claimed))
                return new HostClaim<TMemory, TPolicy>(_memory, _geometry, host, claimed, _identity, _locks);
            _locks.Unlock(host);
        }

        return null;
    }

    /// <summary>
    /// Clears hosts that are proven dead, to get their entries. False if none is, and waiting does not change that.
    /// </summary>
    private bool ClearDead(long nowMs)
    {
        bool any = _clearing.ClearDeadHosts(nowMs);
        for (int host = 0; host < _geometry.HostCount; host++)
            any |= !_tracker.Get(host).Settled;
        return any;
    }

    /// <summary>The formatter swaps the magic before it looks at the hosts, we claim before we look at the magic.</summary>
    private void CheckMagic()
    {
        ulong magic = _memory.ReadAcquire(TransportInfo.MagicOffset);
        TransportInfo? info = null;
        if (magic == TransportInfo.Magic)
            info = TransportInfo.Read(_memory, _memory.SizeBytes);
        if (info is null || info.Geometry.RegionId != _geometry.RegionId)
            throw new CbdException(CbdErrorKind.Busy, $"region {_geometry.RegionId} is being formatted anew: register again when that is done") { MayPass = true };
        info.CheckWritable();
    }

    /// <summary>Whether no other host has our name; throws if one has and wins.</summary>
    private bool AreNamesClear(HostClaim<TMemory, TPolicy> claim, long nowMs)
    {
        if (nowMs - _publishedMs >= _identity.BeatMs)
        {
            // Whoever watches us from another kernel sees that we are not a claim that stands still.
            if (!claim.Beat())
                throw Lost();
            _publishedMs = nowMs;
        }

        bool clear = true;
        for (int host = 0; host < _geometry.HostCount; host++)
        {
            if (host != claim.Host)
                clear &= IsNameClear(claim, host, nowMs);
        }

        return clear;
    }

    private bool IsNameClear(HostClaim<TMemory, TPolicy> claim, int host, long nowMs)
    {
        HostSighting other = _tracker.Sample(host, nowMs);
        // One that only claims yet looks at our name after it has published its own; others are on their way out.
        if (other.Word.State is not (ClaimState.Registering or ClaimState.Active))
            return true;
        if (other.Body is null)
        {
            if (other.Liveness != Liveness.Dead && other.Settled)
                throw new CbdException(CbdErrorKind.Corrupt, $"host entry {host}: its body cannot be read, so its name is unknown: clear it with host-clear");
            if (other.Liveness == Liveness.Dead)
                _clearing.Step(host, ClearAuthority.Proof, nowMs);
            return false;
        }

        bool isNamesake = TPolicy.LookAtNames && other.Name == _identity.Name;
        bool isTwin = TPolicy.LookForTwins && other.Body.HostUuid == _identity.HostUuid && other.Body.BootId != _identity.BootId;
        if (!isNamesake && !isTwin)
            return true;
        if (other.Liveness == Liveness.Dead)
        {
            _clearing.Step(host, ClearAuthority.Proof, nowMs);
            // Once it is CLEARING it is not in the way any more; housekeeping finishes it.
            return ClaimOperations<TMemory, TPolicy>.Read(_memory, _geometry.HostOffset(host)).State is not (ClaimState.Registering or ClaimState.Active);
        }

        if (other.Word.State == ClaimState.Registering)
        {
            // An earlier life of ours stands still and is proven dead soon; a living twin beats, and is settled then.
            if (isTwin && !other.Settled)
                return false;
            // Not both may wait for the other, and not both may go on.
            if (claim.Host > host && isTwin)
                throw Twin(other);
            if (claim.Host > host)
                throw new CbdException(CbdErrorKind.Busy, $"host name '{_identity.Name}' is being registered as host {host} right now: choose another --host name") { MayPass = true };
            return false;
        }

        if (!other.Settled)
            return false;
        if (isTwin)
            throw Twin(other);
        throw new CbdException(
            CbdErrorKind.Busy,
            other.Liveness == Liveness.Alive
                ? $"host name '{_identity.Name}' is taken: host {host} (pid {other.Body.Pid} there) is alive under it: choose another --host name"
                : $"host name '{_identity.Name}' is taken: nothing proves that host {host} is dead: choose another --host name, or clear it with host-clear (--fenced if its machine is off)");
    }

    /// <summary>
    /// What stands still under our own uuid counts as an earlier life of ours, and so as dead. That holds as long as nobody else
    /// has the uuid: one that beats under another boot id is somebody else.
    /// </summary>
    private CbdException Twin(HostSighting other) => new(
        CbdErrorKind.Busy,
        $"host uuid {_identity.HostUuid} is in use: host {other.Host} ('{other.Name}') beats with it on another machine, so the state directory of one is a copy of the other's: remove 'host-uuid' from this one's, if this is the copy, and start cbdd again");

    private CbdException Lost() =>
        new(CbdErrorKind.Failed, $"host '{_identity.Name}' lost its entry while it registered: another host took it for dead: register again") { MayPass = true };
}
