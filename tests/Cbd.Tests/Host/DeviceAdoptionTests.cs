using Cbd.Blocks;
using Cbd.Host.Backends;
using Cbd.Host.Devices;
using Cbd.Host.Sessions;
using Cbd.Memory;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Protocol.Records;
using Cbd.Simulation;
using Cbd.Tests.Hosts;
using Xunit;

namespace Cbd.Tests.Host;

/// <summary>A device whose process dies, and the next process of its host that goes on with it.</summary>
public sealed class A_device_that_outlives_its_process : IDisposable
{
    private const ulong Life = 77;
    private static readonly Guid s_uuid = new("bbbbbbbb-0000-0000-0000-000000000002");

    private readonly TestRegion _region = new(hosts: 5);
    private readonly SteppedHost _disks;
    private readonly SteppedBackend _backend;
    private readonly NativeBuffer _memory = new(DeviceRecord.SizeFor(2));
    private readonly NativeBuffer _data = new(4096);
    private SteppedHost _user;

    public A_device_that_outlives_its_process()
    {
        _disks = new SteppedHost(_region, "disks").Register();
        _user = NewUser();
        _backend = new SteppedBackend(_disks);
    }

    public void Dispose()
    {
        _backend.Dispose();
        _memory.Dispose();
        _data.Dispose();
    }

    private SteppedHost NewUser(Guid? uuid = null) => new SteppedHost(_region, "user", hostUuid: uuid ?? s_uuid).Register();

    private DeviceRecord NewRecord() => DeviceRecord.Create(_memory, new DeviceRecordBody
    {
        Life = Life,
        RegionId = _region.Geometry.RegionId,
        HostUuid = s_uuid,
        BackendId = 0,
        Queues = 2,
        Name = "cbd0",
    });

    private static DeviceWish Wish(DeviceRecord record, bool adopts) => new() { Backend = record.Body.BackendId, Queues = record.Body.Queues, Record = record, Adopts = adopts };

    private DeviceLife<ArrayMemory, SafePolicy> StartKept(DeviceRecord? record = null)
    {
        var device = new DeviceLife<ArrayMemory, SafePolicy>(_user.Session, Wish(record ?? NewRecord(), adopts: false), _user.NowMs);
        device.Claim(_user.NowMs);
        device.Activate("fuse", _user.NowMs);
        StepUntil(device, DeviceStage.Attached);
        device.BeginServing(_user.NowMs);
        return device;
    }

    private void StepUntil(DeviceLife<ArrayMemory, SafePolicy> device, DeviceStage stage) => _user.StepUntil(now =>
    {
        _backend.Turn();
        device.Step(now * 1000);
        return device.Stage == stage;
    });

    /// <summary>The process is dead. Its memory is kept, and the next process of its host begins.</summary>
    private DeviceLife<ArrayMemory, SafePolicy> DieAndAdopt(SteppedHost? next = null)
    {
        _user.Locks.Kill();
        _user = next ?? NewUser();
        var device = new DeviceLife<ArrayMemory, SafePolicy>(_user.Session, Wish(DeviceRecord.Open(_memory), adopts: true), _user.NowMs);
        _user.StepUntil(now =>
        {
            // Handlers drain, and whoever looks around clears.
            _backend.Turn();
            _user.Session.Look(sample: true, now * 1000);
            return !device.HasToWait(now);
        });
        return device;
    }

    private BlockCompletion Do(DeviceLife<ArrayMemory, SafePolicy> device, BlockOperation operation, ulong? repeatsFrom = null, bool polls = true)
    {
        int length = operation == BlockOperation.Flush ? 0 : 512;
        var request = new BlockRequest(1, operation, BlockFlags.None, 0, length, length > 0 ? new BufferSlice(_data, 0, length) : default);
        Queue<ArrayMemory, SafePolicy> queue = device.Queues[0];
        Assert.True(repeatsFrom is { } session ? queue.TryRepeat(request, session) : queue.TrySubmit(request));
        var one = new BlockCompletion[1];
        for (int turn = 0; turn < 1000; turn++)
        {
            if (polls)
                _backend.Turn();
            _user.NowMs += 1;
            device.Watch(_user.NowMs);
            foreach (Queue<ArrayMemory, SafePolicy> other in device.Queues)
            {
                if (other.Poll(_user.NowMs * 1000, one) > 0)
                    return one[0];
            }
        }

        throw new InvalidOperationException("no answer");
    }

