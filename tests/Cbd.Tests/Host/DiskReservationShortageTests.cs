using System.Diagnostics;
using System.Globalization;
using Cbd.Disks;
using Cbd.Host;
using Cbd.Host.Transports;
using Cbd.Memory;
using Cbd.Tests.Memory;
using Microsoft.Extensions.Logging.Abstractions;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>Tests that take something away from this whole process.</summary>
[CollectionDefinition(Name, DisableParallelization = true)]
public sealed class Alone
{
    public const string Name = "alone";
}

/// <summary>Whether a disk is reserved, when this process has no descriptors left to find that out, or to reserve it.</summary>
[Collection(Alone.Name)]
public sealed class A_reservation_for_want_of_descriptors : IDisposable
{
    private static readonly Lazy<string> s_limit = new(() => Limit("prlimit --pid $PPID --nofile --output SOFT --noheadings"));

    private readonly TemporaryDirectory _folder = new(onDisk: true);

    public void Dispose() => _folder.Dispose();

    [Fact]
    public void Is_not_taken_for_none()
    {
        string path = MakeDisk();
        using var users = new BareTransport(_folder.PathOf("region"), "users", format: true);
        using (var disks = new BareTransport(_folder.PathOf("region"), "disks"))
        {
            disks.StartBackend(path);
            users.StartDevice(0);
        }

        using Disk disk = Disk.Open(new DiskOptions { Path = path });
        var reservations = new DiskReservations(_folder.PathOf("disks"), OwnerTrust.Default, NullLogger.Instance);
        // What is loaded at first needs descriptors, too.
        Assert.Equal(CbdErrorKind.Busy, Check().Kind);
        bool wasShort = false;
        // Other threads of this process may close some meanwhile: what was read is right, too.
        for (int left = 0; left < 6; left++)
        {
            CbdException refused = WithDescriptors(left, Check);
            wasShort |= refused.Kind == CbdErrorKind.Exhausted;
            Assert.Contains(refused.Kind == CbdErrorKind.Busy ? "devices there wait" : "no descriptor is left", refused.Message, StringComparison.Ordinal);
        }

        Assert.True(wasShort, "no limit was too low to read a reservation");

        CbdException Check() => Assert.Throws<CbdException>(() => reservations.Check(disk, Guid.NewGuid()));
    }

    [Fact]
    public void Is_known_to_have_no_room_before_the_disk_is_a_backend()
    {
        string region = _folder.PathOf("region");
        string directory = _folder.PathOf("disks");
        var id = Guid.NewGuid();
        using Disk disk = Disk.Open(new DiskOptions { Path = MakeDisk() });
        var reservations = new DiskReservations(directory, OwnerTrust.Default, NullLogger.Instance);
        bool wasShort = false;
        // The first one makes the directory, and loads what needs descriptors, too.
        for (int left = 6; left >= 0; left--)
        {
            CbdException? refused = null;
            using PreparedFile? space = WithDescriptors(left, () =>
            {
                try
                {
                    return reservations.Prepare(disk, region, id);
                }
                catch (CbdException e)
                {
                    refused = e;
                    return null;
                }
            });
            Assert.Equal(refused is null ? 1 : 0, Directory.GetFiles(directory).Length);
            if (refused is null)
                continue;
            wasShort = true;
            Assert.Equal(CbdErrorKind.Exhausted, refused.Kind);
            Assert.Contains("no descriptor is left", refused.Message, StringComparison.Ordinal);
        }

        Assert.True(wasShort, "no limit was too low to make room for a reservation");
        Assert.Empty(Directory.GetFiles(directory));
    }

