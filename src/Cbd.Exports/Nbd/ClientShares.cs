using Cbd.Memory;

namespace Cbd.Exports.Nbd;

/// <summary>Whether a request may begin.</summary>
internal enum Admission : byte
{
    Granted,

    /// <summary>Its client holds as much as one may now: it goes on when it has given something back.</summary>
    AtShare,

    /// <summary>Others hold what it needs.</summary>
    NoRoom,
}

/// <summary>What one client holds of what the clients of a pump share.</summary>
internal struct ClientHold
{
    internal int Slots;
    internal int OrdinaryPages;
    internal int LargePages;

    /// <summary>Its own slot and memory are in use.</summary>
    internal bool HasReserve;

    /// <summary>Holds nothing that others could want.</summary>
    internal readonly bool IsNothing => Slots == 0;

    internal readonly long SharedBytes => (long)(OrdinaryPages + LargePages) * PayloadPool.PageBytes;
}

/// <summary>
/// The memory and the slots that the clients of a pump share, and how much each may have. Single-threaded; allocates only when it
/// is made.
/// </summary>
/// <remarks>
/// <list type="bullet">
/// <item>Each client has one slot and <see cref="ReserveBytes"/> of its own, for a request that finds no other room. So it is
/// served, one request after the other, whatever others hold.</item>
/// <item>Of the common slots and the common memory a client may hold as much as remains free: one alone half of it, and what is
/// left for the next is never nothing.</item>
/// <item>Requests longer than <see cref="LargestOrdinaryBytes"/> have an area of their own. They wait for each other, and no
/// shorter one waits for them.</item>
/// </list>
/// </remarks>
internal sealed class ClientShares : IDisposable
{
    /// <summary>Common slots: requests in flight of all clients together, but for those in their reserves.</summary>
    internal const int SlotCount = 256;

    internal const int LargestOrdinaryBytes = 2 << 20;
    internal const int ReserveBytes = 256 << 10;

    private const int OrdinaryBytes = 64 << 20;
    private const int LargeBytes = NbdExportInfo.MaxPayloadBytes;
    private const long ReserveStart = (long)OrdinaryBytes + LargeBytes;

    private readonly PayloadPool _ordinary;
    private readonly PayloadPool _large;
    private readonly bool[] _isReserveUsed;
    private TouchedArea _reserveTouched;
    private int _freeSlots = SlotCount;

    /// <param name="clients">Most clients at once; each has a number below it.</param>
    internal ClientShares(int clients)
    {
        Buffer = new NativeBuffer(ReserveStart + ((long)clients * ReserveBytes));
        _ordinary = new PayloadPool(Buffer, 0, OrdinaryBytes);
        _large = new PayloadPool(Buffer, OrdinaryBytes, LargeBytes);
        _isReserveUsed = new bool[clients];
        _reserveTouched = new TouchedArea(Buffer, ReserveStart);
    }

    /// <summary>All of the memory; what is never needed at once is never touched.</summary>
    internal NativeBuffer Buffer { get; }

    internal static bool IsLarge(long lengthBytes) => lengthBytes > LargestOrdinaryBytes;

    /// <summary>Takes a slot and, where <paramref name="wantedBytes"/> is not 0, memory in one piece.</summary>
    /// <param name="hold">What the client holds; the grant is added.</param>
    /// <param name="client">Its number.</param>
    /// <param name="wantedBytes">At most <see cref="NbdExportInfo.MaxPayloadBytes"/>.</param>
    /// <param name="mayShare">Nobody else waits for the same: otherwise only the client's reserve is looked at.</param>
    /// <param name="data">The memory.</param>
    /// <param name="isReserve">It is the client's own slot and memory.</param>
    internal Admission TryTake(
        ref ClientHold hold, int client, int wantedBytes, bool mayShare, out BufferSlice data, out bool isReserve)
    {
        data = default;
        isReserve = false;
        int pages = PayloadPool.Pages(wantedBytes);
        bool isLarge = IsLarge(wantedBytes);
        bool slotFits = hold.Slots + 1 <= _freeSlots - 1;
        bool memoryFits = isLarge ? pages <= _large.FreePages : hold.OrdinaryPages + pages <= _ordinary.FreePages - pages;
        if ((!slotFits && hold.Slots != 0) || (pages != 0 && !memoryFits && (isLarge ? hold.LargePages : hold.OrdinaryPages) != 0))
            return Admission.AtShare;
        if (mayShare && slotFits && (pages == 0 || (memoryFits && (isLarge ? _large : _ordinary).TryTake(wantedBytes, out data))))
        {
            hold.Slots++;
            _freeSlots--;
            if (isLarge)
                hold.LargePages += pages;
            else
                hold.OrdinaryPages += pages;
            return Admission.Granted;
        }

        if (hold.HasReserve || wantedBytes > ReserveBytes)
            return Admission.NoRoom;
        hold.HasReserve = isReserve = _isReserveUsed[client] = true;
        if (wantedBytes != 0)
        {
            long offset = (long)client * ReserveBytes;
            _reserveTouched.Need(offset + wantedBytes);
            data = new BufferSlice(Buffer, ReserveStart + offset, wantedBytes);
        }

        return Admission.Granted;
    }

    /// <summary>Gives the memory of a grant back; the slot may stay.</summary>
    internal void ReturnData(ref ClientHold hold, in BufferSlice data)
    {
        if (data.Offset >= ReserveStart)
            return;
        int pages = PayloadPool.Pages(data.Length);
        if (data.Offset >= OrdinaryBytes)
        {
            _large.Return(data);
            hold.LargePages -= pages;
        }
        else
        {
            _ordinary.Return(data);
            hold.OrdinaryPages -= pages;
        }
    }

    /// <summary>Gives the slot of a grant back, after its memory.</summary>
    internal void ReturnSlot(ref ClientHold hold, int client, bool isReserve)
    {
        if (isReserve)
        {
            hold.HasReserve = _isReserveUsed[client] = false;
        }
        else
        {
            hold.Slots--;
            _freeSlots++;
        }
    }

    /// <summary>Gives to the system what was not needed since the last call, and was before.</summary>
    internal void GiveBackUnused()
    {
        _ordinary.GiveBackUnused();
        _large.GiveBackUnused();
        _reserveTouched.GiveBackUnused((long)(Array.LastIndexOf(_isReserveUsed, true) + 1) * ReserveBytes);
    }

    public void Dispose() => Buffer.Dispose();
}
