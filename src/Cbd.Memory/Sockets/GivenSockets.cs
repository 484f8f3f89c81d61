using System.Globalization;

namespace Cbd.Memory.Sockets;

/// <summary>
/// Listening sockets that a service manager opened for this process (sd_listen_fds(3)): descriptors from 3 on, their
/// number and names in the environment. Thread-safe.
/// </summary>
public sealed class GivenSockets : IDisposable
{
    /// <summary>The name that a service manager gives to a descriptor without one.</summary>
    private const string NoName = "unknown";
    private const int FirstDescriptor = 3;

    /// <summary>Far more than anybody passes; the name of each takes space in the environment.</summary>
    private const int MaxSockets = 1024;

    private readonly Lock _lock = new();
    private readonly Dictionary<string, StreamSocket> _sockets = [];
    private readonly HashSet<string> _taken = [];

    /// <summary>None.</summary>
    public static GivenSockets None { get; } = new();

    /// <summary>
    /// Takes what LISTEN_PID, LISTEN_FDS and LISTEN_FDNAMES name, and removes the three from this process's environment,
    /// so that no child believes that they mean it. None if they are not there or are another process's.
    /// </summary>
    /// <exception cref="CbdException">They are wrong, or a descriptor is no listening socket, or has no name of its own.</exception>
    public static GivenSockets TakeFromEnvironment()
    {
        string? process = Take("LISTEN_PID");
        string? count = Take("LISTEN_FDS");
        string? names = Take("LISTEN_FDNAMES");
        if (process is null || count is null)
            return None;
        if (!int.TryParse(process, NumberStyles.None, CultureInfo.InvariantCulture, out int processId))
            throw Invalid($"LISTEN_PID is '{process}' and not a process id");
        return processId == Environment.ProcessId ? Own(count, names) : None;
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

    private static string? Take(string variable)
    {
        string? value = Environment.GetEnvironmentVariable(variable);
        Environment.SetEnvironmentVariable(variable, null);
        return string.IsNullOrEmpty(value) ? null : value;
    }

    private static GivenSockets Own(string countText, string? namesText)
    {
        if (!int.TryParse(countText, NumberStyles.None, CultureInfo.InvariantCulture, out int count) || count > MaxSockets)
            throw Invalid($"LISTEN_FDS is '{countText}' and not a number up to {MaxSockets}");
        string[] names = namesText?.Split(':') ?? [.. Enumerable.Repeat(NoName, count)];
        if (names.Length != count)
            throw Invalid($"LISTEN_FDNAMES has {names.Length} names ('{namesText}') and LISTEN_FDS is {count}");
        var given = new GivenSockets();
        try
        {
            for (int i = 0; i < count; i++)
            {
                StreamSocket socket = StreamSocket.TryOwnListening(FirstDescriptor + i, out string fault)
                    ?? throw Invalid($"descriptor {FirstDescriptor + i} ('{names[i]}') is {fault}; pass listening stream sockets alone");
                if (!given._sockets.TryAdd(names[i], socket))
                {
                    socket.Dispose();
                    throw Invalid($"two sockets are named '{names[i]}'; give each a FileDescriptorName= of its own");
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

    private static CbdException Invalid(string what) => new(CbdErrorKind.Invalid, $"the sockets of the service manager cannot be used: {what}");
}
