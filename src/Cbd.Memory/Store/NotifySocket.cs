using System.Text;
using Cbd.Memory.Sockets;

namespace Cbd.Memory.Store;

/// <summary>
/// The way to the service manager of this process (sd_notify(3)): systemd, or the supervisor. Thread-safe; nothing waits longer than a
/// moment, and nobody fails because the manager does not listen. What it has to know is not lost when its queue is full.
/// </summary>
public sealed class NotifySocket : IDisposable
{
    /// <summary>How long a message may wait for a manager that is busy.</summary>
    public const int SendMs = 5_000;

    /// <summary>How long a message may wait that is not worth more.</summary>
    public const int SayMs = 100;

    private readonly DatagramSocket _socket;
    private readonly Action? _gone;
    private readonly Lock _lock = new();
    private readonly Queue<string> _unsaid = [];
    private readonly ManualResetEventSlim _end = new();
    private Thread? _thread;
    private int _isGone;

    /// <param name="socket">Sends to the manager; is owned.</param>
    /// <param name="gone">Called once, on any thread, when the manager is found to have ended.</param>
    public NotifySocket(DatagramSocket socket, Action? gone = null)
    {
        _socket = socket;
        _gone = gone;
    }

    /// <summary>The manager has ended: what was in its store is gone, as far as this process is concerned.</summary>
    public bool IsGone => Volatile.Read(ref _isGone) != 0;

    /// <summary>
    /// Reads NOTIFY_SOCKET and removes it from this process's environment. Null if it is not there, nobody listens there, or it is of a form that is not
    /// known here, such as that of a virtual machine.
    /// </summary>
    /// <param name="gone">See the constructor.</param>
    public static NotifySocket? TryFromEnvironment(Action? gone = null) =>
        GivenDescriptors.TakeVariable("NOTIFY_SOCKET") is { } name && DatagramSocket.TryConnect(name, out _) is { } socket ? new NotifySocket(socket, gone) : null;

    /// <summary>Tells the manager something that is of use now or never. False if it did not take it within <see cref="SayMs"/>.</summary>
    /// <param name="lines">Such as <c>WATCHDOG=1</c>.</param>
    public bool Say(params ReadOnlySpan<string> lines) => TrySend(string.Join('\n', lines!), null, SayMs) == 0;

    /// <summary>
    /// Tells the manager something that it must know. Where its queue is full, that is said again, in the order of these calls, until it took it or has ended.
    /// </summary>
    /// <param name="lines">Such as <c>READY=1</c>.</param>
    public void SayForSure(params ReadOnlySpan<string> lines)
    {
        string text = string.Join('\n', lines!);
        lock (_lock)
        {
            if (_end.IsSet || IsGone || (_unsaid.Count == 0 && TrySend(text, null, 0) == 0))
                return;
            _unsaid.Enqueue(text);
            if (_thread is not null)
                return;
            var thread = new Thread(SayRest) { IsBackground = true, Name = "cbd-notify" };
            // Without a thread it is said with the next one.
            if (NeededThread.TryBegin(thread))
                _thread = thread;
        }
    }

    /// <summary>What this process does now, in one line.</summary>
    public void SayStatus(string status) => SayForSure($"STATUS={status.ReplaceLineEndings(" ")}");

    /// <summary>Returns 0 or a negative errno.</summary>
    internal int TrySend(string text, FileDescriptor? descriptor, int timeoutMs)
    {
        int error = _socket.TrySend(Encoding.UTF8.GetBytes(text), descriptor, timeoutMs);
        if (error is -Errno.ECONNREFUSED or -Errno.ENOENT or -Errno.ENOTCONN or -Errno.ECONNRESET && Interlocked.Exchange(ref _isGone, 1) == 0)
            _gone?.Invoke();
        return error;
    }

    /// <summary>What was not said until now is not.</summary>
    public void Dispose()
    {
        _end.Set();
        Thread? thread;
        lock (_lock)
            thread = _thread;
        thread?.Join();
        _socket.Dispose();
    }

    private void SayRest()
    {
        while (true)
        {
            string? text;
            lock (_lock)
            {
                if (_end.IsSet || !_unsaid.TryPeek(out text))
                {
                    _thread = null;
                    return;
                }
            }

            int error = TrySend(text, null, SayMs);
            if (error == 0 || IsGone)
            {
                lock (_lock)
                    _unsaid.Dequeue();
            }
            else if (error != -Errno.ETIMEDOUT)
            {
                _ = _end.Wait(SayMs);
            }
        }
    }
}
