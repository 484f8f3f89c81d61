using System.Buffers.Binary;
using System.Globalization;
using Cbd.Blocks;
using Cbd.Memory;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Records;
using Cbd.Tests.Architecture;
using Xunit;

namespace Cbd.Tests.Records;

/// <summary>What of a device outlives its process, in memory that somebody else keeps.</summary>
public sealed class The_record_of_a_device : IDisposable
{
    private static readonly Guid s_old = new("dddddddd-0000-0000-0000-000000000001"), s_new = new("dddddddd-0000-0000-0000-000000000002");
    private readonly NativeBuffer _memory = new(DeviceRecord.SizeFor(2));

    public void Dispose() => _memory.Dispose();

    private static DeviceRecordBody Body() => new()
    {
        Life = 0x1122334455667788,
        RegionId = new Guid("0f0e0d0c-0b0a-0908-0706-050403020100"),
        HostUuid = new Guid("aaaaaaaa-0000-0000-0000-000000000001"),
        BackendId = 1,
        Queues = 2,
        Name = "größe",
    };

    private static BlockDeviceInfo Info(long size = 1 << 20) => new() { SizeBytes = size, LogicalBlockBytes = 512, PhysicalBlockBytes = 4096, DiscardGranularityBytes = 4096, MaxTransferBytes = 1 << 20 };

    private static DeviceRecordBody Serving() => Body() with
    {
        BlkdevId = 3,
        BlkdevEpoch = 7,
        HostId = 2,
        HostEpoch = 9,
        State = DeviceRecordState.Serving,
        DurabilityId = s_old,
        Session = 5,
        WasBuffered = true,
        Info = Info() with { ReadOnly = true, CanDiscard = true, CanZeroFast = true, CanCache = true, IsRotational = true, DurabilityId = s_old },
        SlotBytes = 1 << 20,
        Identity = "file:1:2",
        Failure = "why",
    };

    private static BackendSession Session(ulong epoch, Guid durability, bool isBuffered = false) => new(epoch, durability, Info(), isBuffered);

    private DeviceRecord NewRecord()
    {
        var record = DeviceRecord.Create(_memory, Body());
        record.Change(body => body with { BlkdevId = 3, BlkdevEpoch = 7, HostId = 2, HostEpoch = 9, State = DeviceRecordState.Serving, DurabilityId = s_old, Session = 5, Info = Info() });
        return record;
    }

    private DeviceRecord Again() => DeviceRecord.Open(_memory);

    private static BlkdevState StateOf(DeviceRecord record, bool isAdopted = false) =>
        new(3, 7, 1, Session(record.Body.Session, record.Body.DurabilityId), 2, record, isAdopted);

    [Fact]
    public void Gives_back_what_was_stored_to_another_process()
    {
        using var record = DeviceRecord.Create(_memory, Body());
        using (DeviceRecord first = Again())
            Assert.Equal(Body(), first.Body with { Info = Body().Info });
        record.Change(_ => Serving());
        using DeviceRecord second = Again();
        Assert.Equal(Serving(), second.Body);
    }

    [Fact]
    public void Holds_its_memory_while_it_is_used()
    {
        using var record = DeviceRecord.Create(_memory, Body());
        _memory.Dispose();
        record.StoreFailure("late");
        Assert.Equal("late", record.Body.Failure);
    }

    [Fact]
    public void Is_none_before_its_first_store_is_whole()
    {
        Assert.True(DeviceRecord.IsEmpty(_memory));
        Assert.Contains("magic is 0x0000000000000000", Assert.Throws<CbdException>(() => Again()).Message, StringComparison.Ordinal);
        using var record = DeviceRecord.Create(_memory, Body());
        Assert.False(DeviceRecord.IsEmpty(_memory));
    }

