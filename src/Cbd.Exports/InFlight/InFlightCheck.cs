using System.Runtime.InteropServices;
using System.Text;
using Cbd.Blocks;
using Cbd.Memory;
using Cbd.Memory.Fuse;
using static Cbd.Exports.InFlight.InFlightLayout;

namespace Cbd.Exports.InFlight;

/// <summary>The one gate for what another process left in a record: anybody may have written to it since.</summary>
internal static class InFlightCheck
{
    private const BlockFlags KnownFlags = BlockFlags.ForceUnitAccess | BlockFlags.NoUnmap;

    /// <summary>Reads the header. Throws Invalid, and says what cannot be.</summary>
    internal static InFlightHeader Header(NativeBuffer memory)
    {
        if (memory.SizeBytes < PayloadOffset)
            throw Bad($"it has {memory.SizeBytes} bytes, and {PayloadOffset} are the least");
        byte[] page = memory.GetSpan(0, HeaderBytes).ToArray();
        InFlightHeader header = MemoryMarshal.Read<InFlightHeader>(page);
        if (header.Magic != Magic)
            throw Bad($"its first bytes are 0x{header.Magic:x16}, which is no record's");
        if (header.Version != InFlightLayout.Version)
            throw Bad($"its version is {header.Version}, and {InFlightLayout.Version} is expected: start the program that wrote it");
        uint checksum = MemoryMarshal.Read<uint>(page.AsSpan(ChecksumOffset));
        uint computed = Crc32C.Compute(page.AsSpan(0, ChecksumOffset));
        if (checksum != computed)
            throw Bad($"the checksum of its header is 0x{checksum:x8}, and 0x{computed:x8} is right");
        Require(header.SlotCount == SlotCount, "the number of slots", header.SlotCount);
        Require(header.SlotBytes == SlotBytes, "the size of a slot", header.SlotBytes);
        Require(header.PayloadOffset == PayloadOffset, "the place of the payload", header.PayloadOffset);
        Require(header.QueueCount is > 0 and <= MaxQueues, "the number of queues", header.QueueCount);
        Require(header.Queue < header.QueueCount, "the queue", header.Queue);
        Require(header.Life != 0, "the life", header.Life);
        Require(header.MaxTransferBytes is >= PageBytes and <= 1 << 30 && header.MaxTransferBytes % PageBytes == 0, "the longest transfer", header.MaxTransferBytes);
        Require(
            header.PayloadBytes is > 0 and <= (ulong)MaxPayloadBytes && header.PayloadBytes % PayloadUnitBytes == 0 &&
            TotalBytes((long)header.PayloadBytes) == memory.SizeBytes && (int)(header.PayloadBytes / PageBytes) >= InFlightRecord.WindowPages(header),
            "the size of the payload", header.PayloadBytes);
        Require(header.LogicalBlockBytes is >= 512 and <= PageBytes && (header.LogicalBlockBytes & (header.LogicalBlockBytes - 1)) == 0, "the block size", header.LogicalBlockBytes);
        Require(header.ReadOnly <= 1, "the mark of read-only devices", header.ReadOnly);
        Require((header.Reserved | header.Reserved1 | header.Reserved2) == 0, "a reserved field", header.Reserved | header.Reserved1 | header.Reserved2);
        Require(NameOf(header).Length > 0, "the length of the file name", 0);
        return header;
    }

    /// <summary>The number of the connection in a header that is whole and of that life, whatever else is in it.</summary>
    internal static bool TryReadConnection(ReadOnlySpan<byte> page, ulong life, out uint connection)
    {
        InFlightHeader header = MemoryMarshal.Read<InFlightHeader>(page);
        connection = header.Connection;
        return header.Magic == Magic && header.Version == InFlightLayout.Version && header.Life == life &&
            MemoryMarshal.Read<uint>(page[ChecksumOffset..]) == Crc32C.Compute(page[..ChecksumOffset]);
    }

    /// <summary>Name of the file; empty if there is no whole one.</summary>
    internal static string NameOf(in InFlightHeader header)
    {
        ReadOnlySpan<byte> bytes = header.Name;
        int end = bytes.IndexOf((byte)0);
        return end > 0 ? Encoding.UTF8.GetString(bytes[..end]) : "";
    }

