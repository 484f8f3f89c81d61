using Cbd.Blocks;
using Cbd.Memory;
using Cbd.Memory.Sockets;

namespace Cbd.Exports.Nbd;

/// <content>From the socket to the device.</content>
internal sealed partial class NbdPump
{
    private const SocketEvents WatchInput = SocketEvents.Readable | SocketEvents.PeerClosed | SocketEvents.EdgeTriggered;

    private readonly IoVectorList _vectors = new(MaxVectors);

    /// <summary>Lets every connection that has something take its turn; returns whether any of them did something.</summary>
    private bool RunReady()
    {
        int count = _ready.Count;
        if (count == 0)
            return false;
        _info = _device.Info;
        _exportInfo = NbdExportInfo.Describe(_info);
        for (int i = 0; i < count; i++)
        {
            NbdConnection connection = _ready.Dequeue();
            connection.InReady = false;
            if (!connection.Closed && !connection.Ending)
                Advance(connection);
        }

        return true;
    }

    /// <summary>Takes what was received; then receives once, and takes that.</summary>
    private void Advance(NbdConnection connection)
    {
        if (connection.IsHeld && !MayStart(connection))
            return;
        if (!TakeInput(connection) || !connection.Readable)
            return;
        Receive(connection);
        if (!connection.Ending && MayStart(connection) && TakeInput(connection) && connection.Readable)
            MakeReady(connection);
    }

    /// <summary>
    /// What was received may be started: no other connection of the device was lost before. Of one that was lost itself nothing more is started:
    /// its client sends it again.
    /// </summary>
    private bool MayStart(NbdConnection connection)
    {
        if (Lost is null)
            return true;
        connection.IsHeld = !Lost.IsOpen;
        if (connection is { IsHeld: true, HangUpSeen: true })
            EndInput(connection);
        return !connection.IsHeld;
    }

    /// <summary>Lets the requests that waited for slots or memory go on, in their order.</summary>
    private bool ResumeStalled()
    {
        _released = false;
        return Resume(_stalled) | Resume(_stalledLarge);
    }

    private bool Resume(LinkedList<NbdConnection> stalled)
    {
        bool resumed = false;
        while (stalled.First is { Value: var connection } && TryBegin(connection, mayShare: true) == Admission.Granted)
        {
            stalled.Remove(connection.StalledNode);
            resumed = true;
            MakeReady(connection);
        }

        return resumed;
    }

    private void Receive(NbdConnection connection)
    {
        // What is left is less than a header, the beginning of a long payload, or nothing behind one that is being received.
        int kept = connection.InputEnd - connection.InputStart;
        if (connection.InputStart != 0 && kept != 0)
            connection.Input.GetSpan(connection.InputStart, kept).CopyTo(connection.Input.GetSpan(0, kept));
        connection.InputStart = 0;
        connection.InputEnd = kept;

        _vectors.Clear();
        int direct = 0;
        if (connection.ReceivingSlot >= 0 && _slots[connection.ReceivingSlot].Data is { Buffer: { } buffer } data)
        {
            direct = data.Length - (int)connection.PayloadReceived;
            _vectors.Add(buffer, data.Offset + connection.PayloadReceived, direct);
        }

        _vectors.Add(connection.Input, kept, NbdConnection.InputBytes - kept);
        SocketResult result = _vectors.Receive(connection.Socket);
        if (result.Error != 0)
        {
            connection.Readable = false;
            if (!result.WouldBlock)
                Break(connection);
            else if (connection.HangUpSeen)
                EndInput(connection);
            return;
        }

        if (result.Count == 0)
        {
            EndInput(connection);
            return;
        }

        connection.LastMoved = _now;
        connection.MovedBytes += result.Count;
        // A short count says that the socket is empty: what comes later is a new edge. After a hang-up there is none.
        if (result.Count < _vectors.LengthBytes && !connection.HangUpSeen)
            connection.Readable = false;
        int payload = Math.Min(result.Count, direct);
        connection.PayloadReceived += payload;
        connection.InputEnd += result.Count - payload;
    }

