using Cbd.Blocks;
using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Channels;

/// <summary>
/// The backend's side of one channel: fetches commands in order, copies each once, does them on the disk and posts
/// completions in the order in which the disk finishes. Driven by its <see cref="HandlerGroup{TMemory, TPolicy}"/>.
/// </summary>
/// <remarks>
/// Everything read from the region is untrusted. What a blkdev gets wrong about the disk (a range, an alignment) fails
/// the command; what it gets wrong about the channel (a pool offset, the depth) fails the channel: nothing more is
/// fetched until the blkdev resets it.
/// </remarks>
internal sealed partial class Handler<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    private readonly TMemory _memory;
    private readonly RegionGeometry _geometry;
    private readonly ChannelLayout _layout;
    private readonly ServedBackend _backend;
    private readonly IBlockQueue _disk;
    private readonly IBlocksInMemory? _inMemory;
    private readonly NativeBuffer _buffers;
    private readonly PoolAllocator _bufferSpace;
    private readonly FlightRecorder _flight;
    private readonly ulong _cookieBase;
    private readonly Slot[] _slots;
    private readonly int[] _freeSlots;
    private readonly uint _ringMask;
    private int _freeCount;
    private int _busy;

    private ClaimWord _word;

    /// <summary>A claim word that was looked at and cannot be followed yet: to be looked at again, without hurry.</summary>
    private ClaimWord _declined;
    private LineSeal _commandSeal;
    private LineSeal _completionSeal;
    private LineSeal _ctrlSeal;
    private int _depth;
    private ulong _fetched;
    private ulong _posted;
    private long _now;
    private bool _changed;
    private bool _stopping;
    private bool _mayTakeBuffers;
    private bool _hasPending;
    private CommandLine _pending;

    private struct Slot
    {
        public ulong Epoch;
        public ulong CommandSequence;
        public long BufferOffset;
        public uint PayloadOffset;
        public uint PayloadLength;
        public ushort Tag;
        public BlockOperation Operation;
        public BlockFlags Flags;
        public bool HasBuffer;
    }

    /// <param name="flight">Where it records what happens on the channel, after what earlier handlers of it did.</param>
    /// <param name="number">Number within the group; comes back in the disk's cookies.</param>
    public Handler(
        in TMemory memory,
        RegionGeometry geometry,
        int channel,
        ServedBackend backend,
        IBlockQueue disk,
        NativeBuffer buffers,
        PoolAllocator bufferSpace,
        FlightRecorder flight,
        int number)
    {
        _memory = memory;
        _geometry = geometry;
        _layout = new ChannelLayout(geometry, channel);
        _backend = backend;
        _disk = disk;
        _inMemory = disk as IBlocksInMemory;
        _buffers = buffers;
        _bufferSpace = bufferSpace;
        _flight = flight;
        _cookieBase = (ulong)number << 32;
        _ringMask = (uint)geometry.RingSlots - 1;
        _slots = new Slot[geometry.RingSlots];
        _freeSlots = new int[geometry.RingSlots];
        for (int i = 0; i < _freeSlots.Length; i++)
            _freeSlots[i] = _freeSlots.Length - 1 - i;
        _freeCount = _freeSlots.Length;
    }

    public int Channel => _layout.Channel;

    /// <summary>The channel is not served by this handler any more, and nothing of it is in flight.</summary>
    public bool IsGone { get; private set; }

    /// <summary>Commands fetched and not answered yet.</summary>
    public int Outstanding => _busy;

    /// <summary>Why the channel failed; null while it is served.</summary>
    public string? Failure { get; private set; }

    public long DoorbellOffset => _layout.ClaimOffset + ChannelLayout.HandlerDoorbellOffset;

    /// <summary>Something waits inside that time alone moves (a stalled command, a half-told end): do not sleep long.</summary>
    public bool IsStalled => _hasPending || _declined != default;

    /// <summary>A fetched command waits for buffers.</summary>
    public bool WantsBuffers => _hasPending && _pending.PayloadLength > 0;

    /// <summary>
    /// Attaches an offered channel: one compare-and-swap, which loses against a withdrawal. False, with nothing
    /// stored, if there is no such offer for this session (any more).
    /// </summary>
    public bool TryAttach(long nowMicroseconds)
    {
        _now = nowMicroseconds;
        ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(_memory, _layout.ClaimOffset);
        if (word.State != ClaimState.Offered || !TryReadOffer(word, out BlkdevCtrlLine offer))
            return false;
        ClaimWord attached = word.With(ClaimState.Attached);
        if (!ClaimOperations<TMemory, TPolicy>.TrySwap(_memory, _layout.ClaimOffset, word, attached))
            return false;
        _word = attached;
        _declined = default;
        _depth = offer.Depth;
        _fetched = 0;
        _posted = 0;
        _hasPending = false;
        Failure = null;
        _flight.Life(FlightEventKind.Attached, _now, word.Epoch);
        _commandSeal = Arrival<TPolicy>.Seal(_geometry, Channel, LineKind.Command, word.Epoch);
        _completionSeal = Arrival<TPolicy>.Seal(_geometry, Channel, LineKind.Completion, word.Epoch);
        _ctrlSeal = new LineSeal(_geometry.RegionId, Channel, LineKind.HandlerCtrl, word.Epoch);
        StoreCtrl();
        RingDoorbell();
        return true;
    }

    /// <summary>No more fetching; what was fetched is finished and answered, then the channel is detached.</summary>
    public void BeginStop() => _stopping = true;

    /// <summary>One turn: life cycle, then new commands. Returns whether anything happened.</summary>
    /// <param name="mayTakeBuffers">No other channel of the thread waits for buffers longer than this one.</param>
    /// <param name="nowMicroseconds">Any monotonic clock, for the flight recorder.</param>
    public bool Advance(bool mayTakeBuffers, long nowMicroseconds)
    {
        _now = nowMicroseconds;
        _mayTakeBuffers = mayTakeBuffers;
        ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(_memory, _layout.ClaimOffset);
        if (word != _word)
            return Follow(word);
        if (_stopping && !_hasPending)
            return _busy == 0 && TryDetach(word);
        if (Failure is not null)
            return false;
        return Fetch();
    }

    /// <summary>Whether a turn would find something; used between announcing sleep and sleeping.</summary>
    public bool HasWork()
    {
        if (_stopping || _hasPending)
            return true;
        ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(_memory, _layout.ClaimOffset);
        if (word != _word)
            return word != _declined;
        if (Failure is not null)
            return false;
        ulong sequence = _fetched + 1;
        uint slot = (uint)sequence & _ringMask;
        _memory.ReadLine(_layout.CommandRingOffset + slot * 64L, out Line line);
        return Arrival<TPolicy>.Holds(line, _commandSeal, _word.Epoch, sequence, slot);
    }

    /// <summary>The disk has finished a request whose cookie is of this handler.</summary>
    public void Complete(in BlockCompletion done)
    {
        int index = (int)(uint)done.Cookie;
        ref Slot slot = ref _slots[index];
        // The blkdev has given up the epoch of the command, or is about to: its pools are stored to no more.
        bool current = slot.Epoch == _word.Epoch &&
            (!TPolicy.WaitForDrain || ClaimOperations<TMemory, TPolicy>.Read(_memory, _layout.ClaimOffset) == _word);
        int error = TPolicy.LatchBeforeCompletion ? JudgeFlush(slot, done.Error) : done.Error;
        if (current && Failure is null)
            Post(ref slot, error, done.Result);
        if (!TPolicy.LatchBeforeCompletion)
            JudgeFlush(slot, done.Error);
        Release(index);
    }

    /// <summary>
    /// Latches the failure of whatever was to reach the medium: the kernel may have dropped that data, and reports it
    /// once only, to one of those that asked. So what succeeded while another failed has failed too.
    /// </summary>
    private int JudgeFlush(in Slot slot, int error)
    {
        bool writes = slot.Operation is BlockOperation.Write or BlockOperation.WriteZeroes or BlockOperation.Discard;
        bool reachesMedium = slot.Operation == BlockOperation.Flush || (writes && (slot.Flags & BlockFlags.ForceUnitAccess) != 0);
        if (!reachesMedium || !TPolicy.LatchFailedFlush)
            return error;
        if (error == 0)
            return _backend.FlushError;
        // These say what is wrong with the request, and nothing about the medium.
        if (error is not (Errno.EINVAL or Errno.EPERM or Errno.EOPNOTSUPP))
            _backend.LatchFlushError(error);
        return error;
    }

    /// <summary>Ends a turn in which something happened: diagnosis and the blkdev's doorbell.</summary>
    public void Publish()
    {
        if (!_changed)
            return;
        _changed = false;
        StoreCtrl();
        RingDoorbell();
    }

    /// <summary>The claim word is not ours as we left it: a reset, the end, or the channel was taken away.</summary>
    private bool Follow(ClaimWord word)
    {
        _hasPending = false;
        if (TPolicy.WaitForDrain && _busy > 0)
        {
            _declined = word;
            return false;
        }

        switch (word.State)
        {
            case ClaimState.Offered when word.Epoch > _word.Epoch:
                if (_stopping)
                {
                    IsGone = true;
                    return true;
                }

                if (TryAttach(_now))
                    return true;
                // The offer names another session or backend: it is not for us. An unreadable one may still arrive.
                IsGone = _busy == 0 &&
                    BlkdevCtrlLine.TryLoad(_memory, _geometry, Channel, word.Epoch, out BlkdevCtrlLine other) &&
                    (other.Backend != _backend.Backend || other.Session != _backend.Session);
                _declined = word;
                return IsGone;
            case ClaimState.Closing when _busy == 0 && IsOurEnd(word):
                return TryDetach(word);
            case ClaimState.Closing when word.Epoch > _word.Epoch && word.Host == _word.Host:
                // Its ctrl line may still arrive.
                _declined = word;
                return false;
            default:
                IsGone = _busy == 0;
                if (IsGone)
                    _flight.Life(FlightEventKind.Lost, _now, _word.Epoch, word.ToString());
                return IsGone;
        }
    }

    /// <summary>The channel ends in the epoch that we serve, or in one that was offered to us after it.</summary>
    private bool IsOurEnd(ClaimWord word) =>
        word.Epoch == _word.Epoch ||
        (word.Epoch > _word.Epoch &&
        BlkdevCtrlLine.TryLoadLatest(_memory, _geometry, Channel, word.Epoch, out BlkdevCtrlLine offer) &&
        offer.Backend == _backend.Backend && offer.Session == _backend.Session);

    private bool TryDetach(ClaimWord word)
    {
        if (!ClaimOperations<TMemory, TPolicy>.TrySwap(_memory, _layout.ClaimOffset, word, word.With(ClaimState.Detached)))
            return false;
        IsGone = true;
        _flight.Life(FlightEventKind.Detached, _now, word.Epoch);
        RingDoorbell();
        return true;
    }

    private bool TryReadOffer(ClaimWord word, out BlkdevCtrlLine offer) =>
        BlkdevCtrlLine.TryLoad(_memory, _geometry, Channel, word.Epoch, out offer) &&
        offer.Backend == _backend.Backend &&
        offer.Session == _backend.Session &&
        offer.Depth >= 1 && offer.Depth <= _geometry.RingSlots &&
        _backend.IsEntitled(offer.Blkdev, offer.BlkdevEpoch);

    private bool Fail(string why)
    {
        Failure = $"channel {Channel}: {why}";
        _flight.Life(FlightEventKind.Failed, _now, _word.Epoch, why);
        _changed = true;
        return false;
    }

    /// <summary>Starts a command on the disk, or answers it; false if buffers or the disk's queue have no room now.</summary>
    private bool TryStart(in CommandLine command)
    {
        if (_freeCount == 0)
            return false;
        if (_inMemory is not null && TryInMemory(_inMemory, command))
            return true;

        int index = _freeSlots[_freeCount - 1];
        ref Slot slot = ref _slots[index];
        slot = new Slot
        {
            Epoch = _word.Epoch,
            CommandSequence = command.Sequence,
            PayloadOffset = command.PayloadOffset,
            PayloadLength = command.PayloadLength,
            Tag = command.Tag,
            Operation = command.Operation,
            Flags = command.Flags,
        };
        int latched = _backend.FlushError;
        if (latched != 0 && command.Operation is BlockOperation.Write or BlockOperation.Flush or BlockOperation.Discard or BlockOperation.WriteZeroes)
        {
            Post(ref slot, latched, 0);
            return true;
        }

        BufferSlice data = default;
        if (command.PayloadLength > 0)
        {
            if (!_mayTakeBuffers || !_bufferSpace.TryAllocate(command.PayloadLength, out slot.BufferOffset))
                return false;
            slot.HasBuffer = true;
            data = new BufferSlice(_buffers, slot.BufferOffset, (int)command.PayloadLength);
            if (command.Operation == BlockOperation.Write && !CopyPayload(command, data.Span))
            {
                _bufferSpace.Free(slot.BufferOffset, slot.PayloadLength);
                Post(ref slot, Errno.EBADMSG, 0);
                return true;
            }
        }

        var request = new BlockRequest(_cookieBase | (uint)index, command.Operation, command.Flags, command.Offset, command.Length, data);
        if (!_disk.TrySubmit(request))
        {
            if (slot.HasBuffer)
                _bufferSpace.Free(slot.BufferOffset, slot.PayloadLength);
            return false;
        }

        _freeCount--;
        _busy++;
        return true;
    }

    private void Post(ref Slot slot, int error, int result)
    {
        uint crc = 0;
        uint length = 0;
        if (error == 0 && slot.Operation is BlockOperation.Read or BlockOperation.BlockStatus && slot.HasBuffer)
        {
            length = slot.Operation == BlockOperation.Read ? slot.PayloadLength : (uint)result;
            if (length > slot.PayloadLength)
                throw new InvalidOperationException($"the disk answered {length} bytes for {slot.PayloadLength}");
            crc = StorePayload(slot.PayloadOffset, _buffers.GetSpan(slot.BufferOffset, (int)length), uint.MaxValue);
        }

        Answer(slot.CommandSequence, slot.Tag, error, crc, length);
    }

    /// <summary>Stores the completion of a command whose payload is in the pool.</summary>
    private void Answer(ulong commandSequence, ushort tag, int error, uint crc, uint length)
    {
        ulong sequence = ++_posted;
        _flight.Answer(FlightEventKind.Answered, _now, _word.Epoch, commandSequence, tag, error);
        uint ringSlot = (uint)sequence & _ringMask;
        Line line = new CompletionLine(sequence, _word.Epoch, commandSequence, tag, (ushort)Math.Clamp(error, 0, 4095), crc, length).ToLine();
        _completionSeal.Seal(ref line, ringSlot);
        _memory.WriteLine(_layout.CompletionRingOffset + ringSlot * 64L, line);
        _changed = true;
    }

    private void Release(int index)
    {
        ref Slot slot = ref _slots[index];
        if (slot.HasBuffer)
            _bufferSpace.Free(slot.BufferOffset, slot.PayloadLength);
        _freeSlots[_freeCount++] = index;
        _busy--;
    }

    private void StoreCtrl() =>
        new HandlerCtrlLine(_word.Epoch, Failure is not null ? HandlerCondition.Failed : _hasPending ? HandlerCondition.Stalled : HandlerCondition.Serving, _backend.Session, _fetched, _posted)
            .Store(_memory, _layout.HandlerCtrlLineOffset, _ctrlSeal);

    private void RingDoorbell() => Doorbells.Ring(_memory, _layout.ClaimOffset + ChannelLayout.BlkdevDoorbellOffset);
}
