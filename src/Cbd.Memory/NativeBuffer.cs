using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// Page-aligned private memory outside the managed heap: payload on its way to or from a disk or a socket. Zeroed at
/// allocation; large ones take no memory until they are touched.
/// </summary>
/// <remarks>
/// <para>The memory is freed when the owner has disposed the buffer and nobody holds a reference to it any more. A queue of a
/// blkdev holds one for each request in flight, so an early <see cref="Dispose"/> cannot make it store into memory of
/// others. A queue of a disk holds none: dispose its buffers after its requests.</para>
/// <para>All members may be called by any thread; the bytes themselves are shared without any lock.</para>
/// </remarks>
public sealed unsafe class NativeBuffer : IDisposable
{
    /// <summary>Alignment of the start, bytes; enough for O_DIRECT on any disk.</summary>
    public const int AlignmentBytes = 4096;

    private byte* _start;
    private void* _allocation;
    private int _isDisposed;
    private volatile bool _isPinned;

    /// <summary>The allocation is a mapping: it is unmapped, not freed.</summary>
    private readonly bool _isMapping;

    /// <summary>References to the memory; one is the owner's, until it disposes the buffer.</summary>
    private int _references = 1;

    /// <summary>Allocates the memory.</summary>
    /// <param name="sizeBytes">Size, bytes; &gt; 0.</param>
    /// <exception cref="ArgumentOutOfRangeException">The size is not above 0.</exception>
    /// <exception cref="OutOfMemoryException">There is not so much address space.</exception>
    public NativeBuffer(long sizeBytes)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(sizeBytes);
        // calloc gets large blocks fresh from the kernel and does not touch them; clearing them here would.
        _allocation = NativeMemory.AllocZeroed(checked((nuint)sizeBytes + AlignmentBytes - 1));
        // SAFETY: rounding up stays inside the allocation, which has that much room to spare.
        _start = (byte*)(((nuint)_allocation + AlignmentBytes - 1) & ~(nuint)(AlignmentBytes - 1));
        SizeBytes = sizeBytes;
    }

    /// <summary>Owns a mapping from here on: whole pages, all of them present.</summary>
    internal NativeBuffer(void* mapping, long sizeBytes)
    {
        _allocation = mapping;
        _start = (byte*)mapping;
        _isMapping = true;
        // What others see in these pages must not vanish.
        _isPinned = true;
        SizeBytes = sizeBytes;
    }

    /// <summary>Frees the memory of a buffer that nobody disposed.</summary>
    ~NativeBuffer() => Free();

    /// <summary>Size, bytes.</summary>
    public long SizeBytes { get; }

    /// <summary>Address of the first byte, for system calls. Valid until the memory is freed.</summary>
    /// <exception cref="ObjectDisposedException">The memory is freed.</exception>
    public nint Address
    {
        get
        {
            ObjectDisposedException.ThrowIf(_start == null, this);
            return (nint)_start;
        }
    }

    /// <summary>The bytes [offset, offset + length). Do not use them after the memory is freed.</summary>
    /// <param name="offset">First byte, from the start of the buffer.</param>
    /// <param name="length">Bytes.</param>
    /// <exception cref="ArgumentOutOfRangeException">They are not inside the buffer.</exception>
    /// <exception cref="ObjectDisposedException">The memory is freed.</exception>
    public Span<byte> GetSpan(long offset, int length)
    {
        ObjectDisposedException.ThrowIf(_start == null, this);
        CheckRange(offset, length);
        // SAFETY: the range was checked against the allocation, which lives until it is freed.
        return new Span<byte>(_start + offset, length);
    }

    /// <summary>
    /// Keeps the memory until <see cref="ReleaseReference"/>, also if the owner disposes the buffer meanwhile. False if the
    /// owner has disposed it already.
    /// </summary>
    public bool TryAddReference()
    {
        int seen = Volatile.Read(ref _references);
        while (seen > 0 && Volatile.Read(ref _isDisposed) == 0)
        {
            int before = Interlocked.CompareExchange(ref _references, seen + 1, seen);
            if (before == seen)
                return true;
            seen = before;
        }

        return false;
    }

    /// <summary>Gives back what <see cref="TryAddReference"/> took; the last one frees the memory.</summary>
    /// <exception cref="InvalidOperationException">There is no reference left.</exception>
    public void ReleaseReference()
    {
        int left = Interlocked.Decrement(ref _references);
        if (left < 0)
            throw new InvalidOperationException("a reference to a buffer was released twice");
        if (left == 0)
            Free();
    }

    /// <summary>
    /// Gives the whole pages of [offset, offset + length) back to the system: they are zeroes afterwards, and take no memory until they
    /// are touched. Nothing happens where the kernel has the pages for itself, or cannot give them back. Nobody may use the bytes
    /// meanwhile.
    /// </summary>
    internal void GiveBack(long offset, long length)
    {
        if (_start == null || _isPinned || (ulong)offset > (ulong)SizeBytes || (ulong)length > (ulong)(SizeBytes - offset))
            return;
        long first = (offset + AlignmentBytes - 1) & -AlignmentBytes;
        long end = (offset + length) & -AlignmentBytes;
        // SAFETY: whole pages inside the buffer, whose start is on a page. Where a page is larger than the alignment, the call fails.
        // Locked memory is given back from Linux 5.18 on; the older call is for what is not locked.
        if (end > first && LibC.MAdvise(_start + first, (nuint)(end - first), MemoryAdviseDontNeedLocked) != 0)
            _ = LibC.MAdvise(_start + first, (nuint)(end - first), MemoryAdviseDontNeed);
    }

    /// <summary>From now on the kernel has these pages under their own numbers: they must stay.</summary>
    internal void Pin() => _isPinned = true;

    /// <summary>Frees the memory, or, while others hold references, lets the last of them free it. May be called twice.</summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _isDisposed, 1) == 0)
            ReleaseReference();
        // While others hold references, the finalizer stays for one that is never released.
        if (_allocation == null)
            GC.SuppressFinalize(this);
    }

    /// <summary>Several times for each request: inlined, with what is thrown elsewhere.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void CheckRange(long offset, int length)
    {
        if ((ulong)offset > (ulong)SizeBytes || (uint)length > (ulong)(SizeBytes - offset))
            ThrowOutside(offset, length);
    }

    [DoesNotReturn]
    private void ThrowOutside(long offset, int length) =>
        throw new ArgumentOutOfRangeException(nameof(offset), $"{offset}+{length} is outside a buffer of {SizeBytes} bytes");

    private void Free()
    {
        void* allocation = _allocation;
        _allocation = null;
        _start = null;
        if (allocation == null)
            return;
        if (_isMapping)
            _ = LibC.MUnmap(allocation, (nuint)SizeBytes);
        else
            NativeMemory.Free(allocation);
    }
}

