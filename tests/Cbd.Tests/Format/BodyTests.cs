using Cbd.Protocol.Format;
using Cbd.Simulation;
using Cbd.Tests.Hosts;
using Cbd.Tests.Transports;
using Xunit;

namespace Cbd.Tests.Format;

public sealed class A_body
{
    private readonly TestRegion _region = new();

    private static void Publish(ref BodyWriter<ArrayMemory> writer, ArrayMemory memory, byte fill, int length = 100)
    {
        var frame = new byte[BodyFrame.SizeBytes];
        frame.AsSpan(BodyFrame.PayloadOffset, length).Fill(fill);
        writer.Publish(memory, frame, length);
    }

    private byte? Read(BodyPlace place, ulong epoch)
    {
        var frame = new byte[BodyFrame.SizeBytes];
        if (!Body<ArrayMemory>.TryRead(_region.Memory, place, epoch, frame, out _, out int length))
            return null;
        ReadOnlySpan<byte> payload = frame.AsSpan(BodyFrame.PayloadOffset, length);
        Assert.Equal(100, length);
        Assert.True(payload.IndexOfAnyExcept(payload[0]) < 0);
        return payload[0];
    }

    [Fact]
    public void Is_read_as_it_was_published_last()
    {
        BodyPlace place = BodyPlace.OfBlkdev(_region.Geometry, 1);
        var writer = new BodyWriter<ArrayMemory>(place, 7);
        Assert.Null(Read(place, 7));
        for (byte value = 1; value < 10; value++)
        {
            Publish(ref writer, _region.Memory, value);
            Assert.Equal(value, Read(place, 7));
        }
    }

    [Fact]
    public void Is_whole_after_a_crash_at_any_store_of_a_publication()
    {
        BodyPlace place = BodyPlace.OfHost(_region.Geometry, 0);
        var writer = new BodyWriter<ArrayMemory>(place, 3);
        Publish(ref writer, _region.Memory, 1);
        int crashAt = 0;
        for (bool crashed = true; crashed; crashAt++)
        {
            byte before = Read(place, 3)!.Value;
            int stores = 0;
            crashed = false;
            try
            {
                Publish(ref writer, _region.Memory.With(_ =>
                {
                    if (stores++ == crashAt)
                        throw new CrashException();
                }), (byte)(before + 1));
            }
            catch (CrashException)
            {
                crashed = true;
            }

            Assert.Equal(crashed ? before : before + 1, Read(place, 3)!.Value);
        }

        Assert.Equal(3, crashAt);
    }

    [Fact]
    public void Counts_only_in_its_own_region_area_entry_and_epoch()
    {
        BodyPlace place = BodyPlace.OfHost(_region.Geometry, 0);
        var writer = new BodyWriter<ArrayMemory>(place, 3);
        Publish(ref writer, _region.Memory, 1);
        byte[] copy = _region.Memory.Bytes.Slice((int)place.FirstCopyOffset, BodyFrame.SizeBytes).ToArray();
        Assert.True(BodyFrame.IsValid(copy, place, out _, out _, out _));
        Assert.False(BodyFrame.IsValid(copy, BodyPlace.OfHost(_region.Geometry, 1), out _, out _, out _));
        Assert.False(BodyFrame.IsValid(copy, BodyPlace.OfBackend(_region.Geometry, 0), out _, out _, out _));
        Assert.False(BodyFrame.IsValid(copy, BodyPlace.OfHost(_region.Geometry with { RegionId = Guid.NewGuid() }, 0), out _, out _, out _));
        Assert.Null(Read(place, 2));
        Assert.Null(Read(place, 4));
        copy[BodyFrame.EpochOffset] = 4;
        Assert.False(BodyFrame.IsValid(copy, place, out _, out _, out _));
    }

