using Cbd.Disks;
using Cbd.Host;
using Cbd.Host.Transports;
using Cbd.Memory;
using Cbd.Tests.Disks;
using Cbd.Tests.Memory;
using Microsoft.Extensions.Logging.Abstractions;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>A disk that is a backend in one region is started in another one.</summary>
public sealed class A_disk_that_is_reserved : IDisposable
{
    private readonly TemporaryDirectory _folder = new(onDisk: true);
    private readonly BareTransport _users;
    private readonly string _disk;

    public A_disk_that_is_reserved()
    {
        _disk = _folder.PathOf("disk");
        using (var file = new FileStream(_disk, FileMode.CreateNew))
            file.SetLength(1 << 20);
        _users = new BareTransport(_folder.PathOf("region"), "users", format: true);
    }

    private string Reservations => _folder.PathOf("disks");

    public void Dispose()
    {
        _users.Dispose();
        _folder.Dispose();
    }

    [Fact]
    public void Is_refused_while_devices_wait_for_it_there_until_it_is_given_up()
    {
        LeaveADeviceWaiting();
        using var other = new BareTransport(_folder.PathOf("other"), "other", format: true);
        CbdException refused = Assert.Throws<CbdException>(() => other.StartBackend(_disk));
        Assert.Equal(CbdErrorKind.Busy, refused.Kind);
        Assert.Equal(
            $"disk {_disk} is backend 0 of host 'disks' in region {_folder.PathOf("region")}, and devices there wait for it: start it there, or give it up there with backend-clear -b 0 --force; if no device there waits for it, remove {Directory.GetFiles(_folder.PathOf("disks")).Single()}, which says so",
            refused.Message);
        string link = _folder.PathOf("link");
        TestDisk.Run("ln", _disk, link);
        Assert.Throws<CbdException>(() => other.StartBackend(link));
        // The first remedy, and the second.
        using (var again = new BareTransport(_folder.PathOf("region"), "again"))
            Assert.Equal(0, again.StartBackend(link));
        Assert.Contains("of host 'again'", Assert.Throws<CbdException>(() => other.StartBackend(_disk)).Message, StringComparison.Ordinal);
        _users.Transport.Backends.Clear(0, force: true, fenced: false);
        Assert.Equal(0, other.StartBackend(_disk));
    }

    [Fact]
    public void Is_free_when_its_backend_was_stopped()
    {
        using (var disks = new BareTransport(_folder.PathOf("region"), "disks"))
        {
            disks.StartBackend(_disk);
            _users.StartDevice(0);
            Assert.Single(Directory.GetFiles(Reservations));
            disks.Transport.Backends.Stop(0, force: true, leaves: false);
            Assert.Empty(Directory.GetFiles(Reservations));
        }

        using var other = new BareTransport(_folder.PathOf("other"), "other", format: true);
        Assert.Equal(0, other.StartBackend(_disk));
    }

    [Fact]
    public void Is_reserved_in_the_place_of_what_a_death_left()
    {
        using (Disk disk = Disk.Open(new DiskOptions { Path = _disk }))
        {
            Directory.CreateDirectory(Reservations);
            File.WriteAllText(Path.Combine(Reservations, DiskReservations.NameBefore(disk, _users.Transport.Geometry.RegionId)), "unfinished");
        }

        using var disks = new BareTransport(_folder.PathOf("region"), "disks");
        disks.StartBackend(_disk);
        Assert.NotNull(DiskReservation.TryRead(Assert.Single(Directory.GetFiles(Reservations)), null));
    }

