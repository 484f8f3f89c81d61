using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Cbd.Blocks;
using Cbd.Memory;
using Cbd.Memory.Fuse;
using static Cbd.Exports.InFlight.InFlightLayout;

namespace Cbd.Exports.InFlight;

/// <summary>
/// The requests of one queue that are not answered, with their payload, in memory that may outlive this process: a successor finds each in
/// the state in which it was left, at whatever instruction. One thread at a time.
/// </summary>
/// <remarks>
/// <para>Each request goes Receiving, Taken, Answerable, Free. Its message and payload stay untouched until it is Answerable. One slot at a
/// time is Receiving: the next request arrives there, its first bytes in the slot, the rest on the pages that the slot has, which are
/// enough for the longest request. It keeps those that it fills.</para>
/// <para>The process may end between any two stores. Each store that a successor decides by follows those that it vouches for, in the order
/// of the program: a processor that is taken away from a thread has done all stores before that place and none after. So it is the
/// compiler that must keep the order: volatile stores.</para>
/// </remarks>
internal sealed class InFlightRecord : IDisposable
{
    private readonly PageMap _pages;
    private readonly SealedMemory? _sealed;
    private readonly int[] _free = new int[SlotCount];
    private readonly int _windowPages;
    private int _freeCount;
    private ulong _arrivals;

    private InFlightRecord(NativeBuffer memory, SealedMemory? sealedMemory, in InFlightHeader header)
    {
        Memory = memory;
        _sealed = sealedMemory;
        Header = header;
        _pages = new PageMap((int)(header.PayloadBytes / PageBytes));
        _windowPages = WindowPages(header);
    }

    /// <summary>All of the record. Payload lies in it.</summary>
    internal NativeBuffer Memory { get; }

    /// <summary>The memory as others can keep it; null if it ends with this process.</summary>
    internal SealedMemory? Kept => _sealed;

    internal InFlightHeader Header { get; }

    /// <summary>The slot that is Receiving; negative if there is none.</summary>
    internal int Receiving { get; private set; } = -1;

    /// <summary>Room for what follows the beginning of a message that is received, bytes.</summary>
    internal int WindowBytes => _windowPages * PageBytes;

    /// <summary>No slot holds a request.</summary>
    internal bool IsEmpty => _freeCount + (Receiving < 0 ? 0 : 1) == SlotCount;

    /// <summary>Payload for so many of the longest requests, one of them on its way in, and not less than 1 MiB.</summary>
    internal static long PayloadBytesFor(int maxTransferBytes)
    {
        long wanted = Math.Max(8L * maxTransferBytes, 1 << 20);
        return (wanted + PayloadUnitBytes - 1) / PayloadUnitBytes * PayloadUnitBytes;
    }

    /// <summary>
    /// An empty record. What is named of the header is given; the rest of it is filled in.
    /// </summary>
    /// <param name="header">Life, host, queue and what was agreed upon.</param>
    /// <param name="isKept">Others are to keep it when this process ends: every page of it is present from now on.</param>
    internal static InFlightRecord Create(InFlightHeader header, bool isKept)
    {
        header.Magic = Magic;
        header.Version = InFlightLayout.Version;
        header.SlotCount = SlotCount;
        header.SlotBytes = SlotBytes;
        header.PayloadOffset = PayloadOffset;
        header.PayloadBytes = (ulong)PayloadBytesFor((int)header.MaxTransferBytes);
        long totalBytes = TotalBytes((long)header.PayloadBytes);
        SealedMemory? kept = isKept ? SealedMemory.Create("cbd-inflight", totalBytes) : null;
        NativeBuffer memory = kept?.Buffer ?? new NativeBuffer(totalBytes);
        Span<byte> page = memory.GetSpan(0, HeaderBytes);
        MemoryMarshal.Write(page, in header);
        MemoryMarshal.Write(page[ChecksumOffset..], Crc32C.Compute(page[..ChecksumOffset]));
        var record = new InFlightRecord(memory, kept, header);
        for (int slot = SlotCount; slot > 0; slot--)
            record._free[record._freeCount++] = slot - 1;
        return record;
    }

