using System.Runtime.InteropServices;

namespace Cbd.Memory.Sockets;

/// <summary>An eventfd: any thread wakes the thread whose <see cref="EventPoll"/> watches it.</summary>
public sealed unsafe class PollWake : IDisposable
{
    private int _descriptor;

    public PollWake()
    {
        _descriptor = SocketCalls.EventDescriptor(0, SocketCalls.EFD_CLOEXEC | SocketCalls.EFD_NONBLOCK);
        if (_descriptor < 0)
            throw new CbdException(CbdErrorKind.Failed, $"eventfd failed with errno {Marshal.GetLastPInvokeError()}");
    }

    ~PollWake() => Close();

    internal int Descriptor => _descriptor;

    /// <summary>Wakes the watcher. Everything this thread stored before is visible to it then. Any thread.</summary>
    public void Signal()
    {
        ulong one = 1;
        // SAFETY: eight bytes of this stack. It fails only when 2^64 − 2 signals are pending: awake anyway.
        _ = SocketCalls.Write(_descriptor, &one, sizeof(ulong));
    }

    /// <summary>Forgets the signals so far; called by the watcher before it looks for what they announced.</summary>
    public void Clear()
    {
        ulong count;
        // SAFETY: eight bytes of this stack. It fails with EAGAIN when there was none.
        _ = SocketCalls.Read(_descriptor, &count, sizeof(ulong));
    }

    public void Dispose()
    {
        Close();
        GC.SuppressFinalize(this);
    }

    private void Close()
    {
        int descriptor = Interlocked.Exchange(ref _descriptor, -1);
        if (descriptor >= 0)
            _ = SocketCalls.Close(descriptor);
    }
}
