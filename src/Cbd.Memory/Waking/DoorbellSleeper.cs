using System.Runtime.InteropServices;
using static Cbd.Memory.Errno;
using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>
/// Where one pump thread sleeps until a doorbell of a region is rung, another thread of this process interrupts it, or
/// its time is over.
/// </summary>
/// <remarks>
/// <para>Before <see cref="Wait"/> the sleeper announces its sleep (<see cref="Doorbells"/>) and polls once more; after
/// it, it takes that back.</para>
/// <para><see cref="Wait"/> is for one thread, <see cref="Interrupt"/> for any. Nothing is allocated after
/// construction.</para>
/// </remarks>
public sealed unsafe class DoorbellSleeper : IDisposable
{
    /// <summary>Doorbells that one sleep can watch; one futex of the kernel's 128 is our own.</summary>
    public const int MaximumDoorbells = FutexWaitvMaximum - 1;

    /// <summary>
    /// Longest sleep, µs, where not all doorbells can be watched (more than <see cref="MaximumDoorbells"/>, memory
    /// without futexes, or a kernel before 5.16), unless the caller says otherwise.
    /// </summary>
    public const int UnwatchedSleepMicroseconds = 1000;

    // Values of our own word.
    private const uint Awake = 0;
    private const uint Interrupted = 1;
    private const uint Asleep = 2;

    private static volatile bool s_hasWaitV = true;

    // The words live in one block: waiters first, our own word on a line of its own behind them.
    private readonly LibC.FutexWaiter* _waiters;
    private readonly uint* _own;
    private int _interrupters;
    private volatile bool _isDisposed;

    public DoorbellSleeper()
    {
        int waiterBytes = FutexWaitvMaximum * sizeof(LibC.FutexWaiter);
        byte* block = (byte*)NativeMemory.AlignedAlloc((nuint)waiterBytes + 64, 64);
        new Span<byte>(block, waiterBytes + 64).Clear();
        _waiters = (LibC.FutexWaiter*)block;
        _own = (uint*)(block + waiterBytes);
    }

    ~DoorbellSleeper() => NativeMemory.AlignedFree(_waiters);

    /// <summary>
    /// Sleeps while every doorbell holds 1 and nobody interrupts, at most <paramref name="timeoutMicroseconds"/>. May
    /// return early. <paramref name="doorbells"/>: offsets of the 64-bit words in <paramref name="memory"/>.
    /// </summary>
    /// <param name="unwatchedMicroseconds">
    /// The timeout where <paramref name="memory"/> has no futexes or the doorbells are too many: how long news may wait.
    /// </param>
    public void Wait(
        in MappedMemory memory, ReadOnlySpan<long> doorbells, int timeoutMicroseconds, int unwatchedMicroseconds = UnwatchedSleepMicroseconds)
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        if (timeoutMicroseconds <= 0 || Interlocked.CompareExchange(ref *_own, Asleep, Awake) != Awake)
        {
            // Interrupted before: that interrupt is for this sleep.
            Interlocked.Exchange(ref *_own, Awake);
            return;
        }

        int watched = memory.Wakes ? Math.Min(doorbells.Length, MaximumDoorbells) : 0;
        if (watched < doorbells.Length)
            timeoutMicroseconds = Math.Min(timeoutMicroseconds, unwatchedMicroseconds);
        _waiters[0] = new LibC.FutexWaiter { Value = Asleep, Address = (ulong)_own, Flags = Futex2Size32 };
        for (int i = 0; i < watched; i++)
            _waiters[i + 1] = new LibC.FutexWaiter { Value = 1, Address = (ulong)memory.DoorbellAddress(doorbells[i]), Flags = Futex2Size32 };
        Sleep(watched + 1, timeoutMicroseconds);
        // A full fence: what an interrupter stored before it is seen by the poll after this.
        Interlocked.Exchange(ref *_own, Awake);
    }

    /// <summary>Ends the <see cref="Wait"/> that runs, or the next one. Does nothing once this is disposed.</summary>
    public void Interrupt()
    {
        // A full fence between the count and the look; it pairs with the one in Dispose, so that one of the two sees the other.
        Interlocked.Increment(ref _interrupters);
        if (!_isDisposed && Interlocked.Exchange(ref *_own, Interrupted) == Asleep)
            _ = Futex.WakeAll(_own);
        Interlocked.Decrement(ref _interrupters);
    }

    /// <summary><see cref="Wait"/> may neither run nor come later; <see cref="Interrupt"/> may do both.</summary>
    public void Dispose()
    {
        if (_isDisposed)
            return;
        _isDisposed = true;
        Interlocked.MemoryBarrier();
        var spin = default(SpinWait);
        while (Volatile.Read(ref _interrupters) != 0)
            spin.SpinOnce();
        NativeMemory.AlignedFree(_waiters);
        GC.SuppressFinalize(this);
    }

    private void Sleep(int count, int timeoutMicroseconds)
    {
        if (s_hasWaitV)
        {
            LibC.TimeSpec deadline = LibC.TimeSpec.FromNanoseconds(KernelClock.MonotonicNs + timeoutMicroseconds * 1000L);
            int error = Futex.WaitAny(_waiters, count, deadline);
            // EFAULT: the region was truncated; the next access finds that out.
            if (error is 0 or EAGAIN or ETIMEDOUT or EINTR or EFAULT)
                return;
            // Missing before 5.16; forbidden in containers whose profile is older than it.
            if (error is ENOSYS or EPERM)
                s_hasWaitV = false;
            else if (error != ENOMEM)
                throw new SystemCallException("futex_waitv", error);
        }

        KernelClock.Sleep(Math.Min(timeoutMicroseconds, UnwatchedSleepMicroseconds));
    }
}
