using System.Runtime.CompilerServices;
using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>A queue of a memory disk: copies between payload and the clusters of the disk, and has spare clusters for its writes.</summary>
internal sealed class MemoryQueue(MemoryDisk disk, int depth) : ImmediateQueue(disk, depth), IBlocksInMemory
{
    private const int ClusterShift = ClusterStore.ClusterShift;
    private const int ClusterBytes = ClusterStore.ClusterBytes;

    /// <summary>So much is cleared while other discards wait, bytes: whole chunks of <see cref="WrittenMap"/>.</summary>
    private const long ClearedTogether = 64L << 20;

    private readonly MemoryDisk _disk = disk;
    private readonly ClusterStore _store = disk.Clusters;

    /// <summary>The spare clusters; the next one to use is the last.</summary>
    private long[] _spare = new long[16];
    private int _spareCount;

    // The transfer, bytes of the disk [start, end); those from next on are to be copied yet.
    private long _start, _next, _end;

    /// <summary>Of a read: the entries of the present run, and how often it was stored to while it was copied.</summary>
    private ClusterEntry[] _seen = new ClusterEntry[1];
    private int _runBytes;
    private int _failures;

    /// <summary>Of a write: the clusters that are filled.</summary>
    private long[] _filled = new long[1];

    /// <summary>Of a write, at either end: less than a cluster, to be stored in place. Of a read: a copy of what is never left alone.</summary>
    private readonly NativeBuffer _ends = new(2 * ClusterBytes);

    public bool TryBeginRead(long offset, long length)
    {
        if (!RequestGate.IsTransfer(_disk.Info, offset, length))
            return false;
        Begin(offset, length);
        return true;
    }

    public ReadOnlySpan<byte> NextToRead()
    {
        int within = (int)_next & (ClusterBytes - 1);
        long place = _next >> ClusterShift;
        if (_failures > 1)
            return CopyLocked(place, within);
        _seen[0] = _store.Read(place);
        long cluster = _seen[0].Cluster(place);
        int length = ClusterBytes - within;
        for (int i = 1; length < _end - _next && _failures == 0; i++, length += ClusterBytes)
        {
            _seen[i] = _store.Read(place + i);
            if (_seen[i].Cluster(place + i) != cluster + i)
                break;
        }

        _runBytes = (int)Math.Min(length, _end - _next);
        return _store.Bytes(cluster, within, _runBytes);
    }

    public bool ConfirmRead()
    {
        long place = _next >> ClusterShift;
        for (int i = 0; i < PlacesOf(_next, _runBytes) && _failures < 2; i++)
        {
            if (_store.IsStill(place + i, _seen[i]))
                continue;
            _failures++;
            return false;
        }

        // The rest cluster by cluster: somebody is writing there.
        _failures = Math.Min(_failures, 1);
        _next += _runBytes;
        return true;
    }

    public bool TryBeginWrite(long offset, long length)
    {
        BlockDeviceInfo info = _disk.Info;
        if (info.ReadOnly || !RequestGate.IsTransfer(info, offset, length))
            return false;
        Begin(offset, length);
        return TryTakeFilled();
    }

    public Span<byte> NextToWrite()
    {
        int within = (int)_next & (ClusterBytes - 1);
        long left = _end - _next;
        int length = ClusterBytes - within;
        if (within != 0 || left < ClusterBytes)
        {
            length = (int)Math.Min(length, left);
            Span<byte> bytes = EndBytes(_next, length);
            _next += length;
            return bytes;
        }

        int index = (int)((_next - _start) >> ClusterShift);
        for (int i = index + 1; left - length >= ClusterBytes && _filled[i] == _filled[i - 1] + 1; i++)
            length += ClusterBytes;
        _next += length;
        return _store.Bytes(_filled[index], 0, length);
    }

    public void EndWrite()
    {
        int whole = 0;
        for (long at = _start; at < _end;)
        {
            long place = at >> ClusterShift;
            int within = (int)at & (ClusterBytes - 1);
            int length = (int)Math.Min(ClusterBytes - within, _end - at);
            ClusterEntry entry = _store.Lock(place);
            long cluster = entry.Cluster(place);
            // Whoever can see what is written finds it marked.
            _disk.Written.Set(at, length);
            if (length == ClusterBytes)
            {
                _store.Unlock(place, entry, _filled[whole]);
                _filled[whole++] = cluster;
            }
            else
            {
                EndBytes(at, length).CopyTo(_store.Bytes(cluster, within, length));
                _store.Unlock(place, entry, cluster);
            }

            at += length;
        }

        SpareFilled();
    }

    public void AbandonWrite() => SpareFilled();

    public override void Dispose()
    {
        base.Dispose();
        _ends.Dispose();
        _store.Return(_spare.AsSpan(0, _spareCount));
        _spareCount = 0;
    }

