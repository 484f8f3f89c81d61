using Cbd.Blocks;
using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Channels;

/// <summary>The part of a queue that follows the life of its channel: offer, attach, reset, re-issue, close.</summary>
internal sealed partial class Queue<TMemory, TPolicy>
{
    private ulong _session;
    private ulong _attachedSession;
    private bool _attachedBuffered;
    private int _generation;
    private int _fruitlessResets;
    private int _reissuesLeft;
    private bool _holding;
    private bool _handlerLeft;
    private bool _hasAbandoned;
    private long _nextLook;
    private long _aheadSince = long.MaxValue;
    private ulong _aheadCopied;

    /// <summary>The session that the channel is offered or attached to. For the simulator.</summary>
    internal ulong Session => _session;

    /// <summary>Offers the claimed channel to the device's session.</summary>
    public void Offer()
    {
        if (_phase != QueuePhase.Claimed)
            throw new InvalidOperationException($"channel {Channel} is {_phase}");
        TakeSession();
        StoreCtrl();
        ClaimWord offered = _word.With(ClaimState.Offered);
        if (!ClaimOperations<TMemory, TPolicy>.TrySwap(_memory, _layout.ClaimOffset, _word, offered))
        {
            Lose();
            return;
        }

        _word = offered;
        _phase = QueuePhase.Offered;
        _flight.Life(FlightEventKind.Offered, _now, _word.Epoch);
        _announceOffer();
    }

    /// <summary>
    /// Ends the channel: what is still outstanding is answered with ESHUTDOWN, the offer is withdrawn or the handler
    /// asked to drain. Poll until <see cref="Phase"/> is Closed or Lost.
    /// </summary>
    public void BeginClose()
    {
        AbandonAll(Errno.ESHUTDOWN);
        while (_phase is QueuePhase.Claimed or QueuePhase.Offered or QueuePhase.Attached)
        {
            ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(_memory, _layout.ClaimOffset);
            if (!IsOurs(word))
            {
                Lose();
                return;
            }

            // After a reset the handler may not have drained the older epoch yet: it is asked to, as if it were attached.
            bool served = word.State == ClaimState.Attached ||
                (word.State == ClaimState.Offered && _attachedSession != 0 && _attachedSession == _session);
            ClaimWord next = served ? word.With(ClaimState.Closing) : word.Freed();
            if (!ClaimOperations<TMemory, TPolicy>.TrySwap(_memory, _layout.ClaimOffset, word, next))
                continue;
            _word = next;
            _phase = served ? QueuePhase.Closing : QueuePhase.Closed;
            _flight.Life(served ? FlightEventKind.Closing : FlightEventKind.Closed, _now, word.Epoch);
            _announceOffer();
            Doorbells.Ring(_memory, _layout.ClaimOffset + ChannelLayout.HandlerDoorbellOffset);
        }
    }

    /// <summary>
    /// The user of this queue goes: every request that is not answered yet is answered with <paramref name="error"/>, and the
    /// memory of its payload is not touched again. Its commands may still be executed.
    /// </summary>
    /// <param name="error">Errno of the answers.</param>
    /// <param name="holds">
    /// No queue of the device issues a new command before the commands in flight are over: an old write must not overtake
    /// a later one. Only if somebody polls this queue on.
    /// </param>
    public void EndRequests(int error, bool holds)
    {
        if (holds && InFlight > 0 && _phase is QueuePhase.Offered or QueuePhase.Attached)
        {
            Hold();
            _hasAbandoned = true;
        }

        Abandon(error);
    }

    /// <summary>Stores answers that are there already, without a turn: nothing of the channel is touched.</summary>
    public int TakeAnswers(Span<BlockCompletion> completions) => _requests.TakeAnswers(completions);

    /// <summary>
    /// Gives up a channel whose handler does not answer: nobody may reuse it until there is proof of the handler's
    /// death. For a forced stop.
    /// </summary>
    public void Quarantine()
    {
        if (_phase != QueuePhase.Closing)
            throw new InvalidOperationException($"channel {Channel} is {_phase}");
        ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(_memory, _layout.ClaimOffset);
        // The handler may have drained at the last moment.
        FollowClosing(word);
        if (_phase == QueuePhase.Closing &&
            ClaimOperations<TMemory, TPolicy>.TrySwap(_memory, _layout.ClaimOffset, _word, _word.With(ClaimState.Quarantined)))
        {
            _phase = QueuePhase.Closed;
            _flight.Life(FlightEventKind.Quarantined, _now, _word.Epoch);
        }
        else if (_phase == QueuePhase.Closing)
            FollowClosing(ClaimOperations<TMemory, TPolicy>.Read(_memory, _layout.ClaimOffset));
    }

    /// <summary>
    /// This host may not store into the region any more: everything is answered with EIO, and the channel is left as it
    /// is.
    /// </summary>
    public void Fence()
    {
        if (_phase is not (QueuePhase.Closed or QueuePhase.Lost))
            Lose();
    }