    [Fact]
    public void With_any_bit_of_the_newest_copy_flipped_gives_the_older_one()
    {
        BodyPlace place = BodyPlace.OfHost(_region.Geometry, 0);
        var writer = new BodyWriter<ArrayMemory>(place, 3);
        Publish(ref writer, _region.Memory, 1);
        Publish(ref writer, _region.Memory, 2);
        for (int bit = 0; bit < (BodyFrame.PayloadOffset + 100) * 8; bit++)
        {
            ref byte damaged = ref _region.Memory.Bytes[(int)place.CopyOffset(1) + bit / 8];
            damaged ^= (byte)(1 << (bit % 8));
            Assert.Equal((byte)1, Read(place, 3));
            damaged ^= (byte)(1 << (bit % 8));
        }

        Assert.Equal((byte)2, Read(place, 3));
    }

    [Fact]
    public void Never_goes_back_for_a_reader_that_has_seen_more()
    {
        BodyPlace place = BodyPlace.OfHost(_region.Geometry, 0);
        var writer = new BodyWriter<ArrayMemory>(place, 3);
        var reader = new BodyReader<ArrayMemory>(place);
        var frame = new byte[BodyFrame.SizeBytes];
        Publish(ref writer, _region.Memory, 1);
        Publish(ref writer, _region.Memory, 2);
        Assert.True(reader.TryRead(_region.Memory, 3, frame, out _));
        _region.Memory.Bytes[(int)place.CopyOffset(1)] ^= 1;
        Assert.False(reader.TryRead(_region.Memory, 3, frame, out _));
        Publish(ref writer, _region.Memory, 3);
        Assert.True(reader.TryRead(_region.Memory, 3, frame, out _));
        Assert.Equal(3UL, reader.Seen.Generation);
    }

    [Fact]
    public void Of_zeroes_ones_or_noise_is_never_valid()
    {
        BodyPlace place = BodyPlace.OfHost(_region.Geometry, 0);
        Span<byte> copies = _region.Memory.Bytes.Slice((int)place.FirstCopyOffset, 2 * BodyFrame.SizeBytes);
        Assert.Null(Read(place, 1));
        copies.Fill(0xFF);
        Assert.Null(Read(place, 1));
        Assert.Null(Read(place, ClaimWord.MaxEpoch));
        var random = new Random(5);
        for (int round = 0; round < 200; round++)
        {
            random.NextBytes(_region.Memory.Bytes.Slice((int)place.FirstCopyOffset, 2 * BodyFrame.SizeBytes));
            Assert.Null(Read(place, 1));
        }
    }

    [Fact]
    public void Published_by_a_take_over_spares_the_copy_that_is_the_record()
    {
        BodyPlace place = BodyPlace.OfBackend(_region.Geometry, 0);
        for (int publications = 1; publications <= 2; publications++)
        {
            var old = new BodyWriter<ArrayMemory>(place, (ulong)publications * 2);
            for (int i = 0; i < publications; i++)
                Publish(ref old, _region.Memory, 1);
            var frame = new byte[BodyFrame.SizeBytes];
            Assert.True(Body<ArrayMemory>.TryReadRecord(_region.Memory, place, 100, frame, out BodyStamp stamp, out _));
            Assert.Equal(publications - 1, stamp.Copy);
            var next = new BodyWriter<ArrayMemory>(place, stamp.Epoch + 1, stamp.Copy);
            Publish(ref next, _region.Memory, 2);
            Assert.Equal((byte)1, Read(place, stamp.Epoch));
            Assert.Equal((byte)2, Read(place, stamp.Epoch + 1));
        }
    }
}

public sealed class Decoding_a_body
{
    private static readonly TestRegion s_region = new();

    private static HostBody Host() => new()
    {
        Heartbeat = 5,
        BootId = Guid.NewGuid(),
        HostUuid = Guid.NewGuid(),
        Device = ulong.MaxValue,
        Inode = 1,
        LockByteOffset = 4096,
        BeatMs = 1000,
        DeadMs = 10_000,
        Pid = 42,
        Name = "größe-1",
    };

