using System.Buffers.Binary;
using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Fuzz;

/// <summary>
/// What registration reads first: the transport info, and what else may lie there. An odd first byte makes magic,
/// version and CRC right, so that the fields behind them are reached. What is accepted lies inside the region, whole.
/// </summary>
internal sealed class HeaderTarget : IFuzzTarget
{
    private const long MappedBytes = 64L << 30;

    public void Run(ReadOnlySpan<byte> input)
    {
        var fields = new FuzzInput(input);
        byte mode = fields.Byte();
        Span<byte> header = new byte[4096];
        fields.Take(header.Length).CopyTo(header);
        if ((mode & 1) != 0)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(header, TransportInfo.Magic);
            BinaryPrimitives.WriteUInt16LittleEndian(header[8..], TransportInfo.SupportedVersion);
            uint crc = Crc32C.Append(Crc32C.Append(uint.MaxValue, header[8..12]), header[16..]);
            BinaryPrimitives.WriteUInt32LittleEndian(header[12..], ~crc);
        }

        FuzzTargets.Check(RegionContents.Describe(header).Found.Length > 0, "what is there has a name");
        TransportInfo info;
        try
        {
            info = TransportInfo.Decode(header, MappedBytes);
        }
        catch (CbdException)
        {
            return;
        }

        CheckInside(info.Geometry);
        try
        {
            info.CheckWritable();
        }
        catch (CbdException)
        {
        }
    }

    private static void CheckInside(RegionGeometry geometry)
    {
        FuzzTargets.Check(geometry.SizeBytes <= MappedBytes, "the region is not larger than its mapping");
        long end = 4096;
        foreach ((long first, long last, long bytes, long least) in new[]
        {
            (geometry.HostOffset(0), geometry.HostOffset(geometry.HostCount - 1), geometry.BytesPerHost, 2048L),
            (geometry.BackendOffset(0), geometry.BackendOffset(geometry.BackendCount - 1), geometry.BytesPerBackend, 2048L),
            (geometry.BlkdevOffset(0), geometry.BlkdevOffset(geometry.BlkdevCount - 1), geometry.BytesPerBlkdev, 2048L),
            (geometry.ChannelOffset(0), geometry.ChannelOffset(geometry.ChannelCount - 1), geometry.BytesPerChannel, ChannelLayout.MinimumBytes(geometry.RingSlots, geometry.PageBytes)),
        }.Select(area => (area.Item1, area.Item2, area.Item3, area.Item4)))
        {
            FuzzTargets.Check(first >= end && first % 4096 == 0, "areas follow each other");
            FuzzTargets.Check(bytes >= least && last >= first, "entries are as large as their structure");
            end = checked(last + bytes);
        }

        FuzzTargets.Check(end <= geometry.SizeBytes, "the last area ends inside the region");
        var layout = new ChannelLayout(geometry, geometry.ChannelCount - 1);
        FuzzTargets.Check(layout.PoolBytes > 0 && layout.ReadPoolOffset + layout.PoolBytes <= geometry.SizeBytes, "the pools end inside the region");
    }
}
