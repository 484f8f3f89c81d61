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
    /// <param name="life">Which attachment it is, if it is to outlive this process; 0 if not.</param>
    public BlkdevClaim<TMemory, TPolicy> Claim(int backend, bool readOnly, Predicate<int>? isUsedHere = null, ulong life = 0)
    {
        (ClaimWord backendWord, BackendBody disk) = ReadServed(backend);
        BlkdevClaim<TMemory, TPolicy> claim = Take(backend, readOnly || disk.ReadOnly, backendWord, disk, isUsedHere, life);
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

    /// <summary>
    /// Takes up again what an earlier life of this host left: the entry, under the next epoch, and the backend's writer word. The
    /// entry is in ADOPTING then: claim channels, and activate it. A death at any place leaves the orphan, or what a clearer makes one of.
    /// Call it again after a beat while it answers Again: a dead claim of this host is not cleared yet.
    /// </summary>
    /// <param name="blkdev">Its id.</param>
    /// <param name="epoch">The claim that the device's record names; an adoption that came to nothing may have raised it.</param>
    /// <param name="life">Which attachment it is.</param>
    /// <param name="claim">The claim, when it answers Done.</param>
    /// <exception cref="ClaimGoneException">It was given up, or taken away: nobody can tell what happened to the disk since.</exception>
    public StepResult Adopt(int blkdev, ulong epoch, ulong life, out BlkdevClaim<TMemory, TPolicy>? claim)
    {
        claim = null;
        if (TPolicy.WaitForOwnDead && FindOwnDead() >= 0)
            return StepResult.Again;
        if ((uint)blkdev >= (uint)_geometry.BlkdevCount)
            throw new ClaimGoneException($"device {blkdev} does not exist in this region, which has {_geometry.BlkdevCount} blkdev entries: dev-stop, then dev-start");
        long offset = _geometry.BlkdevOffset(blkdev);
        ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(_memory, offset);
        if (word.State != ClaimState.Orphaned || word.Epoch < epoch)
            throw new ClaimGoneException($"the claim of device {blkdev} was given up while its daemon was away ({word}): others may have written to its disk; dev-stop, check the data, dev-start");
        if (!EntryBodies<TMemory>.TryReadBlkdevRecord(_memory, _geometry, blkdev, word.Epoch, out BlkdevBody record, out BodyStamp stamp, out string error))
            throw new ClaimGoneException($"device {blkdev}: its record cannot be read ({error}): dev-stop, clear it with dev-clear, then dev-start");
        if (TPolicy.AdoptOnlyOwnUuid && (record.HostUuid != _host.HostUuid || record.Life != life))
            throw new ClaimGoneException($"blkdev {blkdev} is another device's by now, of {(record.HostUuid == _host.HostUuid ? "this host" : "another host")}: others may have written to the disk; dev-stop, check the data, dev-start");
        if (word.Epoch == ClaimWord.MaxEpoch)
            throw new CbdException(CbdErrorKind.Exhausted, $"blkdev {blkdev} has used up its epochs: format the region anew");
        ClaimWord claimed = word.Next(ClaimState.Adopting, _host.Host);
        if (!ClaimOperations<TMemory, TPolicy>.TrySwap(_memory, offset, word, claimed))
            return StepResult.Again;
        BlkdevBody body = record with { HostId = _host.Host, HostEpoch = _host.Epoch, Channels = [] };
        var adopted = new BlkdevClaim<TMemory, TPolicy>(_memory, _host, blkdev, claimed, body, null, default, TPolicy.KeepRecord ? stamp.Copy : stamp.Copy ^ 1);
        if ((TPolicy.LookAtHostAfterClaim && !_host.IsMine()) || !adopted.PublishFirst())
        {
            adopted.End();
            throw new CbdException(CbdErrorKind.Failed, $"host {_host.Host} was cleared by another host: register again");
        }

        if (TPolicy.AdoptMovesWriter && !References<TMemory, TPolicy>.TryMoveWriter(_memory, _geometry, record.BackendId, blkdev, claimed.Epoch) && !IsShared(record.BackendId))
        {
            adopted.Free();
            throw new ClaimGoneException($"the writer word of backend {record.BackendId} was taken from device {blkdev} while its daemon was away: others may have written to its disk; dev-stop, check the data, dev-start");
        }

        claim = adopted;
        return StepResult.Done;
    }

    /// <summary>
    /// A host entry that an earlier life of this host left, or that another process has under its uuid; −1 if there is none. By the
    /// tracker's last sample.
    /// </summary>
    public int FindOwnDead()
    {
        for (int host = 0; host < _geometry.HostCount; host++)
        {
            HostSighting sighting = _tracker.Get(host);
            if (host != _host.Host && sighting.Word.State != ClaimState.Free && sighting.Body?.HostUuid == _host.HostUuid)
                return host;
        }

        return -1;
    }

    /// <summary>Orphans of this host, with the attachment that each is.</summary>
    public IReadOnlyList<(int Blkdev, ClaimWord Word, ulong Life)> ListOwnOrphans()
    {
        var found = new List<(int, ClaimWord, ulong)>();
        foreach ((int blkdev, ClaimWord word) in _entries.ListTaken())
        {
            if (word.State == ClaimState.Orphaned && EntryBodies<TMemory>.TryReadBlkdevRecord(_memory, _geometry, blkdev, word.Epoch, out BlkdevBody record, out _, out _) &&
                record.HostUuid == _host.HostUuid)
                found.Add((blkdev, word, record.Life));
        }

        return found;
    }

    /// <summary>All blkdevs that are not free, by the tracker's last sample.</summary>
    public IReadOnlyList<BlkdevListing> List()
    {
        var found = new List<BlkdevListing>();
        foreach ((int blkdev, ClaimWord word) in _entries.ListTaken())
        {
            bool isRecord = word.State is ClaimState.Orphaned or ClaimState.Adopting;
            BlkdevBody? body = isRecord ? EntryBodies<TMemory>.TryReadBlkdevRecord(_memory, _geometry, blkdev, word.Epoch, out BlkdevBody read, out _, out _) ? read : null
                : EntryBodies<TMemory>.TryReadBlkdev(_memory, _geometry, blkdev, word.Epoch, out read, out _) ? read : null;
            found.Add(new BlkdevListing(blkdev, word, body, LivenessOf(word, body)));
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

    private Liveness LivenessOf(ClaimWord word, BlkdevBody? body) =>
        word.State == ClaimState.Orphaned ? Liveness.Dead
        // Before its own body is whole the record names the host that is gone.
        : body is null || (word.State == ClaimState.Adopting && body.HostId != word.Host) ? Liveness.Unknown
        : _tracker.Of(word.Host, body.HostEpoch);

    /// <summary>The backend is read-only, so that nobody has its writer word. One that cannot be read is not.</summary>
    private bool IsShared(int backend)
    {
        ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(_memory, _geometry.BackendOffset(backend));
        return EntryBodies<TMemory>.TryReadBackendRecord(_memory, _geometry, backend, word.Epoch, out BackendBody disk, out _, out _) && disk.ReadOnly;
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

    private BlkdevClaim<TMemory, TPolicy> Take(int backend, bool readOnly, ClaimWord backendWord, BackendBody disk, Predicate<int>? isUsedHere, ulong life)
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
            HostUuid = life == 0 ? Guid.Empty : _host.HostUuid,
            Life = life,
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
            var state = ClaimState.Free;
            if (TPolicy.OneWriter && seen.Raw != WriterWord.None.Raw && !IsOver(holder, out state))
                throw state is ClaimState.Orphaned or ClaimState.Adopting ? Reserved(backend, holder)
                    : new CbdException(CbdErrorKind.Busy, $"backend {backend} is writable and in use by blkdev {holder.Blkdev}: stop that first, or start the backend with --read-only to share it") { MayPass = !IsOwn(holder) };
            if (ClaimOperations<TMemory, TPolicy>.TrySwap(_memory, offset, seen, own))
                return;
        }
    }

    /// <summary>
    /// Whether the claim of a blkdev that a writer word names has ended: a claim that ended as stale may have taken the
    /// word too late for anybody to free it.
    /// </summary>
    private bool IsOver(WriterWord holder, out ClaimState state)
    {
        state = ClaimState.Free;
        if ((uint)holder.Blkdev >= (uint)_geometry.BlkdevCount)
            return true;
        ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(_memory, _geometry.BlkdevOffset(holder.Blkdev));
        state = word.State;
        // The word of an orphan may be of the epoch before an adoption that came to nothing, or has not come so far yet.
        if (state is ClaimState.Orphaned or ClaimState.Adopting)
            return false;
        return word.Epoch > holder.Epoch || (word.Epoch == holder.Epoch && word.State == ClaimState.Free);
    }

    private static CbdException Reserved(int backend, WriterWord holder) =>
        new(CbdErrorKind.Busy, $"backend {backend} is writable and reserved for blkdev {holder.Blkdev}, whose daemon is away and may come back: start that daemon, or give the device up with dev-clear -d {holder.Blkdev}") { MayPass = true };
}
