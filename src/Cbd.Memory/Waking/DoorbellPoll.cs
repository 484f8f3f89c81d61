namespace Cbd.Memory;

/// <summary>
/// Sleeps until a doorbell of a region is rung or a descriptor is readable, whichever comes first, in one system call:
/// an io_uring that holds a futex wait (Linux 6.7) and a poll. One thread at a time; allocates nothing per sleep.
/// </summary>
public sealed class DoorbellPoll : IDisposable
{
    private const ulong PollDone = 1;
    private const ulong FutexDone = 2;

    private readonly IoUring _ring;
    private bool _pollArmed;
    private bool _futexArmed;

    private DoorbellPoll(IoUring ring) => _ring = ring;

    /// <summary>The kernel refused to wait on a futex this way: use short sleeps instead.</summary>
    public bool IsUnsupported { get; private set; }

    /// <summary>Null where io_uring is forbidden or missing.</summary>
    public static DoorbellPoll? TryCreate() =>
        IoUring.TryCreate(4, out IoUring? ring) == 0 ? new DoorbellPoll(ring!) : null;

    /// <summary>
    /// Sleeps at most <paramref name="timeoutMicroseconds"/> while the doorbell holds 1 and the descriptor is not
    /// readable. May return early. The doorbell and the descriptor must be the same in every call.
    /// </summary>
    public void Wait(in MappedMemory memory, long doorbell, int descriptor, int timeoutMicroseconds)
    {
        // What fired while its owner was awake is over; it is armed anew, and fires again if it still holds.
        Reap();
        if (!_pollArmed)
            _pollArmed = _ring.PreparePollDescriptor(descriptor, PollDone);
        if (!_futexArmed)
            _futexArmed = _ring.PrepareFutexWait(memory, doorbell, 1, FutexDone);
        _ring.EnterAndWait(timeoutMicroseconds);
        Reap();
    }

    public void Dispose() => _ring.Dispose();

    private void Reap()
    {
        while (_ring.TryReap(out ulong what, out int result))
        {
            if (what == PollDone)
                _pollArmed = false;
            else
                _futexArmed = false;
            // EAGAIN: the word is not 1 any more. EFAULT: the region was truncated; the next access finds that out.
            if (what == FutexDone && result is -Errno.EINVAL or -Errno.EOPNOTSUPP)
                IsUnsupported = true;
        }
    }
}
