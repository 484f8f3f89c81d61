using Cbd.Blocks;

namespace Cbd.Host.Wanted;

/// <summary>A backend of whichever host, as a list of a region says.</summary>
/// <param name="Id">Its id.</param>
/// <param name="Path">Of its disk, on its host.</param>
/// <param name="Identity">Of its disk; empty while that cannot be read.</param>
/// <param name="IsAlive">Somebody serves it.</param>
/// <param name="HasUsers">Blkdevs are on it, or wait for it.</param>
/// <param name="IsStopped">Its operator stopped it by force: they do not wait.</param>
internal readonly record struct OfferedBackend(int Id, string Path, string Identity, bool IsAlive, bool HasUsers = false, bool IsStopped = false);

/// <summary>What is left to do of a stop that its daemon did not live to finish.</summary>
internal enum StopStep
{
    /// <summary>Nothing: it is over.</summary>
    Over = 0,

    /// <summary>Blkdevs use the backend, and it was not forced: it is refused, and the backend is wanted still.</summary>
    Refused,

    /// <summary>Blkdevs wait for a backend that was stopped by force: it is taken over, and stopped.</summary>
    Force,
}

/// <summary>What a record may lead to: which machine, region, disk and backend is the one that is wanted. It has no state.</summary>
internal static class WantedRules<TPolicy>
    where TPolicy : struct, IProtocolPolicy
{
    /// <summary>It is to be started now.</summary>
    public static bool IsDue(StateEntry entry) =>
        entry is { IsPending: true, Intent: null, Failed: null } && (entry.Held is null || !TPolicy.KeepHeld) && (TPolicy.TryWantedAgain || entry.Reason is null);

    /// <summary>It is a stop that is to be finished now.</summary>
    public static bool IsToFinish(StateEntry entry) => entry is { IsCut: true, IsPending: true, Intent: StateIntent.Stopping, Held: null };

    /// <summary>What is to be done of a stop of a backend by a daemon that died meanwhile.</summary>
    /// <param name="stop">From its record.</param>
    /// <param name="all">Backends of all hosts.</param>
    public static StopStep FindStopStep(StateEntry stop, IReadOnlyList<OfferedBackend> all)
    {
        BackendEntry backend = stop.Backend!;
        return Find(all, b => b is { IsAlive: false, HasUsers: true } && IsOf(backend, b)) is not { IsStopped: false } ? StopStep.Over
            : stop.Forced != true ? StopStep.Refused
            : TPolicy.FinishForcedStops ? StopStep.Force
            : StopStep.Over;
    }

    /// <summary>An entry of the region is of a recorded backend.</summary>
    private static bool IsOf(BackendEntry wanted, OfferedBackend offered) => wanted.DiskIdentity is { } identity
        ? IsSameDisk(identity, offered.Identity)
        : offered.Id == wanted.BackendId && SameThing.IsSamePath(offered.Path, wanted.Path);

    /// <summary>An entry that was pending, and was started by itself.</summary>
    public static StateEntry Started(StateEntry entry) => entry with { IsPending = false, Reason = null, IsBlocked = false, Deaths = null, IsUnclaimed = true };

    /// <summary>Why nothing of a record may start on this machine, in words; null if it may.</summary>
    /// <param name="own">This machine.</param>
    /// <param name="writer">The one that wrote the record; null if it does not say.</param>
    public static string? FindForeign(MachineIdentity own, MachineIdentity? writer) =>
        TPolicy.RefuseForeignRecord && writer is not null ? own.FindDifference(writer) : null;

    /// <summary>The uuid that the region of a recorded transport must have; null: any.</summary>
    /// <param name="recorded">What is wanted.</param>
    /// <param name="bootId">Of this machine now.</param>
    /// <param name="isVolatile">What is under its path is gone with a boot, and another region in its place is what has to be there.</param>
    public static Guid? ExpectRegion(TransportEntry recorded, Guid bootId, bool isVolatile) => recorded.BootId != bootId && isVolatile ? null : recorded.Uuid;

    /// <summary>Throws if a region is not the one that is expected.</summary>
    public static void CheckRegion(Guid? expected, Guid found, string path, string host)
    {
        if (TPolicy.RefuseOtherRegion && expected is { } recorded && recorded != found)
            throw new OtherRegionException($"region '{path}' has the uuid {found}, and this host wants the one with {recorded}: bring that back, or confirm this one with tp-reg -H {host} -p {path}");
    }

    /// <summary>Who starts a disk from a record wants that disk; an operator who starts it says which it is.</summary>
    /// <param name="wanted">Identity of the disk that is wanted; null: whichever.</param>
    /// <param name="disk">The one that is there.</param>
    /// <param name="path">Its path.</param>
    /// <param name="backend">The backend that is to be taken over; null for none.</param>
    /// <param name="name">What the backend is called; null: nothing.</param>
    public static void CheckDisk(string? wanted, DiskIdentity disk, string path, int? backend, string? name = null)
    {
        if (!TPolicy.OpenWantedDiskOnly || wanted is null || wanted == disk.Text)
            return;
        DiskComparison comparison = DiskIdentity.Compare(new DiskIdentity(wanted), disk);
        string start = $"backend-start {(name is null ? "" : $"--name {name} ")}-p {path}";
        if (comparison == DiskComparison.Different)
            throw new CbdException(CbdErrorKind.Invalid, $"'{path}' is another disk ({disk.Text}) than the one that is wanted ({wanted}): bring that back, or confirm this one: backend-stop -b {name ?? path}, then {start}");
        if (comparison == DiskComparison.CannotTell && TPolicy.ConfirmUncertain)
            throw new CbdException(CbdErrorKind.Invalid, $"nothing tells whether '{path}' is the disk that is wanted ({disk.Text}, was {wanted}): confirm it with {(backend is { } id ? $"backend-start -b {id} -p {path}" : name is null ? start : $"backend-stop -b {name}, then {start}")}");
    }

    /// <summary>
    /// The entry that a killed self left in the region, which is taken over, so that blkdevs of other hosts go on. Null if it is not there,
    /// or somebody serves it.
    /// </summary>
    public static OfferedBackend? FindLeft(BackendEntry wanted, IReadOnlyList<OfferedBackend> all) =>
        Find(all, b => b.Id == wanted.BackendId) is { IsAlive: false } left && SameThing.IsSamePath(left.Path, wanted.Path) ? left : null;

    /// <summary>
    /// The backend that has a device's disk now, under whichever id. Throws if none has for certain, and
    /// <see cref="FailedThingException"/> if the disk was in memory and began anew.
    /// </summary>
    public static OfferedBackend FindBackend(DeviceEntry device, IReadOnlyList<OfferedBackend> all)
    {
        OfferedBackend? known = Find(all, b => b.Id == device.BackendId);
        if (!TPolicy.FollowDisk && known is { } byId)
            return byId;
        if (device.DiskIdentity is not { } identity)
        {
            // Written by a version that did not look: the path is all there is.
            if (known is { } backend && SameThing.IsSamePath(backend.Path, device.BackendPath))
                return backend;
        }
        else if (known is { } same && IsSameDisk(identity, same.Identity))
        {
            return same;
        }
        else if (Find(all, b => IsSameDisk(identity, b.Identity)) is { } moved)
        {
            return moved;
        }
        else if (known is { } anew && DiskIdentity.BeginsAnew(identity, anew.Identity))
        {
            if (!TPolicy.RefuseMemoryAnew)
                return anew;
            throw new FailedThingException($"its disk, backend {anew.Id} ('{anew.Path}'), was in memory and began anew: what was written is gone");
        }

        throw known is not { } other
            ? new CbdException(CbdErrorKind.NotFound, $"there is no backend {device.BackendId} yet: start '{device.BackendPath}' on its host")
            : new CbdException(CbdErrorKind.Invalid,
                $"backend {device.BackendId} is '{other.Path}' ({other.Identity}) now and was '{device.BackendPath}'{(device.DiskIdentity is null ? "" : $" ({device.DiskIdentity})")}: start that disk on its host, or confirm the other one: dev-stop{(device.Name is null ? "" : $" -d {device.Name}")}, then dev-start");
    }

    /// <summary>The identity of a disk that outlives its backend's life; null of one that begins anew with each.</summary>
    public static string? Lasting(string? identity) => identity is { Length: > 0 } && !StartBackendOptions.IsDiskScheme(identity) ? identity : null;

    /// <summary>It is that disk for certain.</summary>
    private static bool IsSameDisk(string wanted, string found) => SameThing.IsSameDisk(wanted, found) ||
        (!TPolicy.ConfirmUncertain && DiskIdentity.Compare(new DiskIdentity(wanted), new DiskIdentity(found)) == DiskComparison.CannotTell);

    private static OfferedBackend? Find(IReadOnlyList<OfferedBackend> all, Func<OfferedBackend, bool> which)
    {
        foreach (OfferedBackend backend in all)
        {
            if (which(backend))
                return backend;
        }

        return null;
    }
}
