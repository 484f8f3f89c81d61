using Cbd.Host.Wanted;
using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>The record and its rules, without files and threads.</summary>
public sealed class A_wanted_record : IRecordMedium
{
    private static readonly Guid s_boot = Guid.NewGuid();

    private IReadOnlyList<StateEntry> _written = [];
    private bool _isFull;

    void IRecordMedium.Write(IReadOnlyList<StateEntry> entries)
    {
        if (_isFull)
            throw new CbdException(CbdErrorKind.Failed, "no space");
        _written = [.. entries];
    }

    private static StateEntry Backend(string path, string? identity) =>
        new() { Backend = new BackendEntry { Region = "/r", BackendId = 0, Path = path, DiskIdentity = identity, Handlers = 1, ReadOnly = false, Engine = "auto" } };

    private static DeviceEntry Device(string identity) =>
        new() { Region = "/r", BlkdevId = 0, Name = "cbd0", BackendId = 0, BackendPath = "/d", DiskIdentity = identity, Insecure = false, ReadOnly = false };

    [Fact]
    public void Keeps_what_waits_for_the_same_disk_when_a_start_cannot_be_confirmed()
    {
        var record = new WantedRecord<SafePolicy>(this, [Backend("/a", "file:1")]);
        int number = record.BeginStart(Backend("/b", null));
        _isFull = true;
        Assert.Throws<CbdException>(() => record.ConfirmStart(number, Backend("/b", "file:1")));
        Assert.Equal(["/a", "/b"], record.Entries.Select(e => e.Backend!.Path));
        _isFull = false;
        record.ConfirmStart(number, Backend("/b", "file:1"));
        Assert.Equal(["/b"], _written.Select(e => e.Backend!.Path));
    }

    private static StateEntry Named(string? name, string path, string? identity, uint? user = null)
    {
        StateEntry entry = Backend(path, identity);
        return entry with { Backend = entry.Backend! with { Name = name, Caller = user is { } id ? By(id) : null } };
    }

    private static Caller By(uint user) => new(user, user, []);

    [Fact]
    public void Gives_nobody_the_disk_of_what_is_away_under_another_name_or_for_another_user()
    {
        var record = new WantedRecord<SafePolicy>(this, [Named("data", "/a", "file:1")]);
        Assert.Throws<CbdException>(() => record.Match(Named("other", "/a", null), isRun: false, _ => false));
        Assert.Equal(CbdErrorKind.Denied, Assert.Throws<CbdException>(() => record.Match(Named(null, "/a", null), isRun: false, _ => false, By(7))).Kind);
        Assert.Equal("data", record.Match(Named(null, "/a", null), isRun: false, _ => false)?.Backend?.Name);
        Assert.Null(record.Match(Named("other", "/b", null), isRun: false, _ => false, By(7)));
        // Under another path it is known when it is open.
        int other = record.BeginStart(Named("other", "/b", null));
        Assert.Throws<CbdException>(() => record.ConfirmStart(other, Named("other", "/b", "file:1")));
        Assert.Throws<CbdException>(() => record.ConfirmStart(other, Named(null, "/b", "file:1", user: 7)));
        Assert.Contains(record.Entries, entry => entry.Backend!.Name == "data");
        Assert.True(record.ConfirmStart(other, Named("data", "/b", "file:1")));
        Assert.Equal(["/b"], record.Entries.Select(entry => entry.Backend!.Path));
    }

    [Fact]
    public void Gives_each_user_its_own_of_like_things()
    {
        StateEntry Like(string name, uint? user) => new() { Device = Device("file:1") with { Name = name, ReadOnly = true, Caller = user is { } id ? By(id) : null } };
        var record = new WantedRecord<SafePolicy>(this, [Like("cbd0", null), Like("cbd1", 7)]);
        StateEntry asked = new() { Device = Device("file:1") with { Name = null, ReadOnly = true } };
        Assert.Equal("cbd1", record.Match(asked, isRun: false, _ => false, By(7))?.Device?.Name);
        Assert.Equal("cbd0", record.Match(asked, isRun: false, _ => false)?.Device?.Name);
        Assert.Null(record.Match(asked, isRun: false, _ => false, By(8)));
    }

