using Cbd.Memory.Sockets;

namespace Cbd.Memory.Store;

/// <summary>A connection that a process before this one handed over, and what is known of it. Belongs to whoever took it.</summary>
/// <param name="Id">Its random number, as in the names in the store.</param>
/// <param name="Socket">A stream socket that does not listen; the peer may be gone.</param>
/// <param name="State">A file in memory. What is in it is not checked.</param>
public sealed record KeptConnection(string Id, StreamSocket Socket, FileDescriptor State);

/// <summary>
/// Connections of clients that one process of a daemon hands to the next, by the names of the devices. Each is a socket and a file in memory with what
/// was negotiated, under one random number that is never used again. Thread-safe.
/// </summary>
/// <remarks>
/// The state is of the moment in which a process stopped to read from the socket. So a connection leaves the store, for sure, before the next process
/// reads from it: a third one must never find the same state again.
/// </remarks>
public sealed class KeptConnections : IDisposable
{
    private const int IdDigits = 16;

    private readonly Lock _lock = new();
    private readonly DescriptorStore? _store;
    private readonly Action<string> _log;
    private readonly List<Pair> _given = [];

    /// <summary>Takes those of the process before out of the store's hands.</summary>
    /// <param name="store">The store; null if there is none, and nothing is kept.</param>
    /// <param name="log">Gets a line for what cannot be used.</param>
    public KeptConnections(DescriptorStore? store, Action<string> log)
    {
        _store = store;
        _log = log;
        foreach (string name in store?.Given ?? [])
        {
            string? prefix = PrefixOf(name);
            if (prefix is null || store!.TryTake(name) is not { } descriptor)
                continue;
            if (!TryParse(name[prefix.Length..], out string device, out string id))
            {
                _log($"descriptor '{name}' of the descriptor store belongs to no connection: it is closed");
                descriptor.Dispose();
                store.Remove(name);
                continue;
            }

            Pair? pair = _given.Find(pair => pair.Device == device && pair.Id == id);
            if (pair is null)
                _given.Add(pair = new Pair(device, id));
            if (prefix == StoredName.NbdStatePrefix)
                pair.State = descriptor;
            else
                pair.Socket = descriptor;
        }
    }

    /// <summary>Somebody would keep connections.</summary>
    public bool IsThere => _store is { IsGone: false };

    /// <summary>
    /// Hands connections to the next process. Those that are kept are in the store when this returns; the caller closes its own descriptors, and must
    /// have stopped to use the sockets before.
    /// </summary>
    /// <param name="device">Name of the device.</param>
    /// <param name="connections">Their sockets and files in memory; stay the caller's.</param>
    /// <returns>For each of them, in their order: null, or why it is not kept.</returns>
    public IReadOnlyList<string?> Keep(string device, IReadOnlyList<(StreamSocket Socket, FileDescriptor State)> connections)
    {
        var faults = new string?[connections.Count];
        var names = new (string Socket, string State)[connections.Count];
        for (int i = 0; i < faults.Length; i++)
        {
            string id = $"{device}-{BitConverter.ToUInt64(Guid.NewGuid().ToByteArray().AsSpan(8)):x16}";
            names[i] = (StoredName.NbdConnectionPrefix + id, StoredName.NbdStatePrefix + id);
            faults[i] = Try(store =>
            {
                store.Keep(names[i].State, connections[i].State);
                store.Keep(names[i].Socket, connections[i].Socket.File);
            });
        }

        string? fault = Try(store =>
        {
            foreach ((string name, string why) in store.ConfirmEach([.. names.SelectMany(pair => new[] { pair.Socket, pair.State })]))
                faults[Array.FindIndex(names, pair => pair.Socket == name || pair.State == name)] ??= $"the descriptor store refused it: {why}";
        });
        for (int i = 0; i < faults.Length; i++)
        {
            faults[i] ??= fault;
            if (faults[i] is not null)
                Remove(names[i].Socket, names[i].State);
        }

        return faults;
    }

