using System.Buffers.Binary;
using Cbd.Memory;

namespace Cbd.Simulation;

/// <summary>
/// A region in an array, seen alike by all that hold the struct. Every access first calls a hook, so that a test can
/// crash the caller there or let another host run. One access at a time (the hook's scheduler sees to it).
/// </summary>
internal readonly struct ArrayMemory : ISharedMemory
{
    private readonly byte[] _bytes;
    private readonly Action<MemoryAccess>? _hook;
    private readonly bool _tearSwaps;

    public ArrayMemory(long sizeBytes, Action<MemoryAccess>? hook = null)
        : this(new byte[sizeBytes], hook, false)
    {
    }

    private ArrayMemory(byte[] bytes, Action<MemoryAccess>? hook, bool tearSwaps)
    {
        _bytes = bytes;
        _hook = hook;
        _tearSwaps = tearSwaps;
    }

    /// <summary>The same region, with another hook before every access.</summary>
    /// <param name="tearSwaps">
    /// Broken hardware: the hook is called between the compare and the swap, too. For showing that a test can fail.
    /// </param>
    public ArrayMemory With(Action<MemoryAccess>? hook, bool tearSwaps = false) => new(_bytes, hook, tearSwaps);

    /// <summary>A region of its own with the same bytes and no hook.</summary>
    public ArrayMemory Clone() => new((byte[])_bytes.Clone(), null, false);

    /// <summary>The bytes themselves, for a test to look at or to damage.</summary>
    public Span<byte> Bytes => _bytes;

    public long SizeBytes => _bytes.LongLength;

    public bool IsPoisoned => false;

    public ulong ReadAcquire(long offset)
    {
        _hook?.Invoke(MemoryAccess.Load);
        return BinaryPrimitives.ReadUInt64LittleEndian(Range(offset, 8, 8));
    }

    public void WriteRelease(long offset, ulong value)
    {
        _hook?.Invoke(MemoryAccess.Store);
        BinaryPrimitives.WriteUInt64LittleEndian(Range(offset, 8, 8), value);
    }

    public ulong CompareExchange(long offset, ulong value, ulong comparand)
    {
        _hook?.Invoke(MemoryAccess.Swap);
        Span<byte> word = Range(offset, 8, 8);
        ulong before = BinaryPrimitives.ReadUInt64LittleEndian(word);
        if (_tearSwaps)
            _hook?.Invoke(MemoryAccess.Swap);
        if (before == comparand)
            BinaryPrimitives.WriteUInt64LittleEndian(word, value);
        return before;
    }

    public void FullFence()
    {
    }

    public void ReadLine(long offset, out Line line)
    {
        _hook?.Invoke(MemoryAccess.Load);
        line = System.Runtime.InteropServices.MemoryMarshal.Read<Line>(Range(offset, Line.SizeBytes, Line.SizeBytes));
    }

    public void WriteLine(long offset, in Line line)
    {
        _hook?.Invoke(MemoryAccess.Store);
        System.Runtime.InteropServices.MemoryMarshal.Write(Range(offset, Line.SizeBytes, Line.SizeBytes), in line);
    }

    /// <summary>Line by line, so that a crash or another host can come between.</summary>
    public void Read(long offset, Span<byte> destination)
    {
        Range(offset, destination.Length, 1);
        for (int done = 0; done < destination.Length;)
        {
            _hook?.Invoke(MemoryAccess.Load);
            int part = PartBytes(offset + done, destination.Length - done);
            Range(offset + done, part, 1).CopyTo(destination[done..]);
            done += part;
        }
    }

    /// <summary>Line by line, so that a crash or another host can come between.</summary>
    public void Write(long offset, ReadOnlySpan<byte> source)
    {
        Range(offset, source.Length, 1);
        for (int done = 0; done < source.Length;)
        {
            _hook?.Invoke(MemoryAccess.Store);
            int part = PartBytes(offset + done, source.Length - done);
            source.Slice(done, part).CopyTo(Range(offset + done, part, 1));
            done += part;
        }
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

    public ulong ReadPublished(long offset) => BinaryPrimitives.ReadUInt64LittleEndian(Range(offset, 8, 8));

    public ulong Peek(long offset) => 0;

    public void Prefetch(long offset, long length, bool forWrite)
    {
    }

    public void Wake(long offset)
    {
    }

    // Large copies are cut at pages: cutting megabytes of zeroes at lines would only make the tests slow.
    private static int PartBytes(long offset, int length)
    {
        int unit = length >= 16384 ? 16384 : Line.SizeBytes;
        return (int)Math.Min(length, unit - offset % unit);
    }

    private Span<byte> Range(long offset, int length, int alignment)
    {
        if ((ulong)offset > (ulong)_bytes.LongLength || length > _bytes.LongLength - offset || offset % alignment != 0)
            throw new ArgumentOutOfRangeException(nameof(offset), $"{offset}+{length} is misaligned or outside {_bytes.LongLength} bytes");
        return _bytes.AsSpan((int)offset, length);
    }
}

/// <summary>What an <see cref="ArrayMemory"/> is about to do.</summary>
internal enum MemoryAccess
{
    Load,
    Store,
    Swap,
}
