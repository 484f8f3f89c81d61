using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Hosts;

/// <summary>The part of clearing that gives quarantined entries back, and ends claims that came to nothing.</summary>
internal sealed partial class Clearing<TMemory, TPolicy>
{
    private readonly Dictionary<long, StaleClaim> _claiming = [];

    /// <summary>
    /// Housekeeping; call it once a beat. Gives back what was quarantined and is proven harmless by now, frees backends
    /// and blkdevs that stood in CLAIMING for a dead-time and whose host is over, and orphaned backends that nobody uses.
    /// </summary>
    public void Sweep(long nowMs)
    {
        _tracker.Sample(nowMs);
        for (int channel = 0; channel < _geometry.ChannelCount; channel++)
        {
            ClaimWord word = Read(_geometry.ChannelOffset(channel));
            if (word.State == ClaimState.Quarantined && IsOwnerProven(word) &&
                HandlerEnds<TMemory, TPolicy>.OfChannel(_memory, _geometry, _tracker, channel, word) == HandlerEnd.Over)
                Swap(_geometry.ChannelOffset(channel), word, word.Freed());
        }

        for (int blkdev = 0; blkdev < _geometry.BlkdevCount; blkdev++)
        {
            ClaimWord word = Read(_geometry.BlkdevOffset(blkdev));
            if (word.State is ClaimState.Quarantined or ClaimState.Clearing && IsOwnerProven(word) && !HasQuarantinedChannel(blkdev, word))
                FreeBlkdev(blkdev, word);
            else if (IsStale(_geometry.BlkdevOffset(blkdev), word, nowMs) && MayEnd(word))
                EndClaim(blkdev, word);
        }

        for (int backend = 0; backend < _geometry.BackendCount; backend++)
        {
            long offset = _geometry.BackendOffset(backend);
            ClaimWord word = Read(offset);
            if (IsStale(offset, word, nowMs) && MayEnd(word))
                Swap(offset, word, EndOf(backend, word));
        }

        References<TMemory, TPolicy>.FreeUnusedOrphans(_memory, _geometry);
    }

    /// <summary>
    /// Gives back a quarantined blkdev and its quarantined channels, because an operator vouches that neither its own
    /// machine nor the backend's stores into them any more. A backend that is seen to live is not vouched for: it says
    /// itself when it is done, so call this again while it answers Again.
    /// </summary>
    /// <param name="blkdev">Its id.</param>
    /// <param name="word">The claim that is vouched for; if the entry has another by now, nothing is done.</param>
    /// <param name="nowMs">This host's monotonic clock.</param>
    public StepResult ReleaseBlkdev(int blkdev, ClaimWord word, long nowMs)
    {
        if (word.State != ClaimState.Quarantined || Read(_geometry.BlkdevOffset(blkdev)) != word)
            return StepResult.Done;
        _tracker.Sample(nowMs);
        bool mayStore = false;
        for (int channel = 0; channel < _geometry.ChannelCount; channel++)
        {
            ClaimWord channelWord = Read(_geometry.ChannelOffset(channel));
            if (channelWord.State == ClaimState.Quarantined && channelWord.Host == word.Host &&
                BlkdevCtrlLine.TryLoadLatest(_memory, _geometry, channel, channelWord.Epoch, out BlkdevCtrlLine line) &&
                line.Blkdev == blkdev && line.BlkdevEpoch == word.Epoch)
            {
                if (HandlerEnds<TMemory, TPolicy>.OfChannel(_memory, _geometry, _tracker, channel, channelWord) is HandlerEnd.Alive or HandlerEnd.Open)
                    mayStore = true;
                else
                    Swap(_geometry.ChannelOffset(channel), channelWord, channelWord.Freed());
            }
        }

        if (mayStore)
            return StepResult.Again;
        FreeBlkdev(blkdev, word);
        References<TMemory, TPolicy>.FreeUnusedOrphans(_memory, _geometry);
        return StepResult.Done;
    }

