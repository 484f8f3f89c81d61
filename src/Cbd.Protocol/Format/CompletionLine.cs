using System.Runtime.CompilerServices;
using Cbd.Memory;

namespace Cbd.Protocol.Format;

/// <summary>
/// One entry of the completion ring (<c>cbd_ce</c> in the original): one 64-byte line, stored by the handler only, in
/// one piece, after its payload; in the order in which the disk finishes.
/// <list type="table">
/// <item><term>+0, 8</term><description>sequence: 1 for the first completion of an epoch; slot = sequence mod ring
/// slots</description></item>
/// <item><term>+8, 8</term><description>bits 0–39 epoch of the channel, 40–63 zero</description></item>
/// <item><term>+16, 8</term><description>sequence of the command that this answers</description></item>
/// <item><term>+24, 2</term><description>tag of that command</description></item>
/// <item><term>+26, 2</term><description>errno, 0 for success</description></item>
/// <item><term>+28, 4</term><description>CRC32C of the payload, 0 without payload CRC</description></item>
/// <item><term>+32, 4</term><description>payload stored in the read pool, bytes</description></item>
/// <item><term>+36, 20</term><description>zero</description></item>
/// <item><term>+56, 4</term><description>CRC32C (<see cref="LineSeal"/>)</description></item>
/// <item><term>+60, 4</term><description>zero</description></item>
/// </list>
/// </summary>
internal readonly record struct CompletionLine(
    ulong Sequence, ulong Epoch, ulong CommandSequence, ushort Tag, ushort Error, uint PayloadCrc, uint PayloadLength)
{
    /// <summary>The line without its CRC.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public Line ToLine() => new()
    {
        Word0 = Sequence,
        Word1 = Epoch,
        Word2 = CommandSequence,
        Word3 = Tag | ((ulong)Error << 16) | ((ulong)PayloadCrc << 32),
        Word4 = PayloadLength,
    };

    /// <summary>Where the word with the tag is in a line, for hints.</summary>
    public const int TagWordOffset = 24;

    /// <summary>The tag in that word.</summary>
    public static int TagOf(ulong word) => (ushort)word;

    /// <summary>The fields of a private copy; none of them is validated.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static CompletionLine FromLine(in Line line) => new(
        line.Word0,
        line.Word1 & ClaimWord.MaxEpoch,
        line.Word2,
        (ushort)line.Word3,
        (ushort)(line.Word3 >> 16),
        (uint)(line.Word3 >> 32),
        (uint)line.Word4);
}
