using Cbd.Disks;
using Cbd.Host.Transports;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Host;

public sealed class The_wait_for_the_lock_of_a_disk : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly Disk _held;

    /// <summary>The clock of the waits, ms: it moves when a test moves it.</summary>
    private long _nowMs;

    public The_wait_for_the_lock_of_a_disk()
    {
        File.WriteAllBytes(FilePath, new byte[1 << 20]);
        _held = Disk.Open(new DiskOptions { Path = FilePath });
    }

    private string FilePath => _directory.PathOf("disk");

    public void Dispose()
    {
        _held.Dispose();
        _directory.Dispose();
    }

    [Fact]
    public void Says_who_has_it_and_ends_when_it_is_free()
    {
        var said = new List<string>();
        using Disk disk = Wait(backend: 3, path => $"'{path}' is process 77's").Open(why =>
        {
            said.Add(why);
            if (said.Count == 2)
                _held.Dispose();
        });
        Assert.Equal(1 << 20, disk.Info.SizeBytes);
        Assert.Equal([$"disk {FilePath} is in use: '{FilePath}' is process 77's", $"disk {FilePath} is in use: '{FilePath}' is process 77's"], said);
    }

    [Fact]
    public void Ends_when_it_is_given_up()
    {
        CbdException given = Assert.Throws<CbdException>(() => Wait(backend: 3, _ => null).Open(why => throw new CbdException(CbdErrorKind.Failed, why)));
        Assert.Equal($"disk {FilePath} is in use", given.Message);
    }

    [Fact]
    public void Ends_with_the_holder_if_it_is_not_free_in_time()
    {
        CbdException busy = Assert.Throws<CbdException>(() => Wait(backend: null, _ => "backend 5 has it").Open(_ => _nowMs += 1_000));
        Assert.Equal((CbdErrorKind.Busy, $"disk {FilePath} is already in use: backend 5 has it; stop that first"), (busy.Kind, busy.Message));
        Assert.IsType<DiskInUseException>(busy.InnerException);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Has_all_of_a_time_that_was_given(bool isGiven)
    {
        int looks = 0;
        var wait = new DiskLockWait(new StartBackendOptions { Path = FilePath, Limit = new StartLimit(600_000, isGiven) }, [], _ => null, nowMs: () => _nowMs);
        if (!isGiven)
        {
            // The usual second.
            Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => wait.Open(Look)).Kind);
            Assert.Equal(1, looks);
            return;
        }

        using Disk disk = wait.Open(Look);
        Assert.Equal(5, looks);

        void Look(string why)
        {
            _nowMs += 100_000;
            if (++looks == 5)
                _held.Dispose();
        }
    }

    [Fact]
    public void Looks_for_the_holder_at_first_once_a_second_and_at_its_end()
    {
        List<long> looks = [], waits = [];
        var wait = new DiskLockWait(new StartBackendOptions { Path = FilePath, Backend = 3 }, [], LookAt, nowMs: () => _nowMs);
        Assert.EndsWith("holder 10; stop that first", Assert.Throws<CbdException>(() => wait.Open(Wait)).Message, StringComparison.Ordinal);
        Assert.Equal([.. Enumerable.Range(0, 11).Select(second => second * 1_000L)], looks);
        Assert.Equal(20, waits.Count);

        string LookAt(string path)
        {
            looks.Add(_nowMs);
            return $"holder {looks.Count - 1}";
        }

        void Wait(string why)
        {
            Assert.EndsWith($"holder {_nowMs / 1_000}", why, StringComparison.Ordinal);
            waits.Add(_nowMs);
            _nowMs += 500;
        }
    }

    private DiskLockWait Wait(int? backend, Func<string, string?> describeHolder) =>
        new(new StartBackendOptions { Path = FilePath, Backend = backend }, [], describeHolder, nowMs: () => _nowMs);
}