    [Fact]
    public void Needs_nothing_more_where_there_is_room()
    {
        string region = _folder.PathOf("region");
        using Disk disk = Disk.Open(new DiskOptions { Path = MakeDisk() });
        var reservations = new DiskReservations(_folder.PathOf("disks"), OwnerTrust.Default, NullLogger.Instance);
        for (int left = 1; left >= 0; left--)
        {
            var reservation = new DiskReservation(disk.Identity, region, Guid.NewGuid(), 0, "disks");
            using PreparedFile? space = reservations.Prepare(disk, region, reservation.RegionId);
            // To look for those of earlier sessions it would need one; that fails, and is said.
            Assert.Null(WithDescriptors(left, () => Record.Exception(() => reservations.Make(space!, reservation, 1))));
            string file = Path.Combine(_folder.PathOf("disks"), DiskReservation.NameOf(reservation.RegionId, 0, 1));
            Assert.Equal(reservation.ToBytes(), DiskReservation.TryRead(file, null)!.ToBytes());
        }
    }

    [Theory]
    [InlineData(false, false)]
    [InlineData(true, true)]
    [InlineData(true, false)]
    public void Is_as_before_after_a_start_that_is_refused(bool isUsed, bool wasStopped)
    {
        string path = MakeDisk();
        using var disks = new BareTransport(_folder.PathOf("region"), "disks", format: true);
        using BareTransport? users = isUsed ? new BareTransport(_folder.PathOf("region"), "users") : null;
        if (users is not null)
        {
            disks.StartBackend(path);
            users.StartDevice(0);
            Stop();
        }

        bool wasReserved = false;
        for (int left = 6; left >= 0; left--)
        {
            CbdException? refused = WithDescriptors(left, () => Record.Exception(() => disks.StartBackend(path)) as CbdException);
            // Threads of the backend come after the reservation.
            wasReserved |= refused is not null && refused.Message.Contains("(cbd-be0", StringComparison.Ordinal);
            Assert.Equal(refused is null || (isUsed && !wasStopped) ? 1 : 0, Directory.GetFiles(_folder.PathOf("disks")).Length);
            if (isUsed)
                Assert.Equal(wasStopped && refused is not null, disks.Transport.Session.Backends.ReadRecord(0).IsStopped);
            if (refused is null)
                Stop();
        }

        Assert.True(wasReserved, "no start was refused after its disk was reserved");

        void Stop() => disks.Transport.Backends.Stop(0, force: isUsed, leaves: isUsed && !wasStopped);
    }

    private string MakeDisk()
    {
        string path = _folder.PathOf("disk");
        using var file = new FileStream(path, FileMode.CreateNew);
        file.SetLength(1 << 20);
        return path;
    }

    /// <summary>Does something while this process can open so many files and no more.</summary>
    private static T WithDescriptors<T>(int left, Func<T> action)
    {
        // To begin a program, and to wait for it, needs descriptors: it waits for us instead.
        using Process limiter = Start($"read n; prlimit --pid $PPID --nofile=$n: && echo; read n; prlimit --pid $PPID --nofile={s_limit.Value}: && echo");
        HashSet<int> open =
        [
            .. Directory.GetFileSystemEntries("/proc/self/fd")
                .Where(file => new FileInfo(file).LinkTarget is not null)
                .Select(file => int.Parse(Path.GetFileName(file), CultureInfo.InvariantCulture)),
        ];
        int limit = 0;
        for (int free = 0; free < left || open.Contains(limit); limit++)
            free += open.Contains(limit) ? 0 : 1;
        Tell(limit.ToString(CultureInfo.InvariantCulture));
        try
        {
            return action();
        }
        finally
        {
            Tell("");
            limiter.WaitForExit();
        }

        void Tell(string line)
        {
            limiter.StandardInput.WriteLine(line);
            limiter.StandardInput.Flush();
            Assert.NotNull(limiter.StandardOutput.ReadLine());
        }
    }

    private static string Limit(string script)
    {
        using Process process = Start(script);
        return process.StandardOutput.ReadToEnd().Trim();
    }

    private static Process Start(string script) => Process.Start(new ProcessStartInfo("sh", ["-c", script]) { RedirectStandardInput = true, RedirectStandardOutput = true })!;
}
