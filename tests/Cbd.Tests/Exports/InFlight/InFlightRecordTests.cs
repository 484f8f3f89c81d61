using System.Runtime.InteropServices;
using System.Text;
using Cbd.Blocks;
using Cbd.Exports.InFlight;
using Cbd.Memory;
using Cbd.Memory.Fuse;
using Xunit;

namespace Cbd.Tests.Exports.InFlight;

/// <summary>What a successor finds in a record, at whatever store the process before it ended.</summary>
public sealed class InFlightRecordTests : IDisposable
{
    private const int MaxTransferBytes = 128 << 10;
    private readonly InFlightRecord _record = InFlightRecord.Create(Header(), isKept: true);
    private readonly List<IDisposable> _opened = [];

    [Fact]
    public void A_record_without_requests_is_empty()
    {
        Assert.True(Successor().IsEmpty);
        Assert.True(_record.TryReceive());
        InFlightRecord successor = Successor();
        Assert.True(successor.IsEmpty);
        Assert.Equal(-1, successor.Receiving);
        Assert.True(successor.TryReceive());
    }

    [Fact]
    public void A_message_that_was_received_whole_is_taken()
    {
        Receive(unique: 7);
        InFlightRecord successor = Successor();
        int slot = Assert.Single(successor.FindOpen(SlotState.Taken));
        Assert.Equal((SlotKind.Message, 7ul, (byte)0), (successor.Slot(slot).Kind, successor.Slot(slot).Unique, successor.Slot(slot).Deaths));
    }

    [Fact]
    public void What_was_answered_at_once_is_not_done_again()
    {
        Receive(unique: 7);
        _record.ReceiveAgain();
        Assert.True(Successor().IsEmpty);
        Assert.Equal(0u, MemoryMarshal.Read<uint>(_record.Message(_record.Receiving)));
    }

    /// <summary>Between the stores of <see cref="InFlightRecord.Take"/>: the slot is Receiving, and some of its fields are those of the request.</summary>
    [Fact]
    public void A_message_that_was_about_to_be_taken_is_taken()
    {
        Receive(unique: 9);
        ref InFlightSlot line = ref _record.Slot(_record.Receiving);
        line.Unique = 3;
        line.Arrival = 77;
        line.Offset = ulong.MaxValue;
        Assert.Single(Successor().FindOpen(SlotState.Taken));
        line.PageCount = 1;
        InFlightRecord successor = Successor();
        int slot = Assert.Single(successor.FindOpen(SlotState.Taken));
        Assert.Equal((SlotKind.Message, 9ul), (successor.Slot(slot).Kind, successor.Slot(slot).Unique));
        line.Kind = SlotKind.Write;
        slot = Assert.Single(Successor().FindOpen(SlotState.Taken));
    }

    [Fact]
    public void A_taken_request_is_executed_with_its_payload()
    {
        int slot = Take(unique: 11, SlotKind.Write, 8192, 12288);
        _record.Memory.GetSpan(_record.PayloadOffsetOf(slot), 12288).Fill(0x5a);
        InFlightRecord successor = Successor();
        Assert.Equal([slot], successor.FindOpen(SlotState.Taken));
        InFlightSlot line = successor.Slot(slot);
        Assert.Equal((SlotKind.Write, 8192ul, 12288ul, 3u, 42ul), (line.Kind, line.Offset, line.Length, line.PageCount, line.Session));
        Assert.False(successor.Memory.GetSpan(successor.PayloadOffsetOf(slot), 12288).ContainsAnyExcept((byte)0x5a));
    }

    [Fact]
    public void A_request_that_was_done_is_only_answered()
    {
        int slot = Take(unique: 11, SlotKind.Flush, 0, 0);
        _record.Complete(slot, Errno.ENOSPC);
        InFlightRecord successor = Successor();
        Assert.Empty(successor.FindOpen(SlotState.Taken));
        Assert.Equal([slot], successor.FindOpen(SlotState.Answerable));
        Assert.Equal(Errno.ENOSPC, successor.Slot(slot).Error);
        _record.Release(slot);
        Assert.True(Successor().IsEmpty);
    }

