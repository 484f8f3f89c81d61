using System.Buffers.Binary;
using Cbd.Blocks;
using Cbd.Disks;
using Cbd.Exports.Nbd;
using Xunit;

namespace Cbd.Tests.Exports;

/// <summary>The transmission phase with structured replies and with extended headers.</summary>
public sealed class NbdChunkTests : IDisposable
{
    private const ulong TooLong = (32 << 20) + 512;

    private static readonly NbdSession s_structured = new(true, false, true);
    private static readonly NbdSession s_extended = new(false, true, true);

    private readonly TestDevice _device = TestDevice.OfSize(80 << 20);
    private readonly NbdTestServer _server;

    public NbdChunkTests() => _server = new NbdTestServer(_device);

    public void Dispose() => _server.Dispose();

    private NbdTestClient Connect(bool extended) => NbdTestClient.Go(_server.Path, extended ? s_extended : s_structured);

    private static byte[] Pattern(int length, int seed)
    {
        byte[] bytes = new byte[length];
        new Random(seed).NextBytes(bytes);
        return bytes;
    }

    /// <summary>Writes, and takes the form of success that the session asks for.</summary>
    private static void Write(NbdTestClient client, long offset, ReadOnlySpan<byte> bytes, NbdCommandFlags flags = 0) =>
        Succeed(client, NbdCommand.Write, offset, (ulong)bytes.Length, flags | (client.Session.ExtendedHeaders ? NbdCommandFlags.PayloadLength : 0), bytes);

    private static void Succeed(
        NbdTestClient client, NbdCommand command, long offset, ulong length, NbdCommandFlags flags = 0, ReadOnlySpan<byte> payload = default)
    {
        if (client.Session.ExtendedHeaders)
        {
            (NbdChunk type, byte[] rest) = client.Ask(command, offset, length, flags, payload);
            Assert.Equal((NbdChunk.None, 0), (type, rest.Length));
        }
        else
        {
            Assert.Equal(NbdError.None, client.Do(command, offset, (uint)length, flags, payload));
        }
    }

    private static List<(ulong Length, ulong State)> Status(NbdTestClient client, long offset, ulong length, NbdCommandFlags flags = 0)
    {
        (NbdChunk type, byte[] data) = client.Ask(NbdCommand.BlockStatus, offset, length, flags);
        return Extents(client.Session.ExtendedHeaders, type, data);
    }

    private static List<(ulong Length, ulong State)> Extents(bool extended, NbdChunk type, byte[] data)
    {
        Assert.Equal(extended ? NbdChunk.BlockStatusExtended : NbdChunk.BlockStatus, type);
        Assert.Equal(1u, BinaryPrimitives.ReadUInt32BigEndian(data));
        var extents = new List<(ulong, ulong)>();
        for (ReadOnlySpan<byte> rest = data.AsSpan(extended ? 8 : 4); !rest.IsEmpty; rest = rest[(extended ? 16 : 8)..])
        {
            extents.Add(extended
                ? (BinaryPrimitives.ReadUInt64BigEndian(rest), BinaryPrimitives.ReadUInt64BigEndian(rest[8..]))
                : (BinaryPrimitives.ReadUInt32BigEndian(rest), BinaryPrimitives.ReadUInt32BigEndian(rest[4..])));
        }

        if (extended)
            Assert.Equal(extents.Count, BinaryPrimitives.ReadInt32BigEndian(data.AsSpan(4)));
        return extents;
    }

