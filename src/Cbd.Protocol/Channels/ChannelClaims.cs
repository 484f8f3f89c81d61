using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Channels;

/// <summary>Claiming channels. Any thread, any host.</summary>
internal static class ChannelClaims<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    /// <summary>
    /// Claims one free channel for <paramref name="host"/>; false if none is free. The claimer re-reads its own host's
    /// claim word afterwards, and frees the channel again if it is not its own any more.
    /// </summary>
    public static bool TryClaim(in TMemory memory, RegionGeometry geometry, int host, out int channel, out ClaimWord claimed) =>
        EntryRegistry<TMemory, TPolicy>.Channels(memory, geometry).TryClaimAny(ClaimState.Claimed, host, isUsedHere: null, out channel, out claimed);

    /// <summary>
    /// Gives back a channel that was claimed and not offered, so that no handler ever had it. Also one that others quarantined
    /// meanwhile, because nothing proved that this host had stopped: it knows that it stores there no more.
    /// </summary>
    public static void Release(in TMemory memory, RegionGeometry geometry, int channel, ClaimWord claimed)
    {
        long offset = geometry.ChannelOffset(channel);
        if (!ClaimOperations<TMemory, TPolicy>.TrySwap(memory, offset, claimed, claimed.Freed()))
            ClaimOperations<TMemory, TPolicy>.TrySwap(memory, offset, claimed.With(ClaimState.Quarantined), claimed.Freed());
    }
}
