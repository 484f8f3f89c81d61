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
    /// <summary>
    /// What keeps a disk out of a region: a reservation of it for another one; or one of a disk of which nothing tells whether it is this
    /// one, unless blkdevs of the region wait for this very disk. Null if nothing does.
    /// </summary>
    /// <param name="all">What is reserved.</param>
    /// <param name="disk">The disk that is there; its lock is held.</param>
    /// <param name="regionId">Of the region in which it is started.</param>
    /// <param name="isOver">Nobody waits for a reservation's record, as <see cref="IsOver"/> says.</param>
    public static DiskReservation? FindInTheWay(IReadOnlyList<DiskReservation> all, DiskIdentity disk, Guid regionId, Func<DiskReservation, bool> isOver)
    {
        if (!TPolicy.KeepDiskInRegion)
            return null;
        DiskReservation? undecided = null;
        foreach (DiskReservation found in all)
        {
            if (found.RegionId == regionId || !DiskIdentity.MayBe(new DiskIdentity(found.Identity), disk) || isOver(found))
                continue;
            if (IsOf(found, disk))
                return found;
            undecided ??= found;
        }

        return undecided is not null && all.Any(found => found.RegionId == regionId && found.IsOurs && IsOf(found, disk) && !isOver(found)) ? null : undecided;
    }

    /// <summary>Nobody waits any more for the record that it names, or it was stopped, or is of another disk. The disk's lock is held, so that nobody serves it.</summary>
    /// <param name="found">What is reserved.</param>
    /// <param name="disk">The disk that is there.</param>
    /// <param name="memory">The region at the path that it names.</param>
    /// <param name="geometry">Of that region.</param>
    /// <param name="isServed">A process of this machine serves the record under that claim word: it has the lock of the record's disk.</param>
    public static bool IsOver<TMemory>(DiskReservation found, DiskIdentity disk, TMemory memory, RegionGeometry geometry, Func<ClaimWord, bool> isServed)
        where TMemory : struct, ISharedMemory
    {
        if (geometry.RegionId != found.RegionId || (uint)found.Backend >= (uint)geometry.BackendCount)
            return true;
        ClaimWord word = EntryRegistry<TMemory, TPolicy>.Backends(memory, geometry).Read(found.Backend);
        if (word.State == ClaimState.Free || !References<TMemory, TPolicy>.IsUsed(memory, geometry, found.Backend))
            return true;
        if (!EntryBodies<TMemory>.TryReadBackendRecord(memory, geometry, found.Backend, word.Epoch, out BackendBody record, out _, out _))
            return false;
        return record.IsStopped || DiskIdentity.Compare(record.DiskIdentity, disk) switch
        {
            DiskComparison.Different => true,
            DiskComparison.CannotTell => word.State == ClaimState.Active && isServed(word),
            _ => false,
        };
    }

    /// <summary>It is of this disk, for certain.</summary>
    public static bool IsOf(DiskReservation found, DiskIdentity disk) => DiskIdentity.Compare(new DiskIdentity(found.Identity), disk) == DiskComparison.Same;
}
