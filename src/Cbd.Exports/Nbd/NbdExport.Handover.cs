using Cbd.Blocks;
using Cbd.Memory;
using Cbd.Memory.Store;

namespace Cbd.Exports.Nbd;

/// <content>Connections that go on in another process.</content>
internal sealed partial class NbdExport
{
    private IBlockDevice? _served;

    /// <inheritdoc/>
    public bool TryPark()
    {
        lock (_lock)
        {
            if (_stopped || !_isServing || _device is null || !_kept.IsThere)
                return false;
            _stopped = true;
            // Who is in a handshake ends here; who comes now waits in the queue of the socket.
            _acceptor!.Dispose();
            foreach (NbdPump pump in _pumps)
                pump.RequestPark();
            long end = Environment.TickCount64 + _patience.ParkMs;
            foreach (NbdPump pump in _pumps)
                pump.EndPark(end - Environment.TickCount64);
            HandToStore([.. _pumps.SelectMany(static pump => pump.TakeParked())]);
            _listener.Park();
            _tls?.End(Math.Max(0, end - Environment.TickCount64) + _patience.ParkMs);
            foreach (NbdPump pump in _pumps)
                pump.Dispose();
            Volatile.Write(ref _pumps, []);
            return true;
        }
    }

    /// <summary>Stores the connections, and closes them here: who is not in the store sees the end.</summary>
    private void HandToStore(List<NbdConnection> connections)
    {
        List<(NbdConnection Connection, SealedMemory State)> stored = [];
        string? fault = null;
        try
        {
            foreach (NbdConnection connection in connections)
            {
                try
                {
                    stored.Add((connection, StateOf(connection).Store()));
                }
                catch (Exception e) when (e is CbdException or OutOfMemoryException)
                {
                    fault ??= e.Message;
                }
            }

            IReadOnlyList<string?> faults = _kept.Keep(_device!, [.. stored.Select(static pair => (pair.Connection.Socket, pair.State.Descriptor))]);
            int kept = faults.Count(static why => why is null);
            if (kept != 0)
                _log($"{kept} client(s) go on with the next process");
            fault ??= faults.FirstOrDefault(static why => why is not null);
            if (fault is not null)
                _log($"{connections.Count - kept} client(s) were disconnected, because they could not be handed over: {fault}");
        }
        finally
        {
            foreach ((_, SealedMemory state) in stored)
                state.Dispose();
            connections.ForEach(static connection => connection.Dispose());
        }
    }

    private NbdConnectionState StateOf(NbdConnection connection) => new()
    {
        Device = _device!,
        Client = connection.Id,
        SocketCookie = connection.Socket.Cookie,
        Session = connection.Session,
        Told = connection.Told,
        ClientFlags = connection.ClientFlags,
        DurabilityId = _served!.Info.DurabilityId,
        Input = connection.Untaken.ToArray(),
    };

    /// <summary>Goes on with the connections that the process before handed over; returns the highest number of their clients, or 0.</summary>
    private long TakeOver(IBlockDevice device)
    {
        if (_device is null)
            return 0;
        long last = 0;
        int taken = 0;
        NbdExportInfo now = NbdExportInfo.Describe(device.Info);
        foreach (KeptConnection kept in _kept.Take(_device))
        {
            string? fault;
            try
            {
                fault = TryTakeOver(kept, now, device.Info.DurabilityId, ref last);
            }
            catch (Exception e) when (e is CbdException or OutOfMemoryException)
            {
                fault = e.Message;
            }

            kept.State.Dispose();
            if (fault is null)
            {
                taken++;
                continue;
            }

            kept.Socket.Dispose();
            _log($"connection {kept.Id}, which the process before handed over, is closed: {fault}");
        }

        if (taken != 0)
            _log($"{taken} client(s) of the process before go on");
        return last;
    }

    /// <summary>Null, or why the connection cannot go on.</summary>
    private string? TryTakeOver(KeptConnection kept, NbdExportInfo now, Guid durabilityId, ref long last)
    {
        NbdConnectionState state = NbdConnectionState.Load(kept.State);
        ulong cookie = kept.Socket.Cookie;
        if (state.SocketCookie != 0 && cookie != 0 && state.SocketCookie != cookie)
            return $"its state is of socket {state.SocketCookie}, and it is socket {cookie}";
        if (_tls is { IsRequired: true })
            return "it is not encrypted, and the device is started with --tls require";
        if (state.FindMisfit(_device!, now, durabilityId) is { } misfit)
            return misfit;
        var connection = new NbdConnection(state.Client, kept.Socket, state.Input.Span)
        {
            Session = state.Session,
            Told = state.Told,
            ClientFlags = state.ClientFlags,
        };
        if (!TryAdmit())
        {
            connection.Dispose();
            return $"{_options.Connections} clients are connected, which is the limit; start the device with a larger --nbd-connections";
        }

        last = Math.Max(last, state.Client);
        HandOver(connection);
        return null;
    }
}
