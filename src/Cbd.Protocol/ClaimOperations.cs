using System.Runtime.CompilerServices;
using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol;

/// <summary>The only way in which claim words are read and changed.</summary>
internal static class ClaimOperations<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    /// <summary>Reads a claim word; what was stored before it was published is visible afterwards.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public static ClaimWord Read(in TMemory memory, long offset) => new(memory.ReadAcquire(offset));

    /// <summary>
    /// Changes the word from <paramref name="from"/> to <paramref name="to"/>; false, and nothing stored, if it is not
    /// <paramref name="from"/> any more. Publishes everything this thread stored before; a full fence.
    /// </summary>
    public static bool TrySwap(in TMemory memory, long offset, ClaimWord from, ClaimWord to)
    {
        if (TPolicy.ClaimBySwap)
            return memory.CompareExchange(offset, to.Raw, from.Raw) == from.Raw;
        if (memory.ReadAcquire(offset) != from.Raw)
            return false;
        memory.WriteRelease(offset, to.Raw);
        return true;
    }
}
