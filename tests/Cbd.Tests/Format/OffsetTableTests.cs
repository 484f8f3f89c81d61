using Cbd.Blocks;
using Cbd.Protocol.Format;
using Cbd.Memory;
using Cbd.Tests.Hosts;
using Xunit;

namespace Cbd.Tests.Format;

/// <summary>The layout of everything that is stored in a region. A change here is a change of the format.</summary>
public sealed class The_offset_tables
{
    /// <summary>structure: field offset size, …; in bytes.</summary>
    private static readonly Dictionary<string, (IReadOnlyList<FieldLayout> Layout, int SizeBytes, string Expected)> s_tables = new()
    {
        [nameof(TransportInfo)] = (TransportInfo.Layout, TransportInfo.SizeBytes,
            "magic 0 8, version 8 2, flags 10 2, crc 12 4, compat 16 4, ro_compat 20 4, incompat 24 4, coherence 28 4, region_id 32 16, size 48 8, " +
            "host_area_off 56 8, bytes_per_host 64 4, host_num 68 4, backend_area_off 72 8, bytes_per_backend 80 4, backend_num 84 4, " +
            "blkdev_area_off 88 8, bytes_per_blkdev 96 4, blkdev_num 100 4, channel_area_off 104 8, bytes_per_channel 112 8, channel_num 120 4, " +
            "ring_slots 124 4, page_bytes 128 4"),
        [nameof(HostEntry)] = (HostEntry.Layout, HostEntry.SizeBytes, "claim 0 8, change_counter 128 8, doorbell 256 4, body_0 512 768, body_1 1280 768"),
        [nameof(BackendEntry)] = (BackendEntry.Layout, BackendEntry.SizeBytes, "claim 0 8, writer 128 8, change_counter 256 8, body_0 512 768, body_1 1280 768"),
        [nameof(BlkdevEntry)] = (BlkdevEntry.Layout, BlkdevEntry.SizeBytes, "claim 0 8, body_0 512 768, body_1 1280 768"),
        [nameof(BodyFrame)] = (BodyFrame.Layout, BodyFrame.SizeBytes, "crc 0 4, length 4 4, generation 8 8, epoch 16 8, payload 24 744"),
        [nameof(HostBody)] = (HostBody.Layout, HostBody.EncodedSizeBytes,
            "heartbeat 0 8, boot_id 8 16, host_uuid 24 16, device 40 8, inode 48 8, lock_offset 56 8, beat_ms 64 4, dead_ms 68 4, pid 72 4, name_length 76 4, name 80 64"),
        [nameof(BackendBody)] = (BackendBody.Layout, BackendBody.EncodedSizeBytes,
            "host_id 0 4, flags 4 4, host_epoch 8 8, size 16 8, logical_block 24 4, physical_block 28 4, discard_granularity 32 4, max_transfer 36 4, " +
            "durability_id 40 16, handlers 56 4, engine 60 4, flush_errno 64 4, identity_length 68 2, path_length 70 2, identity 72 128, path 200 512, name_length 712 1, name 713 31"),
        [nameof(BlkdevBody)] = (BlkdevBody.Layout, BlkdevBody.EncodedSizeBytes,
            "host_id 0 4, flags 4 4, host_epoch 8 8, session 16 8, backend_id 24 4, queues 28 2, name_length 30 2, name 32 128, channels 160 256, host_uuid 416 16, life 432 8"),
    };

    /// <summary>Structures of one line or word, whose bytes are checked below one by one.</summary>
    private static readonly string[] s_lines =
    [
        nameof(ClaimWord), nameof(WriterWord), nameof(CommandLine), nameof(CompletionLine), nameof(BlkdevCtrlLine),
        nameof(HandlerCtrlLine), nameof(ChannelLayout),
    ];

    /// <summary>Types of the namespace that are not stored.</summary>
    private static readonly string[] s_notStored =
    [
        nameof(RegionGeometry), nameof(RegionContents), nameof(FieldLayout), nameof(BodyPlace), nameof(BodyStamp), nameof(LineSeal),
        "Body`1", "BodyWriter`1", "BodyReader`1", "EntryBodies`1", "StoredText",
    ];