    [Fact]
    public void Requests_are_found_in_the_order_of_their_arrival()
    {
        int first = Take(unique: 30, SlotKind.Read, 0, 4096);
        int second = Take(unique: 10, SlotKind.Read, 0, 4096);
        _record.Complete(first, 0);
        _record.Release(first);
        int third = Take(unique: 20, SlotKind.Write, 0, 4096);
        Receive(unique: 5);
        Assert.Equal(first, third);
        InFlightRecord successor = Successor();
        Assert.Equal([second, third, _record.Receiving], successor.FindOpen(SlotState.Taken));
        // What arrives at a successor is newer.
        Assert.True(successor.TryReceive());
        int newest = successor.Take(SlotKind.Read, BlockFlags.None, 40, 0, 4096, 0);
        Assert.True(successor.Slot(newest).Arrival > successor.FindOpen(SlotState.Taken).SkipLast(1).Max(slot => successor.Slot(slot).Arrival));
    }

    [Fact]
    public void Deaths_are_counted_where_a_successor_finds_them()
    {
        int slot = Take(unique: 11, SlotKind.Write, 0, 4096);
        Assert.Equal(1, _record.CountDeath(slot));
        Assert.Equal(2, Successor().CountDeath(slot));
        Assert.Equal(2, _record.CountDeath(slot));
        Assert.Equal(2, Successor().Slot(slot).Deaths);
        _record.Complete(slot, 0);
        _record.Release(slot);
        Assert.Equal(slot, Take(unique: 12, SlotKind.Write, 0, 4096));
        Assert.Equal(0, _record.Slot(slot).Deaths);
    }

