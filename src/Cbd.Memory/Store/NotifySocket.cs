using System.Text;
using Cbd.Memory.Sockets;

namespace Cbd.Memory.Store;

/// <summary>
/// The way to the service manager of this process (sd_notify(3)): systemd, or the supervisor. Thread-safe; nothing waits longer than a
/// moment, and nobody fails because the manager does not listen.
/// </summary>
public sealed class NotifySocket : IDisposable
{
    /// <summary>How long a message may wait for a manager that is busy.</summary>
    public const int SendMs = 5_000;

    private readonly DatagramSocket _socket;
    private volatile bool _isGone;

    /// <param name="socket">Sends to the manager; is owned.</param>
    public NotifySocket(DatagramSocket socket) => _socket = socket;

    /// <summary>The manager has ended: what was in its store is gone, as far as this process is concerned.</summary>
    public bool IsGone => _isGone;

    /// <summary>
    /// Reads NOTIFY_SOCKET and removes it from this process's environment. Null if it is not there, or nobody listens there.
    /// </summary>
    /// <exception cref="CbdException">It is no address.</exception>
    public static NotifySocket? TryFromEnvironment() =>
        GivenDescriptors.TakeVariable("NOTIFY_SOCKET") is { } name && DatagramSocket.TryConnect(name, out _) is { } socket ? new NotifySocket(socket) : null;

    /// <summary>Tells the manager something; what cannot be said is not.</summary>
    /// <param name="lines">Such as <c>READY=1</c>.</param>
    public void Say(params ReadOnlySpan<string> lines) => _ = TrySend(string.Join('\n', lines!), null, 100);

    /// <summary>What this process does now, in one line.</summary>
    public void SayStatus(string status) => Say($"STATUS={status.ReplaceLineEndings(" ")}");

    /// <summary>Returns 0 or a negative errno.</summary>
    internal int TrySend(string text, FileDescriptor? descriptor, int timeoutMs)
    {
        int error = _socket.TrySend(Encoding.UTF8.GetBytes(text), descriptor, timeoutMs);
        if (error is -Errno.ECONNREFUSED or -Errno.ENOENT or -Errno.ENOTCONN or -Errno.ECONNRESET)
            _isGone = true;
        return error;
    }

    public void Dispose() => _socket.Dispose();
}
