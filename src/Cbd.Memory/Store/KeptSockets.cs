using System.Net;
using Cbd.Memory.Sockets;

namespace Cbd.Memory.Store;

/// <summary>
/// Listening sockets of devices that outlive their daemon, by the names of the devices. While no daemon runs, the socket stays bound, and
/// clients wait in its queue. Thread-safe.
/// </summary>
public sealed class KeptSockets : IDisposable
{
    private readonly Lock _lock = new();
    private readonly DescriptorStore? _store;
    private readonly Action<string> _log;
    private readonly Dictionary<string, StreamSocket> _sockets = [];

    /// <summary>Takes those of the process before out of the store's hands. What is no listening socket is closed, and removed from the store.</summary>
    /// <param name="store">The store; null if there is none, and nothing is kept.</param>
    /// <param name="log">Gets a line for each that cannot be used.</param>
    public KeptSockets(DescriptorStore? store, Action<string> log)
    {
        _store = store;
        _log = log;
        foreach (string name in store?.Given ?? [])
        {
            if (!name.StartsWith(StoredName.NbdPrefix, StringComparison.Ordinal) || store!.TryTake(name) is not { } descriptor)
                continue;
            if (StreamSocket.TryOwnListening(descriptor, out string fault) is { } socket)
            {
                _sockets.Add(name[StoredName.NbdPrefix.Length..], socket);
                continue;
            }

            _log($"descriptor '{name}' of the descriptor store is {fault}: it is closed");
            descriptor.Dispose();
            store.Remove(name);
        }
    }

    /// <summary>There is no store.</summary>
    public static KeptSockets None { get; } = new(null, static _ => { });

    /// <summary>
    /// The socket that was kept for a device, if it is bound to that address now. If it is bound elsewhere, or its file is not there any more, it is
    /// closed for good before this returns, so that the address is free, and one line says so.
    /// </summary>
    /// <param name="device">Name of the device.</param>
    /// <param name="path">Of a Unix socket; null for TCP.</param>
    /// <param name="address">Of TCP; port 0 is any.</param>
    /// <param name="file">What has the name of the Unix socket now; null if nothing has.</param>
    public StreamSocket? TryTake(string device, string? path, IPEndPoint? address, FileStatus? file)
    {
        StreamSocket? socket;
        lock (_lock)
        {
            if (!_sockets.Remove(device, out socket))
                return null;
        }

        string? fault = FindFault(socket, path, address, file, out string place);
        if (fault is null)
            return socket;
        _log($"the socket that was kept for device {device} {fault}: it is closed, and the device gets a new one");
        Close(device, socket, place);
        return null;
    }

    /// <summary>
    /// Keeps the socket of a device. Without a store, or after it has ended, nothing happens but a line in the log.
    /// </summary>
    /// <exception cref="CbdException">The store is full, or does not answer; the socket is not kept.</exception>
    public void Keep(string device, StreamSocket socket)
    {
        if (_store is null)
            return;
        string name = StoredName.NbdPrefix + device;
        try
        {
            _store.Keep(name, socket.File);
            _store.Confirm(name);
        }
        catch (StoreGoneException e)
        {
            _log($"the socket of device {device} is not kept: {e.Message}");
        }
        catch (CbdException)
        {
            _store.Remove(name);
            throw;
        }
    }

    /// <summary>The start of a device came to nothing: the next one finds its socket again, and clients wait on.</summary>
    public void GiveBack(string device, StreamSocket socket)
    {
        lock (_lock)
        {
            if (_sockets.TryAdd(device, socket))
                return;
        }

        socket.Dispose();
    }

    /// <summary>
    /// The device is over: closes its socket, which is kept no more. When this returns, the address is free, unless a line in the log says otherwise.
    /// </summary>
    /// <param name="device">Name of the device.</param>
    /// <param name="socket">Its socket.</param>
    /// <param name="place">Where it is bound, for the log.</param>
    public void Close(string device, StreamSocket socket, string place)
    {
        socket.Dispose();
        if (_store is null)
            return;
        _store.Remove(StoredName.NbdPrefix + device);
        if (_store.IsGone)
            return;
        try
        {
            // The manager's descriptor is closed, too, when it has answered.
            _store.Confirm();
        }
        catch (CbdException e)
        {
            _log($"the socket of device {device} at '{place}' may still be open: {e.Message}");
        }
    }

    /// <summary>Closes those that were kept for devices which nobody wants any more, and removes their files: clients are refused.</summary>
    /// <param name="isWanted">Whether a device of that name is still to come.</param>
    public void CloseUnwanted(Predicate<string> isWanted)
    {
        List<(string Device, StreamSocket Socket)> unwanted = [];
        lock (_lock)
        {
            foreach (string device in _sockets.Keys.Where(device => !isWanted(device)).ToList())
            {
                _sockets.Remove(device, out StreamSocket? socket);
                unwanted.Add((device, socket!));
            }
        }

        foreach ((string device, StreamSocket socket) in unwanted)
        {
            string? place = socket.TryGetFile(out FileStatus own) ?? socket.GetPlace()?.UnixPath;
            // Somebody may have put another socket there. Where that cannot be told, a socket of this user is taken for this one.
            if (place is not null && FileStatus.TryGet(place, out FileStatus now, followLinks: false) == 0 && now.Type == FileType.Socket &&
                (own.Type == FileType.Socket ? now.IsSameFile(own) : now.OwnerId == ControlSyscalls.EffectiveUserId))
                _ = StreamSocket.Unlink(place);
            _log($"the socket that was kept for device {device} is closed: nobody wants that device any more");
            Close(device, socket, place ?? "");
        }
    }

    /// <summary>Closes what was not taken; the store keeps it.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            foreach (StreamSocket socket in _sockets.Values)
                socket.Dispose();
            _sockets.Clear();
        }
    }

    private static string? FindFault(StreamSocket socket, string? path, IPEndPoint? address, FileStatus? file, out string place)
    {
        SocketPlace? bound = socket.GetPlace();
        string? own = socket.TryGetFile(out FileStatus status) ?? bound?.UnixPath;
        place = own ?? bound?.Address?.ToString() ?? "nowhere";
        if (path is null)
        {
            return bound?.Address is { } tcp && address is not null && tcp.Address.Equals(address.Address) && (address.Port == 0 || address.Port == tcp.Port)
                ? null
                : $"is bound to '{place}', and not to '{address}'";
        }

        if (file is not { Type: FileType.Socket })
            return $"is bound to '{place}', and its file '{path}' is not there any more";
        bool isThis = status.Type == FileType.Socket ? status.IsSameFile(file.Value) : own == path;
        return isThis ? null : $"is bound to '{place}', and not to '{path}'";
    }
}
