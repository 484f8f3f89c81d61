using System.Buffers.Binary;

namespace Cbd.Fuzz;

/// <summary>Takes values from the bytes of one input; behind the end there are zeroes.</summary>
internal ref struct FuzzInput(ReadOnlySpan<byte> bytes)
{
    private ReadOnlySpan<byte> _rest = bytes;

    public readonly bool IsEmpty => _rest.IsEmpty;

    public byte Byte() => Take(1) is [var value] ? value : (byte)0;

    public int Below(int bound) => UInt16() % bound;

    public ushort UInt16()
    {
        Span<byte> value = stackalloc byte[2];
        Take(2).CopyTo(value);
        return BinaryPrimitives.ReadUInt16LittleEndian(value);
    }

    public uint UInt32()
    {
        Span<byte> value = stackalloc byte[4];
        Take(4).CopyTo(value);
        return BinaryPrimitives.ReadUInt32LittleEndian(value);
    }

    public ulong UInt64()
    {
        Span<byte> value = stackalloc byte[8];
        Take(8).CopyTo(value);
        return BinaryPrimitives.ReadUInt64LittleEndian(value);
    }

    /// <summary>At most so many bytes.</summary>
    public ReadOnlySpan<byte> Take(int count)
    {
        ReadOnlySpan<byte> taken = _rest[..Math.Min(count, _rest.Length)];
        _rest = _rest[taken.Length..];
        return taken;
    }

    public ReadOnlySpan<byte> Rest() => Take(_rest.Length);
}