    public static TheoryData<string> Structures => [.. s_tables.Keys];

    [Theory]
    [MemberData(nameof(Structures))]
    public void Are_what_the_format_says(string structure)
    {
        (IReadOnlyList<FieldLayout> layout, int sizeBytes, string expected) = s_tables[structure];
        Assert.Equal(expected, string.Join(", ", layout.Select(field => $"{field.Name} {field.Offset} {field.SizeBytes}")));
        for (int i = 1; i < layout.Count; i++)
            Assert.True(layout[i].Offset >= layout[i - 1].End, $"{layout[i].Name} overlaps");
        Assert.True(layout[^1].End <= sizeBytes);
    }

    [Fact]
    public void List_every_structure_of_the_format()
    {
        IEnumerable<string> types = typeof(ClaimWord).Assembly.GetTypes()
            .Where(type => type.Namespace == "Cbd.Protocol.Format" && !type.IsNested && !type.IsEnum && type.Name[0] != '<')
            .Select(type => type.Name);
        Assert.Equal(s_tables.Keys.Concat(s_lines).Concat(s_notStored).Order(StringComparer.Ordinal), types.Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Keep_hot_words_of_entries_on_lines_of_their_own()
    {
        int[] hot = [HostEntry.ClaimOffset, HostEntry.ChangeCounterOffset, HostEntry.DoorbellOffset, HostEntry.BodyOffset];
        Assert.All(hot.Zip(hot.Skip(1)), pair => Assert.True(pair.Second - pair.First >= 128));
        Assert.All(s_tables.Values, table => Assert.True(table.SizeBytes <= BodyFrame.MaxPayloadBytes || table.SizeBytes % 128 == 0));
    }

    /// <summary>Changing one property changes bytes of its own field only.</summary>
    [Theory]
    [InlineData("heartbeat")]
    [InlineData("boot_id")]
    [InlineData("host_uuid")]
    [InlineData("device")]
    [InlineData("inode")]
    [InlineData("lock_offset")]
    [InlineData("beat_ms")]
    [InlineData("dead_ms")]
    [InlineData("pid")]
    [InlineData("name")]
    public void Of_a_host_body_are_where_its_properties_go(string field)
    {
        HostBody body = new() { Heartbeat = 1, BootId = Guid.Empty, HostUuid = Guid.Empty, Device = 1, Inode = 1, LockByteOffset = 1, BeatMs = 1, DeadMs = 1, Pid = 1, Name = "a" };
        HostBody changed = field switch
        {
            "heartbeat" => body with { Heartbeat = ulong.MaxValue },
            "boot_id" => body with { BootId = Guid.AllBitsSet },
            "host_uuid" => body with { HostUuid = Guid.AllBitsSet },
            "device" => body with { Device = ulong.MaxValue },
            "inode" => body with { Inode = ulong.MaxValue },
            "lock_offset" => body with { LockByteOffset = -1 },
            "beat_ms" => body with { BeatMs = -1 },
            "dead_ms" => body with { DeadMs = -1 },
            "pid" => body with { Pid = -1 },
            _ => body with { Name = "b" },
        };
        AssertOnlyField(HostBody.Layout, field, Encode(body.Encode), Encode(changed.Encode));
    }

    [Theory]
    [InlineData("host_id")]
    [InlineData("flags")]
    [InlineData("host_epoch")]
    [InlineData("size")]
    [InlineData("logical_block")]
    [InlineData("physical_block")]
    [InlineData("discard_granularity")]
    [InlineData("max_transfer")]
    [InlineData("durability_id")]
    [InlineData("handlers")]
    [InlineData("engine")]
    [InlineData("flush_errno")]
    [InlineData("identity")]
    [InlineData("path")]
    public void Of_a_backend_body_are_where_its_properties_go(string field)
    {
        BackendBody body = TestRegion.Disk() with { Identity = "a", Path = "a", DurabilityId = Guid.Empty };
        BackendBody changed = field switch
        {
            "host_id" => body with { HostId = -1 },
            "flags" => body with { Flags = (BackendFlags)uint.MaxValue },
            "host_epoch" => body with { HostEpoch = ulong.MaxValue },
            "size" => body with { SizeBytes = -1 },
            "logical_block" => body with { LogicalBlockBytes = -1 },
            "physical_block" => body with { PhysicalBlockBytes = -1 },
            "discard_granularity" => body with { DiscardGranularityBytes = -1 },
            "max_transfer" => body with { MaxTransferBytes = -1 },
            "durability_id" => body with { DurabilityId = Guid.AllBitsSet },
            "handlers" => body with { Handlers = -1 },
            "engine" => body with { Engine = BackendEngine.Pread },
            "flush_errno" => body with { FlushError = -1 },
            "identity" => body with { Identity = "b" },
            _ => body with { Path = "b" },
        };
        AssertOnlyField(BackendBody.Layout, field, Encode(body.Encode), Encode(changed.Encode));
    }

    [Theory]
    [InlineData("host_id")]
    [InlineData("flags")]
    [InlineData("host_epoch")]
    [InlineData("session")]
    [InlineData("backend_id")]
    [InlineData("name")]
    [InlineData("channels")]
    [InlineData("host_uuid")]
    [InlineData("life")]
    public void Of_a_blkdev_body_are_where_its_properties_go(string field)
    {
        BlkdevBody body = new() { ReadOnly = false, SessionEpoch = 1, BackendId = 1, Name = "a", Channels = [1, 2], Life = 1 };
        BlkdevBody changed = field switch
        {
            "host_id" => body with { HostId = -1 },
            "flags" => body with { ReadOnly = true },
            "host_epoch" => body with { HostEpoch = ulong.MaxValue },
            "session" => body with { SessionEpoch = ulong.MaxValue },
            "backend_id" => body with { BackendId = -1 },
            "name" => body with { Name = "b" },
            "host_uuid" => body with { HostUuid = Guid.AllBitsSet },
            "life" => body with { Life = ulong.MaxValue },
            _ => body with { Channels = [1, 3] },
        };
        AssertOnlyField(BlkdevBody.Layout, field, Encode(body.Encode), Encode(changed.Encode));
    }

    [Fact]
    public void Of_lines_and_words_are_where_their_properties_go()
    {
        Assert.Equal("0200031122334455", Hex(new ClaimWord(ClaimState.Active, 3, 0x1122334455).Raw));
        Assert.Equal("0000051122334455", Hex(new WriterWord(5, 0x1122334455).Raw));
        Line command = new CommandLine(0x0102030405060708, 0x1122334455, BlockOperation.Write, BlockFlags.FastZero, 0x2122232425262728, 0x3132333435363738, 0x41424344, 0x51525354, 0x61626364, 0x7172).ToLine();
        Assert.Equal(
            ["0102030405060708", "0004021122334455", "2122232425262728", "3132333435363738", "5152535441424344", "0000717261626364", "0000000000000000", "0000000000000000"],
            Words(command));
        Line completion = new CompletionLine(0x0102030405060708, 0x1122334455, 0x2122232425262728, 0x3132, 0x0005, 0x41424344, 0x51525354).ToLine();
        Assert.Equal(["0102030405060708", "0000001122334455", "2122232425262728", "4142434400053132"], Words(completion).Take(4));

        var region = new TestRegion();
        new BlkdevCtrlLine(0x1122334455, 2, 3, 4, 5, 6, 7, 8, 9, 10).Store(region.Memory, region.Geometry, 1);
        region.Memory.ReadLine(region.Geometry.ChannelOffset(1) + 128, out Line ctrl);
        Assert.Equal(["0000001122334455", "0005000400030002", "0000000000000006", "0000000000000007", "0000000000000008", "0000000000000009", "000000000000000A"], Words(ctrl).Take(7));
        long handlerLine = region.Geometry.ChannelOffset(1) + 256;
        new HandlerCtrlLine(0x1122334455, HandlerCondition.Failed, 3, 4, 5).Store(region.Memory, handlerLine, new LineSeal(region.Geometry.RegionId, 1, LineKind.HandlerCtrl, 0x1122334455));
        region.Memory.ReadLine(handlerLine, out ctrl);
        Assert.Equal(["0000001122334455", "0000000000000002", "0000000000000003", "0000000000000004", "0000000000000005"], Words(ctrl).Take(5));

        var channel = new ChannelLayout(region.Geometry, 1);
        long start = region.Geometry.ChannelOffset(1);
        Assert.Equal((start, start + 4096, start + 4096 + 128, start + 8192, start + 16384, 8192L), (channel.ClaimOffset, channel.CompletionRingOffset, channel.CommandRingOffset, channel.WritePoolOffset, channel.ReadPoolOffset, channel.PoolBytes));
    }

    /// <summary>Stored enums have these values for ever.</summary>
    [Fact]
    public void Of_enums_never_change()
    {
        static string Values<T>() where T : struct, Enum => string.Join(" ", Enum.GetValues<T>().Select(value => $"{value}={Convert.ToUInt64(value)}"));
        Assert.Equal("Free=0 Claiming=1 Active=2 Closing=3 Clearing=4 Quarantined=5 Registering=6 Orphaned=7 Adopting=8 Claimed=16 Offered=17 Attached=18 Detached=19", Values<ClaimState>());
        Assert.Equal("Host=1 Backend=2 Blkdev=3 Channel=4", Values<RegionArea>());
        Assert.Equal("None=0 ReadOnly=1 CanDiscard=2 CanZeroFast=4 Buffered=8 Stopped=16 CanCache=32 Rotational=64", Values<BackendFlags>());
        Assert.Equal("Direct=0 IoUring=1 Pread=2", Values<BackendEngine>());
        Assert.Equal("None=0 BigEndian=1 PayloadCrc=2", Values<TransportFlags>());
        Assert.Equal("Hardware=1", Values<RegionCoherence>());
        Assert.Equal("Read=1 Write=2 Flush=3 Discard=4 WriteZeroes=5 BlockStatus=6 Cache=7", Values<BlockOperation>());
        Assert.Equal("None=0 ForceUnitAccess=1 NoUnmap=2 FastZero=4", Values<BlockFlags>());
        Assert.Equal("Command=1 Completion=2 BlkdevCtrl=3 HandlerCtrl=4", Values<LineKind>());
        Assert.Equal("Serving=1 Failed=2 Stalled=3 Drained=4", Values<HandlerCondition>());
        Assert.Equal(0x65B05EFA96C596EFUL, TransportInfo.Magic);
    }

    private delegate void Encoder(Span<byte> payload);

    private static byte[] Encode(Encoder encode)
    {
        // Whatever was there before: every byte of a field is stored.
        byte[] payload = Enumerable.Repeat((byte)0xCC, BodyFrame.MaxPayloadBytes).ToArray();
        encode(payload);
        return payload;
    }

    private static void AssertOnlyField(IReadOnlyList<FieldLayout> layout, string field, byte[] before, byte[] after)
    {
        FieldLayout row = layout.Single(candidate => candidate.Name == field);
        int[] differing = Enumerable.Range(0, before.Length).Where(i => before[i] != after[i]).ToArray();
        Assert.NotEmpty(differing);
        Assert.All(differing, offset => Assert.InRange(offset, row.Offset, row.End - 1));
    }

    private static string Hex(ulong word) => word.ToString("X16", null);

    private static string[] Words(Line line) =>
        [Hex(line.Word0), Hex(line.Word1), Hex(line.Word2), Hex(line.Word3), Hex(line.Word4), Hex(line.Word5), Hex(line.Word6), Hex(line.Word7)];
}
