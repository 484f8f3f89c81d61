using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;

namespace Cbd.Memory;

/// <summary>
/// The 64-bit words of a part of a <see cref="NativeBuffer"/>, for counts that several threads share, or that outlive a process. One
/// compare per access. Any thread; whoever stores says how with <see cref="Volatile"/> or <see cref="Interlocked"/>.
/// </summary>
/// <remarks>Not after the memory of the buffer is freed: hold a reference to it, or do not dispose it.</remarks>
public readonly unsafe struct BufferWords
{
    // Keeps the memory of a buffer that nobody disposes.
    private readonly NativeBuffer _buffer;
    private readonly long* _start;

    /// <summary>The words from <paramref name="offset"/> on.</summary>
    /// <param name="buffer">The memory.</param>
    /// <param name="offset">Where the first word lies, bytes; a multiple of 8.</param>
    /// <param name="count">How many words.</param>
    /// <exception cref="ArgumentOutOfRangeException">They are not inside the buffer, or not aligned.</exception>
    public BufferWords(NativeBuffer buffer, long offset, int count)
    {
        ArgumentNullException.ThrowIfNull(buffer);
        if (offset < 0 || offset % sizeof(long) != 0 || count < 0 || offset > buffer.SizeBytes || (long)count * sizeof(long) > buffer.SizeBytes - offset)
            throw new ArgumentOutOfRangeException(nameof(offset), $"{count} words from {offset} on are misaligned or outside a buffer of {buffer.SizeBytes} bytes");
        _buffer = buffer;
        // SAFETY: inside the buffer, as was just checked, whose start is on a page.
        _start = (long*)(buffer.Address + offset);
        Count = count;
    }

    /// <summary>How many words there are.</summary>
    public int Count { get; }

    /// <summary>The memory.</summary>
    public NativeBuffer Buffer => _buffer;

    /// <summary>One word.</summary>
    /// <exception cref="ArgumentOutOfRangeException">There is no such word.</exception>
    public ref long this[int index]
    {
        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        get
        {
            if ((uint)index >= (uint)Count)
                ThrowOutside(index, Count);
            // SAFETY: below the count, whose words are inside the buffer.
            return ref _start[index];
        }
    }

    [DoesNotReturn]
    private static void ThrowOutside(int index, int count) =>
        throw new ArgumentOutOfRangeException(nameof(index), $"word {index} is outside {count} words");
}
