using Cbd.Blocks;
using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Channels;

/// <summary>
/// The handlers that one handler thread drives, with the one disk queue and the private buffers that they share.
/// Single-threaded; advances by <see cref="Poll"/>; no clock, no sleeping.
/// </summary>
internal sealed class HandlerGroup<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    private readonly TMemory _memory;
    private readonly RegionGeometry _geometry;
    private readonly ServedBackend _backend;
    private readonly IBlockQueue _disk;
    private readonly NativeBuffer _buffers;
    private readonly PoolAllocator _bufferSpace;
    private readonly BlockCompletion[] _completions = new BlockCompletion[128];

    /// <summary>
    /// A turn answers so many of the disk's ends more than it has begun commands: a disk often reports a whole queue's worth at
    /// once, and should have the first new commands before the last of them is copied and answered. Never fewer than were
    /// begun, as far as one call takes them, so that commands that fail at once, as fast as they come, keep no other channel waiting.
    /// </summary>
    private const int FurtherAnswers = 4;
    private readonly List<Handler<TMemory, TPolicy>?> _handlers = [];
    private FlightRecorder[] _flights = [];
    private Handler<TMemory, TPolicy>? _bufferWaiter;
    private long _now;
    private bool _stopping;

    /// <param name="disk">A queue of the backend's disk; stays the caller's to dispose.</param>
    /// <param name="buffers">Private payload memory, at least half a pool; stays the caller's to dispose.</param>
    public HandlerGroup(in TMemory memory, RegionGeometry geometry, ServedBackend backend, IBlockQueue disk, NativeBuffer buffers)
    {
        _memory = memory;
        _geometry = geometry;
        _backend = backend;
        _disk = disk;
        _buffers = buffers;
        // The lowest: what was used last is still in this core's cache.
        _bufferSpace = new PoolAllocator(buffers.SizeBytes, fit: PoolFit.Lowest);
        long piece = new ChannelLayout(geometry, 0).PoolBytes / 2;
        ArgumentOutOfRangeException.ThrowIfLessThan(buffers.SizeBytes, piece);
    }

    /// <summary>Channels served now.</summary>
    public int Count { get; private set; }

    /// <summary>The last events of the handlers' side of each channel that this group has served. Any thread.</summary>
    public IReadOnlyList<FlightRecorder> Flights => Volatile.Read(ref _flights);

    /// <summary>Requests at the disk now.</summary>
    public int Outstanding => _disk.Outstanding;

    /// <summary>A command waits for buffers or room at the disk, or a claim word for its ctrl line.</summary>
    public bool IsStalled
    {
        get
        {
            foreach (Handler<TMemory, TPolicy>? handler in _handlers)
            {
                if (handler is { IsStalled: true })
                    return true;
            }

            return false;
        }
    }

    /// <summary>Attaches a channel that was offered to this session. False, with nothing stored, if it is not (any more).</summary>
    public bool TryAttach(int channel)
    {
        if (_stopping)
            return false;
        int number = _handlers.IndexOf(null);
        if (number < 0)
        {
            number = _handlers.Count;
            _handlers.Add(null);
        }

        FlightRecorder flight = Array.Find(_flights, f => f.Channel == channel) ?? new FlightRecorder(channel);
        var handler = new Handler<TMemory, TPolicy>(_memory, _geometry, channel, _backend, _disk, _buffers, _bufferSpace, flight, number);
        if (!handler.TryAttach(_now))
            return false;
        if (!_flights.Contains(flight))
            Volatile.Write(ref _flights, [.. _flights, flight]);
        _handlers[number] = handler;
        Count++;
        return true;
    }

    /// <summary>
    /// Looks at a channel that may have been offered to this session, or quarantined: attaches it, or says that it is
    /// drained. True if it was attached now.
    /// </summary>
    public bool TakeOffer(int channel)
    {
        if (Serves(channel))
            return false;
        if (TryAttach(channel))
            return true;
        ReportDrained(channel);
        return false;
    }

    /// <summary>
    /// Says of a quarantined channel of this session that nothing of it is at the disk: only its handler knows that, and
    /// nobody may have the channel before. Nothing is stored while it is served here; only the group that would attach
    /// the channel may be asked.
    /// </summary>
    public void ReportDrained(int channel)
    {
        long offset = _geometry.ChannelOffset(channel);
        // From QUARANTINED no channel is attached again in this epoch.
        ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(_memory, offset);
        if (word.State != ClaimState.Quarantined || Serves(channel) ||
            !BlkdevCtrlLine.TryLoadLatest(_memory, _geometry, channel, word.Epoch, out BlkdevCtrlLine line) ||
            line.Backend != _backend.Backend || line.Session != _backend.Session ||
            // Once said it may be freed and served by somebody else: it is not said again.
            HandlerCtrlLine.IsDrained(_memory, _geometry, channel, word.Epoch, line.Session))
            return;
        new HandlerCtrlLine(word.Epoch, HandlerCondition.Drained, line.Session, Fetched: 0, Posted: 0)
            .Store(_memory, offset + ChannelLayout.HandlerCtrlOffset, new LineSeal(_geometry.RegionId, channel, LineKind.HandlerCtrl, word.Epoch));
    }

    /// <summary>Whether this group serves the channel.</summary>
    public bool Serves(int channel)
    {
        foreach (Handler<TMemory, TPolicy>? handler in _handlers)
        {
            if (handler?.Channel == channel)
                return true;
        }

        return false;
    }

    /// <summary>Commands of a channel that are at the disk; 0 if it is not served here. For the simulator.</summary>
    internal int OutstandingOn(int channel)
    {
        foreach (Handler<TMemory, TPolicy>? handler in _handlers)
        {
            if (handler?.Channel == channel)
                return handler.Outstanding;
        }

        return 0;
    }

    /// <summary>Finishes and answers what was fetched, then detaches all channels. Poll until <see cref="Count"/> is 0.</summary>
    public void BeginStop()
    {
        _stopping = true;
        foreach (Handler<TMemory, TPolicy>? handler in _handlers)
            handler?.BeginStop();
    }

    /// <summary>One turn of every channel and of the disk. Returns whether anything happened.</summary>
    /// <param name="nowMicroseconds">Any monotonic clock, for the flight recorders; the handlers know no deadlines.</param>
    public bool Poll(long nowMicroseconds = 0)
    {
        _now = nowMicroseconds;
        bool any = false;
        int outstanding = _disk.Outstanding;
        for (int i = 0; i < _handlers.Count; i++)
        {
            Handler<TMemory, TPolicy>? handler = _handlers[i];
            if (handler is not null)
                any |= handler.Advance(_bufferWaiter is null || _bufferWaiter == handler, nowMicroseconds);
            // A large payload that waits is not starved by the small ones of other channels.
            if (handler is not null && (_bufferWaiter is null || _bufferWaiter == handler))
                _bufferWaiter = handler.WantsBuffers ? handler : null;
        }

        if (_disk.Outstanding > 0)
        {
            int begun = _disk.Outstanding - outstanding;
            int count = _disk.Poll(_completions.AsSpan(0, Math.Min(begun + FurtherAnswers, _completions.Length)));
            for (int i = 0; i < count; i++)
            {
                int number = (int)(_completions[i].Cookie >> 32);
                Handler<TMemory, TPolicy> handler = _handlers[number]
                    ?? throw new InvalidOperationException($"completion for handler {number}, which is gone");
                handler.Complete(_completions[i]);
            }

            any |= count > 0;
        }

        for (int i = 0; i < _handlers.Count; i++)
        {
            Handler<TMemory, TPolicy>? handler = _handlers[i];
            if (handler is null)
                continue;
            if (handler.IsGone)
            {
                _handlers[i] = null;
                Count--;
                if (_bufferWaiter == handler)
                    _bufferWaiter = null;
                continue;
            }

            handler.Publish();
        }

        return any;
    }

    /// <summary>
    /// Announces sleep on all channels and looks once more. False, with the announcement taken back, if there is work;
    /// else <paramref name="doorbells"/> holds the offsets of <paramref name="count"/> words that are 1 until somebody
    /// rings. At most as many as fit are announced; sleep short if there are more channels than that.
    /// </summary>
    public bool TryAnnounceSleep(Span<long> doorbells, out int count)
    {
        count = 0;
        foreach (Handler<TMemory, TPolicy>? handler in _handlers)
        {
            if (handler is null || count == doorbells.Length)
                continue;
            doorbells[count++] = handler.DoorbellOffset;
            _memory.WriteRelease(handler.DoorbellOffset, 1);
        }

        // One fence for all words: pairs with the fence of Doorbells.Ring.
        _memory.FullFence();
        foreach (Handler<TMemory, TPolicy>? handler in _handlers)
        {
            if (handler is null || !handler.HasWork())
                continue;
            RetractSleep();
            return false;
        }

        return true;
    }

    /// <summary>Says that the thread is awake.</summary>
    public void RetractSleep()
    {
        foreach (Handler<TMemory, TPolicy>? handler in _handlers)
        {
            if (handler is not null)
                Doorbells.Retract(_memory, handler.DoorbellOffset);
        }
    }

    /// <summary>Failures of channels since the last call, for the log.</summary>
    public void CollectFailures(List<string> failures)
    {
        foreach (Handler<TMemory, TPolicy>? handler in _handlers)
        {
            if (handler?.Failure is { } failure && !failures.Contains(failure))
                failures.Add(failure);
        }
    }
}
