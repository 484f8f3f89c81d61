namespace Cbd.Memory;

/// <summary>
/// One sleeper, any number of wakers. A signal ends the sleep that is under way or the next one. It costs a system call
/// only while the sleeper sleeps. <see cref="Signal"/> may be called by any thread, the rest by one thread at a time.
/// </summary>
public sealed class WakeEvent : IDisposable
{
    private readonly PollWake _event = new();
    private int _signalled;
    private int _asleep;

    /// <summary>The eventfd, for a ring that polls it.</summary>
    internal FileDescriptor Descriptor => _event.Descriptor;

    /// <summary>Ends the sleep that is under way, or the next one.</summary>
    public void Signal()
    {
        // The exchange is a full fence between the signal and the look at the sleeper; it pairs with PrepareSleep,
        // which announces the sleep before it looks at the signal. So one of the two sees the other.
        if (Interlocked.Exchange(ref _signalled, 1) != 0 || Volatile.Read(ref _asleep) == 0)
            return;
        _event.Signal();
    }

    /// <summary>Sleeps until signalled or until the time is over; may end early.</summary>
    public void Wait(int timeoutMicroseconds)
    {
        if (PrepareSleep() && timeoutMicroseconds > 0 && Descriptor.WaitReadable(timeoutMicroseconds))
            Drain();
        EndSleep();
    }

    /// <summary>Announces a sleep; false if there is a signal already, and no reason to sleep.</summary>
    public bool PrepareSleep()
    {
        Interlocked.Exchange(ref _asleep, 1);
        return Volatile.Read(ref _signalled) == 0;
    }

    /// <summary>The sleep is over, or did not happen; what was signalled until now is taken.</summary>
    public void EndSleep()
    {
        Volatile.Write(ref _asleep, 0);
        Interlocked.Exchange(ref _signalled, 0);
    }

    /// <summary>Makes the eventfd unreadable again.</summary>
    public void Drain() => _event.Clear();

    public void Dispose() => _event.Dispose();
}
