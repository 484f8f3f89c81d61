using Cbd.Blocks;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Blkdevs;

/// <summary>
/// A blkdev's view of its backend: two loads per look; the body is read only when the claim word or the change counter
/// moved. One thread at a time.
/// </summary>
internal sealed class BackendWatch<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    private readonly TMemory _memory;
    private readonly RegionGeometry _geometry;
    private readonly long _offset;
    private ClaimWord _adopted;
    private ulong _adoptedChanges;
    private bool _hasAdopted;
    private ClaimWord _judged;
    private ulong _judgedChanges;

    public BackendWatch(TMemory memory, RegionGeometry geometry, int backend)
    {
        _memory = memory;
        _geometry = geometry;
        Backend = backend;
        _offset = geometry.BackendOffset(backend);
    }

    /// <summary>Id of the backend.</summary>
    public int Backend { get; }

    /// <summary>The claim word at the last look.</summary>
    public ClaimWord Word { get; private set; }

    /// <summary>The body that was last returned; null before the first.</summary>
    public BackendBody? Body { get; private set; }

    /// <summary>Whether a session serves the backend, or may do so: its claim is active.</summary>
    public bool IsServed => Word.State == ClaimState.Active;

    /// <summary>Its operator stopped it, and no new session serves it yet; as of the last look.</summary>
    public bool IsStopped { get; private set; }

    /// <summary>
    /// Looks at the backend. True if there is a session, or a property of it (its size), that was not returned before:
    /// hand it to <see cref="BlkdevState.Adopt"/>.
    /// </summary>
    public bool TryRefresh(out BackendSession session)
    {
        session = default;
        Word = ClaimOperations<TMemory, TPolicy>.Read(_memory, _offset);
        // Pairs with the release store of the counter after the owner published its body.
        ulong changes = _memory.ReadAcquire(_offset + BackendEntry.ChangeCounterOffset);
        LookForStop(changes);
        if (!IsServed || (_hasAdopted && Word == _adopted && changes == _adoptedChanges))
            return false;
        // A body that cannot be read yet is looked for again next time.
        BackendBody? body = null;
        if (!TPolicy.RefuseStaleBody && EntryBodies<TMemory>.TryReadBackendRecord(_memory, _geometry, Backend, Word.Epoch - 1, out BackendBody stale, out _, out _))
            body = stale;
        if (body is null && !EntryBodies<TMemory>.TryReadBackend(_memory, _geometry, Backend, Word.Epoch, out body, out _))
            return false;
        (_adopted, _adoptedChanges, _hasAdopted) = (Word, changes, true);
        Body = body;
        session = ToSession(Word.Epoch, body);
        return true;
    }

    private void LookForStop(ulong changes)
    {
        if (IsServed || Word.State == ClaimState.Free)
            IsStopped = false;
        else if ((Word != _judged || changes != _judgedChanges) &&
            EntryBodies<TMemory>.TryReadBackendRecord(_memory, _geometry, Backend, Word.Epoch, out BackendBody record, out _, out _))
            (IsStopped, _judged, _judgedChanges) = (record.IsStopped, Word, changes);
    }

    /// <summary>What a body says, as a block device.</summary>
    public static BackendSession ToSession(ulong epoch, BackendBody body) => new(epoch, TPolicy.CheckDurabilityId ? body.DurabilityId : Guid.Empty, new BlockDeviceInfo
    {
        SizeBytes = body.SizeBytes,
        LogicalBlockBytes = body.LogicalBlockBytes,
        PhysicalBlockBytes = body.PhysicalBlockBytes,
        ReadOnly = body.ReadOnly,
        CanDiscard = (body.Flags & BackendFlags.CanDiscard) != 0,
        CanZeroFast = (body.Flags & BackendFlags.CanZeroFast) != 0,
        CanCache = (body.Flags & BackendFlags.CanCache) != 0,
        IsRotational = (body.Flags & BackendFlags.Rotational) != 0,
        DiscardGranularityBytes = body.DiscardGranularityBytes,
        MaxTransferBytes = body.MaxTransferBytes,
        DurabilityId = body.DurabilityId,
    }, (body.Flags & BackendFlags.Buffered) != 0);
}
