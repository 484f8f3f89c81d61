using Cbd.Memory.Store;

namespace Cbd.Memory.Sockets;

/// <summary>
/// Listening sockets that a service manager opened for this process (<see cref="GivenDescriptors"/>), by their names. Thread-safe.
/// </summary>
public sealed class GivenSockets : IDisposable
{
    private readonly Lock _lock = new();
    private readonly Dictionary<string, StreamSocket> _sockets = [];
    private readonly HashSet<string> _taken = [];

    /// <summary>None.</summary>
    public static GivenSockets None { get; } = new();

    /// <summary>Takes over descriptors that a service manager passed.</summary>
    /// <exception cref="CbdException">One is no listening socket, or has no name of its own.</exception>
    public static GivenSockets Own(IEnumerable<GivenDescriptor> descriptors)
    {
        var given = new GivenSockets();
        try
        {
            foreach ((string name, int number) in descriptors)
            {
                StreamSocket socket = StreamSocket.TryOwnListening(number, out string fault)
                    ?? throw GivenDescriptors.Invalid($"descriptor {number} ('{name}') is {fault}; pass listening stream sockets alone");
                if (!given._sockets.TryAdd(name, socket))
                {
                    socket.Dispose();
                    throw GivenDescriptors.Invalid($"two sockets are named '{name}'; give each a FileDescriptorName= of its own");
                }
            }
        }
        catch
        {
            given.Dispose();
            throw;
        }

        return given;
    }

    /// <summary>
    /// Another descriptor of the socket of that name, for one user at a time; <see cref="GiveBack"/> lets the next one have
    /// it. The socket stays open meanwhile and afterwards, so that clients wait instead of being refused.
    /// </summary>
    /// <exception cref="CbdException">There is none of that name, or it is in use.</exception>
    public StreamSocket Take(string name, string purpose)
    {
        lock (_lock)
        {
            if (!_sockets.TryGetValue(name, out StreamSocket? socket))
            {
                string there = _sockets.Count == 0
                    ? "none were"
                    : $"there are {string.Join(", ", _sockets.Keys.Order(StringComparer.Ordinal))}";
                throw new CbdException(
                    CbdErrorKind.NotFound, $"no socket '{name}' was given to this daemon ({there}); name it with FileDescriptorName= in a systemd socket unit of the service");
            }

            if (!_taken.Add(name))
                throw new CbdException(CbdErrorKind.Busy, $"socket '{name}' of the service manager is in use already, so it cannot be {purpose}; give another one");
            return socket.Duplicate();
        }
    }

    /// <summary>Whether there is a socket of that name.</summary>
    public bool Has(string name) => _sockets.ContainsKey(name);

    /// <summary>The taker of this name uses it no more.</summary>
    public void GiveBack(string name)
    {
        lock (_lock)
            _taken.Remove(name);
    }

    public void Dispose()
    {
        lock (_lock)
        {
            foreach (StreamSocket socket in _sockets.Values)
                socket.Dispose();
            _sockets.Clear();
        }
    }
}