    /// <summary>
    /// Opens what another process left. Everything in it is checked before anything is changed. Afterwards no slot is Receiving, and
    /// <see cref="FindOpen"/> tells what there is to do.
    /// </summary>
    /// <param name="kept">The memory; the record's from here on, unless this throws.</param>
    /// <exception cref="CbdException">Invalid: something in it cannot be; says what.</exception>
    internal static InFlightRecord Open(SealedMemory kept)
    {
        InFlightHeader header = InFlightCheck.Header(kept.Buffer);
        var record = new InFlightRecord(kept.Buffer, kept, header);
        var slots = new InFlightSlot[SlotCount];
        for (int slot = 0; slot < SlotCount; slot++)
            slots[slot] = record.Slot(slot);
        InFlightCheck.Slots(header, slots, slot => record.Message(slot).ToArray());
        record.Resume(slots);
        return record;
    }

    /// <summary>Slots that hold requests in a state, in the order of their arrival.</summary>
    internal int[] FindOpen(SlotState state) =>
        [.. Enumerable.Range(0, SlotCount).Where(slot => Slot(slot).State == state).OrderBy(slot => Slot(slot).Arrival)];

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal ref InFlightSlot Slot(int slot) =>
        ref MemoryMarshal.AsRef<InFlightSlot>(Memory.GetSpan(HeaderBytes + slot * SlotBytes, MessageOffset));

    /// <summary>The beginning of a slot's message.</summary>
    internal Span<byte> Message(int slot) => Memory.GetSpan(MessageOffsetOf(slot), MessageBytes);

    internal static long MessageOffsetOf(int slot) => HeaderBytes + slot * SlotBytes + MessageOffset;

    /// <summary>Where a slot's payload is.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal long PayloadOffsetOf(int slot) => PayloadOffset + (long)Slot(slot).FirstPage * PageBytes;

    /// <summary>
    /// Makes a slot Receiving, if none is. False if none is free, or not so many pages side by side as the longest request takes: wait until a
    /// request is answered.
    /// </summary>
    internal bool TryReceive()
    {
        if (Receiving >= 0)
        {
            MoveDown(ref Slot(Receiving));
            return true;
        }

        if (_freeCount == 0)
            return false;
        int first = _pages.Find(_windowPages);
        if (first < 0)
            return false;
        int slot = _free[--_freeCount];
        _pages.Take(first, _windowPages);
        ref InFlightSlot line = ref Slot(slot);
        line.FirstPage = (uint)first;
        line.PageCount = (uint)_windowPages;
        ClearMessage(slot);
        Volatile.Write(ref Word(ref line), (uint)SlotState.Receiving);
        Receiving = slot;
        return true;
    }

    /// <summary>What arrived last needs no slot any more: it was answered at once, or has no answer. The slot goes on Receiving.</summary>
    internal void ReceiveAgain() => ClearMessage(Receiving);

    /// <summary>What arrived is the device's: Receiving becomes Taken. Returns the slot.</summary>
    internal int Take(SlotKind kind, BlockFlags flags, ulong unique, long offset, long length, ulong session)
    {
        int slot = Receiving;
        ref InFlightSlot line = ref Slot(slot);
        line.Unique = unique;
        line.Arrival = ++_arrivals;
        line.Deaths = 0;
        Describe(ref line, kind, flags, offset, length, session);
        Volatile.Write(ref Word(ref line), (uint)SlotState.Taken);
        Receiving = -1;
        return slot;
    }

    /// <summary>A Taken message of a process that is gone was read again, and is the device's.</summary>
    internal void DescribeMessage(int slot, SlotKind kind, BlockFlags flags, long offset, long length, ulong session)
    {
        ref InFlightSlot line = ref Slot(slot);
        if (PagesOf(kind, (ulong)length) > line.PageCount)
            throw new CbdException(CbdErrorKind.Invalid, $"the in-flight record is damaged: the payload of slot {slot}, {length} bytes, is larger than its place, {line.PageCount} pages");
        Describe(ref line, kind, flags, offset, length, session);
    }

    /// <summary>A successor begins to execute a Taken request again. Returns how many have, with this one.</summary>
    internal int CountDeath(int slot)
    {
        ref InFlightSlot line = ref Slot(slot);
        if (line.Deaths < byte.MaxValue)
            Volatile.Write(ref line.Deaths, (byte)(line.Deaths + 1));
        return line.Deaths;
    }

    /// <summary>This process ends in order: it does not die of a request.</summary>
    internal void ForgetDeaths()
    {
        foreach (int slot in FindOpen(SlotState.Taken))
            Volatile.Write(ref Slot(slot).Deaths, 0);
    }