    private bool IsOurs(ClaimWord word) =>
        word.Host == _word.Host &&
        word.Epoch == _word.Epoch &&
        word.State is ClaimState.Claimed or ClaimState.Offered or ClaimState.Attached or ClaimState.Detached;

    private void FollowClaim()
    {
        if (_phase is QueuePhase.Claimed or QueuePhase.Closed or QueuePhase.Lost)
            return;
        ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(_memory, _layout.ClaimOffset);
        _seen = word;
        if (_phase == QueuePhase.Closing)
        {
            FollowClosing(word);
            return;
        }

        if (!IsOurs(word))
        {
            Lose();
            return;
        }

        if (_phase == QueuePhase.Offered && word.State == ClaimState.Attached)
        {
            _waitsForEntry = TPolicy.EnterTogether && !_device.AllEntered(_generation);
            if (!_waitsForEntry)
                Attach(word);
        }

        if (_phase == QueuePhase.Attached && _handlerLeft != (word.State == ClaimState.Detached))
        {
            _handlerLeft = !_handlerLeft;
            _flight.Life(FlightEventKind.Detached, _now, word.Epoch);
        }

        if (_device.SessionEpoch != _session)
            Reset("the backend has another session");
        else if (_phase == QueuePhase.Offered && _now >= _nextLook)
            RepeatOffer();
    }

    /// <summary>Nobody came: the ctrl line or the announcement may have been lost on the way.</summary>
    private void RepeatOffer()
    {
        _nextLook = _now + _options.DeadlineMicroseconds;
        StoreCtrl();
        _announceOffer();
    }

    private void FollowClosing(ClaimWord word)
    {
        bool drained = word == _word.With(ClaimState.Detached);
        // A handler that is proven dead stores nothing any more; nor does one whose session has a successor, which
        // could only start with the disk's lock.
        bool orphaned = word == _word && (_device.IsBackendOver || _device.SessionEpoch != _session);
        if (drained || orphaned)
        {
            if (ClaimOperations<TMemory, TPolicy>.TrySwap(_memory, _layout.ClaimOffset, word, word.Freed()))
            {
                _phase = QueuePhase.Closed;
                _flight.Life(FlightEventKind.Closed, _now, _word.Epoch, drained ? "" : "its handler is gone");
            }
        }
        else if (word != _word)
        {
            Lose();
        }
    }

    /// <summary>
    /// Starts a new epoch of the channel: raised in the claim word first, then used. Everything in flight keeps its
    /// credit and its pool space until the handler has acknowledged the new epoch.
    /// </summary>
    private void Reset(string why)
    {
        // With nothing to repeat there is nothing to hold others for, and an idle queue may not look again for a second.
        if (InFlight > 0)
            Hold();
        while (true)
        {
            ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(_memory, _layout.ClaimOffset);
            if (!IsOurs(word) || word.Epoch == ClaimWord.MaxEpoch)
            {
                Lose();
                return;
            }

            ClaimWord next = TPolicy.RaiseEpoch ? word.Next(ClaimState.Offered, word.Host) : word.With(ClaimState.Offered);
            if (!ClaimOperations<TMemory, TPolicy>.TrySwap(_memory, _layout.ClaimOffset, word, next))
                continue;
            _word = next;
            break;
        }

        ResetCount++;
        _flight.Life(FlightEventKind.Reset, _now, _word.Epoch, why);
        _phase = QueuePhase.Offered;
        TakeSession();
        StoreCtrl();
        _announceOffer();
        _ring = true;
    }

    private void TakeSession()
    {
        do
        {
            _session = _device.SessionEpoch;
            _generation = _device.DurabilityGeneration;
        }
        while (_session != _device.SessionEpoch);
        _device.EnterGeneration(_queue, _generation);
    }

    /// <summary>
    /// The handler has acknowledged the epoch: nothing of the older ones can happen any more. The rings start anew, and
    /// what was in flight is issued again in its old order.
    /// </summary>
    private void Attach(ClaimWord word)
    {
        _word = word;
        _phase = QueuePhase.Attached;
        _handlerLeft = false;
        _hasAbandoned = false;
        _commandSeal = Arrival<TPolicy>.Seal(_geometry, Channel, LineKind.Command, word.Epoch);
        _completionSeal = Arrival<TPolicy>.Seal(_geometry, Channel, LineKind.Completion, word.Epoch);
        _posted = 0;
        _copied = 0;
        _aheadSince = long.MaxValue;
        _fruitlessResets = _attachedSession == _session ? _fruitlessResets + 1 : 0;
        // Its flush may have failed, and the kernel told only the process that died.
        bool flushesAreLost = TPolicy.FailBufferedFlush && _attachedBuffered && _attachedSession != _session;
        _attachedSession = _session;
        _attachedBuffered = _device.IsBackendBuffered;
        _flight.Life(FlightEventKind.Attached, _now, _word.Epoch);
        // From here on whoever clears this channel has to wait for the handler.
        StoreCtrl();
        if (_fruitlessResets >= _options.FruitlessResets && InFlight > 0)
        {
            AbandonAll(Errno.EIO);
            _fruitlessResets = 0;
        }

        if (flushesAreLost)
            FailFlushes();
        if (InFlight > 0)
            Reissue();
        _nextLook = _now + _options.DeadlineMicroseconds / 8;
        if (_reissuesLeft == 0)
            ReleaseHold();
    }