    /// <summary>
    /// Takes whole requests from what was received. Returns false if the connection cannot go on now: it waits for
    /// memory or a slot, or has ended.
    /// </summary>
    private bool TakeInput(NbdConnection connection)
    {
        while (true)
        {
            if (connection.HasHeader && IsTooEarly(connection))
                return true;
            if (connection.HasHeader && !TryBeginOrWait(connection))
                return false;
            if (connection.ReceivingSlot >= 0 && !TakePayload(connection))
                return true;
            // Only a payload that is being received is still waited for.
            if (_parking)
                return false;
            int available = connection.InputEnd - connection.InputStart;
            NbdSession session = connection.Session;
            int taken = NbdRequestHeader.Take(
                connection.Input.GetSpan(connection.InputStart, available), session.ExtendedHeaders, out connection.Header);
            if (taken == 0)
                return true;
            connection.InputStart += taken;
            if (connection.Header.Magic != session.RequestMagic)
            {
                Refuse(connection, $"a request begins with 0x{connection.Header.Magic:x8} instead of 0x{session.RequestMagic:x8}");
                return false;
            }

            if (connection.Header.Command == NbdCommand.Disconnect)
            {
                EndInput(connection);
                return false;
            }

            // With extended headers a payload over the limit is to end the connection; a client without them may never have
            // been told the limit.
            int longest = session.ExtendedHeaders ? NbdExportInfo.MaxPayloadBytes : NbdExportInfo.MaxRefusedPayloadBytes;
            if (connection.Header.PayloadBytes > (uint)longest)
            {
                Refuse(connection, $"a request has {connection.Header.PayloadBytes} bytes of payload; at most {NbdExportInfo.MaxPayloadBytes} are accepted");
                return false;
            }

            connection.HasHeader = true;
        }
    }

    /// <summary>The client broke the protocol: nothing that it sent later can be understood.</summary>
    private void Refuse(NbdConnection connection, string reason)
    {
        _log($"client {connection.Id} was disconnected: {reason}");
        EndInput(connection);
    }

    /// <summary>
    /// A client that announces a long write waits for memory, and holds it, only when it has sent as much as fits without: who sends
    /// nothing keeps nobody waiting.
    /// </summary>
    private static bool IsTooEarly(NbdConnection connection) =>
        ClientShares.IsLarge((long)connection.Header.PayloadBytes) && connection.InputEnd - connection.InputStart < NbdConnection.InputBytes;

    private bool TryBeginOrWait(NbdConnection connection)
    {
        bool isLarge = ClientShares.IsLarge(RoomBytes(connection.Header));
        LinkedList<NbdConnection> stalled = isLarge ? _stalledLarge : _stalled;
        Admission admission = TryBegin(connection, mayShare: stalled.Count == 0);
        if (admission == Admission.AtShare)
            connection.AtShare = true;
        else if (admission == Admission.NoRoom)
            stalled.AddLast(connection.StalledNode);
        return admission == Admission.Granted;
    }

    /// <summary>Memory that the request's payload needs, in either direction; 0 where it has none, or one that is refused.</summary>
    private int RoomBytes(in NbdRequestHeader header) => header.Command switch
    {
        NbdCommand.Read or NbdCommand.Write => header.Length <= NbdExportInfo.MaxPayloadBytes ? (int)header.Length : 0,
        NbdCommand.BlockStatus => NbdExtents.RoomBytes(header, _info),
        _ => 0,
    };