    [Fact]
    public void Has_its_claim_in_its_record_before_it_serves()
    {
        DeviceRecord record = NewRecord();
        var device = new DeviceLife<ArrayMemory, SafePolicy>(_user.Session, Wish(record, adopts: false), 0);
        device.Claim(0);
        Assert.Equal((0, 1UL, _user.Id, _user.Session.Claim.Epoch, DeviceRecordState.Starting), (record.Body.BlkdevId, record.Body.BlkdevEpoch, record.Body.HostId, record.Body.HostEpoch, record.Body.State));
        device.Activate("fuse", 0);
        Assert.Equal((1UL, 1L << 20, "file:1:2", DeviceRecordState.Starting), (record.Body.Session, record.Body.Info.SizeBytes, record.Body.Identity, record.Body.State));
        Assert.NotEqual(Guid.Empty, record.Body.DurabilityId);
        StepUntil(device, DeviceStage.Attached);
        device.BeginServing(0);
        Assert.Equal(DeviceRecordState.Serving, record.Body.State);
        Assert.True(EntryBodies<ArrayMemory>.IsKept(_region.Memory, _region.Geometry, 0, 1));
        device.BeginStop(force: false, 0);
        device.EndServing(0);
        Assert.Equal(DeviceRecordState.Stopping, record.Body.State);
    }

    [Fact]
    public void Goes_on_with_its_id_its_uncovered_writes_and_new_channels()
    {
        DeviceLife<ArrayMemory, SafePolicy> first = StartKept();
        Assert.Equal(0, Do(first, BlockOperation.Write).Error);
        Assert.True(first.State!.HasUncoveredWrites);
        DeviceLife<ArrayMemory, SafePolicy> next = DieAndAdopt();
        next.Claim(_user.NowMs);
        Assert.Equal((0, 2UL), (next.Blkdev, next.Epoch));
        next.Activate("fuse", _user.NowMs);
        Assert.Equal((DeviceStage.Attached, "file:1:2", true), (next.Stage, next.Identity, next.HasClaim));
        next.BeginServing(_user.NowMs);
        Assert.True(next.State!.HasUncoveredWrites);
        Assert.Equal(0, Do(next, BlockOperation.Read).Error);
        Assert.Equal(0, Do(next, BlockOperation.Flush).Error);
        Assert.False(next.State.HasUncoveredWrites);
        Assert.Equal(LifeState.Running, next.Status.State);
        next.BeginStop(force: false, _user.NowMs);
        next.EndServing(_user.NowMs);
        StepUntil(next, DeviceStage.Over);
        Assert.Equal((ClaimState.Free, WriterWord.None), (_region.BlkdevWord(0).State, _region.Writer(0)));
    }

    /// <summary>It is as after any loss of its backend: requests wait for the next session.</summary>
    [Fact]
    public void Goes_on_while_its_backend_is_away()
    {
        StartKept();
        _backend.Life.BeginStop(force: true, leaves: true, _disks.NowMs);
        Assert.True(_backend.TryEndStop());
        DeviceLife<ArrayMemory, SafePolicy> next = DieAndAdopt();
        next.Claim(_user.NowMs);
        next.Activate("fuse", _user.NowMs);
        next.BeginServing(_user.NowMs);
        next.Watch(_user.NowMs);
        Assert.Equal(LifeState.Waiting, next.Status.State);
        Assert.Null(next.State!.Failure);
        Assert.Equal(1 << 20, next.State.Info.SizeBytes);
        using var again = new SteppedBackend(_disks, new BackendWish(0));
        Queue<ArrayMemory, SafePolicy> queue = next.Queues[0];
        Assert.True(queue.TrySubmit(new BlockRequest(1, BlockOperation.Read, BlockFlags.None, 0, 512, new BufferSlice(_data, 0, 512))));
        var one = new BlockCompletion[1];
        _user.StepUntil(now =>
        {
            again.Turn();
            next.Watch(now);
            return next.Queues.Sum(q => q.Poll(now * 1000, one)) > 0;
        });
        Assert.Equal(0, one[0].Error);
        Assert.Equal(LifeState.Running, next.Status.State);
    }

