using System.Runtime.InteropServices;

namespace Cbd.Memory;

/// <summary>
/// Page-aligned private memory outside the managed heap: payload on its way to or from a disk or a socket. Zeroed at
/// allocation; large ones take no memory until they are touched. Freed by <see cref="Dispose"/>, or by the finalizer;
/// the owner must not dispose it while the kernel or
/// another thread still uses it.
/// </summary>
public sealed unsafe class NativeBuffer : IDisposable
{
    /// <summary>Alignment of the start, bytes; enough for O_DIRECT on any disk.</summary>
    public const int AlignmentBytes = 4096;

    private byte* _start;
    private void* _allocation;

    /// <param name="sizeBytes">Size, bytes; &gt; 0.</param>
    public NativeBuffer(long sizeBytes)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(sizeBytes);
        // calloc gets large blocks fresh from the kernel and does not touch them; clearing them here would.
        _allocation = NativeMemory.AllocZeroed(checked((nuint)sizeBytes + AlignmentBytes - 1));
        // SAFETY: rounding up stays inside the allocation, which has that much room to spare.
        _start = (byte*)(((nuint)_allocation + AlignmentBytes - 1) & ~(nuint)(AlignmentBytes - 1));
        SizeBytes = sizeBytes;
    }

    ~NativeBuffer() => Free();

    /// <summary>Size, bytes.</summary>
    public long SizeBytes { get; }

    /// <summary>Address of the first byte, for system calls. Valid until <see cref="Dispose"/>.</summary>
    public nint Address
    {
        get
        {
            ObjectDisposedException.ThrowIf(_start == null, this);
            return (nint)_start;
        }
    }

    /// <summary>The bytes [offset, offset + length); throws if they are not inside the buffer.</summary>
    public Span<byte> GetSpan(long offset, int length)
    {
        ObjectDisposedException.ThrowIf(_start == null, this);
        if ((ulong)offset > (ulong)SizeBytes || (uint)length > (ulong)(SizeBytes - offset))
            throw new ArgumentOutOfRangeException(nameof(offset), $"{offset}+{length} is outside a buffer of {SizeBytes} bytes");
        // SAFETY: the range was checked against the allocation, which lives until Dispose.
        return new Span<byte>(_start + offset, length);
    }

    public void Dispose()
    {
        Free();
        GC.SuppressFinalize(this);
    }

    private void Free()
    {
        void* allocation = _allocation;
        _allocation = null;
        _start = null;
        if (allocation != null)
            NativeMemory.Free(allocation);
    }
}

/// <summary>A part of a <see cref="NativeBuffer"/>: where the payload of one request lies. Copies freely; owns nothing.</summary>
public readonly record struct BufferSlice(NativeBuffer? Buffer, long Offset, int Length)
{
    /// <summary>The bytes; empty for the default slice.</summary>
    public Span<byte> Span => Buffer is null ? default : Buffer.GetSpan(Offset, Length);

    /// <summary>Address of the first byte, for system calls.</summary>
    public nint Address => Buffer is null ? 0 : checked((nint)(Buffer.Address + Offset));

    /// <summary>The part [offset, offset + length) of this slice.</summary>
    public BufferSlice Slice(int offset, int length)
    {
        if ((uint)offset > (uint)Length || (uint)length > (uint)(Length - offset))
            throw new ArgumentOutOfRangeException(nameof(offset), $"{offset}+{length} is outside a slice of {Length} bytes");
        return new BufferSlice(Buffer, Offset + offset, length);
    }
}
