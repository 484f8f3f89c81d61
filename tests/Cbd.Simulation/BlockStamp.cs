using System.Buffers.Binary;

namespace Cbd.Simulation;

/// <summary>What a block contains in a simulation: its own number and the id of the write that stored it, in every 16 bytes.</summary>
internal static class BlockStamp
{
    public static void Write(Span<byte> block, int number, long id)
    {
        for (int i = 0; i < block.Length; i += 16)
        {
            BinaryPrimitives.WriteInt64LittleEndian(block[i..], id);
            BinaryPrimitives.WriteInt64LittleEndian(block[(i + 8)..], number + 1);
        }
    }

    /// <summary>The id of the write that stored it, 0 for none; throws if it is not the whole of one write of this block.</summary>
    public static long Read(ReadOnlySpan<byte> block, int number)
    {
        long id = BinaryPrimitives.ReadInt64LittleEndian(block);
        for (int i = 0; i < block.Length; i += 16)
        {
            if (BinaryPrimitives.ReadInt64LittleEndian(block[i..]) != id ||
                BinaryPrimitives.ReadInt64LittleEndian(block[(i + 8)..]) != (id == 0 ? 0 : number + 1))
                throw new SimulationException($"block {number} reads as parts of several writes, or of another block");
        }

        return id;
    }
}
