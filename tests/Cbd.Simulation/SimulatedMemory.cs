using System.Buffers.Binary;
using Cbd.Memory;

namespace Cbd.Simulation;

/// <summary>How a simulated region misbehaves; probabilities per store or load, times in simulated microseconds.</summary>
internal sealed record VisibilityFaults
{
    public static readonly VisibilityFaults None = new();

    /// <summary>A stored line becomes visible to others only later, independent of other lines.</summary>
    public double Delay { get; init; }

    /// <summary>A delayed line becomes visible in parts.</summary>
    public double Tear { get; init; }

    /// <summary>A stored line never becomes visible.</summary>
    public double Drop { get; init; }

    /// <summary>A load sees some words of a line as they were before the last store.</summary>
    public double Flicker { get; init; }

    /// <summary>Per settling: one delayed line is evicted, and visible before its time.</summary>
    public double Evict { get; init; }

    /// <summary>Longest delay.</summary>
    public int MaxDelay { get; init; } = 200;
}

/// <summary>
/// The region that all simulated hosts share: what has become visible, and per host what it has stored and nobody else
/// sees yet. Claim words (compare-and-swap) and single words are atomic and immediate, as the hardware guarantees;
/// lines and payload are at the mercy of <see cref="VisibilityFaults"/>.
/// </summary>
internal sealed class SimulatedRegion
{
    private readonly byte[] _visible;
    private readonly byte[] _older;
    private readonly Random _random;
    private readonly Dictionary<(int Host, long Line), List<Store>> _pending = [];

    /// <summary>
    /// What lies below is bodies and words, not messages: there a fence, or a store with release, makes the earlier
    /// stores of its host visible, and nothing is dropped. That is what the protocol takes for granted of the memory.
    /// </summary>
    public long FencedBytes { get; init; }

    /// <summary>Called after every successful compare-and-swap: who, where, from, to.</summary>
    public Action<int, long, ulong, ulong>? Swapped { get; set; }

    /// <summary>How many of the pending stores of a line are older than a fence: late, but out of the caches of their host.</summary>
    private readonly Dictionary<(int Host, long Line), int> _fenced = [];

    private sealed record Store(byte[] Bytes, int From, long VisibleAt, bool Torn);

    public SimulatedRegion(long sizeBytes, Random random)
    {
        _visible = new byte[sizeBytes];
        _older = new byte[sizeBytes];
        _random = random;
    }

    public long SizeBytes => _visible.Length;

    public VisibilityFaults Faults { get; set; } = VisibilityFaults.None;

    public long Now { get; set; }

    /// <summary>Runs before each access to shared memory: where another host may be scheduled in between.</summary>
    public Action? BeforeAccess { get; set; }

    /// <summary>Makes the stores of a host below <see cref="FencedBytes"/> visible.</summary>
    public void Fence(int host)
    {
        if (_pending.Count == 0 || FencedBytes == 0)
            return;
        foreach (((int Host, long Line) key, List<Store> stores) in _pending.ToArray())
        {
            if (key.Host != host)
                continue;
            if (key.Line < FencedBytes)
                Finish(key, stores);
            else
                _fenced[key] = stores.Count;
        }
    }

    /// <summary>A machine lost its power: of what its caches held since the last fence, any line may be gone.</summary>
    public void LoseStores(int host)
    {
        foreach (((int Host, long Line) key, List<Store> stores) in _pending.ToArray())
        {
            if (key.Host != host)
                continue;
            int kept = Math.Min(_fenced.GetValueOrDefault(key), stores.Count);
            if (_random.Next(2) == 0)
                kept = stores.Count;
            Finish(key, stores[..kept]);
        }
    }

    /// <summary>All of it is zeros: the memory lost its power.</summary>
    public void Clear()
    {
        _pending.Clear();
        _fenced.Clear();
        Array.Clear(_visible);
        Array.Clear(_older);
    }

    private void Finish((int Host, long Line) key, List<Store> stores)
    {
        foreach (Store store in stores)
            Apply(key.Line + store.From, store.Bytes, words: -1);
        _pending.Remove(key);
        _fenced.Remove(key);
    }

    /// <summary>Makes visible what is due.</summary>
    public void Settle()
    {
        if (_pending.Count == 0)
            return;
        if (Faults.Evict > 0 && _random.NextDouble() < Faults.Evict)
        {
            (int Host, long Line) evicted = _pending.Keys.ElementAt(_random.Next(_pending.Count));
            Finish(evicted, _pending[evicted]);
        }

        foreach (((int Host, long Line) key, List<Store> stores) in _pending.ToArray())
        {
            while (stores.Count > 0 && stores[0].VisibleAt <= Now)
            {
                Store store = stores[0];
                if (store.Torn)
                {
                    Apply(key.Line + store.From, store.Bytes, words: _random.Next());
                    stores[0] = store with { Torn = false, VisibleAt = Now + _random.Next(1, Faults.MaxDelay + 1) };
                    break;
                }

                Apply(key.Line + store.From, store.Bytes, words: -1);
                stores.RemoveAt(0);
                if (_fenced.TryGetValue(key, out int fenced))
                    _fenced[key] = Math.Max(0, fenced - 1);
            }

            if (stores.Count == 0)
            {
                _pending.Remove(key);
                _fenced.Remove(key);
            }
        }
    }

    public ulong Word(long offset) => BinaryPrimitives.ReadUInt64LittleEndian(_visible.AsSpan((int)offset));

    public void SetWord(long offset, ulong value) => BinaryPrimitives.WriteUInt64LittleEndian(_visible.AsSpan((int)offset), value);