    [Theory]
    [InlineData(false, 512, false)]
    [InlineData(true, 512, false)]
    [InlineData(false, 65536, true)]
    [InlineData(true, 65536, true)]
    [InlineData(false, 32 << 20, true)]
    [InlineData(true, 32 << 20, true)]
    public void A_read_is_one_chunk_of_data_also_unfragmented(bool extended, int length, bool unfragmented)
    {
        using NbdTestClient client = Connect(extended);
        byte[] bytes = Pattern(length, length);
        Write(client, 4096, bytes, NbdCommandFlags.ForceUnitAccess);
        (NbdChunk type, byte[] data) = client.Ask(NbdCommand.Read, 4096, (ulong)length, unfragmented ? NbdCommandFlags.DontFragment : 0);
        Assert.Equal(NbdChunk.OffsetData, type);
        Assert.Equal(4096UL, BinaryPrimitives.ReadUInt64BigEndian(data));
        Assert.True(data.AsSpan(8).SequenceEqual(bytes));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_long_read_of_nothing_but_zeroes_is_a_hole_and_any_other_byte_makes_it_data(bool extended)
    {
        using NbdTestClient client = Connect(extended);
        (NbdChunk type, byte[] data) = client.Ask(NbdCommand.Read, 1 << 20, 65536);
        Assert.Equal(NbdChunk.OffsetHole, type);
        Assert.Equal([0, 0, 0, 0, 0, 16, 0, 0, 0, 1, 0, 0], data);
        foreach (int at in new[] { 0, 30_001, 65535 })
        {
            _device.Bytes.Slice(1 << 20, 65536).Clear();
            _device.Bytes[(1 << 20) + at] = 1;
            (type, data) = client.Ask(NbdCommand.Read, 1 << 20, 65536);
            Assert.Equal(NbdChunk.OffsetData, type);
            Assert.Equal(1, data[8 + at]);
        }

        Assert.Equal(NbdChunk.OffsetData, client.Ask(NbdCommand.Read, 0, 65536 - 512).Type);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Errors_come_in_words_and_the_connection_goes_on(bool extended)
    {
        using NbdTestClient client = Connect(extended);
        Assert.Equal(NbdError.Overflow, client.Refused(NbdCommand.Read, 0, TooLong));
        Assert.Equal(NbdError.Overflow, client.Refused(NbdCommand.Read, 0, TooLong, NbdCommandFlags.DontFragment));
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.Read, 80 << 20, 512));
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.Read, 1, 512));
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.Read, 0, 0));
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.Read, 0, 512, NbdCommandFlags.OneExtent));
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.Trim, 0, 512, NbdCommandFlags.DontFragment));
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.Flush, 512, 512));
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.Cache, 0, 512));
        Assert.Equal(NbdError.Invalid, client.Refused((NbdCommand)8, 0, 512));
        Assert.Equal(NbdError.NoSpace, client.Refused(NbdCommand.WriteZeroes, 80 << 20, 512));
        NbdCommandFlags carries = extended ? NbdCommandFlags.PayloadLength : 0;
        Assert.Equal(NbdError.NoSpace, client.Refused(NbdCommand.Write, 80 << 20, 512, carries, new byte[512]));
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.Write, 3, 512, carries, new byte[512]));
        Assert.Equal(0, _device.Submitted);
        _device.Fails = 28;
        Assert.Equal(NbdError.NoSpace, client.Refused(NbdCommand.Read, 0, 4096));
        Assert.Equal(NbdError.NoSpace, client.Refused(NbdCommand.Flush, 0, 0));
        _device.Fails = 0;
        Succeed(client, NbdCommand.Flush, 0, 0);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Block_status_tells_data_and_holes(bool extended)
    {
        using NbdTestClient client = Connect(extended);
        Write(client, 8192, Pattern(12288, 1));
        Assert.Equal([(8192, 3), (12288, 0), (45056, 3)], Status(client, 0, 65536));
        Assert.Equal([(4096, 3)], Status(client, 0, 65536, NbdCommandFlags.OneExtent));
        Assert.Equal([(512, 0)], Status(client, 8192 + 512, 512, NbdCommandFlags.OneExtent | NbdCommandFlags.ForceUnitAccess));
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.BlockStatus, 80 << 20, 512));
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.BlockStatus, 0, 100));
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.BlockStatus, 0, 0));
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.BlockStatus, 0, 512, NbdCommandFlags.NoHole));
    }

    [Fact]
    public void Block_status_over_more_extents_than_fit_answers_the_first_of_them()
    {
        using NbdTestClient client = Connect(extended: false);
        for (int block = 0; block < 80 << 8; block += 2)
            _device.Bytes[block << 12] = 1;
        List<(ulong Length, ulong State)> extents = Status(client, 0, 80 << 20);
        Assert.Equal(NbdExtents.MaxCount, extents.Count);
        Assert.Equal([(4096, 0), (4096, 3)], extents[^2..]);
    }

    [Fact]
    public void A_device_that_cannot_tell_has_data_everywhere_and_one_that_fails_is_an_error()
    {
        using NbdTestClient client = Connect(extended: false);
        _device.Fails = 95;
        Assert.Equal([(65536, 0)], Status(client, 0, 65536));
        _device.Fails = 5;
        Assert.Equal(NbdError.Io, client.Refused(NbdCommand.BlockStatus, 0, 65536));
    }

    [Fact]
    public void Fast_zeroes_are_refused_at_once_where_they_are_not_fast()
    {
        var device = new TestDevice(new BlockDeviceInfo { SizeBytes = 1 << 20 });
        using var server = new NbdTestServer(device);
        using NbdTestClient client = NbdTestClient.Go(server.Path, s_structured);
        Assert.Equal(NbdError.NotSupported, client.Refused(NbdCommand.WriteZeroes, 0, 4096, NbdCommandFlags.FastZero));
        Assert.Equal(0, device.Submitted);
        Succeed(client, NbdCommand.WriteZeroes, 0, 4096, NbdCommandFlags.NoHole);

        using NbdTestClient fast = Connect(extended: false);
        _device.Fails = 95;
        Assert.Equal(NbdError.NotSupported, fast.Refused(NbdCommand.WriteZeroes, 0, 4096, NbdCommandFlags.FastZero));
        Assert.Equal(NbdError.Io, fast.Refused(NbdCommand.WriteZeroes, 0, 4096));
    }

    [Fact]
    public void Cache_and_rotation_are_told_where_the_device_has_them()
    {
        var device = new TestDevice(new BlockDeviceInfo { SizeBytes = 1 << 20, CanCache = true, IsRotational = true });
        using var server = new NbdTestServer(device);
        using NbdTestClient client = NbdTestClient.Go(server.Path, s_structured);
        Succeed(client, NbdCommand.Cache, 0, 1 << 20, NbdCommandFlags.ForceUnitAccess);
        Assert.Equal((BlockOperation.Cache, BlockFlags.None, 0, 1 << 20), device.Done[^1]);
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.Cache, 0, 4096, NbdCommandFlags.NoHole));
        const NbdTransmissionFlags Both = NbdTransmissionFlags.SendCache | NbdTransmissionFlags.Rotational;
        Assert.Equal(Both, NbdExportInfo.Describe(device.Info).Flags & Both);
        Assert.Equal((NbdTransmissionFlags)0, NbdExportInfo.Describe(_device.Info).Flags & Both);
    }

    [Fact]
    public void Extended_lengths_have_64_bits()
    {
        using Disk disk = Disk.Open(new DiskOptions { Path = "null:6T" });
        using var server = new NbdTestServer(disk);
        using NbdTestClient client = NbdTestClient.Go(server.Path, s_extended);
        Assert.Equal([(6UL << 40, 3)], Status(client, 0, 6UL << 40));
        Assert.Equal([((5UL << 40) - 512, 3)], Status(client, 512, (5UL << 40) - 512, NbdCommandFlags.OneExtent));
        Succeed(client, NbdCommand.WriteZeroes, 1L << 40, 5UL << 40, NbdCommandFlags.FastZero);
        Succeed(client, NbdCommand.Trim, 0, 6UL << 40);
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.Trim, 512, 6UL << 40));
        Assert.Equal(NbdError.NoSpace, client.Refused(NbdCommand.WriteZeroes, 512, ulong.MaxValue - 511));
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.BlockStatus, 0, ulong.MaxValue));
        Assert.Equal(NbdError.Overflow, client.Refused(NbdCommand.Read, 0, 6UL << 40));
    }

    [Fact]
    public void Extended_headers_follow_their_payload_flag()
    {
        using NbdTestClient client = Connect(extended: true);
        // A write without it has no payload; what is no write, but has it, has its payload skipped.
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.Write, 0, 512));
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.Write, 0, 0, NbdCommandFlags.PayloadLength));
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.Read, 0, 512, NbdCommandFlags.PayloadLength, new byte[512]));
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.Flush, 0, 200_000, NbdCommandFlags.PayloadLength, new byte[200_000]));
        Assert.Equal(NbdError.Invalid, client.Refused((NbdCommand)200, 0, 3, NbdCommandFlags.PayloadLength, new byte[3]));
        Write(client, 0, Pattern(512, 1));
        client.SendRequest(NbdCommand.Write, 1, 0, TooLong, NbdCommandFlags.PayloadLength);
        client.ReadToEnd();
        Assert.Contains("33554944 bytes of payload", _server.Log, StringComparison.Ordinal);
    }

    [Fact]
    public void Block_status_with_a_payload_is_limited_to_the_contexts_that_it_names()
    {
        const NbdCommandFlags Filtered = NbdCommandFlags.PayloadLength;
        using NbdTestClient client = Connect(extended: true);
        byte[] filter = new byte[16];
        BinaryPrimitives.WriteUInt64BigEndian(filter, 8 << 20);
        filter[11] = 1;
        (NbdChunk type, byte[] data) = client.Ask(NbdCommand.BlockStatus, 0, 12, Filtered, filter.AsSpan(0, 12));
        Assert.Equal([(8 << 20, 3)], Extents(true, type, data));
        // Byte by byte it is understood too.
        byte[] request = new byte[NbdProtocol.ExtendedRequestBytes];
        new NbdRequestHeader(NbdProtocol.ExtendedRequestMagic, Filtered, NbdCommand.BlockStatus, 5, 0, 12).Encode(request);
        foreach (byte value in request.Concat(filter.Take(12)))
            client.Send([value]);
        Assert.Equal(NbdChunk.BlockStatusExtended, client.ReadChunk().Type);
        // None, the same one twice, an unknown one, half of one.
        foreach (int length in new[] { 8, 16, 10, 3 })
            Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.BlockStatus, 0, (ulong)length, Filtered, filter.AsSpan(0, length)));
        filter[11] = 2;
        Assert.Equal(NbdError.Invalid, client.Refused(NbdCommand.BlockStatus, 0, 12, Filtered, filter.AsSpan(0, 12)));
        Assert.Equal([(8 << 20, 3)], Status(client, 0, 8 << 20));
    }

    [Fact]
    public void A_compact_request_ends_an_extended_connection_and_the_other_way_round()
    {
        using (NbdTestClient extended = Connect(extended: true))
        {
            extended.SendRequest(NbdCommand.Flush, 1, 0, 0, magic: NbdProtocol.RequestMagic);
            extended.ReadToEnd();
        }

        using NbdTestClient structured = Connect(extended: false);
        byte[] request = new byte[NbdProtocol.ExtendedRequestBytes];
        new NbdRequestHeader(NbdProtocol.ExtendedRequestMagic, 0, NbdCommand.Flush, 1, 0, 0).Encode(request);
        structured.Send(request);
        structured.ReadToEnd();
        Assert.Contains("0x21e41c71 instead of 0x25609513", _server.Log, StringComparison.Ordinal);
        Assert.Contains("0x25609513 instead of 0x21e41c71", _server.Log, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Many_chunks_of_two_clients_come_with_their_handles(bool extended)
    {
        using NbdTestClient client = Connect(extended);
        using NbdTestClient other = NbdTestClient.Go(_server.Path);
        Write(client, 0, Pattern(1 << 20, 5));
        _device.Held = true;
        for (ulong handle = 0; handle < 100; handle++)
        {
            client.SendRequest(handle % 3 == 2 ? NbdCommand.BlockStatus : NbdCommand.Read, handle, (long)(handle % 10) << 12, 65536);
            other.SendRequest(NbdCommand.Read, handle, (long)(handle % 10) << 12, 4096);
        }

        _device.Held = false;
        var seen = new HashSet<ulong>();
        for (int i = 0; i < 100; i++)
        {
            (NbdChunk type, bool done, ulong handle, _, byte[] data) = client.ReadChunk();
            Assert.True(done && seen.Add(handle));
            if (handle % 3 == 2)
                Assert.Equal([(65536UL, 0UL)], Extents(extended, type, data));
            else
                Assert.True(data.AsSpan(8).SequenceEqual(_device.Bytes.Slice((int)(handle % 10) << 12, 65536)));
        }

        for (int i = 0; i < 100; i++)
        {
            (NbdError error, ulong handle) = other.ReadReply();
            Assert.Equal(NbdError.None, error);
            Assert.True(other.Read(4096).AsSpan().SequenceEqual(_device.Bytes.Slice((int)(handle % 10) << 12, 4096)));
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Chunks_allocate_nothing_per_request(bool extended)
    {
        using NbdTestClient client = Connect(extended);
        _device.Done.EnsureCapacity(10_000);
        byte[] block = Pattern(4096, 1);
        void Work()
        {
            for (int i = 0; i < 200; i++)
            {
                Write(client, i * 4096, block);
                client.Ask(NbdCommand.Read, i * 4096, 4096);
                client.Ask(NbdCommand.BlockStatus, 0, 1 << 20);
                client.Ask(NbdCommand.Read, 40 << 20, 65536);
                client.Refused(NbdCommand.Read, 1, 1);
            }
        }

        Work();
        Allocations.None(Work, () => _server.Export.GetStatistics()[0].AllocatedBytes);
    }

    [Theory]
    [InlineData("file")]
    [InlineData("memory")]
    public void Disks_tell_their_holes(string kind)
    {
        string path = Path.Combine(Directory.CreateTempSubdirectory("cbd-holes-").FullName, "disk");
        try
        {
            using (FileStream file = File.Create(path))
                file.SetLength(16 << 20);
            using Disk disk = Disk.Open(new DiskOptions { Path = kind == "file" ? path : "memory:16M" });
            using var server = new NbdTestServer(disk);
            using NbdTestClient client = NbdTestClient.Go(server.Path, s_extended);
            Write(client, 4 << 20, Pattern(1 << 20, 3));
            Assert.Equal([(4 << 20, 3), (1 << 20, 0), (11 << 20, 3)], Status(client, 0, 16 << 20));
            Succeed(client, NbdCommand.WriteZeroes, 4 << 20, 1 << 20);
            Assert.Equal([(16 << 20, 3)], Status(client, 0, 16 << 20));
        }
        finally
        {
            Directory.Delete(Path.GetDirectoryName(path)!, recursive: true);
        }
    }
}
