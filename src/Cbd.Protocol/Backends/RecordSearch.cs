using Cbd.Blocks;
using Cbd.Memory;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;

namespace Cbd.Protocol.Backends;

/// <summary>A record that a disk has, or may have.</summary>
/// <param name="Backend">Its id.</param>
/// <param name="Body">The record.</param>
/// <param name="Comparison">The disk's own, or one of which nothing tells whether it is.</param>
/// <param name="IsOver">
/// Nobody serves it: it can be taken over, or says why not. If false, its last session is just ending, or beginning: look again after a
/// beat.
/// </param>
internal readonly record struct FoundRecord(int Backend, BackendBody Body, DiskComparison Comparison, bool IsOver);

/// <summary>
/// Looks for the record that a disk has as a backend: starting the disk takes that over, so that blkdevs that wait for it go on, and no
/// second one can write the disk behind their backs. Bodies are read again only where a claim word moved. One thread at a time.
/// </summary>
internal sealed class RecordSearch<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    private readonly TMemory _memory;
    private readonly RegionGeometry _geometry;
    private readonly LivenessTracker<TMemory, TPolicy> _tracker;
    private readonly EntryRegistry<TMemory, TPolicy> _entries;
    private readonly BackendBody _disk;

    /// <summary>What was found under a claim word; no body: it is of another disk.</summary>
    private readonly Dictionary<int, (ClaimWord Word, BackendBody? Body, ulong Epoch, DiskComparison Comparison)> _judged = [];

    internal RecordSearch(TMemory memory, RegionGeometry geometry, LivenessTracker<TMemory, TPolicy> tracker, BackendBody disk)
    {
        _memory = memory;
        _geometry = geometry;
        _tracker = tracker;
        _disk = disk;
        _entries = EntryRegistry<TMemory, TPolicy>.Backends(memory, geometry);
    }

    /// <summary>
    /// The disk's record; else a record that nobody serves and that may be the disk's. Null if there is neither. By the tracker's last
    /// sample.
    /// </summary>
    public FoundRecord? Find()
    {
        FoundRecord? undecided = null;
        foreach ((int backend, ClaimWord word) in _entries.ListTaken())
        {
            (BackendBody? record, ulong epoch, DiskComparison comparison) = Judge(backend, word);
            if (record is null || !IsRecord(backend, word, epoch))
                continue;
            HandlerEnd end = word.State switch
            {
                ClaimState.Orphaned => HandlerEnd.Over,
                ClaimState.Claiming => HandlerEnd.Open,
                _ => HandlerEnds<TMemory, TPolicy>.OfSession(_memory, _geometry, _tracker, backend, word.Epoch),
            };
            bool isSame = comparison == DiskComparison.Same;
            // Taking its own record over waits for what is not decided.
            bool isOver = end is HandlerEnd.Over or HandlerEnd.Unproven || (isSame && end == HandlerEnd.Open && word.State != ClaimState.Claiming);
            // Any number of hosts may serve a disk that nobody writes.
            if (record.ReadOnly && _disk.ReadOnly && !(isOver && isSame))
                continue;
            var found = new FoundRecord(backend, record, comparison, isOver);
            if (isSame)
                return found;
            // One that is served is of a disk that somebody else has locked.
            if (end != HandlerEnd.Alive)
                undecided ??= found;
        }

        return undecided;
    }

    /// <summary>
    /// Another entry that has this disk: as a record, or as a claim that has published what it is. Two hosts may begin at the same moment,
    /// and only this kernel has the disk locked: each publishes first and looks then, so that at least one of them sees the other.
    /// </summary>
    /// <param name="own">The entry that the caller has claimed for the disk.</param>
    /// <returns>Its id, and whether it is a record that nobody serves: that does not go away by itself. Null if there is none.</returns>
    public (int Backend, bool IsRecord)? FindRival(int own)
    {
        foreach ((int backend, ClaimWord word) in _entries.ListTaken())
        {
            if (backend == own)
                continue;
            (BackendBody? record, ulong epoch, DiskComparison comparison) = Judge(backend, word);
            if (record is not null && comparison == DiskComparison.Same && IsRecord(backend, word, epoch) && !(record.ReadOnly && _disk.ReadOnly))
                return (backend, word.State == ClaimState.Orphaned);
        }

        return null;
    }

    private (BackendBody? Record, ulong Epoch, DiskComparison Comparison) Judge(int backend, ClaimWord word)
    {
        // A claim that is under way may publish what it is at any time.
        if (word.State != ClaimState.Claiming && _judged.TryGetValue(backend, out var judged) && judged.Word == word)
            return (judged.Body, judged.Epoch, judged.Comparison);
        if (!EntryBodies<TMemory>.TryReadBackendRecord(_memory, _geometry, backend, word.Epoch, out BackendBody record, out BodyStamp stamp, out _))
            return (null, 0, DiskComparison.Different);
        DiskComparison comparison = DiskIdentity.Compare(record.DiskIdentity, _disk.DiskIdentity);
        bool isIts = DiskIdentity.MayBe(record.DiskIdentity, _disk.DiskIdentity);
        _judged[backend] = (word, isIts ? record : null, stamp.Epoch, comparison);
        return (isIts ? record : null, stamp.Epoch, comparison);
    }

    /// <summary>
    /// The body is of the word's own epoch, or blkdevs wait for it. Any other body was left by a backend that is gone; the claim has not
    /// published its own.
    /// </summary>
    private bool IsRecord(int backend, ClaimWord word, ulong epoch) =>
        epoch == word.Epoch || References<TMemory, TPolicy>.IsUsed(_memory, _geometry, backend);
}
