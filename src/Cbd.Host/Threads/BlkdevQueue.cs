using Cbd.Protocol.Blkdevs;
using Cbd.Blocks;
using Cbd.Protocol.Channels;
using Cbd.Memory;

namespace Cbd.Host.Threads;

/// <summary>
/// One queue of a <see cref="BlkdevDevice"/> while a user has it: the state machine with a clock and a place to sleep. One
/// thread at a time; <see cref="Interrupt"/> any thread.
/// </summary>
internal sealed class BlkdevQueue : IBlockQueue, IRepeatingQueue, IDescriptorWait, IRingWait, IWakeCount
{
    private readonly BlkdevState _state;
    private readonly MappedMemory _memory;
    private readonly Queue<MappedMemory, SafePolicy> _queue;
    private readonly BeatCondition _condition;
    private readonly int _depth;
    private readonly NativeBuffer? _buffers;
    private readonly Action _takeBack;
    private readonly DoorbellSleeper _sleeper = new();
    private DoorbellPoll? _poll;
    private bool _cannotPoll;
    private bool _isEnded;

    /// <param name="depth">Requests that the user wants outstanding at most.</param>
    /// <param name="buffers">Kept until the queue ends, also if the user disposes it before.</param>
    /// <param name="takeBack">Called once, when the queue has ended.</param>
    public BlkdevQueue(
        BlkdevState state,
        MappedMemory memory,
        Queue<MappedMemory, SafePolicy> queue,
        BeatCondition condition,
        int depth,
        NativeBuffer? buffers,
        Action takeBack)
    {
        ObjectDisposedException.ThrowIf(buffers is not null && !buffers.TryAddReference(), buffers!);
        _state = state;
        _memory = memory;
        _queue = queue;
        _condition = condition;
        _depth = depth;
        _buffers = buffers;
        _takeBack = takeBack;
        queue.KeptBuffer = buffers;
    }

    public int Outstanding => _isEnded ? 0 : _queue.Outstanding;

    public int WakeCount => _queue.WakeCount;

    public bool CanBeWoken => _condition.CanBeWoken(_memory);

    /// <summary>The backend serves nobody now, or the device has failed: what is outstanding may stay so for any time.</summary>
    public bool IsBackendAway => _state.IsBackendLost || _state.IsFailing || _state.Failure is not null;

    public bool TrySubmit(in BlockRequest request)
    {
        ObjectDisposedException.ThrowIf(_isEnded, this);
        return _queue.Outstanding < _depth && _queue.TrySubmit(request);
    }

    public bool TryRepeat(in BlockRequest request, ulong session)
    {
        ObjectDisposedException.ThrowIf(_isEnded, this);
        return _queue.Outstanding < _depth && _queue.TryRepeat(request, session);
    }

    public int Poll(Span<BlockCompletion> completions)
    {
        ObjectDisposedException.ThrowIf(_isEnded, this);
        long now = MonotonicClock.CoarseMicroseconds;
        if (_condition.IsFenced)
            _queue.Fence();
        else if (_condition.IsOverdueAt(now / 1000))
            return 0;
        return _queue.Poll(now, completions);
    }

    public void Wait(int timeoutMicroseconds)
    {
        ObjectDisposedException.ThrowIf(_isEnded, this);
        if (_condition.IsOverdue)
        {
            // Housekeeping looks whether the entry is still ours.
            Thread.Sleep(1);
            return;
        }

        if (!_queue.TryAnnounceSleep())
            return;
        _sleeper.Wait(_memory, [_queue.DoorbellOffset], timeoutMicroseconds);
        if (!_condition.IsOverdueAfterSleep)
            _queue.RetractSleep();
    }

    public bool TryWait(int descriptor, int timeoutMicroseconds)
    {
        ObjectDisposedException.ThrowIf(_isEnded, this);
        // A handler on another kernel cannot wake us.
        if (_cannotPoll || _condition.HasRemoteHosts || _condition.IsOverdue)
            return false;
        _poll ??= _memory.Wakes ? DoorbellPoll.TryCreate() : null;
        if (_poll is null || _poll.IsUnsupported)
        {
            _cannotPoll = true;
            return false;
        }

        if (!_queue.TryAnnounceSleep())
            return true;
        _poll.Wait(_memory, _queue.DoorbellOffset, descriptor, timeoutMicroseconds);
        if (!_condition.IsOverdueAfterSleep)
            _queue.RetractSleep();
        return true;
    }

    public bool TryWait(RingDoorbell doorbell, int timeoutMicroseconds)
    {
        ObjectDisposedException.ThrowIf(_isEnded, this);
        if (doorbell.IsUnsupported || !CanBeWoken || _condition.IsOverdue)
            return false;
        // Not asleep: the caller's ring is still entered, for what it prepared.
        bool isAnnounced = _queue.TryAnnounceSleep();
        doorbell.Wait(_memory, _queue.DoorbellOffset, isAnnounced ? timeoutMicroseconds : 0);
        if (isAnnounced && !_condition.IsOverdueAfterSleep)
            _queue.RetractSleep();
        return true;
    }

    public void Interrupt() => _sleeper.Interrupt();

    /// <summary>
    /// Ends every outstanding request at once, gives the queue back, and returns the completions that the user has not
    /// taken: those that had arrived, and ESHUTDOWN (EIO if the device has failed) for the others. Those may be executed
    /// or not. The memory of their payload is not touched again.
    /// </summary>
    /// <param name="isPolledOn">
    /// The channel is polled on by the next user at once, so that new requests of the device can wait for those that were
    /// ended here.
    /// </param>
    public BlockCompletion[] End(bool isPolledOn)
    {
        if (_isEnded)
            return [];
        _queue.EndRequests(_state.Failure is null ? Errno.ESHUTDOWN : Errno.EIO, isPolledOn);
        var completions = new BlockCompletion[_queue.Outstanding];
        int count = _queue.TakeAnswers(completions);
        if (count != completions.Length)
            throw new InvalidOperationException($"{count} of {completions.Length} requests ended with their queue");
        _isEnded = true;
        _queue.KeptBuffer = null;
        _buffers?.ReleaseReference();
        _poll?.Dispose();
        _sleeper.Dispose();
        _takeBack();
        return completions;
    }

    /// <summary>As <see cref="End"/> when the device ends: drops the completions.</summary>
    public void Dispose() => End(isPolledOn: false);
}