    [Fact]
    public void Has_a_backend_started_again_that_was_lost_with_its_hosts_claim_and_none_that_is_being_stopped()
    {
        var record = new WantedRecord<SafePolicy>(this, []);
        record.ConfirmStart(record.BeginStart(Backend("/a", null)), Backend("/a", "file:1"));
        Assert.DoesNotContain(record.Entries, WantedRules<SafePolicy>.IsDue);
        record.SetBackendPending("/r", 1, "lost");
        record.SetBackendPending("/other", 0, "lost");
        Assert.DoesNotContain(record.Entries, WantedRules<SafePolicy>.IsDue);
        record.SetBackendPending("/r", 0, "lost");
        Assert.Equal("lost", Assert.Single(record.Entries, WantedRules<SafePolicy>.IsDue).Reason);
        record.BeginStop(_ => true);
        record.SetBackendPending("/r", 0, "lost");
        Assert.DoesNotContain(record.Entries, WantedRules<SafePolicy>.IsDue);
    }

    [Fact]
    public void Names_the_verbs_that_confirm_another_disk()
    {
        var disk = new Cbd.Blocks.DiskIdentity("file:2");
        string Refuse(string? name) => Assert.Throws<CbdException>(() => WantedRules<SafePolicy>.CheckDisk("file:1", disk, "/d", null, name)).Message;
        Assert.EndsWith("or confirm this one: backend-stop -b /d, then backend-start -p /d", Refuse(null), StringComparison.Ordinal);
        Assert.EndsWith("or confirm this one: backend-stop -b data, then backend-start --name data -p /d", Refuse("data"), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(true, true, true)]
    [InlineData(true, false, false)]
    [InlineData(false, true, false)]
    public void Takes_any_region_only_after_a_boot_and_in_memory(bool isOtherBoot, bool isVolatile, bool isAny)
    {
        var recorded = new TransportEntry { Region = "/r", Host = "a", Uuid = Guid.NewGuid(), BootId = isOtherBoot ? Guid.NewGuid() : s_boot };
        Assert.Equal(isAny ? null : recorded.Uuid, WantedRules<SafePolicy>.ExpectRegion(recorded, s_boot, isVolatile));
    }

    [Fact]
    public void Leads_to_the_disk_whichever_backend_has_its_id()
    {
        OfferedBackend[] all = [new(0, "/d", "file:other", true), new(3, "/x", "file:mine", true)];
        Assert.Equal(3, WantedRules<SafePolicy>.FindBackend(Device("file:mine"), all).Id);
        Assert.Equal(CbdErrorKind.Invalid, Assert.Throws<CbdException>(() => WantedRules<SafePolicy>.FindBackend(Device("file:mine"), all[..1])).Kind);
        Assert.Equal(CbdErrorKind.NotFound, Assert.Throws<CbdException>(() => WantedRules<SafePolicy>.FindBackend(Device("file:mine"), [])).Kind);
        Assert.Throws<FailedThingException>(() => WantedRules<SafePolicy>.FindBackend(Device("memory:1"), [new(0, "memory:1M", "memory:2", true)]));
    }

    [Fact]
    public void Is_tried_after_pauses_that_grow_and_at_once_when_something_moved()
    {
        var pauses = new RetryPauses(10, 40, 20);
        List<long> next = [];
        foreach (int left in (int[])[3, 3, 3, 3, 2, 2])
        {
            pauses.Passed(left, isDirty: false, nowMs: 0);
            next.Add(pauses.NextMs);
        }

        Assert.Equal([10, 20, 40, 40, 10, 20], next);
        pauses.Passed(2, isDirty: false, nowMs: 100);
        pauses.Heard(101);
        Assert.Equal(121, pauses.NextMs);
        pauses.Told(102);
        Assert.Equal(102, pauses.NextMs);
        pauses.Passed(0, isDirty: false, nowMs: 103);
        Assert.Equal(long.MaxValue, pauses.NextMs);
        pauses.Passed(0, isDirty: true, nowMs: 104);
        Assert.Equal(144, pauses.NextMs);
    }
}
