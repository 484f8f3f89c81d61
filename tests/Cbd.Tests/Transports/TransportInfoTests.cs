using System.Buffers.Binary;
using Cbd.Protocol.Format;
using Cbd.Memory;
using Cbd.Simulation;
using Cbd.Tests.Hosts;
using Cbd.Protocol.Transports;
using Xunit;

namespace Cbd.Tests.Transports;

public sealed class Reading_a_transport_info
{
    private static string Refusal(Action<byte[]> damage, bool reseal = true)
    {
        var region = new TestRegion();
        byte[] header = region.Memory.Bytes[..4096].ToArray();
        damage(header);
        if (reseal)
            Reseal(header);
        header.CopyTo(region.Memory.Bytes);
        return Assert.Throws<CbdException>(() => TransportInfo.Read(region.Memory, region.Geometry.SizeBytes)).Message;
    }

    private static void Reseal(byte[] header)
    {
        uint crc = Crc32C.Append(uint.MaxValue, header.AsSpan(8, 4));
        BinaryPrimitives.WriteUInt32LittleEndian(header.AsSpan(12), ~Crc32C.Append(crc, header.AsSpan(16)));
    }

    private static void Put(byte[] header, string field, long value)
    {
        FieldLayout layout = TransportInfo.Layout.Single(row => row.Name == field);
        Span<byte> bytes = stackalloc byte[8];
        BinaryPrimitives.WriteInt64LittleEndian(bytes, value);
        bytes[..layout.SizeBytes].CopyTo(header.AsSpan(layout.Offset));
    }

    [Fact]
    public void Gives_back_what_was_encoded()
    {
        var region = new TestRegion();
        TransportInfo info = TransportInfo.Read(region.Memory, region.Geometry.SizeBytes);
        Assert.Equal(region.Geometry, info.Geometry);
        Assert.Equal(RegionCoherence.Hardware, info.Coherence);
        Assert.False(info.ListsOnly);
    }

    [Fact]
    public void Says_what_is_there_when_the_magic_is_wrong()
    {
        Assert.Contains("nothing but zeroes is there: format it with --format", Refusal(header => header.AsSpan().Clear(), reseal: false), StringComparison.Ordinal);
        Assert.Contains("a LUKS volume", Refusal(header => "LUKS\xba\xbe"u8.ToArray().Take(4).Concat(new byte[] { 0xBA, 0xBE }).ToArray().CopyTo(header, 0)), StringComparison.Ordinal);
        Assert.Contains("big-endian", Refusal(header => header.AsSpan(0, 8).Reverse()), StringComparison.Ordinal);
        Assert.Contains("unknown data at offset 0", Refusal(header => header[0] ^= 1), StringComparison.Ordinal);
    }

    [Fact]
    public void Says_that_formatting_was_interrupted() =>
        Assert.Contains("formatting was interrupted", Refusal(header => BinaryPrimitives.WriteUInt64LittleEndian(header, 0x464F524D_00000003)), StringComparison.Ordinal);

    [Theory]
    [InlineData("version", 3, "version is 3: this program reads version 2")]
    [InlineData("flags", 1, "flags is 0x0001: a big-endian host")]
    [InlineData("incompat", 0x80, "incompat is 0x00000080")]
    [InlineData("coherence", 2, "coherence is 2")]
    [InlineData("size", 1L << 40, "size is 1099511627776: larger than")]
    [InlineData("host_area_off", 4097, "host_area_off is 4097")]
    [InlineData("host_num", 0, "host_num is 0")]
    [InlineData("host_num", -1, "host_num is -1")]
    [InlineData("bytes_per_host", 1024, "bytes_per_host is 1024")]
    [InlineData("backend_num", 30000, "blkdev_area_off is ")]
    [InlineData("blkdev_area_off", 4096, "blkdev_area_off is 4096")]
    [InlineData("channel_area_off", long.MaxValue & ~4095, "channel_area_off is 9223372036854771712")]
    [InlineData("bytes_per_channel", 4096, "bytes_per_channel is 4096")]
    [InlineData("channel_num", 32768, "channel_area_off is ")]
    [InlineData("ring_slots", 3, "ring_slots is 3")]
    [InlineData("page_bytes", 512, "page_bytes is 512")]
    public void Names_the_field_and_its_value(string field, long value, string expected)
    {
        // Of two areas that overlap, the later one is named; one that leaves the region is named itself.
        string message = Refusal(header => Put(header, field, value));
        Assert.Contains(field == "backend_num" ? "area_off is " : expected, message, StringComparison.Ordinal);
        Assert.DoesNotContain('\n', message);
    }