    [Fact]
    public void Is_refused_when_the_directory_is_gone_before_it_is_reserved()
    {
        var reservations = new DiskReservations(Reservations, OwnerTrust.Default, NullLogger.Instance);
        using Disk disk = Disk.Open(new DiskOptions { Path = _disk });
        var reservation = new DiskReservation(disk.Identity, _folder.PathOf("region"), Guid.NewGuid(), 0, "disks");
        using PreparedFile? space = reservations.Prepare(disk, reservation.Region, reservation.RegionId);
        Directory.Delete(Reservations, recursive: true);
        CbdException refused = Assert.Throws<CbdException>(() => reservations.Make(space!, reservation, 1));
        Assert.Contains($"cannot be reserved in '{Reservations}'", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Is_free_when_a_later_session_only_read_it_and_was_stopped()
    {
        var reservations = new DiskReservations(Reservations, OwnerTrust.Default, NullLogger.Instance);
        var region = Guid.NewGuid();
        using (Disk disk = Disk.Open(new DiskOptions { Path = _disk }))
        using (PreparedFile? space = reservations.Prepare(disk, _folder.PathOf("region"), region))
            reservations.Make(space!, new DiskReservation(disk.Identity, _folder.PathOf("region"), region, 0, "disks"), 1);
        Assert.Single(Directory.GetFiles(Reservations));
        using Disk read = Disk.Open(new DiskOptions { Path = _disk, ReadOnly = true });
        reservations.Remove(read, region, 0, 2);
        Assert.Empty(Directory.GetFiles(Reservations));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Is_free_when_its_region_is_gone_or_another_one(bool isAnother)
    {
        LeaveADeviceWaiting();
        _users.Dispose();
        File.Move(_folder.PathOf("region"), _folder.PathOf("away"));
        using BareTransport? next = isAnother ? new BareTransport(_folder.PathOf("region"), "next", format: true) : null;
        using var other = new BareTransport(_folder.PathOf("other"), "other", format: true);
        Assert.Equal(0, other.StartBackend(_disk));
        Assert.Contains(Directory.GetFiles(Reservations), file => File.ReadAllText(file).Contains($"\n{_folder.PathOf("other")}\n", StringComparison.Ordinal));
    }

    [Fact]
    public void May_be_read_by_anybody_who_gets_its_lock()
    {
        LeaveADeviceWaiting();
        using var other = new BareTransport(_folder.PathOf("other"), "other", format: true);
        Assert.Equal(0, other.Transport.Backends.Start(new StartBackendOptions { Path = _disk, ReadOnly = true }, [], _ => null));
    }

    [Theory]
    [InlineData("a FIFO")]
    [InlineData("a link")]
    [InlineData("a folder")]
    [InlineData("endless")]
    [InlineData("nonsense")]
    [InlineData("nothing")]
    public void Is_free_if_what_says_so_is_no_reservation(string what)
    {
        LeaveADeviceWaiting();
        string file = Assert.Single(Directory.GetFiles(Reservations));
        string text = File.ReadAllText(file);
        File.Delete(file);
        switch (what)
        {
            case "a FIFO":
                TestDisk.Run("mkfifo", file);
                break;
            case "a link":
                File.WriteAllText(_folder.PathOf("target"), text);
                File.CreateSymbolicLink(file, _folder.PathOf("target"));
                break;
            case "a folder":
                Directory.CreateDirectory(file);
                break;
            case "endless":
                File.WriteAllText(file, text + new string('\n', 10_000));
                break;
            case "nonsense":
                File.WriteAllText(file, text.Replace("\n0\n", "\n-1\n", StringComparison.Ordinal));
                break;
            default:
                File.WriteAllText(file, "");
                break;
        }

        using var other = new BareTransport(_folder.PathOf("other"), "other", format: true);
        Assert.Equal(0, other.StartBackend(_disk));
    }

    [Fact]
    public void Is_taken_for_reserved_by_its_owner_and_not_by_strangers()
    {
        Assert.SkipUnless(ControlSyscalls.EffectiveUserId == 0, "only root can give files to others");
        LeaveADeviceWaiting();
        string file = Assert.Single(Directory.GetFiles(Reservations));
        TestDisk.Run("chown", "54321", file);
        TestDisk.Run("chown", "54321", _disk);
        using var other = new BareTransport(_folder.PathOf("other"), "other", format: true);
        CbdException refused = Assert.Throws<CbdException>(() => other.StartBackend(_disk));
        Assert.EndsWith($"; if no device there waits for it, remove {file}, which says so", refused.Message, StringComparison.Ordinal);
        TestDisk.Run("chown", "0", _disk);
        Assert.Equal(0, other.StartBackend(_disk));
    }

    [Fact]
    public void Has_a_file_that_all_can_read_and_nobody_else_can_remove()
    {
        Assert.SkipUnless(ControlSyscalls.EffectiveUserId == 0, "only root makes the folder for all");
        LeaveADeviceWaiting();
        Assert.Equal(0, FileStatus.TryGet(Reservations, out FileStatus folder));
        Assert.Equal(0, FileStatus.TryGet(Assert.Single(Directory.GetFiles(Reservations)), out FileStatus file));
        Assert.Equal((0x3ffu, 0x1a4u), (folder.Permissions, file.Permissions));
    }

    [Fact]
    public void Is_served_and_said_not_to_be_reserved_where_that_cannot_be()
    {
        File.WriteAllText(Reservations, "");
        var log = new RecordedLog();
        using var disks = new BareTransport(_folder.PathOf("region"), "disks", logger: log);
        Assert.Equal(0, disks.StartBackend(_disk));
        Eventually.True(() => log.Has("disks are not reserved on this machine: "));
    }

    [Theory]
    [InlineData("cbd disk 1\nfile:1\n/r\n0123456789abcdef0123456789abcdef\n3\nalpha\n", true)]
    [InlineData("cbd disk 2\nfile:1\n/r\n0123456789abcdef0123456789abcdef\n3\nalpha\n", false)]
    [InlineData("cbd disk 1\nfile:1\nr\n0123456789abcdef0123456789abcdef\n3\nalpha\n", false)]
    [InlineData("cbd disk 1\nfile:1\n/r\n0123456789abcdef0123456789abcde\n3\nalpha\n", false)]
    [InlineData("cbd disk 1\nfile:1\n/r\n0123456789abcdef0123456789abcdef\n3\n\n", false)]
    [InlineData("cbd disk 1\nfile:1\n/r\n0123456789abcdef0123456789abcdef\n3\nalpha", false)]
    [InlineData("cbd disk 1\nfile:1\n/r\u001b[2J\n0123456789abcdef0123456789abcdef\n3\nalpha\n", false)]
    public void Is_read_only_from_what_is_whole(string text, bool isReservation) =>
        Assert.Equal(isReservation, DiskReservation.TryParse(System.Text.Encoding.UTF8.GetBytes(text)) is not null);

    [Fact]
    public void Is_not_read_from_what_is_no_text() => Assert.Null(DiskReservation.TryParse([0xff, 0xfe, 0x00]));

    [Fact]
    public void Has_a_file_of_its_record_by_whichever_name()
    {
        LeaveADeviceWaiting();
        string file = Assert.Single(Directory.GetFiles(Reservations));
        Assert.NotNull(DiskReservation.SessionIn(Path.GetFileName(file), _users.Transport.Geometry.RegionId, 0));
        File.Move(file, Path.Combine(Reservations, "0123456789abcdef0123456789abcdef"));
        using var other = new BareTransport(_folder.PathOf("other"), "other", format: true);
        Assert.Throws<CbdException>(() => other.StartBackend(_disk));
        // What a write that was interrupted has left is not.
        File.Move(Directory.GetFiles(Reservations).Single(), file + ".new");
        Assert.Equal(0, other.StartBackend(_disk));
    }

    [Fact]
    public void Is_free_when_its_backend_was_stopped_whatever_an_older_file_says()
    {
        using var disks = new BareTransport(_folder.PathOf("region"), "disks");
        disks.StartBackend(_disk);
        _users.StartDevice(0);
        File.Copy(Assert.Single(Directory.GetFiles(Reservations)), Path.Combine(Reservations, "0123456789abcdef0123456789abcdef"));
        disks.Transport.Backends.Stop(0, force: true, leaves: false);
        Assert.Single(Directory.GetFiles(Reservations));
        using var other = new BareTransport(_folder.PathOf("other"), "other", format: true);
        Assert.Equal(0, other.StartBackend(_disk));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Is_reserved_beside_what_is_in_the_place_of_its_file(bool isUnfinished)
    {
        Guid region = _users.Transport.Geometry.RegionId;
        using (Disk disk = Disk.Open(new DiskOptions { Path = _disk }))
        {
            string[] names = isUnfinished ? [DiskReservations.NameBefore(disk, region)] : [.. Enumerable.Range(0, 8).Select(session => DiskReservation.NameOf(region, 0, (ulong)session))];
            foreach (string name in names)
                Directory.CreateDirectory(Path.Combine(Reservations, name, "folder"));
        }

        LeaveADeviceWaiting();
        using var other = new BareTransport(_folder.PathOf("other"), "other", format: true);
        Assert.Throws<CbdException>(() => other.StartBackend(_disk));
        using (var again = new BareTransport(_folder.PathOf("region"), "again"))
        {
            Assert.Equal(0, again.StartBackend(_disk));
            Assert.Single(Directory.GetFiles(Reservations));
            again.Transport.Backends.Stop(0, force: true, leaves: false);
        }

        Assert.Empty(Directory.GetFiles(Reservations));
        Assert.Equal(0, other.StartBackend(_disk));
    }

    [Fact]
    public void Is_not_touched_by_a_session_that_was_over_before_it()
    {
        using Disk disk = Disk.Open(new DiskOptions { Path = _disk });
        var reservations = new DiskReservations(Reservations, OwnerTrust.Default, NullLogger.Instance);
        Guid region = Guid.NewGuid();
        var reservation = new DiskReservation(disk.Identity, "/region", region, 1, "host");
        Make(reservation, 5);
        Make(reservation with { Backend = 10 }, 5);
        Make(reservation, 7);
        Assert.Equal(["1-7", "10-5"], Left());
        // A process that stood still meanwhile.
        Make(reservation with { Identity = "file:another" }, 5);
        reservations.Remove(disk, region, 1, session: 5);
        Assert.Equal(["1-7", "10-5"], Left());
        reservations.Remove(disk, region, 1, session: 7);
        Assert.Equal(["10-5"], Left());

        void Make(DiskReservation made, ulong session)
        {
            using PreparedFile? space = reservations.Prepare(disk, made.Region, made.RegionId);
            reservations.Make(space!, made, session);
        }

        string[] Left() => [.. Directory.GetFiles(Reservations).Select(file => Path.GetFileName(file)[33..]).Order(StringComparer.Ordinal)];
    }

    [Fact]
    public void Is_looked_for_among_so_many_files_and_no_more()
    {
        LeaveADeviceWaiting();
        string file = Assert.Single(Directory.GetFiles(Reservations));
        string text = File.ReadAllText(file);
        string gone = text.Replace($"\n{_folder.PathOf("region")}\n", "\n/is/gone\n", StringComparison.Ordinal);
        for (int i = 0; i < DiskReservations.Most + 1; i++)
            File.WriteAllText(Path.Combine(Reservations, $"{i}"), gone);
        // What is of regions that are gone is removed, and what is none does not count.
        using var other = new BareTransport(_folder.PathOf("other"), "other", format: true);
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => other.StartBackend(_disk)).Kind);
        Assert.True(Directory.GetFiles(Reservations).Length < DiskReservations.Most);
        string stands = text.Replace("\nfile:", "\nother:", StringComparison.Ordinal);
        for (int i = 0; i < DiskReservations.Most + 1; i++)
            File.WriteAllText(Path.Combine(Reservations, $"{i}"), i % 2 == 0 ? stands : "");
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => other.StartBackend(_disk)).Kind);
        for (int i = 0; i < DiskReservations.Most + 1; i++)
            File.WriteAllText(Path.Combine(Reservations, $"{i}"), stands);
        CbdException many = Assert.Throws<CbdException>(() => other.StartBackend(_disk));
        Assert.Equal((CbdErrorKind.Exhausted, true), (many.Kind, many.Message.Contains(Reservations, StringComparison.Ordinal)));
    }

    /// <summary>Backend 0 of host "disks", which has left while a device is on it.</summary>
    private void LeaveADeviceWaiting()
    {
        using var disks = new BareTransport(_folder.PathOf("region"), "disks");
        Assert.Equal(0, disks.StartBackend(_disk));
        _users.StartDevice(0);
    }
}
