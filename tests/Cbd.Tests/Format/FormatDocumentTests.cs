using System.Buffers.Binary;
using System.Globalization;
using System.Reflection;
using System.Runtime.CompilerServices;
using System.Text.Json;
using Cbd.Protocol.Format;
using Cbd.Memory;
using Cbd.Tests.Hosts;
using Xunit;

namespace Cbd.Tests.Format;

/// <summary>docs/format.md says what the code does.</summary>
public sealed class The_format_document
{
    private static readonly Dictionary<string, (IReadOnlyList<FieldLayout> Layout, int SizeBytes)> s_structures = new()
    {
        [nameof(TransportInfo)] = (TransportInfo.Layout, TransportInfo.SizeBytes),
        [nameof(HostEntry)] = (HostEntry.Layout, HostEntry.SizeBytes),
        [nameof(BackendEntry)] = (BackendEntry.Layout, BackendEntry.SizeBytes),
        [nameof(BlkdevEntry)] = (BlkdevEntry.Layout, BlkdevEntry.SizeBytes),
        [nameof(BodyFrame)] = (BodyFrame.Layout, BodyFrame.SizeBytes),
        [nameof(HostBody)] = (HostBody.Layout, HostBody.EncodedSizeBytes),
        [nameof(BackendBody)] = (BackendBody.Layout, BackendBody.EncodedSizeBytes),
        [nameof(BlkdevBody)] = (BlkdevBody.Layout, BlkdevBody.EncodedSizeBytes),
    };

    private static readonly Dictionary<string, (object Zero, Func<object, Line> ToLine)> s_lines = new()
    {
        [nameof(CommandLine)] = (default(CommandLine), line => ((CommandLine)line).ToLine()),
        [nameof(CompletionLine)] = (default(CompletionLine), line => ((CompletionLine)line).ToLine()),
        [nameof(BlkdevCtrlLine)] = (default(BlkdevCtrlLine), line => Stored((BlkdevCtrlLine)line)),
        [nameof(HandlerCtrlLine)] = (default(HandlerCtrlLine), line => Stored((HandlerCtrlLine)line)),
    };

    public static TheoryData<string> Structures => [.. s_structures.Keys];

    public static TheoryData<string> Lines => [.. s_lines.Keys];

    [Theory]
    [MemberData(nameof(Structures))]
    public void Has_the_offset_table_of_every_structure(string structure)
    {
        (IReadOnlyList<FieldLayout> layout, int sizeBytes) = s_structures[structure];
        Assert.Equal(layout, Table(structure));
        Assert.True(layout[^1].End <= sizeBytes);
    }

    [Theory]
    [MemberData(nameof(Lines))]
    public void Has_the_offset_table_of_every_line(string structure)
    {
        (object zero, Func<object, Line> toLine) = s_lines[structure];
        var layout = new List<FieldLayout>();
        foreach (PropertyInfo property in zero.GetType().GetProperties().Where(p => p.CanWrite))
        {
            // A line of zeroes but for this field, which has all its bits.
            object line = RuntimeHelpers.GetUninitializedObject(zero.GetType());
            property.SetValue(line, AllBits(property, structure));
            byte[] bytes = Bytes(toLine(line));
            int first = Array.FindIndex(bytes, b => b != 0);
            int last = Array.FindLastIndex(bytes, b => b != 0);
            Assert.All(bytes[first..(last + 1)], b => Assert.Equal(255, b));
            layout.Add(new FieldLayout(JsonNamingPolicy.SnakeCaseLower.ConvertName(property.Name), first, last + 1 - first));
        }

        // The CRC closes every line.
        var sealedLine = new Line();
        new LineSeal(Guid.NewGuid(), 1, LineKind.Command, 1).Seal(ref sealedLine, 1);
        Assert.All(Bytes(sealedLine).Index(), b => Assert.True(b.Item == 0 || b.Index is >= 56 and < 60));
        layout.Add(new FieldLayout("crc", 56, 4));
        Assert.Equal(layout.OrderBy(f => f.Offset), Table(structure));
    }

