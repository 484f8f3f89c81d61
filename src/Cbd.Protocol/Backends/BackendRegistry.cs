using Cbd.Blocks;
using Cbd.Memory;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;

namespace Cbd.Protocol.Backends;

/// <summary>One backend entry in a list.</summary>
/// <param name="Backend">Its id.</param>
/// <param name="Word">Its claim word.</param>
/// <param name="Body">What it is; null while it cannot be read.</param>
/// <param name="Liveness">Of its session: dead for an orphan.</param>
/// <param name="Blkdevs">Ids of the blkdevs on it.</param>
internal sealed record BackendListing(int Backend, ClaimWord Word, BackendBody? Body, Liveness Liveness, IReadOnlyList<int> Blkdevs);

/// <summary>
/// Starts, takes over and lists backends for one host. One thread at a time (the tracker's). Two backends on one disk
/// are prevented by the disk's lock, which the caller holds before it comes here.
/// </summary>
internal sealed class BackendRegistry<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    private readonly TMemory _memory;
    private readonly RegionGeometry _geometry;
    private readonly HostClaim<TMemory, TPolicy> _host;
    private readonly LivenessTracker<TMemory, TPolicy> _tracker;
    private readonly EntryRegistry<TMemory, TPolicy> _entries;

    public BackendRegistry(TMemory memory, HostClaim<TMemory, TPolicy> host, LivenessTracker<TMemory, TPolicy> tracker)
    {
        _memory = memory;
        _geometry = host.Geometry;
        _host = host;
        _tracker = tracker;
        _entries = EntryRegistry<TMemory, TPolicy>.Backends(memory, host.Geometry);
    }

    /// <summary>Claims a free entry and makes the backend active. Throws if there is none, or the host is not itself any more.</summary>
    /// <param name="body">What it is; host id and epoch are filled in here.</param>
    /// <param name="backend">The entry to take, which must be free; null: any.</param>
    /// <param name="isServedHere">Ids that this process has in use still, whatever their entries say.</param>
    /// <param name="search">Looks for others that have the disk; null: nobody can.</param>
    public BackendClaim<TMemory, TPolicy> Start(BackendBody body, int? backend = null, Predicate<int>? isServedHere = null, RecordSearch<TMemory, TPolicy>? search = null)
    {
        BackendBody own = Own(body);
        int id;
        ClaimWord claimed;
        if (backend is { } wanted)
        {
            CheckId(wanted);
            id = wanted;
            if ((isServedHere?.Invoke(id) ?? false) || !_entries.TryClaim(id, ClaimState.Claiming, _host.Host, out claimed))
                throw new CbdException(CbdErrorKind.Busy, $"backend {id} is taken: start it without -b to get a free one");
        }
        else if (!_entries.TryClaimAny(ClaimState.Claiming, _host.Host, isServedHere, out id, out claimed))
        {
            throw new CbdException(CbdErrorKind.Exhausted, $"no free backend entry: all {_geometry.BackendCount} are taken: stop one with backend-stop, or format with more --backends");
        }

        return Activate(new BackendClaim<TMemory, TPolicy>(_memory, _geometry, id, claimed, own.InSession(claimed.Epoch, null), keptCopy: -1), search);
    }

    /// <summary>
    /// Starts a new session of a backend whose old one is over: the epoch is raised, the recorded size is served, a
    /// latched flush failure stays. Throws if the backend is served, is not there, or the disk is not the recorded one.
    /// Call it again after a beat while it answers Again: somebody clears it, or its host is not proven dead yet.
    /// </summary>
    /// <param name="backend">Its id.</param>
    /// <param name="body">The disk as it is now.</param>
    /// <param name="fenced">An operator vouches that the machine of the old session is off or cut off.</param>
    /// <param name="nowMs">This host's monotonic clock.</param>
    /// <param name="claim">The new session, when it answers Done.</param>
    public StepResult TakeOver(int backend, BackendBody body, bool fenced, long nowMs, out BackendClaim<TMemory, TPolicy>? claim)
    {
        _tracker.Sample(nowMs);
        return TakeOver(backend, body, fenced, isConfirmed: true, out claim);
    }

    /// <summary>The same, by the tracker's last sample.</summary>
    /// <param name="backend">Its id.</param>
    /// <param name="body">The disk as it is now.</param>
    /// <param name="fenced">An operator vouches that the machine of the old session is off or cut off.</param>
    /// <param name="isConfirmed">It is the recorded disk, if nothing says that it is not; otherwise only if that is proven.</param>
    /// <param name="claim">The new session, when it answers Done.</param>
    /// <param name="search">Looks for others that have the disk; null: nobody can.</param>
    public StepResult TakeOver(int backend, BackendBody body, bool fenced, bool isConfirmed, out BackendClaim<TMemory, TPolicy>? claim, RecordSearch<TMemory, TPolicy>? search = null)
    {
        claim = null;
        CheckId(backend);
        BackendBody own = Own(body);
        long offset = _geometry.BackendOffset(backend);
        ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(_memory, offset);
        if (!IsSessionOver(backend, word, fenced))
            return StepResult.Again;
        if (!EntryBodies<TMemory>.TryReadBackendRecord(_memory, _geometry, backend, word.Epoch, out BackendBody record, out BodyStamp stamp, out string error))
        {
            if (ClaimOperations<TMemory, TPolicy>.Read(_memory, offset) != word)
                return StepResult.Again;
            throw new CbdException(CbdErrorKind.Corrupt, $"backend {backend}: its record cannot be read ({error}): clear it with backend-clear");
        }

        CheckRecord(backend, record, own, isConfirmed);
        if (word.Epoch == ClaimWord.MaxEpoch)
            throw new CbdException(CbdErrorKind.Exhausted, $"backend {backend} has used up its epochs: format the region anew");
        ClaimWord claimed = word.Next(ClaimState.Claiming, _host.Host);
        if (!ClaimOperations<TMemory, TPolicy>.TrySwap(_memory, offset, word, claimed))
            return StepResult.Again;
        BackendBody served = own.InSession(claimed.Epoch, record) with
        {
            SizeBytes = record.SizeBytes,
            Name = own.Name.Length > 0 ? own.Name : record.Name,
            FlushError = record.FlushError != 0 ? record.FlushError : own.FlushError,
            // Devices of the version before compare texts.
            Identity = record.Identity == own.OldIdentity ? record.Identity : own.Identity,
        };
        claim = Activate(new BackendClaim<TMemory, TPolicy>(_memory, _geometry, backend, claimed, served, TPolicy.KeepRecord ? stamp.Copy : stamp.Copy ^ 1) { WasStopped = record.IsStopped }, search);
        return StepResult.Done;
    }

    /// <summary>A search for the records of a disk, whose lock the caller has: nobody else on this kernel serves it for writing.</summary>
    /// <param name="disk">The disk as it is now.</param>
    public RecordSearch<TMemory, TPolicy> SearchFor(BackendBody disk) => new(_memory, _geometry, _tracker, disk);

    /// <summary>
    /// Nothing tells whether a disk is that of a backend. A second backend of one disk would be a second way to write it, so an operator has
    /// to say.
    /// </summary>
    public static CbdException Undecided(int backend, BackendBody record, BackendBody disk) => new(
        CbdErrorKind.Busy,
        $"nothing tells whether '{disk.Path}' ({disk.Identity}) is the disk of backend {backend}, '{record.Path}' ({record.Identity}): if it is, start it with -b {backend}; if not, give that record up: {GiveUp(backend)}");

    /// <summary>
    /// The record of a backend, for checking a disk before waiting for its lock. Throws if there is no such backend, or
    /// it cannot be read.
    /// </summary>
    public BackendBody ReadRecord(int backend)
    {
        CheckId(backend);
        ClaimWord word = _entries.Read(backend);
        if (word.State == ClaimState.Free)
            throw NotThere(backend);
        if (EntryBodies<TMemory>.TryReadBackendRecord(_memory, _geometry, backend, word.Epoch, out BackendBody record, out _, out string error))
            return record;
        throw new CbdException(CbdErrorKind.Corrupt, $"backend {backend}: its record cannot be read ({error}): clear it with backend-clear");
    }

    /// <summary>All backends that are not free, by the tracker's last sample.</summary>
    public IReadOnlyList<BackendListing> List()
    {
        var found = new List<BackendListing>();
        foreach ((int backend, ClaimWord word) in _entries.ListTaken())
        {
            BackendBody? body = word.State != ClaimState.Claiming &&
                EntryBodies<TMemory>.TryReadBackendRecord(_memory, _geometry, backend, word.Epoch, out BackendBody read, out _, out _) ? read : null;
            found.Add(new BackendListing(backend, word, body, LivenessOf(word, body), References<TMemory, TPolicy>.BlkdevsOf(_memory, _geometry, backend)));
        }

        return found;
    }

    private Liveness LivenessOf(ClaimWord word, BackendBody? body) =>
        word.State == ClaimState.Orphaned ? Liveness.Dead
        : body is not null ? _tracker.Of(word.Host, body.HostEpoch)
        : Liveness.Unknown;

    private BackendBody Own(BackendBody body)
    {
        BackendBody own = body with { HostId = _host.Host, HostEpoch = _host.Epoch };
        if (own.FindError() is { Length: > 0 } error)
            throw new CbdException(CbdErrorKind.Invalid, $"backend on '{body.Path}': {error}: give another disk or path");
        return own;
    }

    private BackendClaim<TMemory, TPolicy> Activate(BackendClaim<TMemory, TPolicy> claim, RecordSearch<TMemory, TPolicy>? search)
    {
        // A claim made after this host was cleared would be nobody's to clear: look at our own word after claiming.
        if ((!TPolicy.LookAtHostAfterClaim || _host.IsMine()) && claim.Publish())
        {
            if ((TPolicy.LookForRivals ? search?.FindRival(claim.Backend) : null) is { } rival)
            {
                // The record is as it was, so that the next try finds it so.
                if (claim.WasStopped)
                    claim.MarkStopped();
                claim.EndClose();
                throw rival.IsRecord
                    ? new CbdException(CbdErrorKind.Busy, $"'{claim.Body.Path}' is the disk of two records that nobody serves, backend {claim.Backend} and {rival.Backend}: see backend-list --all, and give up the one with the older data: backend-clear -b {rival.Backend} --force, or backend-clear -b {claim.Backend} --force")
                    : new RivalClaimException(rival.Backend, claim.Body.Path);
            }

            if (claim.Activate())
                return claim;
        }

        claim.EndClose();
        throw new CbdException(CbdErrorKind.Failed, $"host {_host.Host} was cleared by another host: register again, then start the backend");
    }

    private void CheckId(int backend)
    {
        if ((uint)backend >= (uint)_geometry.BackendCount)
            throw new CbdException(CbdErrorKind.NotFound, $"backend {backend} does not exist: ids go from 0 to {_geometry.BackendCount - 1}; see backend-list --all");
    }

    private static CbdException NotThere(int backend) =>
        new(CbdErrorKind.NotFound, $"backend {backend} does not exist: start the disk without -b, or see backend-list --all");

    /// <summary>Whether the old session is over; false: not decided yet. Throws if it is not over, or there is none.</summary>
    private bool IsSessionOver(int backend, ClaimWord word, bool fenced)
    {
        switch (word.State)
        {
            case ClaimState.Free:
                throw NotThere(backend);
            case ClaimState.Orphaned:
                return true;
            case ClaimState.Claiming or ClaimState.Clearing:
                return false;
        }

        Liveness liveness = HandlerEnds<TMemory, TPolicy>.OfSession(_memory, _geometry, _tracker, backend, word.Epoch) switch
        {
            HandlerEnd.Over => Liveness.Dead,
            HandlerEnd.Alive => Liveness.Alive,
            _ => Liveness.Unknown,
        };
        if (liveness == Liveness.Dead)
            return true;
        string name = (uint)word.Host < (uint)_geometry.HostCount ? _tracker.Get(word.Host).Name : "?";
        if (liveness == Liveness.Alive)
            throw new CbdException(CbdErrorKind.Busy, $"backend {backend} is served by host {word.Host} ('{name}'), which is alive: stop it there with backend-stop first") { MayPass = true };
        if (word.State != ClaimState.Quarantined && (uint)word.Host < (uint)_geometry.HostCount && !_tracker.Get(word.Host).Settled)
            return false;
        if (fenced || !TPolicy.TakeOverNeedsProof)
            return true;
        throw new CbdException(CbdErrorKind.Busy, $"backend {backend} belongs to host {word.Host} ('{name}'), and nothing proves that it is dead: if its machine is off or cut off, start with --fenced") { MayPass = true };
    }

    private static void CheckRecord(int backend, BackendBody record, BackendBody disk, bool isConfirmed)
    {
        DiskComparison comparison = DiskIdentity.Compare(record.DiskIdentity, disk.DiskIdentity);
        if (comparison == DiskComparison.CannotTell && !isConfirmed && TPolicy.ConfirmUncertain)
            throw Undecided(backend, record, disk);
        if (comparison == DiskComparison.Different && !DiskIdentity.BeginsAnew(record.Identity, disk.Identity))
            throw new CbdException(CbdErrorKind.Invalid, $"'{disk.Path}' ({disk.Identity}) is not the disk of backend {backend}, which is '{record.Path}' ({record.Identity}): give that one, or start without -b");
        if (disk.ReadOnly != record.ReadOnly)
            throw new CbdException(CbdErrorKind.Invalid, $"backend {backend} is {Mode(record)}, not {Mode(disk)}: start it {(record.ReadOnly ? "with" : "without")} --read-only, or give the record up: {GiveUp(backend)}");
        if (disk.LogicalBlockBytes != record.LogicalBlockBytes)
            throw new CbdException(CbdErrorKind.Invalid, $"backend {backend} has blocks of {record.LogicalBlockBytes} bytes, not {disk.LogicalBlockBytes}: start it with --block-size {record.LogicalBlockBytes}, or give the record up: {GiveUp(backend)}");
        if (disk.SizeBytes < record.SizeBytes)
            throw new CbdException(CbdErrorKind.Invalid, $"'{disk.Path}' has {disk.SizeBytes} bytes, fewer than the {record.SizeBytes} of backend {backend}: restore its size, or give the record up: {GiveUp(backend)}");
    }

    private static string GiveUp(int backend) => $"backend-clear -b {backend} --force, which fails the devices that wait for it";

    private static string Mode(BackendBody body) => body.ReadOnly ? "read-only" : "writable";
}
