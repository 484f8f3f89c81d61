using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// The futex calls on 32-bit words that several processes of one kernel share (futex(2), futex_waitv in
/// linux/futex.h). Addresses must be mapped and 4-byte aligned.
/// </summary>
internal static unsafe class Futex
{
    /// <summary>Wakes everybody who sleeps on the word. Returns how many; 0 also if the address is not mapped any more.</summary>
    internal static int WakeAll(uint* word)
    {
        nint woken = LibC.SystemCall(SyscallFutex, (nint)word, FutexWakeShared, int.MaxValue, 0, 0, 0);
        return woken < 0 ? 0 : (int)woken;
    }

    /// <summary>
    /// Sleeps while every word has its expected value, until one is woken or the CLOCK_MONOTONIC time
    /// <paramref name="deadline"/>. Returns 0, or the errno: EAGAIN (a value differs), ETIMEDOUT, EINTR, ENOSYS.
    /// </summary>
    internal static int WaitAny(LibC.FutexWaiter* waiters, int count, LibC.TimeSpec deadline)
    {
        nint result = LibC.SystemCall(SyscallFutexWaitV, (nint)waiters, count, 0, (nint)(&deadline), ClockMonotonic, 0);
        return result < 0 ? LibC.LastErrno : 0;
    }
}
