using Cbd.Blocks;
using Cbd.Disks;
using Cbd.Memory;
using Cbd.Protocol;
using Cbd.Protocol.Format;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Transports;

/// <summary>
/// Writable disks that are backends on this machine, whatever region they are in: a file for each in one directory. A region keeps a second
/// backend from a disk that has a record there; these files keep it from a disk that has one in another region. Who reads or writes
/// the file of a disk has the disk's lock. Thread-safe.
/// </summary>
/// <param name="directory">Where the files are; null: nothing is reserved.</param>
/// <param name="trust">Whose directory it may be.</param>
/// <param name="logger">Gets a line when the directory cannot be had.</param>
internal sealed class DiskReservations(string? directory, OwnerTrust trust, ILogger logger)
{
    private const UnixFileMode ForAll =
        UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute | UnixFileMode.GroupRead | UnixFileMode.GroupWrite | UnixFileMode.GroupExecute |
        UnixFileMode.OtherRead | UnixFileMode.OtherWrite | UnixFileMode.OtherExecute | UnixFileMode.StickyBit;

    private int _wasReported;

    /// <summary>Throws Busy if a backend in another region has the disk, and blkdevs wait for that.</summary>
    /// <param name="disk">The disk, open and locked.</param>
    /// <param name="regionId">Of the region in which it is started.</param>
    public void Check(Disk disk, Guid regionId)
    {
        if (FileOf(disk) is not { } file || DiskReservation.TryRead(file, OwnerOf(disk)) is not { } found ||
            !ReservationRules<SafePolicy>.IsInTheWay(found, Identify(disk), regionId) || IsOver(found, disk))
            return;
        throw new CbdException(
            CbdErrorKind.Busy,
            $"disk {disk.Path} is backend {found.Backend} of host '{found.Host}' in region {found.Region}, and devices there wait for it: start it there, or give it up there with backend-clear -b {found.Backend} --force; if no device there waits for it, remove {file}, which says so");
    }

    /// <summary>Reserves a disk that is a backend now, until <see cref="Remove"/>, and after the death of this process.</summary>
    public void Make(Disk disk, DiskReservation reservation)
    {
        if (FileOf(disk) is not { } file)
            return;
        try
        {
            MakeDirectory();
            reservation.Write(file);
        }
        catch (Exception e) when (e is CbdException or IOException or UnauthorizedAccessException)
        {
            if (Interlocked.Exchange(ref _wasReported, 1) == 0)
                logger.LogWarning("disks are not reserved on this machine: {Reason}. Do not start one that a device waits for in another region", e.Message);
        }
    }

    /// <summary>The backend is stopped: the disk may be started in any region.</summary>
    public void Remove(Disk disk, Guid regionId, int backend)
    {
        if (FileOf(disk) is not { } file || DiskReservation.TryRead(file, OwnerOf(disk)) is not { } found || found.RegionId != regionId || found.Backend != backend)
            return;
        try
        {
            File.Delete(file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The record that it names is gone: that makes it void.
            logger.LogWarning("{File} cannot be removed: {Reason}", file, e.Message);
        }
    }

    /// <summary>Where the file of a disk is; null if it is not reserved.</summary>
    private string? FileOf(Disk disk) =>
        directory is null || disk.Info.ReadOnly || DiskIdentity.KeyOnMachine(disk.Identity) is not { } key ? null : Path.Combine(directory, DiskReservation.NameOf(key));

    private static DiskIdentity Identify(Disk disk) => new(disk.Identity, disk.OldIdentity);

    private static uint? OwnerOf(Disk disk) => FileStatus.TryGet(disk.Path, out FileStatus status) == 0 ? status.OwnerId : null;

    /// <summary>Nobody waits for the record any more.</summary>
    private bool IsOver(DiskReservation found, Disk disk)
    {
        // What others have written leads this process no further than to whether a name exists.
        if (!found.IsOurs)
            return FileStatus.TryGet(found.Region, out _) is -Errno.ENOENT or -Errno.ENOTDIR;
        try
        {
            using RegionSource source = RegionSource.Open(found.Region, access: new RegionAccess { Trust = trust });
            using RegionMapping region = source.Map();
            MappedMemory memory = region.Memory;
            return ReservationRules<SafePolicy>.IsOver(found, Identify(disk), memory, TransportInfo.Read(memory, region.SizeBytes).Geometry);
        }
        catch (CbdException e)
        {
            // What cannot be read, for whatever reason, may be there still; unless it is certain that it is not.
            return e.Kind is CbdErrorKind.NotFound or CbdErrorKind.Corrupt or CbdErrorKind.Invalid;
        }
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
