using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// Zeroed private memory that takes up only the pages that were written: the store of a memory disk. Any thread may
/// use it, and orders what it does there itself. It must not be disposed while another thread uses it.
/// </summary>
public sealed unsafe class SparseMemory : IDisposable
{
    private readonly nuint _pageMask = (nuint)Environment.SystemPageSize - 1;
    private byte* _start;

    /// <param name="sizeBytes">Size, bytes; &gt; 0. Nothing is reserved for it but address space.</param>
    /// <exception cref="CbdException">The address space has no room for it.</exception>
    public SparseMemory(long sizeBytes)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(sizeBytes);
        void* start = LibC.MMap(
            null, (nuint)sizeBytes, ProtectionRead | ProtectionWrite, MapPrivate | MapAnonymous | MapNoReserve, FileDescriptor.None, 0);
        if (start == (void*)-1)
        {
            throw new CbdException(
                CbdErrorKind.Exhausted,
                $"{sizeBytes} bytes of memory cannot be mapped (errno {LibC.LastErrno}); choose a smaller size");
        }
        // A process that keeps its memory locked would keep pages that were given back; these may be swapped.
        _ = LibC.MUnlock(start, (nuint)sizeBytes);
        _start = (byte*)start;
        SizeBytes = sizeBytes;
    }

    ~SparseMemory() => Free();

    /// <summary>Size, bytes.</summary>
    public long SizeBytes { get; }

    /// <summary>The bytes [offset, offset + length) where they are. Not to be used after <see cref="Dispose"/>.</summary>
    public Span<byte> GetSpan(long offset, int length) =>
        // SAFETY: Locate checked the range against the mapping.
        new(Locate(offset, length), length);

    /// <summary>The aligned 64-bit word number <paramref name="index"/>. Not to be used after <see cref="Dispose"/>.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public ref ulong GetWord(long index) =>
        // SAFETY: Locate checked the word against the mapping.
        ref *(ulong*)Locate(index * sizeof(ulong), sizeof(ulong));

    /// <summary>Makes the range zeroes and gives its whole pages back to the system.</summary>
    public void Clear(long offset, long length)
    {
        // SAFETY: Locate checked the range; the three parts lie inside it.
        byte* start = Locate(offset, length);
        byte* end = start + length;
        byte* firstPage = (byte*)(((nuint)start + _pageMask) & ~_pageMask);
        byte* lastPage = (byte*)((nuint)end & ~_pageMask);
        if (firstPage >= lastPage)
        {
            NativeMemory.Clear(start, (nuint)length);
            return;
        }
        NativeMemory.Clear(start, (nuint)(firstPage - start));
        if (LibC.MAdvise(firstPage, (nuint)(lastPage - firstPage), MemoryAdviseDontNeed) != 0)
            NativeMemory.Clear(firstPage, (nuint)(lastPage - firstPage));
        NativeMemory.Clear(lastPage, (nuint)(end - lastPage));
    }

    public void Dispose()
    {
        Free();
        GC.SuppressFinalize(this);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private byte* Locate(long offset, long length)
    {
        if (_start == null || (ulong)offset > (ulong)SizeBytes || (ulong)length > (ulong)(SizeBytes - offset))
            ThrowOutside(offset, length);
        return _start + offset;
    }

    private void ThrowOutside(long offset, long length)
    {
        ObjectDisposedException.ThrowIf(_start == null, this);
        throw new ArgumentOutOfRangeException(nameof(offset), $"{offset}+{length} is outside a memory of {SizeBytes} bytes");
    }

    private void Free()
    {
        byte* start = _start;
        _start = null;
        if (start != null)
            _ = LibC.MUnmap(start, (nuint)SizeBytes);
    }
}
