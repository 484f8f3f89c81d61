using System.Runtime.CompilerServices;
using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Protocol.Format;

/// <summary>
/// One entry of the command ring (<c>cbd_se</c> in the original): one 64-byte line, stored by the blkdev only, in one
/// piece, after its payload.
/// <list type="table">
/// <item><term>+0, 8</term><description>sequence: 1 for the first command of an epoch; slot = sequence mod ring
/// slots</description></item>
/// <item><term>+8, 8</term><description>bits 0–39 epoch of the channel, 40–47 <see cref="BlockOperation"/>, 48–55
/// <see cref="BlockFlags"/>, 56–63 zero</description></item>
/// <item><term>+16, 8</term><description>offset on the disk, bytes</description></item>
/// <item><term>+24, 8</term><description>length on the disk, bytes</description></item>
/// <item><term>+32, 4</term><description>payload: offset in the write pool (write) or read pool (read, block-status),
/// bytes</description></item>
/// <item><term>+36, 4</term><description>payload: room or length, bytes</description></item>
/// <item><term>+40, 4</term><description>CRC32C of the payload of a write, 0 without payload CRC</description></item>
/// <item><term>+44, 2</term><description>tag: comes back in the completion</description></item>
/// <item><term>+46, 10</term><description>zero</description></item>
/// <item><term>+56, 4</term><description>CRC32C (<see cref="LineSeal"/>)</description></item>
/// <item><term>+60, 4</term><description>zero</description></item>
/// </list>
/// </summary>
internal readonly record struct CommandLine(
    ulong Sequence,
    ulong Epoch,
    BlockOperation Operation,
    BlockFlags Flags,
    long Offset,
    long Length,
    uint PayloadOffset,
    uint PayloadLength,
    uint PayloadCrc,
    ushort Tag)
{
    /// <summary>The line without its CRC.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public Line ToLine()
    {
        var line = default(Line);
        StoreTo(ref line);
        return line;
    }

    /// <summary>The line without its CRC, stored word by word.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void StoreTo(ref Line line)
    {
        line.Word0 = Sequence;
        line.Word1 = Epoch | ((ulong)Operation << 40) | ((ulong)Flags << 48);
        line.Word2 = (ulong)Offset;
        line.Word3 = (ulong)Length;
        line.Word4 = PayloadOffset | ((ulong)PayloadLength << 32);
        line.Word5 = PayloadCrc | ((ulong)Tag << 32);
        line.Word6 = 0;
        line.Word7 = 0;
    }

    /// <summary>Where the words with operation and payload are in a line, for hints.</summary>
    public const int OperationWordOffset = 8, PayloadWordOffset = 32;

    /// <summary>The operation in its word.</summary>
    public static BlockOperation OperationOf(ulong word) => (BlockOperation)(byte)(word >> 40);

    /// <summary>Offset and length of the payload in their word.</summary>
    public static (uint Offset, uint Length) PayloadOf(ulong word) => ((uint)word, (uint)(word >> 32));

    /// <summary>The fields of a private copy; none of them is validated.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static CommandLine FromLine(in Line line) => new(
        line.Word0,
        line.Word1 & ClaimWord.MaxEpoch,
        (BlockOperation)(byte)(line.Word1 >> 40),
        (BlockFlags)(byte)(line.Word1 >> 48),
        (long)line.Word2,
        (long)line.Word3,
        (uint)line.Word4,
        (uint)(line.Word4 >> 32),
        (uint)line.Word5,
        (ushort)(line.Word5 >> 32));
}
