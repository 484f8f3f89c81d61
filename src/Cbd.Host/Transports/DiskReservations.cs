using Cbd.Blocks;
using Cbd.Disks;
using Cbd.Memory;
using Cbd.Protocol;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Transports;

/// <summary>
/// Records of writable disks that are backends on this machine, whatever region they are in: a file for each in one directory. A region keeps
/// a second backend from a disk that has a record there; these files keep it from a disk that has one in another region. Each session of
/// a record has a file of its own, which nobody else writes, so that a process that lost its claim harms no later one; who starts a disk
/// has the disk's lock, and reads them all. Thread-safe.
/// </summary>
/// <param name="directory">Where the files are; null: nothing is reserved.</param>
/// <param name="trust">Whose directory it may be.</param>
/// <param name="logger">Gets a line when the directory cannot be had.</param>
internal sealed class DiskReservations(string? directory, OwnerTrust trust, ILogger logger)
{
    /// <summary>Most reservations that are read. Files that are none, or are not trusted, do not count.</summary>
    internal const int Most = 4096;

    private const UnixFileMode ForAll =
        UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute | UnixFileMode.GroupRead | UnixFileMode.GroupWrite | UnixFileMode.GroupExecute |
        UnixFileMode.OtherRead | UnixFileMode.OtherWrite | UnixFileMode.OtherExecute | UnixFileMode.StickyBit;

    private int _wasReported;

    /// <summary>Throws Busy if a backend in another region has the disk, or may have it, and blkdevs wait for that.</summary>
    /// <param name="disk">The disk, open and locked.</param>
    /// <param name="regionId">Of the region in which it is started.</param>
    public void Check(Disk disk, Guid regionId)
    {
        if (!IsReserved(disk))
            return;
        DiskIdentity identity = Identify(disk);
        if (ReservationRules<SafePolicy>.FindInTheWay(ReadAll(OwnerOf(disk)), identity, regionId, found => IsOver(found, identity)) is not { } found)
            return;
        string which = $"disk {disk.Path} is backend {found.Backend} of host '{found.Host}' in region {found.Region}";
        string givesUp = $"give it up there with backend-clear -b {found.Backend} --force; if no device there waits for it, remove {found.File}, which says so";
        if (ReservationRules<SafePolicy>.IsOf(found, identity))
            throw new CbdException(CbdErrorKind.Busy, $"{which}, and devices there wait for it: start it there, or {givesUp}");
        // Who serves another user's region is not looked at.
        string remedy = found.IsOurs
            ? $"start the disk of that backend there, which leaves this one free if it is another; or, if that disk is lost, {givesUp}"
            : $"if it is, start it there; if it is another one, remove {found.File}, start this one, and that backend again, which reserves its disk anew";
        throw new CbdException(CbdErrorKind.Busy, $"nothing tells whether {which}, for which devices there wait; it may be on a copy of its file system: {remedy}");
    }

    /// <summary>
    /// Space for the reservation of a disk that becomes a backend; null if none is needed, or where none can be made, which is said once.
    /// Throws Exhausted if there is no room, descriptor or memory for it, and no earlier session has reserved the disk for that region.
    /// </summary>
    /// <param name="disk">The disk.</param>
    /// <param name="region">Path of the region.</param>
    /// <param name="regionId">Of that region.</param>
    public PreparedFile? Prepare(Disk disk, string region, Guid regionId)
    {
        if (!IsReserved(disk))
            return null;
        try
        {
            MakeDirectory();
            return new PreparedFile(directory!, NameBefore(disk, regionId), DiskReservation.MostBytes);
        }
        catch (Exception e) when (IsShortage(e))
        {
            // Without it nothing would keep another region from the disk while devices wait. The record that they wait on is the one that is taken over.
            DiskIdentity identity = Identify(disk);
            if (!ReadAll(null).Exists(found => found.IsOurs && found.Region == region && found.RegionId == regionId && found.Identity == disk.Identity && !IsOver(found, identity)))
                throw new CbdException(CbdErrorKind.Exhausted, $"disk {disk.Path} cannot be reserved in '{directory}': {(e is CbdException ? e.Message : AtomicFile.Describe(e))}", e);
        }
        catch (Exception e) when (e is CbdException || AtomicFile.IsOfSystem(e))
        {
            WarnOnce(e);
        }

        return null;
    }

