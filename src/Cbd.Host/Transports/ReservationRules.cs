using Cbd.Blocks;
using Cbd.Memory;
using Cbd.Protocol.Backends;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;

namespace Cbd.Host.Transports;

/// <summary>Whether a disk that is reserved for one region may be started in another one. It has no state.</summary>
internal static class ReservationRules<TPolicy>
    where TPolicy : struct, IProtocolPolicy
{
    /// <summary>A reservation keeps a disk out of a region, unless <see cref="IsOver"/>.</summary>
    /// <param name="found">What is reserved.</param>
    /// <param name="disk">The disk that is there.</param>
    /// <param name="regionId">Of the region in which it is started.</param>
    public static bool IsInTheWay(DiskReservation found, DiskIdentity disk, Guid regionId) =>
        TPolicy.KeepDiskInRegion && found.RegionId != regionId && DiskIdentity.Compare(new DiskIdentity(found.Identity), disk) != DiskComparison.Different;

    /// <summary>Nobody waits any more for the record that it names. The disk's lock is held, so that nobody serves it.</summary>
    /// <param name="found">What is reserved.</param>
    /// <param name="disk">The disk that is there.</param>
    /// <param name="memory">The region at the path that it names.</param>
    /// <param name="geometry">Of that region.</param>
    public static bool IsOver<TMemory>(DiskReservation found, DiskIdentity disk, TMemory memory, RegionGeometry geometry)
        where TMemory : struct, ISharedMemory
    {
        if (geometry.RegionId != found.RegionId || (uint)found.Backend >= (uint)geometry.BackendCount)
            return true;
        ClaimWord word = EntryRegistry<TMemory, TPolicy>.Backends(memory, geometry).Read(found.Backend);
        if (word.State == ClaimState.Free || !References<TMemory, TPolicy>.IsUsed(memory, geometry, found.Backend))
            return true;
        return EntryBodies<TMemory>.TryReadBackendRecord(memory, geometry, found.Backend, word.Epoch, out BackendBody record, out _, out _) &&
            DiskIdentity.Compare(record.DiskIdentity, disk) == DiskComparison.Different;
    }
}
