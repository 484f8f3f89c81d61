using Cbd.Blocks;
using Cbd.Memory;
using Cbd.Memory.Sockets;

namespace Cbd.Exports.Nbd;

/// <content>From the device to the socket.</content>
internal sealed partial class NbdPump
{
    private const int MaxVectors = 128;

    /// <summary>One call sends at most about this much: a socket does not take more at once.</summary>
    private const int MaxSendBytes = 1 << 20;

    private const int HeaderRoomBytes = NbdReplies.MaxHeaderBytes;

    private const SocketEvents WatchBoth = WatchInput | SocketEvents.Writable;

    private readonly NativeBuffer _headers;

    /// <summary>Takes completions and offers again what the queue refused; returns whether anything moved.</summary>
    private bool PollDevice()
    {
        int count = _queue.Poll(_completions);
        for (int i = 0; i < count; i++)
            Complete(_completions[i]);
        bool progressed = count != 0;
        while (!_refused.IsEmpty)
        {
            int index = _refused.First;
            ref RequestSlot slot = ref _slots[index];
            // After an error of one piece the rest is not tried.
            if (slot.Errno != 0)
                slot.WhollySubmitted = true;
            else if (!TrySubmit(index))
                break;
            _refused.RemoveFirst(_slots);
            progressed = true;
            if (slot.Pieces == 0)
                Finish(index);
        }

        return progressed;
    }

    private void Complete(in BlockCompletion completion)
    {
        ulong index = completion.Cookie;
        if (index >= (ulong)_slots.Length || _slots[index] is not { Stage: RequestStage.AtDevice, Pieces: > 0 })
            throw new InvalidOperationException($"the device completed {index}, which is not there");
        ref RequestSlot slot = ref _slots[index];
        slot.Pieces--;
        if (slot.Errno == 0)
            slot.Errno = completion.Error;
        slot.Stored += completion.Result;
        if (slot.Pieces == 0 && slot.WhollySubmitted)
            Finish((int)index);
    }

    private void Finish(int index)
    {
        ref RequestSlot slot = ref _slots[index];
        if (slot.Operation == BlockOperation.BlockStatus)
            FinishStatus(ref slot);
        if (slot.Errno != 0)
            slot.Errno = NbdErrors.OfDevice(slot.Errno, slot.Flags);
        // A read that stored less than was asked for would send what an earlier request left in the memory.
        if (slot is { Operation: BlockOperation.Read, Errno: 0 } && slot.Stored != slot.Length)
            slot.Errno = Errno.EIO;
        if (slot.Errno == 0 && slot.Operation == BlockOperation.Read)
            _counters.AddRead(slot.Length);
        else if (slot.Errno == 0 && slot.Operation == BlockOperation.Write)
            _counters.AddWritten(slot.Length);
        Reply(index);
    }

    private void Reply(int index)
    {
        ref RequestSlot slot = ref _slots[index];
        NbdConnection connection = slot.Connection!;
        if (slot.Errno != 0)
            _counters.AddFailed();
        if (connection.Broken)
        {
            Release(index);
            return;
        }

        slot.Stage = RequestStage.Replying;
        WriteReply(ref slot, connection.Session, _headers.GetSpan((long)index * HeaderRoomBytes, HeaderRoomBytes));
        // What is not sent, others can have now.
        if (slot.ReplyDataBytes == 0)
            ReturnData(ref slot);
        connection.Replies.Append(_slots, index);
        if (!connection.InUnsent && !connection.OutputBlocked)
        {
            connection.InUnsent = true;
            _unsent.Enqueue(connection);
        }
    }

    private void SendUnsent()
    {
        while (_unsent.TryDequeue(out NbdConnection? connection))
        {
            connection.InUnsent = false;
            if (!connection.Closed)
                Send(connection);
        }
    }

    private void Send(NbdConnection connection)
    {
        while (!connection.Replies.IsEmpty)
        {
            GatherReplies(connection);
            SocketResult result = _vectors.Send(connection.Socket);
            if (result is { Error: not 0, WouldBlock: false })
            {
                Break(connection);
                return;
            }

            if (result.Count > 0)
            {
                connection.LastMoved = _now;
                connection.MovedBytes += result.Count;
                DropSent(connection, result.Count);
            }

            if (result.Count < _vectors.LengthBytes)
            {
                connection.OutputBlocked = true;
                _poll.Modify(connection.Socket, (ulong)connection.Index + 1, WatchBoth);
                return;
            }
        }
    }

    private void GatherReplies(NbdConnection connection)
    {
        _vectors.Clear();
        long skip = connection.FirstReplySent;
        for (int index = connection.Replies.First; index >= 0; index = _slots[index].Next)
        {
            if (_vectors.Room < 2 || _vectors.LengthBytes >= MaxSendBytes)
                return;
            ref readonly RequestSlot slot = ref _slots[index];
            int headerSkip = (int)Math.Min(skip, slot.ReplyHeaderBytes);
            int dataSkip = (int)(skip - headerSkip);
            _vectors.Add(_headers, ((long)index * HeaderRoomBytes) + headerSkip, slot.ReplyHeaderBytes - headerSkip);
            if (slot.Data.Buffer is { } buffer)
                _vectors.Add(buffer, slot.Data.Offset + dataSkip, slot.ReplyDataBytes - dataSkip);
            skip = 0;
        }
    }

    private void DropSent(NbdConnection connection, int count)
    {
        long sent = connection.FirstReplySent + count;
        while (!connection.Replies.IsEmpty)
        {
            ref readonly RequestSlot slot = ref _slots[connection.Replies.First];
            int length = slot.ReplyHeaderBytes + slot.ReplyDataBytes;
            if (sent < length)
                break;
            sent -= length;
            Release(connection.Replies.RemoveFirst(_slots));
        }

        connection.FirstReplySent = sent;
    }

    private void Unblock(NbdConnection connection)
    {
        connection.OutputBlocked = false;
        _poll.Modify(connection.Socket, (ulong)connection.Index + 1, WatchInput);
        if (connection.InUnsent || connection.Replies.IsEmpty)
            return;
        connection.InUnsent = true;
        _unsent.Enqueue(connection);
    }
}