    /// <summary>
    /// The connections that were handed over for a device, once. They are in the store no more. What is no such connection is closed, and a line
    /// says so.
    /// </summary>
    public IReadOnlyList<KeptConnection> Take(string device)
    {
        List<Pair> pairs = TakeOut(pair => pair.Device == device);
        if (pairs.Count == 0)
            return [];
        foreach (Pair pair in pairs)
            Remove(pair);
        string? fault = Try(static store => store.Confirm());
        if (fault is not null && IsThere)
        {
            _log($"{pairs.Count} connection(s) of device {device} that were handed over are closed: {fault}");
            pairs.ForEach(static pair => pair.Dispose());
            return [];
        }

        List<KeptConnection> connections = [];
        foreach (Pair pair in pairs)
        {
            string? half = pair.Socket is null ? "its socket" : pair.State is null ? "its state" : null;
            string wrong = "";
            StreamSocket? socket = half is null ? StreamSocket.TryOwnConnected(pair.Socket!, out wrong) : null;
            if (socket is not null)
            {
                connections.Add(new KeptConnection(pair.Id, socket, pair.State!));
                continue;
            }

            _log(half is not null
                ? $"connection {pair.Id} of device {device} was handed over without {half}: it is closed"
                : $"what was handed over as connection {pair.Id} of device {device} is {wrong}: it is closed");
            pair.Dispose();
        }

        return connections;
    }

    /// <summary>Closes those of devices which nobody wants any more.</summary>
    /// <param name="isWanted">Whether a device of that name is still to come.</param>
    public void CloseUnwanted(Predicate<string> isWanted)
    {
        List<Pair> unwanted = TakeOut(pair => !isWanted(pair.Device));
        if (unwanted.Count == 0)
            return;
        foreach (Pair pair in unwanted)
        {
            pair.Dispose();
            Remove(pair);
        }

        foreach (IGrouping<string, Pair> device in unwanted.GroupBy(static pair => pair.Device))
            _log($"{device.Count()} connection(s) that were handed over for device {device.Key} are closed: nobody wants that device any more");
        // The clients see the end when the manager has closed its descriptors, too.
        if (Try(static store => store.Confirm()) is { } fault && IsThere)
            _log($"connections of devices that nobody wants may still be open: {fault}");
    }

    /// <summary>Closes what was not taken; the store keeps it.</summary>
    public void Dispose()
    {
        foreach (Pair pair in TakeOut(static _ => true))
            pair.Dispose();
    }

    private static string? PrefixOf(string name) =>
        name.StartsWith(StoredName.NbdConnectionPrefix, StringComparison.Ordinal) ? StoredName.NbdConnectionPrefix
        : name.StartsWith(StoredName.NbdStatePrefix, StringComparison.Ordinal) ? StoredName.NbdStatePrefix
        : null;

    /// <summary>The name of a device may have a '-' in it.</summary>
    private static bool TryParse(string text, out string device, out string id)
    {
        int dash = text.Length - IdDigits - 1;
        bool isOne = dash > 0 && text[dash] == '-' && text[(dash + 1)..].All(char.IsAsciiHexDigitLower);
        device = isOne ? text[..dash] : "";
        id = isOne ? text[(dash + 1)..] : "";
        return isOne;
    }

    private List<Pair> TakeOut(Predicate<Pair> isMeant)
    {
        lock (_lock)
        {
            List<Pair> taken = _given.FindAll(isMeant);
            _given.RemoveAll(isMeant);
            return taken;
        }
    }

    private void Remove(Pair pair) =>
        Remove(StoredName.NbdConnectionPrefix + pair.Device + "-" + pair.Id, StoredName.NbdStatePrefix + pair.Device + "-" + pair.Id);

    private void Remove(string socket, string state)
    {
        _store?.Remove(socket);
        _store?.Remove(state);
    }

    private string? Try(Action<DescriptorStore> work)
    {
        if (_store is null)
            return "there is no descriptor store";
        try
        {
            work(_store);
            return null;
        }
        catch (CbdException e)
        {
            return e.Message;
        }
    }

    private sealed class Pair(string device, string id) : IDisposable
    {
        internal string Device { get; } = device;
        internal string Id { get; } = id;
        internal FileDescriptor? Socket;
        internal FileDescriptor? State;

        public void Dispose()
        {
            Socket?.Dispose();
            State?.Dispose();
        }
    }
}