    [Fact]
    public void Has_the_value_of_every_claim_state()
    {
        string[] rows = [.. Section("ClaimWord").Where(r => r.Length > 2 && int.TryParse(r[0], out _)).Select(r => $"{r[0]} {r[1]}")];
        Assert.Equal(Enum.GetValues<ClaimState>().Select(s => $"{(int)s} {s.ToString().ToUpperInvariant()}"), rows);
    }

    [Fact]
    public void Says_where_the_parts_of_a_channel_lie()
    {
        var region = new TestRegion();
        var layout = new ChannelLayout(region.Geometry, 0);
        int[] offsets = [.. Section("Channel").Select(r => int.TryParse(r[0], NumberStyles.None, CultureInfo.InvariantCulture, out int offset) ? offset : -1).Where(o => o >= 0)];
        Assert.Equal(
            [0, ChannelLayout.BlkdevCtrlOffset, ChannelLayout.HandlerCtrlOffset, ChannelLayout.HandlerDoorbellOffset, ChannelLayout.BlkdevDoorbellOffset, (int)(layout.CompletionRingOffset - layout.ClaimOffset)],
            offsets);
    }

    private static object AllBits(PropertyInfo property, string structure) => Type.GetTypeCode(property.PropertyType) switch
    {
        _ when property.PropertyType.IsEnum => Enum.ToObject(property.PropertyType, byte.MaxValue),
        // Lines of rings have it in the claim word's width.
        TypeCode.UInt64 when property.Name == "Epoch" && structure is nameof(CommandLine) or nameof(CompletionLine) => ClaimWord.MaxEpoch,
        TypeCode.UInt64 => ulong.MaxValue,
        TypeCode.Int64 => -1L,
        TypeCode.UInt32 => uint.MaxValue,
        TypeCode.Int32 => -1,
        TypeCode.UInt16 => ushort.MaxValue,
        _ => throw new InvalidOperationException($"{property.Name} is a {property.PropertyType.Name}"),
    };

    private static Line Stored(BlkdevCtrlLine ctrl)
    {
        var region = new TestRegion();
        ctrl.Store(region.Memory, region.Geometry, 0);
        return Load(region, ChannelLayout.BlkdevCtrlOffset);
    }

    private static Line Stored(HandlerCtrlLine ctrl)
    {
        var region = new TestRegion();
        ctrl.Store(region.Memory, region.Geometry.ChannelOffset(0) + ChannelLayout.HandlerCtrlOffset, default);
        return Load(region, ChannelLayout.HandlerCtrlOffset);
    }

    private static Line Load(TestRegion region, int offset)
    {
        region.Memory.ReadLine(region.Geometry.ChannelOffset(0) + offset, out Line line);
        line.Word7 = 0;
        return line;
    }

    private static byte[] Bytes(Line line)
    {
        ulong[] words = [line.Word0, line.Word1, line.Word2, line.Word3, line.Word4, line.Word5, line.Word6, line.Word7];
        byte[] bytes = new byte[Line.SizeBytes];
        for (int i = 0; i < words.Length; i++)
            BinaryPrimitives.WriteUInt64LittleEndian(bytes.AsSpan(8 * i), words[i]);
        return bytes;
    }

    /// <summary>Rows that begin with an offset, a size and a name.</summary>
    private static FieldLayout[] Table(string structure) =>
        [.. Section(structure)
            .Where(row => row.Length > 2 && int.TryParse(row[0], out _))
            .Select(row => new FieldLayout(row[2], int.Parse(row[0], CultureInfo.InvariantCulture), int.Parse(row[1], CultureInfo.InvariantCulture)))];

    private static List<string[]> Section(string title)
    {
        string? directory = AppContext.BaseDirectory;
        while (!File.Exists(Path.Combine(directory, "Cbd.slnx")))
            directory = Path.GetDirectoryName(directory) ?? throw new InvalidOperationException("no Cbd.slnx above the tests");
        return [.. File.ReadAllLines(Path.Combine(directory, "docs", "format.md"))
            .SkipWhile(line => line != $"## {title}").Skip(1)
            .TakeWhile(line => !line.StartsWith("## ", StringComparison.Ordinal))
            .Where(line => line.StartsWith('|'))
            .Select(line => line.Trim('|').Split('|', StringSplitOptions.TrimEntries))];
    }
}
