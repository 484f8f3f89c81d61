using System.Runtime.InteropServices;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// Zeroed private memory that takes up only the pages that were written: the store of a memory disk. Any thread may
/// use it; copies of overlapping ranges at the same time have no order among each other. It must not be disposed while
/// another thread uses it.
/// </summary>
public sealed unsafe class SparseMemory : IDisposable
{
    private readonly nuint _pageMask = (nuint)Environment.SystemPageSize - 1;
    private readonly nuint _mappedBytes;
    private byte* _start;
    private long _sizeBytes;

    /// <param name="sizeBytes">Size, bytes; &gt; 0. Nothing is reserved for it.</param>
    /// <param name="limitBytes">Size up to which it is to be able to grow; address space alone, and given up where there is none.</param>
    /// <exception cref="CbdException">The address space has no room for it.</exception>
    public SparseMemory(long sizeBytes, long limitBytes = 0)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(sizeBytes);
        long mapped = Math.Max(sizeBytes, limitBytes);
        void* start = Map(mapped);
        if (start == (void*)-1 && mapped > sizeBytes)
            start = Map(mapped = sizeBytes);
        if (start == (void*)-1)
        {
            throw new CbdException(
                CbdErrorKind.Exhausted,
                $"{sizeBytes} bytes of memory cannot be mapped (errno {LibC.LastErrno}); choose a smaller size");
        }
        // A process that keeps its memory locked would keep pages that were given back; these may be swapped.
        _ = LibC.MUnlock(start, (nuint)mapped);
        _mappedBytes = (nuint)mapped;
        _start = (byte*)start;
        _sizeBytes = sizeBytes;
    }

    ~SparseMemory() => Free();

    /// <summary>Size, bytes.</summary>
    public long SizeBytes => Volatile.Read(ref _sizeBytes);

    /// <summary>Size up to which it can grow, bytes.</summary>
    public long LimitBytes => (long)_mappedBytes;

    /// <summary>Makes it larger, by zeroes, while it is in use. False, and nothing is changed, above the limit.</summary>
    public bool TryGrow(long sizeBytes)
    {
        if (sizeBytes > LimitBytes)
            return false;
        if (sizeBytes > SizeBytes)
            Volatile.Write(ref _sizeBytes, sizeBytes);
        return true;
    }

    /// <summary>The bytes [offset, offset + length) where they are. Not to be used after <see cref="Dispose"/>.</summary>
    public ReadOnlySpan<byte> GetSpan(long offset, int length) =>
        // SAFETY: Locate checked the range against the mapping.
        new(Locate(offset, length), length);

    /// <summary>Copies the bytes from <paramref name="offset"/> on out.</summary>
    public void Read(long offset, Span<byte> destination) =>
        // SAFETY: Locate checked the range against the mapping.
        new ReadOnlySpan<byte>(Locate(offset, destination.Length), destination.Length).CopyTo(destination);

    /// <summary>Copies the bytes in from <paramref name="offset"/> on.</summary>
    public void Write(long offset, ReadOnlySpan<byte> source) =>
        // SAFETY: Locate checked the range against the mapping.
        source.CopyTo(new Span<byte>(Locate(offset, source.Length), source.Length));

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

    private byte* Locate(long offset, long length)
    {
        ObjectDisposedException.ThrowIf(_start == null, this);
        if ((ulong)offset > (ulong)SizeBytes || (ulong)length > (ulong)(SizeBytes - offset))
            throw new ArgumentOutOfRangeException(nameof(offset), $"{offset}+{length} is outside a memory of {SizeBytes} bytes");
        return _start + offset;
    }

    private void Free()
    {
        byte* start = _start;
        _start = null;
        if (start != null)
            _ = LibC.MUnmap(start, _mappedBytes);
    }

    private static void* Map(long bytes) => LibC.MMap(
        null, (nuint)bytes, ProtectionRead | ProtectionWrite, MapPrivate | MapAnonymous | MapNoReserve, FileDescriptor.None, 0);
}