    [Fact]
    public void Fails_if_writes_that_it_owes_may_be_lost()
    {
        DeviceLife<ArrayMemory, SafePolicy> first = StartKept();
        Assert.Equal(0, Do(first, BlockOperation.Write).Error);
        _backend.Life.BeginStop(force: true, leaves: true, _disks.NowMs);
        Assert.True(_backend.TryEndStop());
        using var other = new SteppedBackend(_disks, new BackendWish(0), TestRegion.Disk() with { DurabilityId = Guid.NewGuid() });
        DeviceLife<ArrayMemory, SafePolicy> next = DieAndAdopt();
        next.Claim(_user.NowMs);
        next.Activate("fuse", _user.NowMs);
        next.BeginServing(_user.NowMs);
        Assert.Equal(LifeState.Failed, next.Status.State);
        Assert.Contains("acknowledged writes may be lost", next.Status.Reason, StringComparison.Ordinal);
        Assert.Equal(Errno.EIO, Do(next, BlockOperation.Read, polls: false).Error);
        // It has its claim until it is stopped, and no process after this one forgets.
        Assert.Equal(ClaimState.Active, _region.BlkdevWord(0).State);
        DeviceLife<ArrayMemory, SafePolicy> third = DieAndAdopt();
        third.Claim(_user.NowMs);
        third.Activate("fuse", _user.NowMs);
        third.BeginServing(_user.NowMs);
        Assert.Equal(next.Status.Reason, third.Status.Reason);
        Assert.Empty(third.Channels);
        Assert.Equal(Errno.EIO, Do(third, BlockOperation.Flush, polls: false).Error);
        third.BeginStop(force: false, _user.NowMs);
        third.EndServing(_user.NowMs);
        third.Step(_user.NowMs * 1000);
        Assert.Equal((DeviceStage.Over, ClaimState.Free), (third.Stage, _region.BlkdevWord(0).State));
    }

    [Fact]
    public void Fails_and_says_so_if_its_claim_was_given_up()
    {
        StartKept();
        _user.Locks.Kill();
        _disks.StepUntil(_ =>
        {
            _backend.Turn();
            return _region.BlkdevWord(0).State == ClaimState.Orphaned;
        });
        Assert.True(_disks.Membership.Clearing.ReleaseOrphan(0, _region.BlkdevWord(0)));
        DeviceLife<ArrayMemory, SafePolicy> next = DieAndAdopt();
        next.Claim(_user.NowMs);
        next.Activate("fuse", _user.NowMs);
        next.BeginServing(_user.NowMs);
        Assert.Equal((0, false, LifeState.Failed), (next.Blkdev, next.HasClaim, next.Status.State));
        Assert.Contains("given up while its daemon was away", next.Status.Reason, StringComparison.Ordinal);
        Assert.Equal(Errno.EIO, Do(next, BlockOperation.Write, polls: false).Error);
        next.BeginStop(force: false, _user.NowMs);
        next.EndServing(_user.NowMs);
        next.Step(_user.NowMs * 1000);
        Assert.Equal((DeviceStage.Over, new ClaimWord(ClaimState.Free, 0, 1)), (next.Stage, _region.BlkdevWord(0)));
    }

    [Fact]
    public void Is_left_alone_by_another_host_and_by_one_that_finds_it_starting()
    {
        StartKept();
        var stranger = new DeviceLife<ArrayMemory, SafePolicy>(_disks.Session, Wish(DeviceRecord.Open(_memory), adopts: true), 0);
        CbdException denied = Assert.Throws<CbdException>(() => stranger.Claim(0));
        Assert.Equal(CbdErrorKind.Denied, denied.Kind);
        Assert.Contains(s_uuid.ToString(), denied.Message, StringComparison.Ordinal);
        Assert.Equal(DeviceStage.Over, stranger.Stage);
        DeviceRecord record = DeviceRecord.Open(_memory);
        record.Change(body => body with { State = DeviceRecordState.Stopping });
        DeviceLife<ArrayMemory, SafePolicy> next = DieAndAdopt();
        Assert.Contains("was stopping", Assert.Throws<CbdException>(() => next.Claim(0)).Message, StringComparison.Ordinal);
        Assert.Equal("", record.Body.Failure);
        Assert.Equal(ClaimState.Orphaned, _region.BlkdevWord(0).State);
    }

    /// <summary>A start that cannot be for now leaves the orphan, and the next one takes it up.</summary>
    [Fact]
    public void Is_tried_again_if_there_are_too_few_channels()
    {
        StartKept();
        DeviceLife<ArrayMemory, SafePolicy> next = DieAndAdopt();
        ClaimWord[] taken = [.. Enumerable.Range(0, 3).Select(c => _region.ChannelWord(c).Next(ClaimState.Claimed, _disks.Id))];
        for (int channel = 0; channel < 3; channel++)
            _region.Store(_region.Geometry.ChannelOffset(channel), taken[channel]);
        Assert.Equal(CbdErrorKind.Exhausted, Assert.Throws<CbdException>(() => next.Claim(_user.NowMs)).Kind);
        Assert.Equal((ClaimState.Orphaned, 2UL), (_region.BlkdevWord(0).State, _region.BlkdevWord(0).Epoch));
        for (int channel = 0; channel < 3; channel++)
            _region.Store(_region.Geometry.ChannelOffset(channel), taken[channel].Freed());
        var again = new DeviceLife<ArrayMemory, SafePolicy>(_user.Session, Wish(DeviceRecord.Open(_memory), adopts: true), _user.NowMs);
        Assert.False(again.HasToWait(_user.NowMs));
        again.Claim(_user.NowMs);
        Assert.Equal(3UL, again.Epoch);
    }