    [Fact]
    public void Notices_a_damaged_header()
    {
        Assert.Contains("crc is", Refusal(header => header[2000] = 1, reseal: false), StringComparison.Ordinal);
        Assert.Contains("crc is", Refusal(header => header[70] ^= 4, reseal: false), StringComparison.Ordinal);
    }

    [Fact]
    public void Notices_a_region_that_was_truncated_after_formatting()
    {
        var region = new TestRegion();
        string message = Assert.Throws<CbdException>(() => TransportInfo.Read(region.Memory, region.Geometry.SizeBytes - 4096)).Message;
        Assert.Contains("truncated after formatting", message, StringComparison.Ordinal);
        Assert.Contains("smaller than", Assert.Throws<CbdException>(() => TransportInfo.Read(new ArrayMemory(512), 512)).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Allows_lists_only_with_an_unknown_ro_compat_bit_and_ignores_compat_bits()
    {
        var region = new TestRegion();
        byte[] header = region.Memory.Bytes[..4096].ToArray();
        Put(header, "ro_compat", 4);
        Put(header, "compat", 1);
        Reseal(header);
        header.CopyTo(region.Memory.Bytes);
        TransportInfo info = TransportInfo.Read(region.Memory, region.Geometry.SizeBytes);
        Assert.True(info.ListsOnly);
        Assert.Equal(1u, info.Compat);
        Assert.Contains("ro_compat is 0x00000004", Assert.Throws<CbdException>(() => region.Host("a").Register()).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Never_fails_otherwise_on_random_bytes_behind_a_good_crc()
    {
        var region = new TestRegion();
        byte[] good = region.Memory.Bytes[..4096].ToArray();
        var random = new Random(7);
        int accepted = 0;
        for (int round = 0; round < 3000; round++)
        {
            byte[] header = [.. good];
            for (int i = random.Next(1, 4); i > 0; i--)
                header[random.Next(16, 132)] = (byte)random.Next(256);
            Reseal(header);
            header.CopyTo(region.Memory.Bytes);
            try
            {
                RegionGeometry geometry = TransportInfo.Read(region.Memory, region.Geometry.SizeBytes).Geometry;
                accepted++;
                Assert.True(geometry.ChannelOffset(geometry.ChannelCount - 1) + geometry.BytesPerChannel <= region.Geometry.SizeBytes);
                Assert.True(geometry.HostOffset(geometry.HostCount - 1) + geometry.BytesPerHost <= geometry.BackendAreaOffset);
            }
            catch (CbdException)
            {
                // Named and refused; any other exception fails the test.
            }
        }

        Assert.InRange(accepted, 1, 2999);
    }
}

public sealed class Planning_a_region
{
    [Theory]
    [InlineData(4L << 20, 15, 256 << 10)]
    [InlineData(16L << 20, 31, 512 << 10)]
    [InlineData(256L << 20, 31, 8 << 20)]
    [InlineData(8L << 30, 512, 8 << 20)]
    public void Chooses_channels_by_the_size(long sizeBytes, int channels, long channelBytes)
    {
        RegionGeometry geometry = RegionPlan.Create(sizeBytes, new RegionOptions(), Guid.NewGuid());
        Assert.Equal((channels, channelBytes), (geometry.ChannelCount, geometry.BytesPerChannel));
        Assert.Equal((16, 32, 64, 256), (geometry.HostCount, geometry.BackendCount, geometry.BlkdevCount, geometry.RingSlots));
    }

    [Fact]
    public void Says_the_minimum_when_the_region_is_too_small()
    {
        long minimum = RegionPlan.MinimumBytes(new RegionOptions());
        Assert.Contains($"at least {minimum}", Assert.Throws<CbdException>(() => RegionPlan.Create(minimum - 1, new RegionOptions(), Guid.NewGuid())).Message, StringComparison.Ordinal);
        Assert.Equal(1, RegionPlan.Create(minimum, new RegionOptions(), Guid.NewGuid()).ChannelCount);
    }

    [Fact]
    public void Takes_every_option()
    {
        var options = new RegionOptions { Hosts = 3, Backends = 5, Blkdevs = 7, Channels = 9, ChannelSizeBytes = 1 << 20, RingSlots = 64, PayloadCrc = false, PageBytes = 65536 };
        RegionGeometry geometry = RegionPlan.Create(64 << 20, options, Guid.NewGuid());
        Assert.Equal((3, 5, 7, 9), (geometry.HostCount, geometry.BackendCount, geometry.BlkdevCount, geometry.ChannelCount));
        Assert.Equal((1L << 20, 64, false, 65536), (geometry.BytesPerChannel, geometry.RingSlots, geometry.PayloadCrc, geometry.PageBytes));
        Assert.Equal(0, geometry.ChannelAreaOffset % 65536);
    }

    [Fact]
    public void Makes_smaller_channels_when_more_are_wanted() =>
        Assert.Equal(2 << 20, RegionPlan.Create(256 << 20, new RegionOptions { Channels = 100 }, Guid.NewGuid()).BytesPerChannel);

    [Fact]
    public void Names_the_option_that_cannot_be()
    {
        static string Refusal(RegionOptions options) => Assert.Throws<CbdException>(() => RegionPlan.Create(64 << 20, options, Guid.NewGuid())).Message;
        Assert.StartsWith("--hosts is 0", Refusal(new RegionOptions { Hosts = 0 }), StringComparison.Ordinal);
        Assert.StartsWith("--backends is 32769", Refusal(new RegionOptions { Backends = 32769 }), StringComparison.Ordinal);
        Assert.StartsWith("--blkdevs is -1", Refusal(new RegionOptions { Blkdevs = -1 }), StringComparison.Ordinal);
        Assert.StartsWith("--channels is 0", Refusal(new RegionOptions { Channels = 0 }), StringComparison.Ordinal);
        Assert.StartsWith("--ring-slots is 100", Refusal(new RegionOptions { RingSlots = 100 }), StringComparison.Ordinal);
        Assert.StartsWith("--channel-size is 5000", Refusal(new RegionOptions { ChannelSizeBytes = 5000 }), StringComparison.Ordinal);
        Assert.Contains("at least", Refusal(new RegionOptions { Channels = 30000 }), StringComparison.Ordinal);
    }
}

public sealed class Naming_what_a_region_contains
{
    [Theory]
    [InlineData("an xfs file system", 0, "58465342")]
    [InlineData("a btrfs file system", 0x10040, "5F42485266535F4D")]
    [InlineData("a LUKS volume", 0, "4C554B53BABE")]
    [InlineData("an LVM2 physical volume", 512, "4C4142454C4F4E45")]
    [InlineData("swap space", 4086, "53574150535041434532")]
    [InlineData("a GPT partition table", 512, "4546492050415254")]
    [InlineData("an MBR partition table", 510, "55AA")]
    [InlineData("an ext2 file system", 1080, "53EF")]
    [InlineData("unknown data at offset 1048575", 1048575, "01")]
    public void Knows(string found, int offset, string hex)
    {
        var bytes = new byte[1 << 20];
        Convert.FromHexString(hex).CopyTo(bytes, offset);
        Assert.Equal(new RegionContents(found, false), RegionContents.Describe(bytes));
    }

    [Fact]
    public void Tells_ext3_and_ext4_by_their_features()
    {
        var bytes = new byte[4096];
        (bytes[1080], bytes[1081], bytes[1116]) = (0x53, 0xEF, 0x04);
        Assert.Equal("an ext3 file system", RegionContents.Describe(bytes).Found);
        bytes[1120] = 0x40;
        Assert.Equal("an ext4 file system", RegionContents.Describe(bytes).Found);
    }

    [Fact]
    public void Finds_nothing_in_zeroes() => Assert.True(RegionContents.Describe(new byte[1000]).IsZero);
}
