namespace Cbd.Memory;

/// <summary>
/// Sleeps in a ring of its owner until one of the owner's requests completes or a doorbell of a region is rung: one
/// system call submits, sleeps and collects (Linux 6.7). One thread at a time; allocates nothing per sleep.
/// </summary>
/// <param name="ring">The owner's, with one entry to spare; it outlives this.</param>
public sealed class RingDoorbell(IoUring ring)
{
    /// <summary>User data of this object's own entry in the ring; the owner uses no such.</summary>
    public const ulong UserData = ulong.MaxValue;

    private bool _armed;

    /// <summary>The kernel refused to wait on a futex this way: use short sleeps instead.</summary>
    public bool IsUnsupported { get; private set; }

    /// <summary>
    /// Submits what was prepared and sleeps at most <paramref name="timeoutMicroseconds"/> while the doorbell holds 1
    /// and nothing completes; 0 only submits. May return early. The doorbell must be the same in every call.
    /// </summary>
    public void Wait(in MappedMemory memory, long doorbell, int timeoutMicroseconds)
    {
        if (timeoutMicroseconds <= 0)
        {
            ring.Enter();
            return;
        }

        // One that is armed since an earlier sleep waits for the same word still.
        if (!_armed)
            _armed = ring.PrepareFutexWait(memory, doorbell, 1, UserData);
        ring.EnterAndWait(timeoutMicroseconds);
    }

    /// <summary>The owner reaped a completion: true if it was of the doorbell, and is dealt with.</summary>
    public bool TryTake(ulong userData, int result)
    {
        if (userData != UserData)
            return false;
        _armed = false;
        // EAGAIN: the word was not 1 any more. EFAULT: the region was truncated; the next access finds that out.
        if (result is -Errno.EINVAL or -Errno.EOPNOTSUPP)
            IsUnsupported = true;
        return true;
    }
}
