using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;

namespace Cbd.Protocol.Blkdevs;

/// <summary>One blkdev entry in a list.</summary>
/// <param name="Blkdev">Its id.</param>
/// <param name="Word">Its claim word.</param>
/// <param name="Body">What it is; null while it cannot be read.</param>
/// <param name="Liveness">Of its host.</param>
internal sealed record BlkdevListing(int Blkdev, ClaimWord Word, BlkdevBody? Body, Liveness Liveness);

/// <summary>Claims and lists blkdevs for one host. One thread at a time (the tracker's).</summary>
internal sealed class BlkdevRegistry<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    private readonly TMemory _memory;
    private readonly RegionGeometry _geometry;
    private readonly HostClaim<TMemory, TPolicy> _host;
    private readonly LivenessTracker<TMemory, TPolicy> _tracker;
    private readonly EntryRegistry<TMemory, TPolicy> _entries;

    public BlkdevRegistry(TMemory memory, HostClaim<TMemory, TPolicy> host, LivenessTracker<TMemory, TPolicy> tracker)
    {
        _memory = memory;
        _geometry = host.Geometry;
        _host = host;
        _tracker = tracker;
        _entries = EntryRegistry<TMemory, TPolicy>.Blkdevs(memory, host.Geometry);
    }

    /// <summary>
    /// Claims an entry for a blkdev on a served backend, and the backend's writer word unless the backend is read-only
    /// (a writable backend takes one blkdev, whatever that blkdev does). The entry stays in CLAIMING: claim channels,
    /// then <see cref="BlkdevClaim{TMemory, TPolicy}.Activate"/>, within a dead-time.
    /// </summary>
    /// <param name="backend">Its id.</param>
    /// <param name="readOnly">The blkdev writes nothing.</param>
    /// <param name="isUsedHere">Ids that this process has in use still, whatever their entries say.</param>
    public BlkdevClaim<TMemory, TPolicy> Claim(int backend, bool readOnly, Predicate<int>? isUsedHere = null)
    {
        (ClaimWord backendWord, BackendBody disk) = ReadServed(backend);
        BlkdevClaim<TMemory, TPolicy> claim = Take(backend, readOnly || disk.ReadOnly, backendWord, disk, isUsedHere);
        try
        {
            // A claim made after this host was cleared would be nobody's to clear: look at our own word after claiming.
            if ((TPolicy.LookAtHostAfterClaim && !_host.IsMine()) || !claim.PublishFirst())
                throw new CbdException(CbdErrorKind.Failed, $"host {_host.Host} was cleared by another host: register again, then start the device");
            if (!disk.ReadOnly)
                TakeWriter(backend, claim);
        }
        catch (CbdException)
        {
            claim.End();
            throw;
        }

        return claim;
    }

    /// <summary>All blkdevs that are not free, by the tracker's last sample.</summary>
    public IReadOnlyList<BlkdevListing> List()
    {
        var found = new List<BlkdevListing>();
        foreach ((int blkdev, ClaimWord word) in _entries.ListTaken())
        {
            BlkdevBody? body = EntryBodies<TMemory>.TryReadBlkdev(_memory, _geometry, blkdev, word.Epoch, out BlkdevBody read, out _) ? read : null;
            found.Add(new BlkdevListing(blkdev, word, body, body is null ? Liveness.Unknown : _tracker.Of(word.Host, body.HostEpoch)));
        }

        return found;
    }

    /// <summary>
    /// Whether a blkdev (by id and claim epoch) may use a backend: it is active and on it, and holds the writer word
    /// unless the backend is read-only. For handlers, before they attach; any thread.
    /// </summary>
    public static bool IsEntitled(in TMemory memory, RegionGeometry geometry, int backend, bool backendReadOnly, int blkdev, ulong epoch)
    {
        if ((uint)blkdev >= (uint)geometry.BlkdevCount)
            return false;
        ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(memory, geometry.BlkdevOffset(blkdev));
        if (word.State != ClaimState.Active || word.Epoch != epoch)
            return false;
        return backendReadOnly
            ? EntryBodies<TMemory>.TryReadBlkdev(memory, geometry, blkdev, epoch, out BlkdevBody body, out _) && body.BackendId == backend
            : memory.ReadAcquire(geometry.BackendOffset(backend) + BackendEntry.WriterOffset) == new WriterWord(blkdev, epoch).Raw;
    }

    private (ClaimWord Word, BackendBody Body) ReadServed(int backend)
    {
        if ((uint)backend >= (uint)_geometry.BackendCount)
            throw new CbdException(CbdErrorKind.NotFound, $"backend {backend} does not exist: ids go from 0 to {_geometry.BackendCount - 1}; see backend-list --all");
        ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(_memory, _geometry.BackendOffset(backend));
        switch (word.State)
        {
            case ClaimState.Free or ClaimState.Claiming:
                throw new CbdException(CbdErrorKind.NotFound, $"backend {backend} does not exist: see backend-list --all") { MayPass = true };
            case ClaimState.Active:
                break;
            case ClaimState.Quarantined:
                throw new CbdException(CbdErrorKind.Busy, $"backend {backend} is quarantined: clear its host with host-clear --fenced if that machine is off") { MayPass = true };
            default:
                throw new CbdException(CbdErrorKind.Busy, $"backend {backend} is not served now ({word.State}): start it again with backend-start -b {backend}") { MayPass = true };
        }

        if (EntryBodies<TMemory>.TryReadBackend(_memory, _geometry, backend, word.Epoch, out BackendBody body, out string error))
            return (word, body);
        throw new CbdException(CbdErrorKind.Corrupt, $"backend {backend}: its body cannot be read ({error}): try again, or restart it with backend-start -b {backend}");
    }

    private BlkdevClaim<TMemory, TPolicy> Take(int backend, bool readOnly, ClaimWord backendWord, BackendBody disk, Predicate<int>? isUsedHere)
    {
        if (!_entries.TryClaimAny(ClaimState.Claiming, _host.Host, isUsedHere, out int blkdev, out ClaimWord claimed))
            throw new CbdException(CbdErrorKind.Exhausted, $"no free blkdev entry: all {_geometry.BlkdevCount} are taken: stop one with dev-stop, or format with more --blkdevs");
        var body = new BlkdevBody
        {
            HostId = _host.Host,
            HostEpoch = _host.Epoch,
            ReadOnly = readOnly,
            BackendId = backend,
            SessionEpoch = backendWord.Epoch,
            Name = "",
            Channels = [],
        };
        return new BlkdevClaim<TMemory, TPolicy>(_memory, _host, blkdev, claimed, body, backendWord, BackendWatch<TMemory, TPolicy>.ToSession(backendWord.Epoch, disk));
    }

    /// <summary>The blkdev of a writer word belongs to this host, which knows when it goes.</summary>
    private bool IsOwn(WriterWord holder) =>
        (uint)holder.Blkdev < (uint)_geometry.BlkdevCount && ClaimOperations<TMemory, TPolicy>.Read(_memory, _geometry.BlkdevOffset(holder.Blkdev)).Host == _host.Host;

    private void TakeWriter(int backend, BlkdevClaim<TMemory, TPolicy> claim)
    {
        long offset = _geometry.BackendOffset(backend) + BackendEntry.WriterOffset;
        var own = new ClaimWord(new WriterWord(claim.Blkdev, claim.Epoch).Raw);
        while (true)
        {
            ClaimWord seen = ClaimOperations<TMemory, TPolicy>.Read(_memory, offset);
            var holder = new WriterWord(seen.Raw);
            if (TPolicy.OneWriter && seen.Raw != WriterWord.None.Raw && !IsOver(holder))
                throw new CbdException(CbdErrorKind.Busy, $"backend {backend} is writable and in use by blkdev {holder.Blkdev}: stop that first, or start the backend with --read-only to share it") { MayPass = !IsOwn(holder) };
            if (ClaimOperations<TMemory, TPolicy>.TrySwap(_memory, offset, seen, own))
                return;
        }
    }

    /// <summary>
    /// Whether the claim of a blkdev that a writer word names has ended: a claim that ended as stale may have taken the
    /// word too late for anybody to free it.
    /// </summary>
    private bool IsOver(WriterWord holder)
    {
        if ((uint)holder.Blkdev >= (uint)_geometry.BlkdevCount)
            return true;
        ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(_memory, _geometry.BlkdevOffset(holder.Blkdev));
        return word.Epoch > holder.Epoch || (word.Epoch == holder.Epoch && word.State == ClaimState.Free);
    }
}
