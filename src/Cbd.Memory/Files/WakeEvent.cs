using Microsoft.Win32.SafeHandles;

namespace Cbd.Memory;

/// <summary>
/// One sleeper, any number of wakers. A signal ends the sleep that is under way or the next one. It costs a system call
/// only while the sleeper sleeps. <see cref="Signal"/> may be called by any thread, the rest by one thread at a time.
/// </summary>
public sealed unsafe class WakeEvent : IDisposable
{
    private readonly SafeFileHandle _event;
    private int _signalled;
    private int _asleep;

    /// <exception cref="CbdException">No descriptor is left.</exception>
    public WakeEvent()
    {
        int descriptor = FileCalls.eventfd(0, FileCalls.EventNonBlocking | FileCalls.EventCloseOnExec);
        if (descriptor < 0)
        {
            throw new CbdException(
                CbdErrorKind.Exhausted,
                $"no descriptor for an event (errno {FileCalls.LastErrno}); raise the limit of open files (ulimit -n)");
        }
        _event = new SafeFileHandle(descriptor, ownsHandle: true);
    }

    /// <summary>The eventfd, for a ring that polls it; valid until <see cref="Dispose"/>.</summary>
    internal int Descriptor => (int)_event.DangerousGetHandle();

    /// <summary>Ends the sleep that is under way, or the next one.</summary>
    public void Signal()
    {
        // The exchange is a full fence between the signal and the look at the sleeper; it pairs with PrepareSleep,
        // which announces the sleep before it looks at the signal. So one of the two sees the other.
        if (Interlocked.Exchange(ref _signalled, 1) != 0 || Volatile.Read(ref _asleep) == 0)
            return;
        bool held = false;
        try
        {
            _event.DangerousAddRef(ref held);
            ulong one = 1;
            // SAFETY: writes 8 bytes from the stack to a descriptor that is held open. EAGAIN means that it is
            // readable already, which is all that is wanted.
            _ = FileCalls.write(Descriptor, &one, sizeof(ulong));
        }
        catch (ObjectDisposedException)
        {
            // The sleeper is gone; nobody is left to be woken.
        }
        finally
        {
            if (held)
                _event.DangerousRelease();
        }
    }

    /// <summary>Sleeps until signalled or until the time is over; may end early.</summary>
    public void Wait(int timeoutMicroseconds)
    {
        if (PrepareSleep() && timeoutMicroseconds > 0)
        {
            var timeout = FileCalls.TimeSpec.FromMicroseconds(timeoutMicroseconds);
            var descriptor = new FileCalls.PollDescriptor { Descriptor = Descriptor, Events = FileCalls.PollIn };
            // SAFETY: both structures live on this stack frame for the length of the call.
            if (FileCalls.ppoll(&descriptor, 1, &timeout, null) > 0)
                Drain();
        }
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
    public void Drain()
    {
        ulong count;
        // SAFETY: reads 8 bytes to the stack; the descriptor does not block.
        _ = FileCalls.read(Descriptor, &count, sizeof(ulong));
    }

    public void Dispose() => _event.Dispose();
}
