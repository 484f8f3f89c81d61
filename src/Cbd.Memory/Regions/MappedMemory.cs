using System.Diagnostics.CodeAnalysis;
using System.Numerics;
using System.Runtime.CompilerServices;

namespace Cbd.Memory;

/// <summary>
/// The accesses of <see cref="ISharedMemory"/> to a <see cref="RegionMapping"/>: plain loads and stores after one
/// unsigned compare. Copies freely and keeps the mapping from being finalized; the default value is a region of no
/// bytes that throws on every access.
/// </summary>
public readonly unsafe struct MappedMemory : ISharedMemory
{
    private readonly RegionMapping _mapping;
    private readonly bool _wakes;

    internal MappedMemory(RegionMapping mapping, bool wakes)
    {
        _mapping = mapping;
        _wakes = wakes;
    }

    /// <inheritdoc/>
    public long SizeBytes => _mapping.UsableBytes;

    /// <inheritdoc/>
    public bool IsPoisoned => _mapping.IsPoisoned;

    /// <summary>
    /// <see cref="Wake"/> does something. Off for peers on other kernels, and for memory on which no futex works.
    /// </summary>
    public bool Wakes => _wakes;

    /// <summary>The same region, with or without wakes (without, if it cannot).</summary>
    public MappedMemory WithWakes(bool wakes) => new(_mapping, wakes && _mapping.SupportsWake);

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ulong ReadAcquire(long offset) => Volatile.Read(ref Word(offset));

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void WriteRelease(long offset, ulong value) => Volatile.Write(ref Word(offset), value);

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ulong CompareExchange(long offset, ulong value, ulong comparand) =>
        Interlocked.CompareExchange(ref Word(offset), value, comparand);

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void FullFence() => Interlocked.MemoryBarrier();

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void ReadLine(long offset, out Line line)
    {
        fixed (Line* copy = &line)
            NativeShim.ReadLine((byte*)copy, LineAddress(offset));
    }

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void WriteLine(long offset, in Line line)
    {
        // Pinned and not copied: a copy by vector moves of words stored just before would stall.
        fixed (Line* source = &line)
            NativeShim.WriteLine(LineAddress(offset), (byte*)source);
    }

    /// <inheritdoc/>
    public void Read(long offset, Span<byte> destination) =>
        new ReadOnlySpan<byte>(Bytes(offset, destination.Length), destination.Length).CopyTo(destination);

    /// <inheritdoc/>
    public void Write(long offset, ReadOnlySpan<byte> source) =>
        source.CopyTo(new Span<byte>(Bytes(offset, source.Length), source.Length));

    /// <inheritdoc/>
    public uint ReadWithCrc(long offset, Span<byte> destination, uint crc)
    {
        byte* source = Bytes(offset, destination.Length);
        fixed (byte* bytes = destination)
            return NativeShim.CopyWithCrc(bytes, source, destination.Length, crc);
    }

    /// <inheritdoc/>
    public uint WriteWithCrc(long offset, ReadOnlySpan<byte> source, uint crc)
    {
        byte* destination = Bytes(offset, source.Length);
        fixed (byte* bytes = source)
            return NativeShim.CopyWithCrc(destination, bytes, source.Length, crc);
    }

    /// <inheritdoc/>
    public ulong ReadPublished(long offset) => Volatile.Read(ref Word(offset));

    /// <inheritdoc/>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ulong Peek(long offset) => Word(offset);

    /// <inheritdoc/>
    public void Prefetch(long offset, long length, bool forWrite) =>
        NativeShim.Prefetch(Bytes(offset, length), (nuint)length, forWrite ? 1 : 0);

    /// <inheritdoc/>
    public void Wake(long offset)
    {
        uint* word = DoorbellAddress(offset);
        if (_wakes)
            _ = Futex.WakeAll(word);
    }

    /// <summary>Address of a doorbell: the low half of an aligned 64-bit word (little-endian).</summary>
    internal uint* DoorbellAddress(long offset) => (uint*)Unsafe.AsPointer(ref Word(offset));

    /// <summary>
    /// The bytes [offset, offset + length) themselves, for system calls. The other side may change them at any time, so
    /// nothing read here may be checked here and used later; and it must not be used after the mapping was disposed.
    /// </summary>
    public Span<byte> Span(long offset, int length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        return new Span<byte>(Bytes(offset, length), length);
    }

    /// <summary>Address of [offset, offset + length), for system calls of this project.</summary>
    internal byte* Bytes(long offset, long length)
    {
        RegionMapping mapping = _mapping;
        if ((ulong)offset > (ulong)mapping.UsableBytes || (ulong)length > (ulong)(mapping.UsableBytes - offset))
            ThrowOutside(offset, length);
        return mapping.Start + offset;
    }

    // Rotating the alignment bits to the top makes every misaligned or negative offset larger than any count, so one
    // compare checks alignment, sign and end.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private ref ulong Word(long offset)
    {
        RegionMapping mapping = _mapping;
        if (BitOperations.RotateRight((ulong)offset, 3) >= mapping.WordCount)
            ThrowOutside(offset, sizeof(ulong));
        // SAFETY: inside the mapping and aligned, as just checked.
        return ref Unsafe.AsRef<ulong>(mapping.Start + offset);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private byte* LineAddress(long offset)
    {
        RegionMapping mapping = _mapping;
        if (BitOperations.RotateRight((ulong)offset, 6) >= mapping.LineCount)
            ThrowOutside(offset, Line.SizeBytes);
        return mapping.Start + offset;
    }

    [DoesNotReturn]
    [MethodImpl(MethodImplOptions.NoInlining)]
    private void ThrowOutside(long offset, long length) =>
        throw new ArgumentOutOfRangeException(nameof(offset), $"[{offset}, +{length}) is misaligned or outside a region of {SizeBytes} bytes");
}
