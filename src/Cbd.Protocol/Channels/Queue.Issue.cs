using System.Numerics;
using Cbd.Blocks;
using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Channels;

/// <summary>The part of a queue that turns requests into commands.</summary>
internal sealed partial class Queue<TMemory, TPolicy>
{
    /// <summary>Flushes in flight at once; each needs room to remember what it covers.</summary>
    private const int FlushLimit = 8;

    /// <summary>Room for the extents of one block-status command, bytes.</summary>
    private const int ExtentBytes = 64 * 1024;

    private readonly long[] _flushSnapshots;
    private uint _flushSnapshotsBusy;

    private Span<long> Snapshot(int index) =>
        _flushSnapshots.AsSpan(index * _device.QueueCount, _device.QueueCount);

    /// <summary>Issues waiting requests in order, as long as credits and pool space last.</summary>
    private void IssueWaiting()
    {
        // While commands are repeated, on whichever queue, nothing new may overtake them.
        if (_handlerLeft || (TPolicy.HoldWhileReissuing ? _device.IsHeld : _reissuesLeft > 0))
        {
            _waitsForHold = !_handlerLeft && _requests.HasWaiting;
            return;
        }

        while (_requests.HasWaiting && _freeTagCount > 0)
        {
            int index = _requests.FirstWaiting;
            ref Request request = ref _requests[index];
            if (_repeats is not null && IsLostRepeat(index))
            {
                _requests.StopIssuing(index);
                request.Error = Errno.EIO;
                _requests.Answer(index);
                continue;
            }

            if (!TryIssuePiece(index, ref request))
                return;
            // In flight it fails with its session, as any other.
            _repeats?.Remove(index);
            if (request.IsIssued)
                _requests.StopIssuing(index);
        }
    }

    private bool IsLostRepeat(int index) =>
        _repeats!.TryGetValue(index, out ulong handedOn) && _device.IsLostFlush(handedOn, _session) && _repeats.Remove(index);

    private bool TryIssuePiece(int index, ref Request request)
    {
        bool carries = request.Operation is BlockOperation.Read or BlockOperation.Write;
        long left = request.Length - request.Issued;
        long length = carries ? Math.Min(left, _pieceBytes) : left;
        int payload = request.Operation switch
        {
            BlockOperation.Read or BlockOperation.Write => (int)length,
            BlockOperation.BlockStatus => (int)Math.Min(Math.Min(request.Data.Length, ExtentBytes), _layout.PoolBytes / 2) / BlockExtent.EncodedSizeBytes * BlockExtent.EncodedSizeBytes,
            _ => 0,
        };
        bool inWritePool = request.Operation == BlockOperation.Write;
        long poolOffset = 0;
        if (payload > 0 && !(inWritePool ? _writePool : _readPool).TryAllocate(payload, out poolOffset))
            return false;
        int snapshot = -1;
        if (request.Operation == BlockOperation.Flush)
        {
            snapshot = BitOperations.TrailingZeroCount(~_flushSnapshotsBusy);
            if (snapshot >= FlushLimit)
                return false;
            _flushSnapshotsBusy |= 1u << snapshot;
        }

        int tag = _freeTags[--_freeTagCount];
        // Field by field: what Send stores is not cleared before.
        ref Piece piece = ref _pieces[tag];
        piece.Busy = true;
        piece.Request = index;
        piece.Offset = request.Offset + request.Issued;
        piece.Length = length;
        piece.DataOffset = carries ? (int)request.Issued : 0;
        piece.PayloadLength = payload;
        piece.PoolOffset = poolOffset;
        piece.InWritePool = inWritePool;
        piece.FlushSnapshot = snapshot;
        piece.Attempts = 0;
        piece.Reissued = false;
        request.Issued += length;
        request.IsIssued = request.Issued >= request.Length;
        request.InFlight++;
        Send(tag, ref request);
        return true;
    }