/// <summary>
/// A part of a <see cref="NativeBuffer"/>: where the payload of one request lies. Always inside its buffer. Copies freely;
/// owns nothing. The default is the empty slice of no buffer.
/// </summary>
public readonly record struct BufferSlice
{
    /// <summary>The bytes [offset, offset + length) of a buffer.</summary>
    /// <param name="buffer">The buffer; null only with offset and length 0.</param>
    /// <param name="offset">First byte, from the start of the buffer.</param>
    /// <param name="length">Bytes.</param>
    /// <exception cref="ArgumentOutOfRangeException">They are not inside the buffer.</exception>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public BufferSlice(NativeBuffer? buffer, long offset, int length)
    {
        if (buffer is not null)
            buffer.CheckRange(offset, length);
        else if (offset != 0 || length != 0)
            ThrowNoBuffer(offset, length);
        Buffer = buffer;
        Offset = offset;
        Length = length;
    }

    [DoesNotReturn]
    private static void ThrowNoBuffer(long offset, int length) =>
        throw new ArgumentOutOfRangeException(nameof(offset), $"{offset}+{length} is a slice of no buffer");

    /// <summary>The buffer; null for the default slice.</summary>
    public NativeBuffer? Buffer { get; }

    /// <summary>First byte, from the start of the buffer.</summary>
    public long Offset { get; }

    /// <summary>Bytes.</summary>
    public int Length { get; }

    /// <summary>The bytes; empty for the default slice.</summary>
    /// <exception cref="ObjectDisposedException">The buffer's memory is freed.</exception>
    public Span<byte> Span => Buffer is null ? default : Buffer.GetSpan(Offset, Length);

    /// <summary>Address of the first byte, for system calls; 0 for the default slice.</summary>
    /// <exception cref="ObjectDisposedException">The buffer's memory is freed.</exception>
    public nint Address => Buffer is null ? 0 : checked((nint)(Buffer.Address + Offset));

    /// <summary>The part [offset, offset + length) of this slice.</summary>
    /// <param name="offset">First byte, from the start of this slice.</param>
    /// <param name="length">Bytes.</param>
    /// <exception cref="ArgumentOutOfRangeException">It is not inside this slice.</exception>
    public BufferSlice Slice(int offset, int length)
    {
        if ((uint)offset > (uint)Length || (uint)length > (uint)(Length - offset))
            throw new ArgumentOutOfRangeException(nameof(offset), $"{offset}+{length} is outside a slice of {Length} bytes");
        return new BufferSlice(Buffer, Offset + offset, length);
    }
}