    /// <summary>The device is done: Taken becomes Answerable.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void Complete(int slot, int error)
    {
        ref InFlightSlot line = ref Slot(slot);
        line.Error = error;
        Volatile.Write(ref Word(ref line), (uint)SlotState.Answerable);
    }

    /// <summary>The request was answered: the slot is Free.</summary>
    internal void Release(int slot)
    {
        ref InFlightSlot line = ref Slot(slot);
        int first = (int)line.FirstPage;
        int count = (int)line.PageCount;
        Volatile.Write(ref Word(ref line), (uint)SlotState.Free);
        if (count > 0)
            _pages.Free(first, count);
        _free[_freeCount++] = slot;
    }

    /// <summary>Closes the record. It stays as it is where others keep it.</summary>
    public void Dispose()
    {
        if (_sealed is not null)
            _sealed.Dispose();
        else
            Memory.Dispose();
    }

    /// <summary>Pages that the next message needs behind its beginning; the kernel asks for a certain room.</summary>
    internal static int WindowPages(in InFlightHeader header) =>
        Math.Max((int)header.MaxTransferBytes, FuseProtocol.MinimumReadBytes) / PageBytes;

    /// <summary>Pages of the payload of a request.</summary>
    internal static uint PagesOf(SlotKind kind, ulong length) =>
        kind is SlotKind.Read or SlotKind.Write ? (uint)((length + PageBytes - 1) / PageBytes) : 0;

    /// <summary>
    /// No message is here whole. Every message begins with its length, which is above 0, and the kernel stores it with the rest: it does not
    /// stop in between, as the pages are present.
    /// </summary>
    private void ClearMessage(int slot) => Volatile.Write(ref MemoryMarshal.AsRef<uint>(Message(slot)), 0);

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private static ref uint Word(ref InFlightSlot line) => ref Unsafe.As<SlotState, uint>(ref line.State);

    private void Describe(ref InFlightSlot line, SlotKind kind, BlockFlags flags, long offset, long length, ulong session)
    {
        line.Offset = (ulong)offset;
        line.Length = (ulong)length;
        line.Session = session;
        line.Flags = (byte)flags;
        uint pages = PagesOf(kind, (ulong)length);
        uint before = line.PageCount;
        line.PageCount = pages;
        _pages.Free((int)(line.FirstPage + pages), (int)(before - pages));
        // Until here a successor reads the message.
        Volatile.Write(ref Unsafe.As<SlotKind, byte>(ref line.Kind), (byte)kind);
    }

    /// <summary>
    /// The next request gets the lowest pages that became free meanwhile, which the caches still have. Nothing is there that has a place.
    /// </summary>
    private void MoveDown(ref InFlightSlot line)
    {
        int before = (int)line.FirstPage;
        if (before == 0)
            return;
        _pages.Free(before, _windowPages);
        int first = _pages.Find(_windowPages);
        _pages.Take(first, _windowPages);
        line.FirstPage = (uint)first;
    }

    /// <summary>Goes on where a process ended. What was received whole is Taken.</summary>
    private void Resume(InFlightSlot[] slots)
    {
        _arrivals = slots.Where(line => line.State is SlotState.Taken or SlotState.Answerable).Select(line => line.Arrival).DefaultIfEmpty(0UL).Max();
        for (int slot = SlotCount - 1; slot >= 0; slot--)
        {
            ref InFlightSlot line = ref Slot(slot);
            if (line.State == SlotState.Receiving)
                Convert(slot, ref line);
            if (line.State == SlotState.Free)
                _free[_freeCount++] = slot;
            else
                _pages.Take((int)line.FirstPage, (int)line.PageCount);
        }
    }

    private void Convert(int slot, ref InFlightSlot line)
    {
        FuseProtocol.RequestHeader header = MemoryMarshal.Read<FuseProtocol.RequestHeader>(Message(slot));
        if (header.Length == 0)
        {
            Volatile.Write(ref Word(ref line), (uint)SlotState.Free);
            return;
        }

        line.Unique = header.Unique;
        line.Arrival = ++_arrivals;
        line.Deaths = 0;
        line.Kind = SlotKind.Message;
        Volatile.Write(ref Word(ref line), (uint)SlotState.Taken);
    }
}
