using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Hosts;

/// <summary>
/// Clears what hosts left behind: crash-safe (a crash anywhere leaves what another clearer finishes), idempotent, and
/// safe with several clearers at once. One instance per observer; one thread at a time.
/// </summary>
/// <remarks>
/// The host goes to CLEARING first, then its channels, blkdevs and backends, and it is freed last; so whatever carries
/// its id while its word is CLEARING is the dead claim's. Against a clearer that was slow and hits a successor: read the
/// entry's word W, then see that the host's word is still the same CLEARING, then swap from exactly W. A claim word
/// never comes twice, so the swap hits that claim or nothing.
/// </remarks>
internal sealed partial class Clearing<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    private readonly TMemory _memory;
    private readonly RegionGeometry _geometry;
    private readonly LivenessTracker<TMemory, TPolicy> _tracker;

    public Clearing(TMemory memory, RegionGeometry geometry, LivenessTracker<TMemory, TPolicy> tracker)
    {
        _memory = memory;
        _geometry = geometry;
        _tracker = tracker;
    }

    /// <summary>Whose judgement this clearing goes by.</summary>
    public LivenessTracker<TMemory, TPolicy> Tracker => _tracker;

    /// <summary>
    /// Housekeeping; call it once a beat: one step for every host that is proven dead. Returns whether one was freed, or
    /// may be soon.
    /// </summary>
    public bool ClearDeadHosts(long nowMs)
    {
        _tracker.Sample(nowMs);
        bool any = false;
        for (int host = 0; host < _geometry.HostCount; host++)
        {
            HostSighting sighting = _tracker.Get(host);
            if (sighting.Word.State != ClaimState.Free && sighting.Liveness == Liveness.Dead && host != _tracker.OwnHost)
                any |= Step(host, ClearAuthority.Proof, nowMs) is ClearResult.Again or ClearResult.Cleared;
        }

        return any;
    }

    /// <summary>One step of clearing one host, with what it had. Call it again while it answers Again.</summary>
    /// <param name="host">Id of the host entry.</param>
    /// <param name="authority">On whose word.</param>
    /// <param name="nowMs">This host's monotonic clock.</param>
    public ClearResult Step(int host, ClearAuthority authority, long nowMs)
    {
        long offset = _geometry.HostOffset(host);
        // The handlers of its channels may be on any host.
        _tracker.Sample(nowMs);
        while (true)
        {
            HostSighting sighting = _tracker.Sample(host, nowMs);
            ClaimWord word = sighting.Word;
            bool mayLive = sighting.Liveness != Liveness.Dead && authority != ClearAuthority.Owner;
            if (word.State == ClaimState.Free)
                return ClearResult.Cleared;
            if (word.State == ClaimState.Claiming)
            {
                // It owns nothing; after a dead-time its claim is over.
                if (mayLive)
                    return ClearResult.Again;
                Swap(offset, word, word.Freed());
                continue;
            }

            // It owns nothing either. That it stood still is the proof, and CLEARING would hide that from whoever goes on after this clearer.
            if (word.State == ClaimState.Registering && !mayLive)
            {
                Swap(offset, word, word.Freed());
                continue;
            }

            // Neither force nor an operator's word helps against a host that is seen to live.
            if (mayLive && !sighting.Settled)
                return ClearResult.Again;
            if (mayLive && (authority == ClearAuthority.Proof || sighting.Liveness == Liveness.Alive))
                return ClearResult.NotAllowed;
            bool dead = !mayLive || authority == ClearAuthority.Fenced || !TPolicy.QuarantineWithoutProof;
            if (word.State == ClaimState.Clearing)
                return ClearAll(host, word, dead);
            if (word.State == ClaimState.Quarantined && !dead)
                return ClearResult.Quarantined;
            Swap(offset, word, word.With(ClaimState.Clearing));
        }
    }

    /// <summary>Entries of all areas that are quarantined.</summary>
    public (int Hosts, int Backends, int Blkdevs, int Channels) CountQuarantined() => (
        Count(_geometry.HostCount, _geometry.HostOffset),
        Count(_geometry.BackendCount, _geometry.BackendOffset),
        Count(_geometry.BlkdevCount, _geometry.BlkdevOffset),
        Count(_geometry.ChannelCount, _geometry.ChannelOffset));

    /// <summary>Backends, blkdevs and channels that are quarantined, by the id of the host whose claims they are.</summary>
    public int[] CountQuarantinedByHost()
    {
        var counts = new int[_geometry.HostCount];
        Add(_geometry.BackendCount, _geometry.BackendOffset);
        Add(_geometry.BlkdevCount, _geometry.BlkdevOffset);
        Add(_geometry.ChannelCount, _geometry.ChannelOffset);
        return counts;

        void Add(int count, Func<int, long> offsetOf)
        {
            for (int index = 0; index < count; index++)
            {
                ClaimWord word = Read(offsetOf(index));
                if (word.State == ClaimState.Quarantined && word.Host < counts.Length)
                    counts[word.Host]++;
            }
        }
    }

    private int Count(int count, Func<int, long> offsetOf)
    {
        int found = 0;
        for (int index = 0; index < count; index++)
        {
            if (Read(offsetOf(index)).State == ClaimState.Quarantined)
                found++;
        }

        return found;
    }

    private ClearResult ClearAll(int host, ClaimWord clearing, bool dead)
    {
        var claim = new HostUnderClearing(host, clearing, dead);
        bool channelsDone = true;
        for (int channel = 0; channel < _geometry.ChannelCount; channel++)
            channelsDone &= ClearChannel(claim, channel);
        bool done = channelsDone;
        // The writer word of a blkdev is freed after its channels; its backends need not wait for them.
        for (int blkdev = 0; blkdev < _geometry.BlkdevCount && (channelsDone || !TPolicy.FreeWriterAfterChannels); blkdev++)
            done &= ClearBlkdev(claim, blkdev);
        for (int backend = 0; backend < _geometry.BackendCount; backend++)
            done &= ClearBackend(claim, backend);
        References<TMemory, TPolicy>.FreeUnusedOrphans(_memory, _geometry);
        if (!done)
            return ClearResult.Again;
        ClaimWord end = dead ? clearing.Freed() : clearing.With(ClaimState.Quarantined);
        if (!Swap(_geometry.HostOffset(host), clearing, end))
            return ClearResult.Again;
        return dead ? ClearResult.Cleared : ClearResult.Quarantined;
    }

    /// <summary>Whether nothing is left to do for the channel.</summary>
    private bool ClearChannel(HostUnderClearing claim, int channel)
    {
        while (true)
        {
            ClaimWord word = Read(_geometry.ChannelOffset(channel));
            if (word.State == ClaimState.Free || word.Host != claim.Host ||
                ChannelClearing<TMemory, TPolicy>.Step(_memory, _geometry, channel, word, claim.Dead, () => IsDraining(channel, word), HandlerEndOf, () => IsStill(claim)))
                return true;
            // A step that changed nothing waits for the handler, or the host is not under this clearing any more.
            if (Read(_geometry.ChannelOffset(channel)) == word)
                return false;

            HandlerEnd HandlerEndOf() => TPolicy.FreeOnlyDrained
                ? HandlerEnds<TMemory, TPolicy>.OfChannel(_memory, _geometry, _tracker, channel, word, claim.Dead ? claim.Host : -1)
                : HandlerEnd.Over;
        }
    }

    /// <summary>A channel that was offered again after a reset: the handler may still store into it until it drained.</summary>
    private bool IsDraining(int channel, ClaimWord word)
    {
        if (BlkdevCtrlLine.TryLoad(_memory, _geometry, channel, word.Epoch, out BlkdevCtrlLine line))
            return line.MayBeDraining;
        // The line of the first epoch of a life is there before the channel is offered, so this one was offered again, and the blkdev
        // died before the line of the new epoch was there. If neither is whole it died while it stored the one over the other.
        // What it stored at the attachment of the one before may be lost with its machine: nothing says that this was not served.
        if (word.Epoch <= 1)
            return false;
        if (!BlkdevCtrlLine.TryLoad(_memory, _geometry, channel, word.Epoch - 1, out line))
            return true;
        if (line.Blkdev >= _geometry.BlkdevCount)
            return false;
        ClaimWord blkdev = Read(_geometry.BlkdevOffset(line.Blkdev));
        return blkdev.Host == word.Host && blkdev.Epoch == line.BlkdevEpoch && blkdev.State != ClaimState.Free;
    }

    /// <summary>Whether nothing is left to do for the blkdev. Its channels are free or quarantined.</summary>
    private bool ClearBlkdev(in HostUnderClearing claim, int blkdev)
    {
        long offset = _geometry.BlkdevOffset(blkdev);
        while (true)
        {
            ClaimWord word = Read(offset);
            if (word.State == ClaimState.Free || word.Host != claim.Host)
                return true;
            bool isClaiming = word.State is ClaimState.Claiming or ClaimState.Adopting;
            // One that stands still in CLAIMING may store the rest of its body yet.
            bool mayEnd = claim.Dead || (isClaiming && !TPolicy.EndClaimingWithProof);
            bool stays = !mayEnd || (!isClaiming && HasQuarantinedChannel(blkdev, word));
            ClaimState to = stays ? ClaimState.Quarantined
                : IsOrphan(blkdev, word) ? ClaimState.Orphaned
                : word.State is ClaimState.Clearing or ClaimState.Claiming or ClaimState.Adopting ? ClaimState.Free
                : ClaimState.Clearing;
            if (to == word.State)
                return true;
            if (!IsStill(claim))
                return false;
            if (to == ClaimState.Free)
                References<TMemory, TPolicy>.FreeWriter(_memory, _geometry, blkdev, word.Epoch);
            Swap(offset, word, to switch
            {
                ClaimState.Free => word.Freed(),
                ClaimState.Orphaned => word.Orphaned(),
                _ => word.With(to),
            });
        }
    }

    /// <summary>
    /// A claim of a dead host that its next life takes up again: one that was active and says so, or one that died while it did that.
    /// One swap, so that nobody finds the writer word without a claim. A device that was closing was being stopped: that is finished.
    /// </summary>
    private bool IsOrphan(int blkdev, ClaimWord word) => TPolicy.KeepOrphan &&
        (word.State == ClaimState.Adopting || (word.State == ClaimState.Active && EntryBodies<TMemory>.IsKept(_memory, _geometry, blkdev, word.Epoch)));

    /// <summary>Whether nothing is left to do for the backend.</summary>
    private bool ClearBackend(in HostUnderClearing claim, int backend)
    {
        long offset = _geometry.BackendOffset(backend);
        while (true)
        {
            ClaimWord word = Read(offset);
            if (word.State is ClaimState.Free or ClaimState.Orphaned || word.Host != claim.Host)
                return true;
            ClaimWord to;
            if (word.State is ClaimState.Claiming or ClaimState.Clearing && (claim.Dead || (word.State == ClaimState.Claiming && !TPolicy.EndClaimingWithProof)))
                to = EndOf(backend, word);
            else
                to = word.With(claim.Dead ? ClaimState.Clearing : ClaimState.Quarantined);
            if (to == word)
                return true;
            if (!IsStill(claim))
                return false;
            Swap(offset, word, to);
        }
    }

    private ClaimWord EndOf(int backend, ClaimWord word) =>
        BackendEnds<TMemory, TPolicy>.EndOf(_memory, _geometry, backend, word);

    private bool HasQuarantinedChannel(int blkdev, ClaimWord word)
    {
        for (int channel = 0; channel < _geometry.ChannelCount; channel++)
        {
            ClaimWord channelWord = Read(_geometry.ChannelOffset(channel));
            if (channelWord.State != ClaimState.Quarantined || channelWord.Host != word.Host)
                continue;
            // One that cannot be read may be anybody's.
            if (!BlkdevCtrlLine.TryLoad(_memory, _geometry, channel, channelWord.Epoch, out BlkdevCtrlLine line) ||
                (line.Blkdev == blkdev && line.BlkdevEpoch == word.Epoch))
                return true;
        }

        return false;
    }

    private bool IsStill(in HostUnderClearing claim) => Read(_geometry.HostOffset(claim.Host)) == claim.Word;

    private ClaimWord Read(long offset) => ClaimOperations<TMemory, TPolicy>.Read(_memory, offset);

    private bool Swap(long offset, ClaimWord from, ClaimWord to) =>
        ClaimOperations<TMemory, TPolicy>.TrySwap(_memory, offset, from, to);

    /// <summary>One host entry in CLEARING, and whether its death is as good as proven.</summary>
    private readonly record struct HostUnderClearing(int Host, ClaimWord Word, bool Dead);
}
