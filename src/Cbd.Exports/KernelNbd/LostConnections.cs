using Cbd.Memory.Sockets;

namespace Cbd.Exports.KernelNbd;

/// <summary>
/// Whether a connection of a device was lost whose requests may be at the device still. The kernel ends a connection before it sends its requests
/// again over another one. So whoever asks this behind each receipt starts nothing that was sent after the loss, until the requests of the lost
/// connection have ended and it was closed. One thread asks; any thread adds.
/// </summary>
internal sealed class LostConnections : Nbd.INbdInputGate, IDisposable
{
    private readonly EventPoll _poll = new(1);

    /// <summary>Looks at a connection too, until it is closed.</summary>
    internal void Watch(StreamSocket socket) => _poll.Add(socket, 0, SocketEvents.PeerClosed);

    /// <inheritdoc/>
    public bool IsOpen => _poll.Wait(0) == 0;

    /// <summary>The other end is closed.</summary>
    internal static bool IsLost(StreamSocket socket)
    {
        using var poll = new EventPoll(1);
        poll.Add(socket, 0, SocketEvents.PeerClosed);
        return poll.Wait(0) != 0;
    }

    public void Dispose() => _poll.Dispose();
}
