using Cbd.Memory;
using Cbd.Protocol.Format;

namespace Cbd.Protocol.Hosts;

/// <summary>What becomes of a channel whose blkdev's host is cleared. Any thread, any host.</summary>
internal static class ChannelClearing<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    /// <summary>
    /// One step. True if nothing is left to do: the channel is free, quarantined, somebody else's, or damaged. False if its handler
    /// is waited for, or the word changed meanwhile.
    /// </summary>
    /// <param name="memory">The region.</param>
    /// <param name="geometry">Its geometry.</param>
    /// <param name="channel">Number of the channel.</param>
    /// <param name="word">Its claim word, as it was read.</param>
    /// <param name="isDead">The death of the blkdev's host is as good as proven.</param>
    /// <param name="isDraining">Asked of an offered channel: a handler may still drain an older epoch of it.</param>
    /// <param name="handlerEnd">Asked of a channel that closes: whether its handler can still store into it.</param>
    /// <param name="mayStore">Asked right before the swap: the host is still under this clearing.</param>
    public static bool Step(
        in TMemory memory, RegionGeometry geometry, int channel, ClaimWord word, bool isDead,
        Func<bool> isDraining, Func<HandlerEnd> handlerEnd, Func<bool> mayStore)
    {
        ClaimState to;
        switch (word.State)
        {
            case ClaimState.Attached:
            case ClaimState.Offered when isDraining():
                to = ClaimState.Closing;
                break;
            case ClaimState.Claimed or ClaimState.Offered or ClaimState.Detached:
                to = isDead ? ClaimState.Free : ClaimState.Quarantined;
                break;
            case ClaimState.Closing:
                HandlerEnd end = handlerEnd();
                if (end is HandlerEnd.Alive or HandlerEnd.Open)
                    return false;
                to = end == HandlerEnd.Over && isDead ? ClaimState.Free : ClaimState.Quarantined;
                break;
            case ClaimState.Quarantined when isDead && handlerEnd() == HandlerEnd.Over:
                to = ClaimState.Free;
                break;
            default:
                // Free, quarantined for good, or no state of a channel: damaged, and left alone.
                return true;
        }

        if (!mayStore())
            return false;
        long offset = geometry.ChannelOffset(channel);
        ClaimWord next = to == ClaimState.Free ? word.Freed() : word.With(to);
        if (!ClaimOperations<TMemory, TPolicy>.TrySwap(memory, offset, word, next))
            return false;
        if (to == ClaimState.Closing)
            Doorbells.Ring(memory, offset + ChannelLayout.HandlerDoorbellOffset);
        return to is ClaimState.Free or ClaimState.Quarantined;
    }
}