    /// <summary>Reserves a disk that is a backend now, until <see cref="Remove"/>, and after the death of this process. Throws if that fails.</summary>
    /// <param name="space">Of <see cref="Prepare"/>.</param>
    /// <param name="reservation">What is reserved.</param>
    /// <param name="session">Epoch of the claim. Files of earlier ones are removed.</param>
    public void Make(PreparedFile space, DiskReservation reservation, ulong session)
    {
        try
        {
            string file = Path.Combine(directory!, DiskReservation.NameOf(reservation.RegionId, reservation.Backend, session));
            try
            {
                space.MoveTo(file, reservation.ToBytes());
            }
            catch (Exception e) when (AtomicFile.IsOfSystem(e))
            {
                // Others may have put something in its place: no name is theirs that they cannot guess.
                space.MoveTo($"{file}.{Guid.NewGuid():N}", reservation.ToBytes());
            }
        }
        catch (Exception e) when (AtomicFile.IsOfSystem(e))
        {
            // There was room for it, and the right: the directory is gone, or its file system fails.
            throw new CbdException(AtomicFile.KindOf(e), $"backend {reservation.Backend}: its disk cannot be reserved in '{directory}': {AtomicFile.Describe(e)}; try again", e);
        }

        Delete(reservation.RegionId, reservation.Backend, found => found < session, $"of an earlier session of backend {reservation.Backend}");
    }

    /// <summary>The backend is stopped: its disk may be started in any region. An earlier session may have reserved it where this one only reads.</summary>
    public void Remove(Disk disk, Guid regionId, int backend, ulong session)
    {
        if (directory is not null && !DiskIdentity.IsInMemory(disk.Identity))
            Delete(regionId, backend, found => found <= session, $"of backend {backend}", isOurs: IsReserved(disk));
    }

    /// <summary>
    /// Name of a file that has no reservation yet: who has the disk's lock makes it, so that one that a process left at its death is
    /// replaced by the next start.
    /// </summary>
    internal static string NameBefore(Disk disk, Guid regionId) =>
        FileStatus.TryGet(disk.Path, out FileStatus status) == 0 ? $"{regionId:N}-{status.Device:x}-{status.Inode:x}{AtomicFile.TemporarySuffix}" : $"{Guid.NewGuid():N}{AtomicFile.TemporarySuffix}";

    private static bool IsShortage(Exception e) =>
        e is CbdException { Kind: CbdErrorKind.Exhausted } || (AtomicFile.IsOfSystem(e) && AtomicFile.KindOf(e) == CbdErrorKind.Exhausted);

    private void WarnOnce(Exception e)
    {
        if (Interlocked.Exchange(ref _wasReported, 1) == 0)
            logger.LogWarning("disks are not reserved on this machine: '{Directory}': {Reason}. Do not start one that a device waits for in another region", directory, e.Message);
    }

    /// <param name="isOurs">This daemon has reserved it; if not, it may have no right to the directory, which is no news.</param>
    private void Delete(Guid regionId, int backend, Predicate<ulong> isMeant, string which, bool isOurs = true)
    {
        try
        {
            foreach (string file in Directory.GetFileSystemEntries(directory!, DiskReservation.NameOf(regionId, backend, null) + "*"))
            {
                if (DiskReservation.SessionIn(Path.GetFileName(file), regionId, backend) is { } session && isMeant(session))
                    Delete(file, which);
            }
        }
        catch (DirectoryNotFoundException)
        {
            // So are the files.
        }
        catch (UnauthorizedAccessException) when (!isOurs)
        {
            // What it cannot see it has not made.
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            WarnThatItStays(directory!, which, e);
        }
    }

    private void Delete(string file, string which)
    {
        try
        {
            if (DiskReservation.TryRead(file, null) is not null)
                File.Delete(file);
        }
        catch (Exception e) when (e is CbdException or IOException or UnauthorizedAccessException)
        {
            WarnThatItStays(file, which, e);
        }
    }

    /// <summary>Without blkdevs the record that it names makes it void.</summary>
    private void WarnThatItStays(string path, string which, Exception e) =>
        logger.LogWarning("the reservation {Which} in {Path} cannot be removed: {Reason}", which, path, e.Message);

    private bool IsReserved(Disk disk) => directory is not null && !disk.Info.ReadOnly && !DiskIdentity.IsInMemory(disk.Identity);

