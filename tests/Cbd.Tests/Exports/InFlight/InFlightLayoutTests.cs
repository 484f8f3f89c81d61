using System.Reflection;
using System.Runtime.InteropServices;
using Cbd.Exports.InFlight;
using Xunit;

namespace Cbd.Tests.Exports.InFlight;

/// <summary>
/// What other versions of the program read: a field that moves, and a value that changes, needs a new version, and readers of the version before.
/// </summary>
public sealed class InFlightLayoutTests
{
    private const string Version1 =
        """
        header 208 of 4096, checksum at 4092; 128 slots of 192, message of 80 at 64; payload at 28672 in pages of 4096
        Magic 0, Version 8, Queue 12, Life 16, Host 24, QueueCount 40, SlotCount 44, SlotBytes 48, PayloadOffset 52, PayloadBytes 56, MaxTransferBytes 64, LogicalBlockBytes 68, ReadOnly 72, Connection 76, Reserved 80, Name 88, Reserved1 192, Reserved2 200
        slot 64: State 0, Error 4, Unique 8, Arrival 16, Offset 24, Length 32, Session 40, FirstPage 48, PageCount 52, Kind 56, Flags 57, Deaths 58, Reserved 59, Reserved1 60
        Free 0, Receiving 1, Taken 2, Answerable 3; Message 0, Read 1, Write 2, Flush 3, WriteZeroes 5
        """;

    [Fact]
    public void Is_that_of_its_version()
    {
        string now =
            $"""
            header {Marshal.SizeOf<InFlightHeader>()} of {InFlightLayout.HeaderBytes}, checksum at {InFlightLayout.ChecksumOffset}; {InFlightLayout.SlotCount} slots of {InFlightLayout.SlotBytes}, message of {InFlightLayout.MessageBytes} at {InFlightLayout.MessageOffset}; payload at {InFlightLayout.PayloadOffset} in pages of {InFlightLayout.PageBytes}
            {Fields<InFlightHeader>()}
            slot {Marshal.SizeOf<InFlightSlot>()}: {Fields<InFlightSlot>()}
            {Values<SlotState>()}; {Values<SlotKind>()}
            """;
        Assert.Equal((1u, Version1), (InFlightLayout.Version, now));
        Assert.Equal("CBDINFLT", System.Text.Encoding.ASCII.GetString(BitConverter.GetBytes(InFlightLayout.Magic)));
    }

    /// <summary>A slot's line, and the beginning of a message, are each on one cache line.</summary>
    [Fact]
    public void Keeps_lines_apart()
    {
        Assert.Equal(0, InFlightLayout.SlotBytes % 64);
        Assert.Equal(0, InFlightLayout.PayloadOffset % InFlightLayout.PageBytes);
        Assert.True(InFlightLayout.MessageOffset + InFlightLayout.MessageBytes <= InFlightLayout.SlotBytes);
    }

    private static string Fields<T>() => string.Join(
        ", ",
        typeof(T).GetFields(BindingFlags.Instance | BindingFlags.NonPublic)
            .Select(field => (field.Name, Offset: field.GetCustomAttribute<FieldOffsetAttribute>()!.Value))
            .OrderBy(field => field.Offset)
            .Select(field => $"{field.Name} {field.Offset}"));

    private static string Values<T>()
        where T : struct, Enum => string.Join(", ", Enum.GetValues<T>().Select(value => $"{value} {Convert.ToInt64(value)}"));
}
