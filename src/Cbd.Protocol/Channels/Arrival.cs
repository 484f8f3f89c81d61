using System.Runtime.CompilerServices;
using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Channels;

/// <summary>The rule by which a line of a ring counts as arrived. What does not hold is 'not arrived yet'.</summary>
internal static class Arrival<TPolicy>
    where TPolicy : struct, IProtocolPolicy
{
    /// <summary>The seal of a ring in one epoch.</summary>
    public static LineSeal Seal(RegionGeometry geometry, int channel, LineKind kind, ulong epoch) =>
        new(geometry.RegionId, channel, kind, TPolicy.CheckEpoch ? epoch : 0);

    /// <summary>Whether the private copy <paramref name="line"/> is the one of this sequence, slot and epoch.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static bool Holds(in Line line, LineSeal seal, ulong epoch, ulong sequence, uint slot)
    {
        if (TPolicy.CheckSequence ? line.Word0 != sequence : line.Word0 is 0 or ulong.MaxValue)
            return false;
        if (TPolicy.CheckEpoch && (line.Word1 & ClaimWord.MaxEpoch) != epoch)
            return false;
        return !TPolicy.CheckCrc || seal.Holds(line, slot);
    }
}
