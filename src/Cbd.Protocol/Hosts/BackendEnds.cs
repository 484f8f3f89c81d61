using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Hosts;

/// <summary>What a backend's entry becomes when a claim of it ends. Any thread, any host.</summary>
internal static class BackendEnds<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    /// <summary>
    /// For a claim word that is out of ACTIVE: free, or the record for the blkdevs that still use the backend. A claim
    /// that died while it took over an orphan ends here too: the record is a body of an older epoch then.
    /// </summary>
    public static ClaimWord EndOf(in TMemory memory, RegionGeometry geometry, int backend, ClaimWord word) =>
        References<TMemory, TPolicy>.IsUsed(memory, geometry, backend)
            ? new ClaimWord(ClaimState.Orphaned, 0, word.Epoch)
            : word.Freed();
}