    /// <summary>
    /// Flushes, and writes to the medium, that were in flight when a session on a buffered disk died: never tried again
    /// in the hope that they pass.
    /// </summary>
    private void FailFlushes()
    {
        for (int tag = 0; tag < _pieces.Length; tag++)
        {
            ref Piece piece = ref _pieces[tag];
            if (!piece.Busy || piece.Request < 0)
                continue;
            ref Request request = ref _requests[piece.Request];
            if (request.Operation != BlockOperation.Flush && (request.Flags & BlockFlags.ForceUnitAccess) == 0)
                continue;
            int owner = piece.Request;
            FreePiece(tag);
            EndPiece(owner, Errno.EIO, 0);
        }
    }

    private void Reissue()
    {
        int[] busy = new int[InFlight];
        int count = 0;
        for (int tag = 0; tag < _pieces.Length; tag++)
        {
            if (!_pieces[tag].Busy)
                continue;
            // Answered to its user already: never issued again; its space is free now that the epoch is drained.
            if (_pieces[tag].Request < 0)
                FreePiece(tag);
            else
                busy[count++] = tag;
        }

        Span<int> tags = busy.AsSpan(0, count);
        tags.Sort((a, b) => _pieces[a].Sequence.CompareTo(_pieces[b].Sequence));
        _reissuesLeft = count;
        foreach (int tag in tags)
        {
            _pieces[tag].Reissued = true;
            Send(tag, ref _requests[_pieces[tag].Request]);
        }
    }

    private void EndReissue()
    {
        if (_reissuesLeft > 0 && --_reissuesLeft == 0)
            ReleaseHold();
    }

    private void Hold()
    {
        if (_holding)
            return;
        _device.AddHold();
        _holding = true;
    }

    private void ReleaseHold(bool wakes = true)
    {
        if (!_holding)
            return;
        _holding = false;
        _device.ReleaseHold(wakes);
    }

    /// <summary>Somebody else has the channel: this host was cleared. Nothing of it is touched any more.</summary>
    private void Lose()
    {
        _phase = QueuePhase.Lost;
        _flight.Life(FlightEventKind.Lost, _now, _word.Epoch);
        _device.FailAfterLoss(_memory.IsPoisoned
            ? "the memory of the region failed under an access: it was truncated, or it is broken"
            : $"channel {Channel} was taken away: this host was cleared by another; register again");
        Abandon(Errno.EIO);
        ReleaseHold(wakes: false);
    }

    /// <summary>
    /// The backend is away, and nobody is to wait for it: everything is answered with EIO. What was in flight may still
    /// land, so no queue issues anything new before that epoch is drained; else an old write could overtake a new one.
    /// </summary>
    private void FailWhileLost()
    {
        if (_requests.Count == 0)
            return;
        if (InFlight > 0)
        {
            // Before the answers: whoever acts on one finds the device held.
            if (TPolicy.DrainGivenUp)
                Hold();
            _hasAbandoned = true;
        }

        Abandon(Errno.EIO);
    }

    /// <summary>The backend is there: only a new epoch proves that nothing is left of the requests that were given up.</summary>
    private void DrainAbandoned()
    {
        if (InFlight > 0)
        {
            Reset("the backend is back, and requests were given up");
            return;
        }

        _hasAbandoned = false;
        if (_reissuesLeft == 0)
            ReleaseHold();
    }

    /// <summary>Answers every request; their commands keep credits and pool space until answered or drained.</summary>
    private void AbandonAll(int error)
    {
        Abandon(error);
        ReleaseHold();
    }

    private void Abandon(int error)
    {
        for (int tag = 0; tag < _pieces.Length; tag++)
        {
            if (_pieces[tag].Busy)
            {
                _pieces[tag].Request = -1;
                _pieces[tag].Reissued = false;
            }
        }

        _reissuesLeft = 0;
        _repeats?.Clear();
        _requests.AnswerAll(error);
    }

    private void StoreCtrl() =>
        new BlkdevCtrlLine(_word.Epoch, _device.Backend, _device.Blkdev, _depth, _queue, _session, _device.BlkdevEpoch, _posted, _copied, _attachedSession)
            .Store(_memory, _geometry, Channel);
}