    /// <summary>A death in the middle of a store leaves one copy in parts: byte by byte, whatever the processor did first.</summary>
    [Fact]
    public void Is_the_old_or_the_new_one_after_a_death_in_the_middle_of_a_change()
    {
        using var record = DeviceRecord.Create(_memory, Body());
        record.Change(_ => Serving());
        byte[] before = _memory.GetSpan(0, DeviceRecord.CountsOffset).ToArray();
        DeviceRecordBody next = Serving() with { BlkdevEpoch = 8, HostId = 4, HostEpoch = 1, Failure = "another reason" };
        record.Change(_ => next);
        byte[] after = _memory.GetSpan(0, DeviceRecord.CountsOffset).ToArray();
        int[] changed = [.. Enumerable.Range(0, before.Length).Where(i => before[i] != after[i])];
        Assert.True(changed.Length > 10);
        for (int stored = 0; stored < changed.Length; stored++)
        {
            before.CopyTo(_memory.GetSpan(0, before.Length));
            foreach (int at in changed.AsSpan(0, stored))
                _memory.GetSpan(at, 1)[0] = after[at];
            using DeviceRecord torn = Again();
            Assert.Equal(Serving(), torn.Body);
            // And it can be changed on.
            torn.Change(body => body with { State = DeviceRecordState.Stopping });
            using DeviceRecord later = Again();
            Assert.Equal(DeviceRecordState.Stopping, later.Body.State);
        }

        after.CopyTo(_memory.GetSpan(0, after.Length));
        using DeviceRecord whole = Again();
        Assert.Equal(next, whole.Body);
    }

    [Fact]
    public void Keeps_the_first_failure_and_only_what_can_be_shown_of_it()
    {
        using DeviceRecord record = NewRecord();
        record.StoreFailure("a\nb" + new string('ü', 400));
        record.StoreFailure("second");
        using DeviceRecord again = Again();
        Assert.StartsWith("a?b", again.Body.Failure, StringComparison.Ordinal);
        Assert.InRange(System.Text.Encoding.UTF8.GetByteCount(again.Body.Failure), 500, 512);
    }

    [Theory]
    [InlineData(0, 1, "magic")]
    [InlineData(8, 3, "version is 3")]
    [InlineData(16, 1, "size is")]
    public void Is_damaged_by_its_header(int offset, int value, string expected)
    {
        NewRecord().Dispose();
        BinaryPrimitives.WriteInt32LittleEndian(_memory.GetSpan(offset, 4), value);
        AssertDamaged(expected);
    }

    [Theory]
    [InlineData(16, 8, 0, "life is 0")]
    [InlineData(56, 4, -1, "backend_id is -1")]
    [InlineData(60, 4, -1, "blkdev_id is -1")]
    [InlineData(64, 8, 0, "blkdev_id is 3 of epoch 0")]
    [InlineData(72, 4, -1, "host_id is -1")]
    [InlineData(76, 4, 0, "state is 0")]
    [InlineData(76, 4, 4, "state is 4")]
    [InlineData(104, 8, 0, "session is 0")]
    [InlineData(112, 8, 1000, "size is 1000")]
    [InlineData(120, 4, 1024, "logical_block is 1024")]
    [InlineData(124, 4, 3000, "physical_block is 3000")]
    [InlineData(128, 4, 0, "discard_granularity is 0")]
    [InlineData(132, 4, 1, "max_transfer is 1")]
    [InlineData(136, 4, -1, "slot_size is -1")]
    [InlineData(140, 4, 0, "queues is 0")]
    [InlineData(140, 4, 129, "queues is 129")]
    [InlineData(140, 4, 100, "queues is 100")]
    [InlineData(148, 2, 129, "name is not text")]
    [InlineData(150, 2, 129, "identity is not text")]
    [InlineData(152, 2, 513, "failure is not text")]
    public void Names_the_field_and_its_value_of_a_copy_whose_crc_holds(int offset, int bytes, long value, string expected)
    {
        NewRecord().Dispose();
        // The second copy is the newer one.
        Span<byte> copy = _memory.GetSpan(1024 + DeviceRecordBody.SizeBytes, DeviceRecordBody.SizeBytes);
        Span<byte> field = stackalloc byte[8];
        BinaryPrimitives.WriteInt64LittleEndian(field, value);
        field[..bytes].CopyTo(copy[offset..]);
        BinaryPrimitives.WriteUInt32LittleEndian(copy, ~Crc32C.Append(Crc32C.Append(uint.MaxValue, (ulong)DeviceRecord.Version), copy[4..]));
        AssertDamaged(expected);
    }