    /// <summary>All reservations that are trusted, whatever their files are called.</summary>
    private List<DiskReservation> ReadAll(uint? diskOwner)
    {
        var all = new List<DiskReservation>();
        try
        {
            // Not EnumerateFiles, which would look at what links lead to.
            foreach (string file in Directory.EnumerateFileSystemEntries(directory!))
            {
                if (file.EndsWith(AtomicFile.TemporarySuffix, StringComparison.Ordinal) || file.Any(char.IsControl) || DiskReservation.TryRead(file, diskOwner) is not { } found)
                    continue;
                if (all.Count == Most && RemoveVoid(all) == 0)
                    throw new CbdException(CbdErrorKind.Exhausted, $"directory '{directory}' has more than {Most} reservations of disks: remove files there whose region is not used any more, or give another directory with --disks-dir");
                all.Add(found);
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Without a directory that can be read nothing is reserved.
            DiskReservation.ThrowIfUnknown(directory!, e.HResult);
        }

        return all;
    }

    /// <summary>Removes reservations whose region is gone, and their files, if this user may.</summary>
    /// <returns>How many.</returns>
    private int RemoveVoid(List<DiskReservation> all)
    {
        var there = new Dictionary<string, Guid?>();
        return all.RemoveAll(found =>
        {
            if (!IsRegionGone(found, there))
                return false;
            try
            {
                File.Delete(found.File);
            }
            catch (Exception e) when (e is IOException or UnauthorizedAccessException)
            {
                // Another user's. It reserves nothing all the same.
            }

            return true;
        });
    }

    private bool IsRegionGone(DiskReservation found, Dictionary<string, Guid?> there)
    {
        if (FileStatus.TryGet(found.Region, out _) is -Errno.ENOENT or -Errno.ENOTDIR)
            return true;
        if (!found.IsOurs)
            return false;
        if (!there.TryGetValue(found.Region, out Guid? id))
            there[found.Region] = id = RegionAt(found.Region);
        return id is { } now && now != found.RegionId;
    }

    /// <summary>The id of the region at a path; null if it cannot be read.</summary>
    private Guid? RegionAt(string path)
    {
        try
        {
            using RegionSource source = RegionSource.Open(path, access: new RegionAccess { Trust = trust });
            using RegionMapping region = source.Map();
            return TransportInfo.Read(region.Memory, region.SizeBytes).Geometry.RegionId;
        }
        catch (CbdException)
        {
            return null;
        }
    }

    private static DiskIdentity Identify(Disk disk) => new(disk.Identity, disk.OldIdentity);

    private static uint? OwnerOf(Disk disk) => FileStatus.TryGet(disk.Path, out FileStatus status) == 0 ? status.OwnerId : null;

    /// <summary>Nobody waits for the record any more.</summary>
    private bool IsOver(DiskReservation found, DiskIdentity disk)
    {
        // What others have written leads this process no further than to whether a name exists.
        if (!found.IsOurs)
            return FileStatus.TryGet(found.Region, out _) is -Errno.ENOENT or -Errno.ENOTDIR;
        try
        {
            using RegionSource source = RegionSource.Open(found.Region, access: new RegionAccess { Trust = trust });
            using RegionMapping region = source.Map();
            MappedMemory memory = region.Memory;
            RegionGeometry geometry = TransportInfo.Read(memory, region.SizeBytes).Geometry;
            return ReservationRules<SafePolicy>.IsOver(found, disk, memory, geometry, word => IsServed(region, geometry, found.Backend, word));
        }
        catch (CbdException e) when (e.Kind != CbdErrorKind.Exhausted)
        {
            // What cannot be read, for whatever reason, may be there still; unless it is certain that it is not.
            return e.Kind is CbdErrorKind.NotFound or CbdErrorKind.Corrupt or CbdErrorKind.Invalid;
        }
    }

    /// <summary>The host that has the record's session is a process of this machine, and lives.</summary>
    private static bool IsServed(RegionMapping region, RegionGeometry geometry, int backend, ClaimWord word)
    {
        var observer = new HostIdentity { Name = "observer", BootId = ProcessIdentity.BootId, HostUuid = Guid.NewGuid(), Device = region.Device, Inode = region.Inode, Pid = Environment.ProcessId };
        var tracker = new LivenessTracker<MappedMemory, SafePolicy>(region.Memory, geometry, observer, new OfdHostLocks(region));
        tracker.Sample(MonotonicClock.Milliseconds);
        return HandlerEnds<MappedMemory, SafePolicy>.OfSession(region.Memory, geometry, tracker, backend, word.Epoch) == HandlerEnd.Alive;
    }

    private void MakeDirectory()
    {
        trust.CheckDirectory(directory!, "directory of reservations", "give another one with --disks-dir", isShared: true);
        Directory.CreateDirectory(directory!);
        // Daemons of all users reserve disks; none can remove what another one has reserved.
        if (Environment.IsPrivilegedProcess && File.GetUnixFileMode(directory!) != ForAll)
            ControlSyscalls.SetDirectoryMode(directory!, (uint)ForAll);
    }
}