    /// <summary>Stores the payload and then the line of a command under the next sequence of this epoch.</summary>
    private void Send(int tag, ref Request request)
    {
        ref Piece piece = ref _pieces[tag];
        uint crc = 0;
        if (request.Operation == BlockOperation.Write)
        {
            ReadOnlySpan<byte> payload = request.Data.Slice(piece.DataOffset, piece.PayloadLength).Span;
            if (_geometry.PayloadCrc)
                crc = _memory.WriteWithCrc(_layout.WritePoolOffset + piece.PoolOffset, payload, uint.MaxValue);
            else
                _memory.Write(_layout.WritePoolOffset + piece.PoolOffset, payload);
        }
        else if (piece.FlushSnapshot >= 0)
        {
            _device.SnapshotForFlush(_generation, Snapshot(piece.FlushSnapshot));
        }

        ulong sequence = ++_posted;
        uint slot = (uint)sequence & _ringMask;
        // Made where it is kept: a copy of words stored just before would wait until the payload has left the store buffer.
        ref Line line = ref piece.Line;
        new CommandLine(
            sequence,
            _word.Epoch,
            request.Operation,
            request.Flags,
            piece.Offset,
            piece.Length,
            (uint)piece.PoolOffset,
            (uint)piece.PayloadLength,
            crc,
            (ushort)tag).StoreTo(ref line);
        _commandSeal.Seal(ref line, slot);
        _flight.Command(piece.Reissued ? FlightEventKind.Reissued : FlightEventKind.Issued, _now, _word.Epoch, sequence, request.Operation, request.Flags, piece.Offset, piece.Length, tag);
        piece.Sequence = sequence;
        piece.StoredAt = _now;
        piece.Repeats = 0;
        _memory.WriteLine(_layout.CommandRingOffset + slot * 64L, line);
        _ring = true;
    }

    /// <summary>
    /// A command that is unanswered for a deadline: stored again while its handler has not fetched it, and the channel
    /// reset when that does not help. A fetched command without answer is a slow disk: wait.
    /// </summary>
    private void LookAfterDeadlines()
    {
        if (_now < _nextLook || _handlerLeft || _device.IsBackendLost)
            return;
        _nextLook = _now + _options.DeadlineMicroseconds / 8;
        long limit = _now - _options.DeadlineMicroseconds;
        bool late = false;
        for (int tag = 0; tag < _pieces.Length && !late; tag++)
            late = _pieces[tag].Busy && _pieces[tag].StoredAt <= limit;
        if (!late)
            return;
        bool known = HandlerCtrlLine.TryLoad(_memory, _geometry, Channel, _word.Epoch, out HandlerCtrlLine ctrl);
        if (known && ctrl.Condition == HandlerCondition.Failed)
        {
            Reset("its handler says that the channel failed");
            return;
        }

        for (int tag = 0; tag < _pieces.Length; tag++)
        {
            ref Piece piece = ref _pieces[tag];
            if (!piece.Busy || piece.StoredAt > limit || (known && piece.Sequence <= ctrl.Fetched))
                continue;
            // It would fetch if it could: a slow disk.
            if (known && ctrl.Condition == HandlerCondition.Stalled)
                continue;
            bool slotIsStillIts = _posted - piece.Sequence < (ulong)_geometry.RingSlots;
            if (piece.Repeats >= _options.RepeatLimit || !slotIsStillIts)
            {
                Reset("nobody fetches a command");
                return;
            }

            piece.Repeats++;
            _flight.Answer(FlightEventKind.Repeated, _now, _word.Epoch, piece.Sequence, tag, 0);
            piece.StoredAt = _now;
            _memory.WriteLine(_layout.CommandRingOffset + ((uint)piece.Sequence & _ringMask) * 64L, piece.Line);
            _ring = true;
        }

        if (!known || ctrl.Posted <= _copied)
        {
            _aheadSince = long.MaxValue;
        }
        else if (_aheadSince == long.MaxValue || _aheadCopied != _copied)
        {
            _aheadSince = _now;
            _aheadCopied = _copied;
        }
        else if (_now - _aheadSince >= _options.DeadlineMicroseconds)
        {
            // The handler says it answered, and nothing came: only a new epoch brings the answers.
            Reset("its handler has answered, and no answer comes");
        }
    }
}