    private static BlkdevBody Blkdev() => new() { HostId = 2, HostEpoch = 9, ReadOnly = true, SessionEpoch = 3, BackendId = 1, Name = "nbd://x", Channels = [3, 0, 1] };

    private static BlkdevBody KeptBlkdev() => Blkdev() with { HostUuid = new Guid("aaaaaaaa-0000-0000-0000-000000000007"), Life = 0x1122334455667788 };

    [Fact]
    public void Gives_back_what_was_encoded()
    {
        var payload = new byte[BodyFrame.MaxPayloadBytes];
        HostBody host = Host();
        host.Encode(payload);
        Assert.True(HostBody.TryDecode(payload, out HostBody readHost, out _));
        Assert.Equal(host, readHost);

        BackendBody backend = TestRegion.Disk(readOnly: true) with { HostId = 3, HostEpoch = 8, FlushError = 5, Path = new string('p', 511), Identity = new string('i', 128), Name = new string('n', 31) };
        backend.Encode(payload);
        Assert.True(BackendBody.TryDecode(payload, out BackendBody readBackend, out _));
        Assert.Equal(backend, readBackend);
        // As hosts write it that know no names, and as they read it.
        Assert.True(BackendBody.TryDecode(payload.AsSpan(0, BackendBody.NamelessSizeBytes), out readBackend, out _));
        Assert.Equal(backend with { Name = "" }, readBackend);

        BlkdevBody blkdev = Blkdev();
        blkdev.Encode(payload);
        Assert.True(BlkdevBody.TryDecode(payload, s_region.Geometry, out BlkdevBody readBlkdev, out _));
        // Lists compare by reference: compared on their own, then left out.
        Assert.Equal(blkdev.Channels, readBlkdev.Channels);
        Assert.Equal(blkdev, readBlkdev with { Channels = blkdev.Channels });
        BlkdevBody kept = KeptBlkdev();
        kept.Encode(payload);
        Assert.True(BlkdevBody.TryDecode(payload, s_region.Geometry, out readBlkdev, out _));
        Assert.True(readBlkdev.IsKept);
        Assert.Equal(kept, readBlkdev with { Channels = kept.Channels });
    }

    /// <summary>Hosts of the version before store and know bodies of 416 bytes; a blkdev that is not kept has the same.</summary>
    [Fact]
    public void Of_a_blkdev_that_is_not_kept_ends_where_it_did_before()
    {
        var payload = new byte[BodyFrame.MaxPayloadBytes];
        payload.AsSpan().Fill(0xEE);
        BlkdevBody plain = Blkdev();
        plain.Encode(payload);
        Assert.Equal(416, plain.SizeBytes);
        Assert.True(payload.AsSpan(416).IndexOfAnyExcept((byte)0xEE) < 0);
        Assert.True(BlkdevBody.TryDecode(payload.AsSpan(0, 416), s_region.Geometry, out BlkdevBody read, out _));
        Assert.Equal((false, 0UL, Guid.Empty), (read.IsKept, read.Life, read.HostUuid));
        BlkdevBody kept = KeptBlkdev();
        Assert.Equal(440, kept.SizeBytes);
        kept.Encode(payload);
        // What that version reads of it: its fields, and no flag that it does not know.
        Assert.Equal(3u, System.Buffers.Binary.BinaryPrimitives.ReadUInt32LittleEndian(payload.AsSpan(4)));
        Assert.False(BlkdevBody.TryDecode(payload.AsSpan(0, 416), s_region.Geometry, out _, out string error));
        Assert.StartsWith("length is 416", error, StringComparison.Ordinal);
    }