    [Theory]
    [InlineData(-1, 0, 0)]
    [InlineData(1, 0, 2)]
    [InlineData(1, -1, 0)]
    [InlineData(1, 0, -1)]
    public void Is_damaged_by_counts_that_cannot_be(long acknowledged, long generation, long covered)
    {
        using (DeviceRecord record = NewRecord())
            (record.Counts[16], record.Counts[17], record.Counts[18]) = (acknowledged, generation, covered);
        AssertDamaged("counts of queue 1");
    }

    [Fact]
    public void Is_damaged_if_neither_copy_is_whole()
    {
        NewRecord().Dispose();
        _memory.GetSpan(1024, 2 * DeviceRecordBody.SizeBytes).Fill(0xA5);
        AssertDamaged("neither copy is whole");
        using var small = new NativeBuffer(100);
        Assert.Contains("100 bytes", Assert.Throws<CbdException>(() => DeviceRecord.Open(small)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Never_fails_otherwise_on_noise()
    {
        var random = new Random(7);
        NewRecord().Dispose();
        byte[] good = _memory.GetSpan(0, (int)_memory.SizeBytes).ToArray();
        for (int round = 0; round < 5000; round++)
        {
            good.CopyTo(_memory.GetSpan(0, good.Length));
            for (int i = random.Next(1, 30); i > 0; i--)
                _memory.GetSpan(random.Next(4400), 1)[0] = (byte)random.Next(256);
            try
            {
                DeviceRecord.Open(_memory).Dispose();
            }
            catch (CbdException e)
            {
                Assert.Equal(CbdErrorKind.Corrupt, e.Kind);
            }
        }
    }

    [Fact]
    public void Lets_neither_queues_nor_life_change()
    {
        using DeviceRecord record = NewRecord();
        Assert.Throws<InvalidOperationException>(() => record.Change(body => body with { Queues = 1 }));
        Assert.Throws<InvalidOperationException>(() => record.Change(body => body with { Life = 5 }));
        Assert.Throws<InvalidOperationException>(() => record.Change(body => body with { BlkdevEpoch = 0 }));
    }

    /// <summary>A change here is a change of the layout: another version, and a reader for the one before.</summary>
    [Fact]
    public void Has_the_layout_of_its_version()
    {
        Assert.Equal(
            "2: magic 0 8, version 8 4, size 16 8, copy_0 1024 1024, copy_1 2048 1024, counts 4096 128; " +
            "crc 0 4, generation 8 8, life 16 8, region_id 24 16, host_uuid 40 16, backend_id 56 4, blkdev_id 60 4, blkdev_epoch 64 8, host_id 72 4, state 76 4, " +
            "host_epoch 80 8, durability_id 88 16, session 104 8, size 112 8, logical_block 120 4, physical_block 124 4, discard_granularity 128 4, max_transfer 132 4, " +
            "slot_size 136 4, queues 140 4, flags 144 4, name_length 148 2, identity_length 150 2, failure_length 152 2, name 160 128, identity 288 128, failure 416 512, " +
            "kind 928 4, number 932 4; " +
            "acknowledged 0 8, generation 8 8, covered 16 8; Starting=1 Serving=2 Stopping=3; Fuse=1 Ublk=2 KernelNbd=3",
            $"{DeviceRecord.Version}: {Text(DeviceRecord.Layout)}; {Text(DeviceRecordBody.Layout)}; {Text(DeviceRecord.CountsLayout)}; " +
            string.Join(" ", Enum.GetValues<DeviceRecordState>().Select(s => $"{s}={(int)s}")) + "; " + string.Join(" ", Enum.GetValues<DeviceRecordKind>().Select(k => $"{k}={(int)k}")));
        static string Text(IReadOnlyList<FieldLayout> layout) => string.Join(", ", layout.Select(f => $"{f.Name} {f.Offset} {f.SizeBytes}"));
    }

    /// <summary>The layout of the release before: of one kind, without a number. It stays what it is while it lasts.</summary>
    [Fact]
    public void Reads_the_version_before_and_leaves_it_so()
    {
        NewRecord().Dispose();
        Span<byte> memory = _memory.GetSpan(0, (int)_memory.SizeBytes);
        DeviceRecordBody body = Serving();
        BinaryPrimitives.WriteUInt32LittleEndian(memory[8..], 1);
        memory.Slice(1024, 2048).Clear();
        Span<byte> copy = memory.Slice(1024, 1024);
        body.Encode(copy, 1);
        BinaryPrimitives.WriteUInt64LittleEndian(copy[8..], 4);
        BinaryPrimitives.WriteUInt32LittleEndian(copy, ~Crc32C.Append(Crc32C.Append(uint.MaxValue, 1u), copy[4..]));
        using (DeviceRecord record = Again())
        {
            Assert.Equal((DeviceRecordKind.Fuse, -1, body.Name), (record.Body.Kind, record.Body.Number, record.Body.Name));
            record.Change(b => b with { Session = 6 });
        }

        using DeviceRecord again = Again();
        Assert.Equal((6UL, DeviceRecordKind.Fuse, -1), (again.Body.Session, again.Body.Kind, again.Body.Number));
        Assert.Equal(1u, BinaryPrimitives.ReadUInt32LittleEndian(_memory.GetSpan(8, 4)));
        Assert.Equal(new byte[8], _memory.GetSpan(2048 + 928, 8).ToArray());
    }

    [Fact]
    public void Knows_what_gives_the_device_to_its_kernel()
    {
        using (var record = DeviceRecord.Create(_memory, Body() with { Kind = DeviceRecordKind.Ublk }))
            record.Change(body => body with { Number = 12 });
        using DeviceRecord again = Again();
        Assert.Equal((DeviceRecordKind.Ublk, 12), (again.Body.Kind, again.Body.Number));
        Assert.Equal("kind is 0", (again.Body with { Kind = 0 }).FindError());
        Assert.Equal("kind is 4", (again.Body with { Kind = (DeviceRecordKind)4 }).FindError());
        Assert.Equal("number is -2, of kind 2", (again.Body with { Number = -2 }).FindError());
        Assert.Equal("number is 12, of kind 1", (again.Body with { Kind = DeviceRecordKind.Fuse }).FindError());
    }

    /// <summary>The bytes of a whole record, so that the fields are where the table says.</summary>
    [Fact]
    public void Has_its_fields_where_the_layout_says()
    {
        var copy = new byte[DeviceRecordBody.SizeBytes];
        var other = new byte[DeviceRecordBody.SizeBytes];
        DeviceRecordBody body = Serving();
        body.Encode(copy, DeviceRecord.Version);
        foreach ((string field, DeviceRecordBody changed) in new (string, DeviceRecordBody)[]
        {
            ("life", body with { Life = 1 }), ("region_id", body with { RegionId = s_new }), ("host_uuid", body with { HostUuid = s_new }), ("backend_id", body with { BackendId = 2 }),
            ("blkdev_id", body with { BlkdevId = 4 }), ("blkdev_epoch", body with { BlkdevEpoch = 8 }), ("host_id", body with { HostId = 5 }), ("state", body with { State = DeviceRecordState.Stopping }),
            ("host_epoch", body with { HostEpoch = 1 }), ("durability_id", body with { DurabilityId = s_new }), ("session", body with { Session = 6 }), ("size", body with { Info = body.Info with { SizeBytes = 512 } }),
            ("logical_block", body with { Info = body.Info with { LogicalBlockBytes = 4096 } }), ("physical_block", body with { Info = body.Info with { PhysicalBlockBytes = 512 } }),
            ("discard_granularity", body with { Info = body.Info with { DiscardGranularityBytes = 512 } }), ("max_transfer", body with { Info = body.Info with { MaxTransferBytes = 512 } }),
            ("slot_size", body with { SlotBytes = 1 }), ("queues", body with { Queues = 1 }), ("flags", body with { WasBuffered = false }), ("name", body with { Name = "größf" }),
            ("identity", body with { Identity = "file:1:3" }), ("failure", body with { Failure = "who" }),
            ("kind", body with { Kind = DeviceRecordKind.KernelNbd }), ("number", body with { Number = 3 }),
        })
        {
            changed.Encode(other, DeviceRecord.Version);
            FieldLayout row = DeviceRecordBody.Layout.Single(f => f.Name == field);
            int[] differing = [.. Enumerable.Range(0, copy.Length).Where(i => copy[i] != other[i])];
            Assert.NotEmpty(differing);
            Assert.All(differing, at => Assert.InRange(at, row.Offset, row.End - 1));
        }
    }

    [Fact]
    public void Is_laid_out_as_the_document_says()
    {
        foreach ((string title, IReadOnlyList<FieldLayout> layout) in new[] { ("Header", DeviceRecord.Layout), ("Body", DeviceRecordBody.Layout), ("Counts of a queue", DeviceRecord.CountsLayout) })
        {
            IEnumerable<FieldLayout> table = File.ReadAllLines(Path.Combine(SourceTree.Root, "docs", "inflight.md"))
                .SkipWhile(line => line != $"### {title}").Skip(1).TakeWhile(line => !line.StartsWith('#'))
                .Where(line => line.StartsWith('|')).Select(line => line.Trim('|').Split('|', StringSplitOptions.TrimEntries))
                .Where(row => row.Length > 2 && int.TryParse(row[0], out _))
                .Select(row => new FieldLayout(row[2], int.Parse(row[0], CultureInfo.InvariantCulture), int.Parse(row[1], CultureInfo.InvariantCulture)));
            Assert.Equal(layout, table);
        }
    }

    [Fact]
    public void Says_to_a_successor_which_writes_no_flush_has_covered()
    {
        using DeviceRecord record = NewRecord();
        BlkdevState state = StateOf(record);
        state.CountWrite(1);
        Span<long> snapshot = stackalloc long[2];
        state.SnapshotForFlush(0, snapshot);
        state.CountWrite(1);
        state.Cover(0, snapshot);
        using DeviceRecord again = Again();
        Assert.Equal((2L, 1L), (again.Counts[16], again.Counts[18]));
        BlkdevState successor = StateOf(again, isAdopted: true);
        Assert.True(successor.HasUncoveredWrites);
        successor.SnapshotForFlush(0, snapshot);
        successor.Cover(0, snapshot);
        Assert.False(successor.HasUncoveredWrites);
    }

    [Fact]
    public void Fails_a_device_with_uncovered_writes_if_another_durability_id_is_served_afterwards()
    {
        using DeviceRecord record = NewRecord();
        StateOf(record).CountWrite(0);
        using DeviceRecord again = Again();
        BlkdevState successor = StateOf(again, isAdopted: true);
        successor.Adopt(Session(6, s_old));
        Assert.Null(successor.Failure);
        successor.Adopt(Session(7, s_new));
        Assert.Contains("acknowledged writes may be lost", successor.Failure, StringComparison.Ordinal);
        // And the one after that, whatever is served.
        using DeviceRecord third = Again();
        BlkdevState later = StateOf(third, isAdopted: true);
        Assert.Equal(successor.Failure, later.Failure);
    }

    /// <summary>Until the last queue has left the old session one of them may still acknowledge a write of it.</summary>
    [Fact]
    public void Has_a_new_durability_id_only_when_all_queues_have_left_the_old_one()
    {
        using DeviceRecord record = NewRecord();
        BlkdevState state = StateOf(record);
        state.Adopt(Session(6, s_new));
        Assert.Equal((6UL, s_old), (record.Body.Session, record.Body.DurabilityId));
        state.EnterGeneration(0, 1);
        Assert.False(state.AllEntered(1));
        Assert.Equal(s_old, record.Body.DurabilityId);
        // A death here, after a late completion of the old session.
        state.CountWrite(1);
        using (DeviceRecord again = Again())
        {
            var copy = new NativeBuffer(_memory.SizeBytes);
            _memory.GetSpan(0, (int)_memory.SizeBytes).CopyTo(copy.GetSpan(0, (int)copy.SizeBytes));
            using DeviceRecord left = DeviceRecord.Open(copy);
            BlkdevState successor = StateOf(left, isAdopted: true);
            successor.Adopt(Session(6, s_new));
            Assert.NotNull(successor.Failure);
        }

        Assert.Null(state.Failure);
        state.EnterGeneration(1, 1);
        Assert.NotNull(state.Failure);
        Assert.Equal((s_new, true), (record.Body.DurabilityId, state.AllEntered(1)));
    }

    [Fact]
    public void Goes_on_without_failing_when_nothing_was_uncovered()
    {
        using DeviceRecord record = NewRecord();
        BlkdevState state = StateOf(record);
        state.Adopt(Session(6, s_new));
        state.EnterGeneration(0, 1);
        state.EnterGeneration(1, 1);
        state.CountWrite(0);
        using DeviceRecord again = Again();
        Assert.Equal(s_new, again.Body.DurabilityId);
        BlkdevState successor = StateOf(again, isAdopted: true);
        successor.Adopt(Session(7, s_new));
        Assert.Null(successor.Failure);
        Assert.True(successor.HasUncoveredWrites);
        // Its generations are its own.
        Assert.Equal((0, true), (successor.DurabilityGeneration, successor.AllEntered(0)));
        Assert.Equal(0, again.Counts[1]);
    }

    [Fact]
    public void Has_a_failure_before_anybody_is_told()
    {
        using DeviceRecord record = NewRecord();
        BlkdevState state = StateOf(record);
        string? seen = null;
        state.QueuesMayGoOn = () => seen = Again().Body.Failure;
        state.Fail("a reason");
        Assert.Equal("a reason", seen);
        Assert.Equal("a reason", state.Failure);
    }

    [Fact]
    public void Remembers_that_a_session_went_through_a_page_cache()
    {
        using DeviceRecord record = NewRecord();
        BlkdevState state = StateOf(record);
        state.Adopt(Session(6, s_old, isBuffered: true));
        state.Adopt(Session(7, s_old));
        using DeviceRecord again = Again();
        Assert.True(again.Body.WasBuffered);
        BlkdevState successor = StateOf(again, isAdopted: true);
        Assert.True(successor.IsLostFlush(handedOn: 6, session: 7));
        Assert.False(successor.IsLostFlush(handedOn: 7, session: 7));
        Assert.False(state.IsLostFlush(6, 7));
    }

    private void AssertDamaged(string expected)
    {
        CbdException damaged = Assert.Throws<CbdException>(() => Again());
        Assert.Equal(CbdErrorKind.Corrupt, damaged.Kind);
        Assert.Contains(expected, damaged.Message, StringComparison.Ordinal);
        // Nothing holds the memory.
        Assert.True(_memory.TryAddReference());
        _memory.ReleaseReference();
    }
}
