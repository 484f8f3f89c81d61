using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// Pages of a device or file that the kernel stores and this process reads. The owner disposes it after everybody has
/// stopped reading.
/// </summary>
public sealed unsafe class ReadOnlyMapping : IDisposable
{
    private readonly int _sizeBytes;
    private byte* _start;

    private ReadOnlyMapping(byte* start, int sizeBytes)
    {
        _start = start;
        _sizeBytes = sizeBytes;
    }

    ~ReadOnlyMapping() => Unmap();

    /// <summary>Maps [offset, offset + size), whole pages. Throws <see cref="SystemCallException"/>.</summary>
    public static ReadOnlyMapping Map(FileDescriptor file, long offset, int sizeBytes, string subject)
    {
        byte* start = (byte*)LibC.MMap(null, (nuint)sizeBytes, ProtectionRead, MapShared | MapPopulate, file, offset);
        return start == (byte*)-1 ? throw SystemCallException.Last("mmap", subject) : new ReadOnlyMapping(start, sizeBytes);
    }

    /// <summary>
    /// The bytes [offset, offset + length). The kernel may store there at any time: copy once, then judge the copy.
    /// </summary>
    public ReadOnlySpan<byte> GetSpan(int offset, int length)
    {
        ObjectDisposedException.ThrowIf(_start == null, this);
        if ((uint)offset > (uint)_sizeBytes || (uint)length > (uint)(_sizeBytes - offset))
            throw new ArgumentOutOfRangeException(nameof(offset), $"{offset}+{length} is outside a mapping of {_sizeBytes} bytes");
        // SAFETY: the range was checked against the mapping, which lives until Dispose.
        return new ReadOnlySpan<byte>(_start + offset, length);
    }

    public void Dispose()
    {
        Unmap();
        GC.SuppressFinalize(this);
    }

    private void Unmap()
    {
        byte* start = _start;
        _start = null;
        if (start != null)
            _ = LibC.MUnmap(start, (nuint)_sizeBytes);
    }
}