    [Fact]
    public void Of_a_kept_blkdev_has_a_life()
    {
        var payload = new byte[BlkdevBody.EncodedSizeBytes];
        KeptBlkdev().Encode(payload);
        payload.AsSpan(432, 8).Clear();
        Assert.False(BlkdevBody.TryDecode(payload, s_region.Geometry, out _, out string error));
        Assert.StartsWith("life is 0", error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(64, 0, "beat_ms is 0")]
    [InlineData(68, 10, "dead_ms is 10")]
    [InlineData(76, 0, "name of 0 bytes")]
    [InlineData(76, 1000, "name of 1000 bytes")]
    [InlineData(76, -1, "name of -1 bytes")]
    public void Of_a_host_names_the_field_and_its_value(int offset, int value, string expected)
    {
        var payload = new byte[HostBody.EncodedSizeBytes];
        Host().Encode(payload);
        System.Buffers.Binary.BinaryPrimitives.WriteInt32LittleEndian(payload.AsSpan(offset), value);
        Assert.False(HostBody.TryDecode(payload, out _, out string error));
        Assert.StartsWith(expected, error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0, -1, "host_id is -1")]
    [InlineData(16, 1000, "size is 1000")]
    [InlineData(24, 1024, "logical_block is 1024")]
    [InlineData(28, 3000, "physical_block is 3000")]
    [InlineData(32, 0, "discard_granularity is 0")]
    [InlineData(36, 1, "max_transfer is 1")]
    [InlineData(56, 0, "handlers is 0")]
    [InlineData(64, -5, "flush_errno is -5")]
    [InlineData(68, 0x00010081, "identity is not text")]
    [InlineData(68, 0x02010001, "path is not text")]
    [InlineData(72, 0x00FF4141, "identity is not text")]
    [InlineData(200, 0x0A414141, "path is not text")]
    [InlineData(712, 0x41414120, "name is not text")]
    [InlineData(712, 0x410A4103, "name is not text")]
    public void Of_a_backend_names_the_field_and_its_value(int offset, int value, string expected)
    {
        var payload = new byte[BackendBody.EncodedSizeBytes];
        TestRegion.Disk().Encode(payload);
        System.Buffers.Binary.BinaryPrimitives.WriteInt32LittleEndian(payload.AsSpan(offset), value);
        Assert.False(BackendBody.TryDecode(payload, out _, out string error));
        Assert.StartsWith(expected, error, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(0, 4, "host_id is 4")]
    [InlineData(24, 3, "backend_id is 3")]
    [InlineData(28, 129, "queues is 129")]
    [InlineData(28, 0x00FF0001, "name is not text")]
    [InlineData(160, 4, "channel of queue 0 is 4")]
    public void Of_a_blkdev_names_the_field_and_its_value(int offset, int value, string expected)
    {
        var payload = new byte[BlkdevBody.EncodedSizeBytes];
        Blkdev().Encode(payload);
        System.Buffers.Binary.BinaryPrimitives.WriteInt32LittleEndian(payload.AsSpan(offset), value);
        Assert.False(BlkdevBody.TryDecode(payload, s_region.Geometry, out _, out string error));
        Assert.StartsWith(expected, error, StringComparison.Ordinal);
    }

    [Fact]
    public void Never_fails_otherwise_on_noise()
    {
        var random = new Random(11);
        var payload = new byte[BodyFrame.MaxPayloadBytes];
        for (int round = 0; round < 20_000; round++)
        {
            switch (round % 3)
            {
                case 0: Host().Encode(payload); break;
                case 1: TestRegion.Disk().Encode(payload); break;
                default: KeptBlkdev().Encode(payload); break;
            }

            for (int i = random.Next(1, 6); i > 0; i--)
                payload[random.Next(payload.Length)] = (byte)random.Next(256);
            int length = random.Next(4) == 0 ? random.Next(payload.Length) : payload.Length;
            HostBody.TryDecode(payload.AsSpan(0, length), out _, out _);
            BackendBody.TryDecode(payload.AsSpan(0, length), out _, out _);
            BlkdevBody.TryDecode(payload.AsSpan(0, length), s_region.Geometry, out _, out _);
        }
    }
}