    [Fact]
    public void A_message_of_the_process_before_becomes_a_request()
    {
        Receive(unique: 7);
        InFlightRecord successor = Successor();
        int slot = Assert.Single(successor.FindOpen(SlotState.Taken));
        successor.DescribeMessage(slot, SlotKind.Write, BlockFlags.ForceUnitAccess, 4096, 8192, 5);
        InFlightSlot line = Successor(successor).Slot(slot);
        Assert.Equal((SlotKind.Write, (byte)1, 2u, 5ul), (line.Kind, line.Flags, line.PageCount, line.Session));
        CbdException error = Assert.Throws<CbdException>(() => successor.DescribeMessage(slot, SlotKind.Write, BlockFlags.None, 0, 12288, 5));
        Assert.Contains($"the payload of slot {slot}, 12288 bytes", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void Nothing_is_received_without_room_for_the_longest_request()
    {
        var taken = new List<int>();
        while (_record.TryReceive())
            taken.Add(_record.Take(SlotKind.Read, BlockFlags.None, (ulong)taken.Count + 1, 0, MaxTransferBytes, 0));
        Assert.Equal((int)_record.Header.PayloadBytes / MaxTransferBytes, taken.Count);
        Assert.False(_record.TryReceive());
        _record.Complete(taken[3], 0);
        _record.Release(taken[3]);
        Assert.True(_record.TryReceive());
        Assert.Equal(_record.Slot(taken[3]).FirstPage, _record.Slot(_record.Receiving).FirstPage);
    }

    [Fact]
    public void All_slots_are_used()
    {
        for (ulong unique = 1; unique <= InFlightLayout.SlotCount; unique++)
            Take(unique, SlotKind.Write, 0, 4096);
        Assert.False(_record.TryReceive());
        Assert.Equal(InFlightLayout.SlotCount, Successor().FindOpen(SlotState.Taken).Length);
    }

    public static TheoryData<string, long, ulong, int> Scribbles { get; } = new()
    {
        { "first bytes", 0, 0, 8 },
        { "version is 2", 8, 2, 4 },
        { "checksum of its header", 16, 6, 8 },
        { "the state in slot", Line(0), 9, 4 },
        { "the state, a second time,", Line(0), 1, 4 },
        { "the number of the request, which its message has not,", Line(8), 1, 8 },
        { "the order of arrival", Line(16), 0, 8 },
        { "the offset", Line(24), 1, 8 },
        { "the offset", Line(24), ulong.MaxValue - 4095, 8 },
        { "the length", Line(32), 100, 8 },
        { "the length", Line(32), 0, 8 },
        { "the length", Line(32), MaxTransferBytes + 4096, 8 },
        { "the length", Line(32), long.MaxValue - 4095, 8 },
        { "the place of the payload", Line(48), 100_000, 4 },
        { "the place of the payload, which is another's,", Line(48), 1, 4 },
        { "the number of pages", Line(52), 2, 4 },
        { "the operation", Line(56), 77, 1 },
        { "the flags", Line(57), 0x80, 1 },
        { "a reserved field", Line(59), 1, 1 },
        { "a reserved field", Line(60), 1, 4 },
        { "the length of the message", Line(64), 39, 4 },
        { "the length of the message", Line(64), 1 << 30, 4 },
    };

    /// <summary>Slot 0 of the record below is taken; another is, and one is Receiving.</summary>
    [Theory]
    [MemberData(nameof(Scribbles))]
    public void What_cannot_be_is_refused_by_name(string what, long offset, ulong value, int bytes)
    {
        Take(unique: 11, SlotKind.Write, 4096, 4096);
        Take(unique: 12, SlotKind.Write, 8192, 4096);
        Assert.True(_record.TryReceive());
        // Before: nothing is wrong with it.
        _ = Successor();
        Assert.Equal(0u, _record.Slot(0).FirstPage);
        BitConverter.GetBytes(value).AsSpan(0, bytes).CopyTo(_record.Memory.GetSpan(offset, bytes));
        byte[] before = _record.Memory.GetSpan(0, InFlightLayout.PayloadOffset).ToArray();
        SealedMemory copy = Copy(_record);
        CbdException error = Assert.Throws<CbdException>(() => InFlightRecord.Open(copy));
        Assert.Contains(what, error.Message, StringComparison.Ordinal);
        Assert.Equal(before, copy.Buffer.GetSpan(0, InFlightLayout.PayloadOffset).ToArray());
    }

    [Fact]
    public void Two_requests_of_one_number_are_refused()
    {
        Take(unique: 11, SlotKind.Read, 0, 4096);
        Take(unique: 11, SlotKind.Read, 0, 4096);
        Assert.Contains("a second time", Assert.Throws<CbdException>(() => Successor()).Message, StringComparison.Ordinal);
    }

    [Fact]
    public void A_write_to_a_read_only_device_is_refused()
    {
        using InFlightRecord readOnly = InFlightRecord.Create(Header() with { ReadOnly = 1 }, isKept: true);
        Assert.True(readOnly.TryReceive());
        MemoryMarshal.Write(readOnly.Message(readOnly.Receiving), new FuseProtocol.RequestHeader { Length = 80, Unique = 3 });
        readOnly.Take(SlotKind.Write, BlockFlags.None, 3, 0, 4096, 0);
        Assert.Contains("read-only", Assert.Throws<CbdException>(() => Successor(readOnly)).Message, StringComparison.Ordinal);
    }

    public void Dispose()
    {
        _record.Dispose();
        foreach (IDisposable opened in _opened)
            opened.Dispose();
    }

    private static long Line(int field) => InFlightLayout.HeaderBytes + field;

    private static InFlightHeader Header()
    {
        var header = new InFlightHeader { Life = 5, Host = Guid.NewGuid(), QueueCount = 1, MaxTransferBytes = MaxTransferBytes, LogicalBlockBytes = 4096, Connection = 44 };
        Encoding.UTF8.GetBytes("file", header.Name);
        return header;
    }

    private void Receive(ulong unique, uint length = 80)
    {
        Assert.True(_record.TryReceive());
        MemoryMarshal.Write(_record.Message(_record.Receiving), new FuseProtocol.RequestHeader { Length = length, Unique = unique, Operation = FuseOperation.Write });
    }

    private int Take(ulong unique, SlotKind kind, long offset, long length)
    {
        Receive(unique);
        return _record.Take(kind, BlockFlags.None, unique, offset, length, 42);
    }

    /// <summary>What a process would find that takes over now.</summary>
    private InFlightRecord Successor(InFlightRecord? record = null)
    {
        var successor = InFlightRecord.Open(Copy(record ?? _record));
        _opened.Add(successor);
        return successor;
    }

    private SealedMemory Copy(InFlightRecord record)
    {
        SealedMemory copy = SealedMemory.Create("copy", record.Memory.SizeBytes);
        _opened.Add(copy);
        record.Memory.GetSpan(0, (int)record.Memory.SizeBytes).CopyTo(copy.Buffer.GetSpan(0, (int)record.Memory.SizeBytes));
        return copy;
    }
}