    [Fact]
    public void Is_given_up_by_its_own_host_if_that_has_no_record_of_it()
    {
        StartKept();
        _user.Locks.Kill();
        SteppedHost next = NewUser();
        bool keeps = true;
        next.Membership.KeepsLife = life => keeps && life == Life;
        for (int turn = 0; turn < 10; turn++)
        {
            _backend.Turn();
            next.Session.Look(sample: true, turn * 100_000);
        }

        Assert.Equal(ClaimState.Orphaned, _region.BlkdevWord(0).State);
        Assert.Equal(-1, next.Session.FindDyingBlkdev(0, 0));
        // Other hosts leave it alone, whatever they have.
        _disks.Membership.KeepsLife = _ => false;
        _backend.Turn();
        Assert.Equal(ClaimState.Orphaned, _region.BlkdevWord(0).State);
        keeps = false;
        Assert.Equal(0, next.Session.FindDyingBlkdev(0, 0));
        next.Session.Look(sample: true, 2_000_000);
        Assert.Equal((ClaimState.Free, WriterWord.None), (_region.BlkdevWord(0).State, _region.Writer(0)));
    }

    /// <summary>The kernel may have told the failure of that flush to the process that served the disk.</summary>
    [Fact]
    public void Answers_a_flush_that_was_taken_in_a_lost_session_of_a_page_cache_with_an_error()
    {
        _backend.Life.BeginStop(force: false, leaves: true, _disks.NowMs);
        Assert.True(_backend.TryEndStop());
        using var buffered = new SteppedBackend(_disks, body: TestRegion.Disk() with { Flags = BackendFlags.Buffered });
        DeviceRecord record = NewRecord();
        var first = new DeviceLife<ArrayMemory, SafePolicy>(_user.Session, Wish(record, adopts: false), 0);
        first.Claim(0);
        first.Activate("fuse", 0);
        _user.StepUntil(now =>
        {
            buffered.Turn();
            first.Step(now * 1000);
            return first.Stage == DeviceStage.Attached;
        });
        first.BeginServing(0);
        Assert.True(record.Body.WasBuffered);
        ulong session = first.State!.SessionEpoch;
        _user.Locks.Kill();
        _user = NewUser();
        _user.StepUntil(now =>
        {
            buffered.Turn();
            _user.Session.Look(sample: true, now * 1000);
            return _user.Session.Blkdevs.FindOwnDead() < 0;
        });
        var next = new DeviceLife<ArrayMemory, SafePolicy>(_user.Session, Wish(DeviceRecord.Open(_memory), adopts: true), _user.NowMs);
        Assert.False(next.HasToWait(_user.NowMs));
        next.Claim(_user.NowMs);
        next.Activate("fuse", _user.NowMs);
        next.BeginServing(_user.NowMs);
        Queue<ArrayMemory, SafePolicy> queue = next.Queues[0];
        // It waits when its session goes.
        Assert.True(queue.TryRepeat(new BlockRequest(1, BlockOperation.Flush, BlockFlags.None, 0, 0, default), session));
        Assert.True(queue.TryRepeat(new BlockRequest(2, BlockOperation.Read, BlockFlags.None, 0, 512, new BufferSlice(_data, 0, 512)), session));
        buffered.Life.BeginStop(force: true, leaves: true, _disks.NowMs);
        Assert.True(buffered.TryEndStop());
        using var again = new SteppedBackend(_disks, new BackendWish(0), TestRegion.Disk() with { Flags = BackendFlags.Buffered });
        var answers = new Dictionary<ulong, int>();
        var some = new BlockCompletion[8];
        _user.StepUntil(now =>
        {
            again.Turn();
            next.Watch(now);
            foreach (Queue<ArrayMemory, SafePolicy> other in next.Queues)
            {
                int count = other.Poll(now * 1000, some);
                for (int i = 0; i < count; i++)
                    answers[some[i].Cookie] = some[i].Error;
            }

            return answers.Count == 2;
        });
        Assert.Equal((Errno.EIO, 0), (answers[1], answers[2]));
        // One that comes when the session is gone already.
        Assert.True(queue.TryRepeat(new BlockRequest(3, BlockOperation.Flush, BlockFlags.None, 0, 0, default), session));
        Assert.Equal(1, queue.TakeAnswers(some));
        Assert.Equal(Errno.EIO, some[0].Error);
    }
}