    /// <summary>
    /// Gives back a quarantined backend, because an operator vouches that its machine does not touch the disk any more:
    /// it is free, or orphaned while blkdevs use it. False if it is not quarantined.
    /// </summary>
    public bool ReleaseBackend(int backend)
    {
        long offset = _geometry.BackendOffset(backend);
        ClaimWord word = Read(offset);
        return word.State == ClaimState.Quarantined && Swap(offset, word, EndOf(backend, word));
    }

    /// <summary>
    /// Gives up a blkdev that waits for the next life of its host: whoever adopts it later finds that its claim is gone, and its device
    /// fails. False if it is not the orphan that was seen.
    /// </summary>
    /// <param name="blkdev">Its id.</param>
    /// <param name="word">Its claim word, as it was seen.</param>
    public bool ReleaseOrphan(int blkdev, ClaimWord word)
    {
        // Out of ORPHANED first: an adoption that comes now must not get a writer word that is being freed.
        ClaimWord ending = word.With(ClaimState.Clearing);
        if (word.State != ClaimState.Orphaned || !Swap(_geometry.BlkdevOffset(blkdev), word, ending))
            return false;
        FreeBlkdev(blkdev, ending);
        References<TMemory, TPolicy>.FreeUnusedOrphans(_memory, _geometry);
        return true;
    }

    /// <summary>A claim that came to nothing: an adoption leaves the orphan that it began with.</summary>
    private void EndClaim(int blkdev, ClaimWord word)
    {
        if (word.State == ClaimState.Adopting)
            Swap(_geometry.BlkdevOffset(blkdev), word, word.Orphaned());
        else
            FreeBlkdev(blkdev, word);
    }

    private void FreeBlkdev(int blkdev, ClaimWord word)
    {
        References<TMemory, TPolicy>.FreeWriter(_memory, _geometry, blkdev, word.Epoch);
        Swap(_geometry.BlkdevOffset(blkdev), word, word.Freed());
    }

    /// <summary>
    /// Whether the host of a quarantined entry is proven dead. A host that was cleared without proof stays QUARANTINED
    /// until there is some, so its id belongs to nobody else meanwhile. Read the entry's word first.
    /// </summary>
    private bool IsOwnerProven(ClaimWord word) =>
        word is { Host: ClaimWord.NoHost, State: ClaimState.Clearing } ||
        ((uint)word.Host < (uint)_geometry.HostCount && Read(_geometry.HostOffset(word.Host)).State is not (ClaimState.Quarantined or ClaimState.Clearing));

    /// <summary>
    /// Whether whoever made a claim stores no more. Its next swap would fail, but it may stand still in the middle of the body, and then store
    /// the rest over the body of the next claim.
    /// </summary>
    private bool MayEnd(ClaimWord word) =>
        !TPolicy.EndClaimingWithProof || (uint)word.Host >= (uint)_geometry.HostCount || _tracker.Get(word.Host).Liveness == Liveness.Dead;

    /// <summary>Whether a claim has stood in CLAIMING, or in the middle of an adoption, for a dead-time of this observer.</summary>
    private bool IsStale(long offset, ClaimWord word, long nowMs)
    {
        if (word.State is not (ClaimState.Claiming or ClaimState.Adopting))
        {
            _claiming.Remove(offset);
            return false;
        }

        StaleClaim seen = _claiming.GetValueOrDefault(offset);
        long gapMs = nowMs - seen.SampledMs;
        long stillMs = seen.Word != word ? 0 : seen.StillMs + (gapMs >= 0 && gapMs <= 2L * _tracker.BeatMs ? gapMs : 0);
        _claiming[offset] = new StaleClaim(word, nowMs, stillMs);
        return stillMs >= _tracker.DeadMs;
    }

    private readonly record struct StaleClaim(ClaimWord Word, long SampledMs, long StillMs);
}
