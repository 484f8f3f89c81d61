using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.Arm;
using System.Runtime.Intrinsics.X86;

namespace Cbd.Memory;

/// <summary>
/// CRC32C (Castagnoli, reflected polynomial 0x82F63B78), the scalar reference in C#. Values are the running register
/// without the initial and final inversion; <see cref="Compute"/> adds both (RFC 3720, appendix B.4).
/// </summary>
public static class Crc32C
{
    private static readonly uint[] s_table = MakeTable();

    /// <summary>The standard CRC32C of the bytes: inverted before and after.</summary>
    public static uint Compute(ReadOnlySpan<byte> bytes) => ~Append(uint.MaxValue, bytes);

    /// <summary>Continues the running register <paramref name="crc"/> over one little-endian 64-bit word.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static uint Append(uint crc, ulong word)
    {
        if (Sse42.X64.IsSupported)
            return (uint)Sse42.X64.Crc32(crc, word);
        if (System.Runtime.Intrinsics.Arm.Crc32.Arm64.IsSupported)
            return System.Runtime.Intrinsics.Arm.Crc32.Arm64.ComputeCrc32C(crc, word);
        return AppendTable(crc, word);
    }

    /// <summary>Continues the running register <paramref name="crc"/> over the bytes.</summary>
    public static uint Append(uint crc, ReadOnlySpan<byte> bytes)
    {
        foreach (ulong word in MemoryMarshal.Cast<byte, ulong>(bytes))
            crc = Append(crc, BitConverter.IsLittleEndian ? word : BinaryPrimitives.ReverseEndianness(word));
        foreach (byte value in bytes[(bytes.Length & ~7)..])
            crc = s_table[(byte)(crc ^ value)] ^ (crc >> 8);
        return crc;
    }

    /// <summary>The table form of <see cref="Append(uint, ulong)"/>; what the instruction forms are compared with.</summary>
    public static uint AppendTable(uint crc, ulong word)
    {
        for (int i = 0; i < 8; i++)
        {
            crc = s_table[(byte)(crc ^ (byte)word)] ^ (crc >> 8);
            word >>= 8;
        }

        return crc;
    }

    private static uint[] MakeTable()
    {
        var table = new uint[256];
        for (uint i = 0; i < 256; i++)
        {
            uint value = i;
            for (int bit = 0; bit < 8; bit++)
                value = (value & 1) != 0 ? (value >> 1) ^ 0x82F63B78u : value >> 1;
            table[i] = value;
        }

        return table;
    }
}
