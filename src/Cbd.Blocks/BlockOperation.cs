namespace Cbd.Blocks;

/// <summary>What a request does. Stored in command lines: values are fixed and only ever added to.</summary>
public enum BlockOperation : byte
{
    /// <summary>Bytes of the device into the payload.</summary>
    Read = 1,

    /// <summary>The payload onto the device. Durable after the next flush, or at once with <see cref="BlockFlags.ForceUnitAccess"/>.</summary>
    Write = 2,

    /// <summary>Everything acknowledged before this was sent is on the medium when it succeeds. No range.</summary>
    Flush = 3,

    /// <summary>The range may read as anything afterwards; space may be returned.</summary>
    Discard = 4,

    /// <summary>The range reads as zeroes afterwards.</summary>
    WriteZeroes = 5,

    /// <summary>Which parts of the range are data, holes or zeroes: answered as <see cref="BlockExtent"/>s.</summary>
    BlockStatus = 6,

    /// <summary>A hint that the range will be read.</summary>
    Cache = 7,
}

/// <summary>Flags of a request. Stored in command lines: values are fixed and only ever added to.</summary>
[Flags]
public enum BlockFlags : byte
{
    /// <summary>No flag.</summary>
    None = 0,

    /// <summary>The request's own data is on the medium before it is acknowledged.</summary>
    ForceUnitAccess = 1,

    /// <summary>Write-zeroes must keep the space allocated.</summary>
    NoUnmap = 2,

    /// <summary>Write-zeroes fails with EOPNOTSUPP if it would be no faster than writing.</summary>
    FastZero = 4,
}

/// <summary>State bits of a <see cref="BlockExtent"/>; the values of NBD's base:allocation.</summary>
[Flags]
public enum BlockExtentState : uint
{
    /// <summary>Allocated, and it may hold anything.</summary>
    Data = 0,

    /// <summary>No space is allocated for it.</summary>
    Hole = 1,

    /// <summary>It reads as zeroes.</summary>
    Zero = 2,
}

/// <summary>
/// One answer of a block-status request, 16 bytes little-endian in the payload: offset 0 u64 length in bytes (&gt; 0),
/// offset 8 u32 <see cref="BlockExtentState"/>, offset 12 u32 zero. The extents follow each other from the request's
/// offset on and together cover at least one byte and at most the request.
/// </summary>
/// <param name="LengthBytes">Bytes that it covers; &gt; 0.</param>
/// <param name="State">What they are.</param>
public readonly record struct BlockExtent(long LengthBytes, BlockExtentState State)
{
    /// <summary>Bytes of one encoded extent.</summary>
    public const int EncodedSizeBytes = 16;

    /// <summary>Stores the 16 bytes.</summary>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="destination"/> is shorter.</exception>
    public void Encode(Span<byte> destination)
    {
        System.Buffers.Binary.BinaryPrimitives.WriteInt64LittleEndian(destination, LengthBytes);
        System.Buffers.Binary.BinaryPrimitives.WriteUInt64LittleEndian(destination[8..], (uint)State);
    }

    /// <summary>Reads the 16 bytes, without checking them.</summary>
    /// <exception cref="ArgumentOutOfRangeException"><paramref name="source"/> is shorter.</exception>
    public static BlockExtent Decode(ReadOnlySpan<byte> source) => new(
        System.Buffers.Binary.BinaryPrimitives.ReadInt64LittleEndian(source),
        (BlockExtentState)System.Buffers.Binary.BinaryPrimitives.ReadUInt32LittleEndian(source[8..]));
}