    public void Load(int host, long offset, Span<byte> destination)
    {
        _visible.AsSpan((int)offset, destination.Length).CopyTo(destination);
        if (Faults.Flicker > 0 && host >= 0 && offset >= FencedBytes && _random.NextDouble() < Faults.Flicker)
        {
            for (int i = 0; i + 8 <= destination.Length; i += 8)
            {
                if (_random.Next(2) == 0)
                    _older.AsSpan((int)offset + i, 8).CopyTo(destination[i..]);
            }
        }

        // A host always sees its own stores.
        if (_pending.Count == 0)
            return;
        for (long line = offset & ~63L; line < offset + destination.Length; line += 64)
        {
            if (!_pending.TryGetValue((host, line), out List<Store>? stores))
                continue;
            foreach (Store store in stores)
            {
                for (int i = 0; i < store.Bytes.Length; i++)
                {
                    long at = line + store.From + i - offset;
                    if (at >= 0 && at < destination.Length)
                        destination[(int)at] = store.Bytes[i];
                }
            }
        }
    }

    public void Save(int host, long offset, ReadOnlySpan<byte> source)
    {
        if (source.Length > 8192)
        {
            // A formatter's zeroes: nobody reads them before its compare-and-swap.
            source.CopyTo(_visible.AsSpan((int)offset));
            return;
        }

        while (!source.IsEmpty)
        {
            int from = (int)(offset & 63);
            int count = Math.Min(64 - from, source.Length);
            SaveLine(host, offset & ~63L, from, source[..count]);
            offset += count;
            source = source[count..];
        }
    }

    private void SaveLine(int host, long line, int from, ReadOnlySpan<byte> bytes)
    {
        bool queued = _pending.TryGetValue((host, line), out List<Store>? stores);
        if (Faults.Drop > 0 && line >= FencedBytes && _random.NextDouble() < Faults.Drop)
            return;
        if (!queued && (Faults.Delay == 0 || _random.NextDouble() >= Faults.Delay))
        {
            Apply(line + from, bytes, words: -1);
            return;
        }

        if (!queued)
            _pending[(host, line)] = stores = [];
        long earliest = stores!.Count > 0 ? stores[^1].VisibleAt : Now;
        stores.Add(new Store(bytes.ToArray(), from, earliest + _random.Next(1, Faults.MaxDelay + 1), _random.NextDouble() < Faults.Tear));
    }

    private void Apply(long offset, ReadOnlySpan<byte> bytes, int words)
    {
        for (int i = 0; i < bytes.Length; i++)
        {
            if ((words >> (i / 8 % 31) & 1) == 0)
                continue;
            _older[offset + i] = _visible[offset + i];
            _visible[offset + i] = bytes[i];
        }
    }
}

/// <summary>One host's view of a <see cref="SimulatedRegion"/>.</summary>
/// <param name="region">The region.</param>
/// <param name="host">Number of the process, for telling its stores from others'.</param>
/// <param name="beforeAccess">Called before each access of this process: where it is paused or dies.</param>
internal readonly struct SimulatedMemory(SimulatedRegion region, int host, Action<MemoryAccess>? beforeAccess = null) : ISharedMemory
{
    public long SizeBytes => region.SizeBytes;

    public bool IsPoisoned => false;

    public ulong ReadAcquire(long offset)
    {
        Before(MemoryAccess.Load);
        return region.Word(offset);
    }

    public void WriteRelease(long offset, ulong value)
    {
        Before(MemoryAccess.Store);
        region.Fence(host);
        region.SetWord(offset, value);
    }

    public ulong CompareExchange(long offset, ulong value, ulong comparand)
    {
        Before(MemoryAccess.Swap);
        region.Fence(host);
        ulong before = region.Word(offset);
        if (before == comparand)
        {
            region.SetWord(offset, value);
            region.Swapped?.Invoke(host, offset, comparand, value);
        }

        return before;
    }

    public void FullFence() => region.Fence(host);

    public void ReadLine(long offset, out Line line)
    {
        Before(MemoryAccess.Load);
        Span<byte> bytes = stackalloc byte[Line.SizeBytes];
        region.Load(host, offset, bytes);
        line = System.Runtime.InteropServices.MemoryMarshal.Read<Line>(bytes);
    }

    public void WriteLine(long offset, in Line line)
    {
        Before(MemoryAccess.Store);
        Span<byte> bytes = stackalloc byte[Line.SizeBytes];
        System.Runtime.InteropServices.MemoryMarshal.Write(bytes, line);
        region.Save(host, offset, bytes);
    }

    public void Read(long offset, Span<byte> destination)
    {
        Before(MemoryAccess.Load);
        region.Load(host, offset, destination);
    }

    public void Write(long offset, ReadOnlySpan<byte> source)
    {
        // Line by line where a crash in between matters: in a body.
        for (int part = Line.SizeBytes; offset < region.FencedBytes && source.Length > part && source.Length <= 8192;)
        {
            Before(MemoryAccess.Store);
            region.Save(host, offset, source[..part]);
            offset += part;
            source = source[part..];
        }

        Before(MemoryAccess.Store);
        region.Save(host, offset, source);
    }

    public uint ReadWithCrc(long offset, Span<byte> destination, uint crc)
    {
        Read(offset, destination);
        return Crc32C.Append(crc, destination);
    }

    public uint WriteWithCrc(long offset, ReadOnlySpan<byte> source, uint crc)
    {
        Write(offset, source);
        return Crc32C.Append(crc, source);
    }

    /// <summary>No place where another thread runs: it follows one.</summary>
    public ulong ReadPublished(long offset) => region.Word(offset);

    public ulong Peek(long offset) => 0;

    public void Prefetch(long offset, long length, bool forWrite)
    {
    }

    public void Wake(long offset)
    {
    }

    private void Before(MemoryAccess access)
    {
        region.BeforeAccess?.Invoke();
        beforeAccess?.Invoke(access);
    }
}
