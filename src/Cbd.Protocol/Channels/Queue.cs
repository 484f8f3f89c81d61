using Cbd.Blocks;
using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Channels;

/// <summary>Where a queue's channel stands, as its blkdev knows it.</summary>
internal enum QueuePhase
{
    /// <summary>Claimed, not offered yet.</summary>
    Claimed,

    /// <summary>Offered; waiting for a handler.</summary>
    Offered,

    /// <summary>Served.</summary>
    Attached,

    /// <summary>Waiting for the handler to drain.</summary>
    Closing,

    /// <summary>Freed.</summary>
    Closed,

    /// <summary>Somebody else took the channel away (this host was cleared): nothing of it may be touched.</summary>
    Lost,
}

/// <summary>
/// The blkdev's side of one channel: turns requests into commands and completions into answers, keeps the credit rule,
/// looks after deadlines, and re-issues after a reset. A single-threaded state machine: no clock, no sleeping, no
/// locks; it advances by <see cref="Poll"/>. Allocates nothing per request.
/// </summary>
/// <remarks>
/// Credit rule: commands outstanding ≤ depth ≤ slots of either ring; both rings are fetched in order and copied once; a
/// credit returns when the completion was copied; pool space is reused after its own completion only, or after the
/// epoch that used it is drained.
/// </remarks>
internal sealed partial class Queue<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    private readonly TMemory _memory;
    private readonly RegionGeometry _geometry;
    private readonly ChannelLayout _layout;
    private readonly BlkdevState _device;
    private readonly QueueOptions _options;
    private readonly Action _announceOffer;
    private readonly int _queue;
    private readonly int _depth;
    private readonly int _pieceBytes;
    private readonly uint _ringMask;
    private readonly PoolAllocator _writePool;
    private readonly PoolAllocator _readPool;
    private readonly RequestTable _requests;
    private readonly FlightRecorder _flight;
    private readonly Piece[] _pieces;

    /// <summary>
    /// Requests of an earlier process that wait, of those that must not pass a lost session: the session that each was handed on to. Null
    /// where there are none.
    /// </summary>
    private Dictionary<int, ulong>? _repeats;
    private readonly int[] _freeTags;
    private int _freeTagCount;

    private QueuePhase _phase = QueuePhase.Claimed;
    private ClaimWord _word;

    /// <summary>The claim word that was last looked at, and followed as far as it goes.</summary>
    private ClaimWord _seen;
    private LineSeal _commandSeal;
    private LineSeal _completionSeal;
    private ulong _posted;
    private ulong _copied;
    private long _now;
    private bool _ring;

    /// <summary>In the last turn requests had to wait for another queue to repeat what it had in flight.</summary>
    private bool _waitsForHold;

    /// <summary>In the last turn the attachment had to wait for other queues to leave the older sessions.</summary>
    private bool _waitsForEntry;

    /// <summary>One command in flight, and all that is needed to store it again or re-issue it.</summary>
    private struct Piece
    {
        public ulong Sequence;
        public Line Line;
        public long StoredAt;
        public long Offset;
        public long Length;
        public int Request;
        public int DataOffset;
        public int PayloadLength;
        public long PoolOffset;
        public int Repeats;
        public int Attempts;
        public int FlushSnapshot;
        public bool Busy;
        public bool Reissued;
        public bool InWritePool;
    }

    /// <param name="channel">A channel whose claim word is <paramref name="claimed"/>, state CLAIMED, ours.</param>
    /// <param name="queue">Number of this queue within the device.</param>
    /// <param name="announceOffer">Tells the other hosts that there is an offer to look at.</param>
    /// <param name="isOver">There is no channel, because the device failed before it had one: every request is answered with EIO.</param>
    public Queue(
        in TMemory memory,
        RegionGeometry geometry,
        int channel,
        ClaimWord claimed,
        BlkdevState device,
        int queue,
        QueueOptions options,
        Action announceOffer,
        bool isOver = false)
    {
        if (isOver)
            _phase = QueuePhase.Lost;
        else if (claimed.State != ClaimState.Claimed)
            throw new ArgumentException($"channel {channel} is {claimed}", nameof(claimed));
        _memory = memory;
        _geometry = geometry;
        _layout = new ChannelLayout(geometry, channel);
        _word = claimed;
        _device = device;
        _queue = queue;
        _options = options;
        _flight = new FlightRecorder(channel);
        _announceOffer = announceOffer;
        _ringMask = (uint)geometry.RingSlots - 1;
        _depth = options.Depth == 0 ? geometry.RingSlots : Math.Min(options.Depth, geometry.RingSlots);
        int block = device.Info.LogicalBlockBytes;
        long piece = Math.Min(Math.Min(_layout.PoolBytes / 2, device.Info.MaxTransferBytes), options.PieceBytes == 0 ? long.MaxValue : options.PieceBytes);
        _pieceBytes = (int)Math.Max(piece / block * block, block);
        _writePool = new PoolAllocator(_layout.PoolBytes);
        _readPool = new PoolAllocator(_layout.PoolBytes);
        // The mutation gate's queue without credits still has a table; it only forgets what it owes.
        int tags = TPolicy.KeepCredits ? _depth : Math.Min(ushort.MaxValue, _depth * 4);
        _requests = new RequestTable(tags);
        _pieces = new Piece[tags];
        _freeTags = new int[tags];
        for (int i = 0; i < tags; i++)
            _freeTags[i] = tags - 1 - i;
        _freeTagCount = tags;
        _flushSnapshots = new long[FlushLimit * device.QueueCount];
    }

    public int Channel => _layout.Channel;

    public QueuePhase Phase => _phase;

    /// <summary>Requests taken whose completion was not returned yet.</summary>
    public int Outstanding => _requests.Count;

    /// <summary>Commands in flight.</summary>
    public int InFlight => _pieces.Length - _freeTagCount;

    /// <summary>The last events of this side of the channel.</summary>
    public FlightRecorder Flight => _flight;

    /// <summary>Resets of the channel so far.</summary>
    public int ResetCount { get; private set; }

    /// <summary>How often the handler had to be woken so far.</summary>
    public int WakeCount { get; private set; }

    /// <summary>
    /// A buffer that the user of the queue keeps for as long as it has the queue: its requests need no reference of
    /// their own. Changed only while nothing is outstanding.
    /// </summary>
    public NativeBuffer? KeptBuffer
    {
        get => _requests.KeptBuffer;
        set => _requests.KeptBuffer = value;
    }

    public long DoorbellOffset => _layout.ClaimOffset + ChannelLayout.BlkdevDoorbellOffset;

    /// <summary>Takes a request; false if the table is full. See <see cref="IBlockQueue.TrySubmit"/>.</summary>
    public bool TrySubmit(in BlockRequest request)
    {
        int error = Check(request, _device.Info);
        if (error == 0 && (_device.Failure is not null || _device.IsFailing || _phase == QueuePhase.Lost))
            error = Errno.EIO;
        else if (error == 0 && _phase is QueuePhase.Closing or QueuePhase.Closed)
            error = Errno.ESHUTDOWN;
        return _requests.TryAdd(request, error);
    }

    /// <summary>
    /// Takes a request that an earlier process of this device had taken and not answered; false if the table is full. Requests are
    /// repeated in their order, on all queues, before anything new is submitted.
    /// </summary>
    /// <param name="request">The request.</param>
    /// <param name="session"><see cref="BlkdevState.SessionEpoch"/> when that process handed it on.</param>
    public bool TryRepeat(in BlockRequest request, ulong session)
    {
        bool mustNotPass = TPolicy.FailBufferedFlush && (request.Operation == BlockOperation.Flush || (request.Flags & BlockFlags.ForceUnitAccess) != 0);
        if (mustNotPass && _device.IsLostFlush(session, _device.SessionEpoch))
            return _requests.TryAdd(request, Errno.EIO);
        int waiting = _requests.WaitingCount;
        if (!TrySubmit(request))
            return false;
        // Its session may be lost before it is issued.
        if (mustNotPass && _requests.WaitingCount > waiting)
            (_repeats ??= [])[_requests.NewestWaiting] = session;
        return true;
    }

    /// <summary>
    /// Advances, and stores the answers that are there. <paramref name="nowMicroseconds"/> is any monotonic clock.
    /// </summary>
    public int Poll(long nowMicroseconds, Span<BlockCompletion> completions)
    {
        _now = nowMicroseconds;
        _ring = false;
        _waitsForHold = _waitsForEntry = false;
        FollowClaim();
        if (_phase == QueuePhase.Attached)
        {
            Collect();
            if (_phase == QueuePhase.Attached && InFlight > 0)
                LookAfterDeadlines();
        }

        if (_device.Failure is not null && _requests.Count > 0)
            AbandonAll(Errno.EIO);
        else if (_device.IsFailing)
            FailWhileLost();
        else if (CanDrainAbandoned)
            DrainAbandoned();
        if (_phase == QueuePhase.Attached)
            IssueWaiting();
        if (_ring && Doorbells.Ring(_memory, _layout.ClaimOffset + ChannelLayout.HandlerDoorbellOffset))
            WakeCount++;
        return _requests.TakeAnswers(completions);
    }

    /// <summary>
    /// Announces sleep and looks once more; false, with the announcement taken back, if there is something to do.
    /// </summary>
    public bool TryAnnounceSleep()
    {
        // What was lost or given back is somebody else's channel: its doorbell too.
        if (_phase is QueuePhase.Closed or QueuePhase.Lost)
            return !_requests.HasAnswers;
        Doorbells.Announce(_memory, DoorbellOffset);
        if (!_requests.HasAnswers && !HasDeviceNews() && ClaimOperations<TMemory, TPolicy>.Read(_memory, _layout.ClaimOffset) == _seen)
        {
            if (_phase != QueuePhase.Attached)
                return true;
            ulong sequence = _copied + 1;
            uint slot = (uint)sequence & _ringMask;
            _memory.ReadLine(_layout.CompletionRingOffset + slot * 64L, out Line line);
            if (!Arrival<TPolicy>.Holds(line, _completionSeal, _word.Epoch, sequence, slot))
                return true;
        }

        RetractSleep();
        return false;
    }

    /// <summary>Requests were given up, and the backend is there to end their commands.</summary>
    private bool CanDrainAbandoned =>
        _hasAbandoned && _phase == QueuePhase.Attached && !_device.IsFailing && !_device.IsBackendLost;

    /// <summary>
    /// Whether other threads of the device have changed something since the last turn that this queue has to act upon.
    /// Whoever changes it rings the doorbells of queues that sleep, so it is asked after this one was announced.
    /// </summary>
    private bool HasDeviceNews() =>
        (_device.SessionEpoch != _session && _phase is QueuePhase.Offered or QueuePhase.Attached) ||
        (_requests.Count > 0 && (_device.IsFailing || _device.Failure is not null)) ||
        CanDrainAbandoned ||
        (_waitsForHold && !_device.IsHeld) ||
        (_waitsForEntry && _device.AllEntered(_generation));

    /// <summary>Says that the thread is awake.</summary>
    public void RetractSleep()
    {
        if (_phase is not (QueuePhase.Closed or QueuePhase.Lost))
            Doorbells.Retract(_memory, DoorbellOffset);
    }

    private static int Check(in BlockRequest request, BlockDeviceInfo info)
    {
        if ((request.Flags & ~(BlockFlags.ForceUnitAccess | BlockFlags.NoUnmap | BlockFlags.FastZero)) != 0)
            return Errno.EINVAL;
        long size = info.SizeBytes;
        int mask = info.LogicalBlockBytes - 1;
        if (request.Operation == BlockOperation.Flush)
            return request.Offset == 0 && request.Length == 0 ? 0 : Errno.EINVAL;
        if (request.Operation is < BlockOperation.Read or > BlockOperation.Cache || request.Length <= 0 || request.Offset < 0)
            return Errno.EINVAL;
        if (((request.Offset | request.Length) & mask) != 0 || request.Offset > size || request.Length > size - request.Offset)
            return Errno.EINVAL;
        if (info.ReadOnly && request.Operation is (BlockOperation.Write or BlockOperation.Discard or BlockOperation.WriteZeroes))
            return Errno.EPERM;
        return request.Operation switch
        {
            BlockOperation.Read or BlockOperation.Write when request.Data.Length != request.Length => Errno.EINVAL,
            BlockOperation.BlockStatus when request.Data.Length < BlockExtent.EncodedSizeBytes => Errno.EINVAL,
            _ => 0,
        };
    }

    /// <summary>Copies the completions that have arrived, in order, each once.</summary>
    private void Collect()
    {
        long room = QueueOptions.CollectBytes;
        for (int budget = _geometry.RingSlots; budget > 0 && room > 0; budget--)
        {
            ulong sequence = _copied + 1;
            uint slot = (uint)sequence & _ringMask;
            long at = _layout.CompletionRingOffset + slot * 64L;
            _memory.ReadLine(at, out Line line);
            if (!Arrival<TPolicy>.Holds(line, _completionSeal, _word.Epoch, sequence, slot))
                return;
            CompletionLine completion = CompletionLine.FromLine(line);
            PrefetchPayload(sequence + 1);
            if (!Accept(completion))
            {
                // The handler's bytes broke a rule; only a new epoch makes a new start.
                Reset("a completion breaks a rule");
                return;
            }

            if (!TPolicy.CopyOnce)
            {
                _memory.ReadLine(at, out line);
                completion = CompletionLine.FromLine(line);
                if (completion.Tag >= _pieces.Length || !_pieces[completion.Tag].Busy)
                    return;
            }

            _copied = sequence;
            _fruitlessResets = 0;
            room -= completion.PayloadLength;
            Finish(completion);
        }
    }

    /// <summary>
    /// Has the first bytes of the next completion's payload brought while the present one is copied, if it seems to be
    /// there: a hint, from words that are not checked.
    /// </summary>
    private void PrefetchPayload(ulong sequence)
    {
        long at = _layout.CompletionRingOffset + ((uint)sequence & _ringMask) * 64L;
        if (_memory.Peek(at) != sequence)
            return;
        int tag = CompletionLine.TagOf(_memory.Peek(at + CompletionLine.TagWordOffset));
        if (tag >= _pieces.Length)
            return;
        ref Piece piece = ref _pieces[tag];
        if (piece.PayloadLength > 0 && !piece.InWritePool)
            _memory.Prefetch(_layout.ReadPoolOffset + piece.PoolOffset, Math.Min(piece.PayloadLength, QueueOptions.PrefetchBytes), forWrite: false);
    }

    private bool Accept(in CompletionLine completion)
    {
        if (completion.Tag >= _pieces.Length)
            return false;
        ref Piece piece = ref _pieces[completion.Tag];
        return piece.Busy &&
            (piece.Sequence == completion.CommandSequence || !TPolicy.CheckSequence) &&
            completion.Error <= 4095 &&
            completion.PayloadLength <= piece.PayloadLength;
    }

    /// <summary>One command is answered: payload out, credit and pool space back, or the command is sent again.</summary>
    private void Finish(in CompletionLine completion)
    {
        int tag = completion.Tag;
        _flight.Answer(FlightEventKind.Completed, _now, _word.Epoch, completion.CommandSequence, tag, completion.Error);
        ref Piece piece = ref _pieces[tag];
        int error = completion.Error;
        int result = 0;
        if (piece.Request >= 0)
        {
            ref Request request = ref _requests[piece.Request];
            if (error == 0 && request.Operation is BlockOperation.Read or BlockOperation.BlockStatus)
                error = TakePayload(ref request, ref piece, completion, out result);
            if (error == Errno.EBADMSG)
            {
                if (++piece.Attempts < _options.PayloadAttempts)
                {
                    Send(tag, ref request);
                    return;
                }

                error = Errno.EIO;
            }

            if (request.Operation == BlockOperation.Flush && error == 0 && !TPolicy.CoverOnlyEarlierWrites)
                _device.SnapshotForFlush(_generation, Snapshot(piece.FlushSnapshot));
            if (request.Operation == BlockOperation.Flush && error == 0)
                _device.Cover(_generation, Snapshot(piece.FlushSnapshot));
        }

        int owner = piece.Request;
        bool reissued = piece.Reissued;
        FreePiece(tag);
        if (owner >= 0)
            EndPiece(owner, error, result);
        if (reissued)
            EndReissue();
    }

    private int TakePayload(ref Request request, ref Piece piece, in CompletionLine completion, out int result)
    {
        result = (int)completion.PayloadLength;
        if (request.Operation == BlockOperation.Read && result != piece.PayloadLength)
            return Errno.EIO;
        if (request.Operation == BlockOperation.BlockStatus && (result == 0 || result % BlockExtent.EncodedSizeBytes != 0))
            return Errno.EIO;
        Span<byte> destination = request.Data.Slice(piece.DataOffset, result).Span;
        long at = _layout.ReadPoolOffset + piece.PoolOffset;
        if (!_geometry.PayloadCrc)
        {
            _memory.Read(at, destination);
            // No CRC tells the zeroes of a failed memory from data.
            if (_memory.IsPoisoned)
                return Errno.EIO;
        }
        else
        {
            uint crc = _memory.ReadWithCrc(at, destination, uint.MaxValue);
            if (TPolicy.CheckCrc && crc != completion.PayloadCrc)
                return Errno.EBADMSG;
            if (!TPolicy.CopyOnce)
                _memory.Read(at, destination);
        }

        return request.Operation == BlockOperation.Read || ExtentsHold(destination, request.Length) ? 0 : Errno.EIO;
    }

    /// <summary>Extents are input from the other host: lengths &gt; 0, sum ≤ the request.</summary>
    private static bool ExtentsHold(ReadOnlySpan<byte> encoded, long length)
    {
        while (!encoded.IsEmpty)
        {
            BlockExtent extent = BlockExtent.Decode(encoded);
            if (extent.LengthBytes <= 0 || extent.LengthBytes > length)
                return false;
            length -= extent.LengthBytes;
            encoded = encoded[BlockExtent.EncodedSizeBytes..];
        }

        return true;
    }

    private void EndPiece(int index, int error, int result)
    {
        ref Request request = ref _requests[index];
        request.InFlight--;
        request.Result += result;
        // With its first piece already: if the disk loses that before the last one is done, the whole is not done either.
        if (error == 0 && (request.Flags & BlockFlags.ForceUnitAccess) == 0 &&
            request.Operation is BlockOperation.Write or BlockOperation.WriteZeroes or BlockOperation.Discard)
            _device.CountWrite(_queue);
        if (error != 0 && request.Error == 0)
            request.Error = error;
        if (request.InFlight > 0 || (request.Error == 0 && !request.IsIssued))
            return;
        if (!request.IsIssued)
            _requests.StopIssuing(index);
        _requests.Answer(index);
    }

    private void FreePiece(int tag)
    {
        ref Piece piece = ref _pieces[tag];
        if (piece.PayloadLength > 0)
            (piece.InWritePool ? _writePool : _readPool).Free(piece.PoolOffset, piece.PayloadLength);
        if (piece.FlushSnapshot >= 0)
            _flushSnapshotsBusy &= ~(1u << piece.FlushSnapshot);
        piece.Busy = false;
        _freeTags[_freeTagCount++] = tag;
    }
}