    /// <summary>Checks copies of all slots. Throws Invalid, and says which slot cannot be, and why.</summary>
    /// <param name="header">Checked.</param>
    /// <param name="slots">All of them.</param>
    /// <param name="messageOf">The beginning of the message in a slot.</param>
    internal static void Slots(in InFlightHeader header, InFlightSlot[] slots, Func<int, byte[]> messageOf)
    {
        int pageCount = (int)(header.PayloadBytes / PageBytes);
        var pages = new PageMap(pageCount);
        var uniques = new HashSet<ulong>();
        var arrivals = new HashSet<ulong>();
        int receiving = 0;
        for (int slot = 0; slot < slots.Length; slot++)
        {
            InFlightSlot line = slots[slot];
            if (line.State == SlotState.Free)
                continue;
            Require(line.State <= SlotState.Answerable, slot, "the state", (uint)line.State);
            Require(line.FirstPage <= (uint)pageCount && line.PageCount <= (uint)pageCount - line.FirstPage, slot, "the place of the payload", line.FirstPage);
            Require(pages.IsFree((int)line.FirstPage, (int)line.PageCount), slot, "the place of the payload, which is another's,", line.FirstPage);
            pages.Take((int)line.FirstPage, (int)line.PageCount);
            FuseProtocol.RequestHeader message = MemoryMarshal.Read<FuseProtocol.RequestHeader>(messageOf(slot));
            int window = InFlightRecord.WindowPages(header);
            if (line.State == SlotState.Receiving)
            {
                Require(++receiving == 1, slot, "the state, a second time,", (uint)line.State);
                // What is about to be Taken has given back what it does not need.
                Require(line.PageCount <= (uint)window, slot, "the number of pages", line.PageCount);
                if (message.Length == 0)
                    continue;
                Require(uniques.Add(message.Unique), slot, "the number of the request, a second time,", message.Unique);
            }
            else
            {
                Request(header, slot, line, window);
                Require(line.Unique == message.Unique, slot, "the number of the request, which its message has not,", line.Unique);
                Require(uniques.Add(line.Unique), slot, "the number of the request, a second time,", line.Unique);
                Require(line.Arrival != 0 && arrivals.Add(line.Arrival), slot, "the order of arrival", line.Arrival);
            }

            Require(message.Length >= 40 && message.Length <= (uint)(MessageBytes + window * PageBytes), slot, "the length of the message", message.Length);
        }
    }

    private static void Request(in InFlightHeader header, int slot, in InFlightSlot line, int window)
    {
        Require((line.Reserved | line.Reserved1) == 0, slot, "a reserved field", line.Reserved | line.Reserved1);
        Require(line.State == SlotState.Taken || line.Error is >= 0 and < 4096, slot, "the result", (ulong)(uint)line.Error);
        if (line.Kind == SlotKind.Message)
        {
            Require(line.State == SlotState.Taken || line.Error != 0, slot, "the result of a message", (ulong)(uint)line.Error);
            Require(line.PageCount <= (uint)window, slot, "the number of pages", line.PageCount);
            return;
        }

        Require(Enum.IsDefined(line.Kind), slot, "the operation", (byte)line.Kind);
        Require((line.Flags & ~(byte)KnownFlags) == 0, slot, "the flags", line.Flags);
        Require(header.ReadOnly == 0 || line.Kind is SlotKind.Read or SlotKind.Flush, slot, "the operation on a read-only device", (byte)line.Kind);
        ulong block = header.LogicalBlockBytes;
        bool isFlush = line.Kind == SlotKind.Flush;
        Require(line.Offset <= long.MaxValue && line.Offset % block == 0 && (!isFlush || line.Offset == 0), slot, "the offset", line.Offset);
        Require(
            line.Length <= (ulong)long.MaxValue - line.Offset && line.Length % block == 0 && isFlush == (line.Length == 0) &&
            (line.Kind is not (SlotKind.Read or SlotKind.Write) || line.Length <= header.MaxTransferBytes),
            slot, "the length", line.Length);
        Require(line.PageCount == InFlightRecord.PagesOf(line.Kind, line.Length), slot, "the number of pages", line.PageCount);
    }

    private static void Require(bool holds, string what, ulong value)
    {
        if (!holds)
            throw Bad($"{what} in its header is {value}");
    }

    private static void Require(bool holds, int slot, string what, ulong value)
    {
        if (!holds)
            throw Bad($"{what} in slot {slot} is {value}");
    }

    private static CbdException Bad(string what) => new(CbdErrorKind.Invalid, $"the in-flight record is damaged: {what}");
}
