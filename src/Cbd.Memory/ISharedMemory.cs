namespace Cbd.Memory;

/// <summary>
/// What the protocol may do with a region. Protocol code is generic over a struct that implements this, so that the
/// shipped code compiles to plain loads and stores and a simulator can stand in for the hardware.
/// </summary>
/// <remarks>
/// Offsets are bytes from the start of the region and are checked against <see cref="SizeBytes"/> on every call: an
/// offset outside the region is a bug of the caller and throws <see cref="ArgumentOutOfRangeException"/>. Words are
/// little-endian and 8-byte aligned, lines 64-byte aligned. All members may be called from any thread.
/// </remarks>
public interface ISharedMemory
{
    /// <summary>Size of the region, bytes.</summary>
    long SizeBytes { get; }

    /// <summary>
    /// The memory failed under an access: everything reads as zeroes since, and what is stored reaches nobody. Zeroes that
    /// are read for that reason are read after this is true. A call and no load: not for every line.
    /// </summary>
    bool IsPoisoned { get; }

    /// <summary>Loads one aligned 64-bit word; later loads of this thread are not performed before it.</summary>
    ulong ReadAcquire(long offset);

    /// <summary>Stores one aligned 64-bit word after all earlier stores of this thread.</summary>
    void WriteRelease(long offset, ulong value);

    /// <summary>
    /// Stores <paramref name="value"/> if the word equals <paramref name="comparand"/>; returns what was there before.
    /// A full fence.
    /// </summary>
    ulong CompareExchange(long offset, ulong value, ulong comparand);

    /// <summary>Orders every earlier load and store of this thread before every later one.</summary>
    void FullFence();

    /// <summary>Copies one 64-byte line out. The copy may be torn; the line's own CRC decides.</summary>
    void ReadLine(long offset, out Line line);

    /// <summary>Stores one 64-byte line after all earlier stores of this thread.</summary>
    void WriteLine(long offset, in Line line);

    /// <summary>Copies bytes out. The copy may be torn.</summary>
    void Read(long offset, Span<byte> destination);

    /// <summary>Copies bytes in. Ordered before a later <see cref="WriteRelease"/> or <see cref="WriteLine"/>.</summary>
    void Write(long offset, ReadOnlySpan<byte> source);

    /// <summary>Copies bytes out once and returns the CRC32C (continuing <paramref name="crc"/>) of what was copied.</summary>
    uint ReadWithCrc(long offset, Span<byte> destination, uint crc);

    /// <summary>Copies bytes in once and returns the CRC32C (continuing <paramref name="crc"/>) of what was copied.</summary>
    uint WriteWithCrc(long offset, ReadOnlySpan<byte> source, uint crc);

    /// <summary>
    /// Loads an aligned 64-bit word, in the wake of a <see cref="ReadAcquire"/> of the word that published it. Nothing
    /// depends on what is stored there between the two.
    /// </summary>
    ulong ReadPublished(long offset);

    /// <summary>
    /// What an aligned 64-bit word may be, for a hint: unordered, and a memory may answer 0 at any time. Never to be
    /// acted upon.
    /// </summary>
    ulong Peek(long offset);

    /// <summary>A hint that the bytes will be read, or written over whole, soon.</summary>
    void Prefetch(long offset, long length, bool forWrite);

    /// <summary>
    /// Wakes the sleepers of the 32-bit doorbell at <paramref name="offset"/>, where the other side runs on the same
    /// kernel. A no-op where it cannot work; the sleeper's time-out then bounds the delay.
    /// </summary>
    void Wake(long offset);
}
