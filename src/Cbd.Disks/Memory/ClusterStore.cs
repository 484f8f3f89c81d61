using System.Runtime.CompilerServices;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>
/// What a memory disk holds: clusters of <see cref="ClusterBytes"/>, and for each place of the disk an entry that says
/// which cluster is there. At first every place has its own; a write of a whole cluster fills a spare one where nobody
/// sees it, and exchanges the two. Smaller writes are done in place. Any thread.
/// </summary>
/// <remarks>
/// An entry is locked while the cluster is stored to or exchanged, and has another version afterwards: a reader looks at it
/// before and after it copies. Queues share nothing but the entries of the clusters that they both use.
/// </remarks>
internal sealed class ClusterStore : IDisposable
{
    public const int ClusterShift = 16;
    public const int ClusterBytes = 1 << ClusterShift;

    /// <summary>So much address space nobody has; the numbers of all clusters fit an entry.</summary>
    private const long MostBytes = 1L << 47;

    private readonly SparseMemory _entries;
    private readonly SparseMemory _clusters;
    private readonly Lock _lock = new();
    private readonly Stack<long> _returned = [];
    private long _unused;

    /// <param name="sizeBytes">Largest size of the disk, bytes. Nothing is reserved for it but address space.</param>
    /// <param name="spareBytes">The same for spare clusters; without any, all writes are done in place.</param>
    /// <exception cref="CbdException">The address space has no room for it.</exception>
    public ClusterStore(long sizeBytes, long spareBytes)
    {
        if (sizeBytes > MostBytes)
            throw new CbdException(CbdErrorKind.Exhausted, $"{sizeBytes} bytes of memory cannot be mapped; choose a smaller size");
        _unused = ((sizeBytes - 1) >> ClusterShift) + 1;
        _clusters = new SparseMemory((_unused << ClusterShift) + spareBytes);
        try
        {
            _entries = new SparseMemory(_unused * sizeof(ulong));
        }
        catch
        {
            _clusters.Dispose();
            throw;
        }
    }

    /// <summary>The entry of a place as it is when nobody stores there; see <see cref="ClusterEntry"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ClusterEntry Read(long place)
    {
        var entry = new ClusterEntry(Volatile.Read(ref _entries.GetWord(place)));
        return entry.IsLocked ? ReadUnlocked(place) : entry;
    }

    /// <summary>
    /// Whether the entry is what it was, after what was loaded before: then nobody has stored to the cluster since.
    /// </summary>
    public bool IsStill(long place, ClusterEntry entry)
    {
        Volatile.ReadBarrier();
        return Volatile.Read(ref _entries.GetWord(place)) == entry.Value;
    }

    /// <summary>Locks the entry: its cluster is the caller's to store to. One at a time.</summary>
    public ClusterEntry Lock(long place)
    {
        ref ulong word = ref _entries.GetWord(place);
        while (true)
        {
            ClusterEntry entry = Read(place);
            // A full fence: what is stored afterwards is not seen by a reader that then finds the entry as it was.
            if (Interlocked.CompareExchange(ref word, entry.Locked.Value, entry.Value) == entry.Value)
                return entry;
        }
    }

    /// <summary>Ends the lock; the cluster that is there from now on may be another one.</summary>
    public void Unlock(long place, ClusterEntry entry, long cluster) =>
        Volatile.Write(ref _entries.GetWord(place), entry.Next(place, cluster).Value);

    /// <summary>Ends the lock of somebody who has stored nothing.</summary>
    public void UnlockUnchanged(long place, ClusterEntry entry) => Volatile.Write(ref _entries.GetWord(place), entry.Value);

    /// <summary>Bytes from one of a cluster on; they may go on in the clusters that follow it.</summary>
    public Span<byte> Bytes(long cluster, int offset, int length) => _clusters.GetSpan((cluster << ClusterShift) + offset, length);

    /// <summary>
    /// Makes zeroes of bytes of clusters that are the caller's to store to, and gives the memory of whole pages back.
    /// </summary>
    public void Clear(long cluster, int offset, int length) => _clusters.Clear((cluster << ClusterShift) + offset, length);

    /// <summary>
    /// Fills the span with clusters that are the caller's from now on, the one to use first the last; false if there are not
    /// so many.
    /// </summary>
    public bool TryTake(Span<long> clusters)
    {
        lock (_lock)
        {
            int fresh = Math.Max(clusters.Length - _returned.Count, 0);
            if (fresh > (_clusters.SizeBytes >> ClusterShift) - _unused)
                return false;
            for (int i = 0; i < fresh; i++)
                clusters[i] = _unused + fresh - 1 - i;
            // In the order in which they were returned.
            for (int i = clusters.Length - 1; i >= fresh; i--)
                clusters[i] = _returned.Pop();
            _unused += fresh;
            return true;
        }
    }

    /// <summary>Takes clusters back that are at no place, and gives their memory back.</summary>
    public void Return(ReadOnlySpan<long> clusters)
    {
        foreach (long cluster in clusters)
            Clear(cluster, 0, ClusterBytes);
        lock (_lock)
        {
            foreach (long cluster in clusters)
                _returned.Push(cluster);
        }
    }

    public void Dispose()
    {
        _entries.Dispose();
        _clusters.Dispose();
    }

    private ClusterEntry ReadUnlocked(long place)
    {
        var wait = default(SpinWait);
        while (true)
        {
            var entry = new ClusterEntry(Volatile.Read(ref _entries.GetWord(place)));
            if (!entry.IsLocked)
                return entry;
            wait.SpinOnce(sleep1Threshold: -1);
        }
    }
}

/// <summary>
/// Which cluster is at a place: bits 0 to 31 its number, exclusive-or that of the place, so that 0 is a disk's first state;
/// bit 32 set while somebody stores to the cluster; bits 33 to 63 a version, one more with every change.
/// </summary>
internal readonly record struct ClusterEntry(ulong Value)
{
    private const ulong ClusterMask = uint.MaxValue;
    private const ulong LockBit = 1UL << 32;
    private const ulong OneVersion = 1UL << 33;

    public bool IsLocked => (Value & LockBit) != 0;

    public ClusterEntry Locked => new(Value | LockBit);

    public long Cluster(long place) => (long)(Value & ClusterMask) ^ place;

    /// <summary>The entry after this one.</summary>
    public ClusterEntry Next(long place, long cluster) =>
        new(((Value & ~(ClusterMask | LockBit)) + OneVersion) | (ulong)(cluster ^ place));
}