    /// <summary>Begins the request whose header was taken, if there are a slot and memory for it now.</summary>
    /// <param name="connection">Whose it is.</param>
    /// <param name="mayShare">Nobody waits before it.</param>
    private Admission TryBegin(NbdConnection connection, bool mayShare)
    {
        ref readonly NbdRequestHeader header = ref connection.Header;
        int errno = NbdRequestCheck.Check(
            header, _info, _exportInfo.Flags, connection.Session, out BlockOperation operation, out BlockFlags flags, out NbdRefusal refusal);
        int room = errno == 0 ? RoomBytes(header) : 0;
        Admission admission = _shares.TryTake(
            ref connection.Hold, connection.Index, room, mayShare, out BufferSlice data, out bool isReserve);
        if (isReserve || admission == Admission.NoRoom)
            NoteShortage(connection, room);
        if (admission != Admission.Granted)
            return admission;

        connection.HasHeader = false;
        connection.SlotsInUse++;
        int index = isReserve ? ClientShares.SlotCount + connection.Index : _free.RemoveFirst(_slots);
        ref RequestSlot slot = ref _slots[index];
        slot.Connection = connection;
        slot.Handle = header.Handle;
        slot.Offset = (long)header.Offset;
        slot.Length = (long)header.Length;
        slot.Operation = operation;
        slot.Flags = flags;
        slot.Errno = errno;
        slot.Refusal = refusal;
        slot.Data = data;
        _counters.AddRequest();
        if (header.PayloadBytes != 0)
        {
            slot.Stage = RequestStage.Receiving;
            connection.ReceivingSlot = index;
            connection.PayloadReceived = 0;
        }
        else if (errno != 0)
        {
            Reply(index);
        }
        else
        {
            GiveToDevice(index);
        }

        return Admission.Granted;
    }

    private void NoteShortage(NbdConnection connection, int room)
    {
        if (ClientShares.IsLarge(room))
            _shortageOfLarge.Note(connection);
        else
            _shortage.Note(connection);
    }

    /// <summary>Moves received payload to where it belongs; false if some of it is still missing.</summary>
    private bool TakePayload(NbdConnection connection)
    {
        int index = connection.ReceivingSlot;
        ref RequestSlot slot = ref _slots[index];
        int available = connection.InputEnd - connection.InputStart;
        int count = (int)Math.Min(available, slot.Length - connection.PayloadReceived);
        if (count != 0)
        {
            if (slot.Data.Length != 0)
            {
                connection.Input.GetSpan(connection.InputStart, count)
                    .CopyTo(_shares.Buffer.GetSpan(slot.Data.Offset + connection.PayloadReceived, count));
            }

            connection.InputStart += count;
            connection.PayloadReceived += count;
        }

        if (connection.PayloadReceived != slot.Length)
            return false;
        connection.ReceivingSlot = -1;
        if (slot.Errno != 0)
            Reply(index);
        else
            GiveToDevice(index);
        return true;
    }

    private void GiveToDevice(int index)
    {
        _slots[index].Stage = RequestStage.AtDevice;
        if (!_refused.IsEmpty || !TrySubmit(index))
            _refused.Append(_slots, index);
    }

    /// <summary>Gives a request to the device, in pieces where it is too long; false if the queue has no room now.</summary>
    private bool TrySubmit(int index)
    {
        ref RequestSlot slot = ref _slots[index];
        bool carries = slot.Operation is BlockOperation.Read or BlockOperation.Write;
        long largest = carries ? LargestPieceBytes() : long.MaxValue;
        while (!slot.WhollySubmitted)
        {
            long length = Math.Min(slot.Length - slot.Submitted, largest);
            BufferSlice data = carries ? slot.Data.Slice((int)slot.Submitted, (int)length) : slot.Data;
            var request = new BlockRequest((ulong)index, slot.Operation, slot.Flags, slot.Offset + slot.Submitted, length, data);
            if (!_queue.TrySubmit(request))
                return false;
            slot.Pieces++;
            slot.Submitted += length;
            slot.WhollySubmitted = slot.Submitted == slot.Length;
        }

        return true;
    }

    private long LargestPieceBytes() =>
        Math.Max(_info.MaxTransferBytes & -_info.LogicalBlockBytes, _info.LogicalBlockBytes);
}