    protected override int Execute(in BlockRequest request)
    {
        switch (request.Operation)
        {
            case BlockOperation.Read:
                Read(request.Offset, request.Data.Span);
                return (int)request.Length;
            case BlockOperation.Write:
                Write(request.Offset, request.Data.Span);
                return 0;
            case BlockOperation.Discard:
            case BlockOperation.WriteZeroes:
                Clear(request.Offset, request.Offset + request.Length);
                return 0;
            case BlockOperation.BlockStatus:
                return _disk.Written.Describe(request.Offset, request.Length, request.Data.Span);
            default:
                return 0;
        }
    }

    private void Read(long offset, Span<byte> destination)
    {
        Begin(offset, destination.Length);
        while (destination.Length > 0)
        {
            ReadOnlySpan<byte> run = NextToRead();
            run.CopyTo(destination);
            if (ConfirmRead())
                destination = destination[run.Length..];
        }
    }

    private void Write(long offset, ReadOnlySpan<byte> source)
    {
        long at = offset;
        while (source.Length > 0)
        {
            long place = at >> ClusterShift;
            int within = (int)at & (ClusterBytes - 1);
            int length = Math.Min(ClusterBytes - within, source.Length);
            ClusterEntry entry = _store.Lock(place);
            long cluster = entry.Cluster(place);
            source[..length].CopyTo(_store.Bytes(cluster, within, length));
            _disk.Written.Set(at, length);
            _store.Unlock(place, entry, cluster);
            at += length;
            source = source[length..];
        }
    }

    /// <summary>A copy of the next bytes, up to the end of the cluster, which nobody can store to meanwhile.</summary>
    private ReadOnlySpan<byte> CopyLocked(long place, int within)
    {
        _runBytes = (int)Math.Min(ClusterBytes - within, _end - _next);
        Span<byte> copy = _ends.GetSpan(0, _runBytes);
        ClusterEntry entry = _store.Lock(place);
        _store.Bytes(entry.Cluster(place), within, _runBytes).CopyTo(copy);
        _store.UnlockUnchanged(place, entry);
        return copy;
    }

    /// <summary>Makes zeroes of the bytes and gives their memory back.</summary>
    private void Clear(long offset, long end)
    {
        WrittenMap written = _disk.Written;
        while (offset < end)
        {
            long stop = Math.Min(end, (offset / ClearedTogether + 1) * ClearedTogether);
            lock (_disk.Clearing)
            {
                if (written.DescribeRun(offset, stop, out long next))
                {
                    // Unmarked before it is cleared: a write that comes in between is marked again, so that what it wrote is
                    // never reported as a hole.
                    written.Clear(offset, next - offset);
                    ClearWritten(offset, next);
                }

                offset = next;
            }
        }
    }

    private void ClearWritten(long offset, long end)
    {
        for (int length; offset < end; offset += length)
        {
            long place = offset >> ClusterShift;
            int within = (int)offset & (ClusterBytes - 1);
            length = (int)Math.Min(ClusterBytes - within, end - offset);
            ClusterEntry entry = _store.Lock(place);
            long cluster = entry.Cluster(place);
            _store.Clear(cluster, within, length);
            _store.Unlock(place, entry, cluster);
        }
    }

    private void Begin(long offset, long length)
    {
        _start = _next = offset;
        _end = offset + length;
        _failures = 0;
        int places = PlacesOf(offset, length);
        if (_seen.Length < places)
        {
            _seen = new ClusterEntry[places];
            _filled = new long[places];
        }
    }

    /// <summary>Bytes of a write that begin there, for less than a cluster: the first, or the last of a longer one.</summary>
    private Span<byte> EndBytes(long at, int length) => _ends.GetSpan(at == _start ? 0 : ClusterBytes, length);

    /// <summary>The clusters that lie in the transfer as a whole.</summary>
    private int WholeClusters => (int)Math.Max((_end >> ClusterShift) - ((_start + ClusterBytes - 1) >> ClusterShift), 0);

    private bool TryTakeFilled()
    {
        int count = WholeClusters;
        int missing = count - _spareCount;
        if (missing > 0)
        {
            if (_spare.Length < count)
                Array.Resize(ref _spare, count);
            // Below those that are there, which were used last.
            _spare.AsSpan(0, _spareCount).CopyTo(_spare.AsSpan(missing));
            if (!_store.TryTake(_spare.AsSpan(0, missing)))
            {
                _spare.AsSpan(missing, _spareCount).CopyTo(_spare);
                return false;
            }

            _spareCount += missing;
        }

        for (int i = 0; i < count; i++)
            _filled[i] = _spare[--_spareCount];
        return true;
    }

    /// <summary>
    /// Makes spare clusters of the write's, which are others now, or still those that were taken. The first will be taken
    /// first: what lay together stays so.
    /// </summary>
    private void SpareFilled()
    {
        for (int i = WholeClusters - 1; i >= 0; i--)
            _spare[_spareCount++] = _filled[i];
    }

    /// <summary>How many clusters the bytes touch.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static int PlacesOf(long offset, long length) =>
        (int)(((offset + length + ClusterBytes - 1) >> ClusterShift) - (offset >> ClusterShift));
}
