using System.Buffers.Binary;
using System.Runtime.CompilerServices;
using Cbd.Memory;

namespace Cbd.Protocol.Format;

/// <summary>Which lines a seal is for. Stored (in CRC seeds): values are fixed.</summary>
internal enum LineKind : byte
{
    Command = 1,
    Completion = 2,
    BlkdevCtrl = 3,
    HandlerCtrl = 4,
}

/// <summary>
/// The CRC32C that makes a line self-checking. It is seeded with region id, channel, kind and epoch, then covers the
/// slot number and the line with its CRC field (low half of word 7) as zero; so a line of another region, channel,
/// ring, slot or life never holds. All-zero and all-one lines never hold either: see <see cref="Holds"/>.
/// </summary>
internal readonly record struct LineSeal
{
    private readonly uint _seed;

    public LineSeal(Guid regionId, int channel, LineKind kind, ulong epoch)
    {
        Span<byte> seed = stackalloc byte[32];
        regionId.TryWriteBytes(seed);
        BinaryPrimitives.WriteInt32LittleEndian(seed[16..], channel);
        BinaryPrimitives.WriteInt32LittleEndian(seed[20..], (int)kind);
        BinaryPrimitives.WriteUInt64LittleEndian(seed[24..], epoch);
        _seed = Crc32C.Append(uint.MaxValue, seed);
    }

    /// <summary>Sets the CRC of a line that is complete otherwise.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Seal(ref Line line, uint slot)
    {
        line.Word7 &= 0xFFFFFFFF_00000000;
        line.Word7 |= Compute(line, slot);
    }

    /// <summary>Whether the private copy of a line carries the right CRC.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool Holds(in Line line, uint slot)
    {
        // Word 0 is a sequence or an epoch, never 0 and never all ones.
        if (line.Word0 is 0 or ulong.MaxValue)
            return false;
        Line copy = line;
        copy.Word7 &= 0xFFFFFFFF_00000000;
        return (uint)line.Word7 == Compute(copy, slot);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private uint Compute(in Line line, uint slot)
    {
        uint crc = Crc32C.Append(_seed, slot);
        crc = Crc32C.Append(crc, line.Word0);
        crc = Crc32C.Append(crc, line.Word1);
        crc = Crc32C.Append(crc, line.Word2);
        crc = Crc32C.Append(crc, line.Word3);
        crc = Crc32C.Append(crc, line.Word4);
        crc = Crc32C.Append(crc, line.Word5);
        crc = Crc32C.Append(crc, line.Word6);
        return Crc32C.Append(crc, line.Word7);
    }
}
