using Cbd.Memory;

namespace Cbd.Exports.Nbd;

/// <content>The end of a pump whose clients go on in another process.</content>
internal sealed partial class NbdPump
{
    private readonly List<NbdConnection> _parked = [];

    /// <summary>
    /// Asks the thread to bring each client without TLS to the end of a request, to set its connection aside then, and to end when all of them are. Any
    /// thread, not after <see cref="RequestStop"/>.
    /// </summary>
    internal void RequestPark()
    {
        _parkRequested = true;
        _wake.Signal();
    }

    /// <summary>
    /// Waits until all clients are set aside or gone, or time is over: then those that are left are disconnected, whatever they have begun.
    /// </summary>
    /// <param name="limitMs">How long.</param>
    internal void EndPark(long limitMs)
    {
        if (!_thread.Join((int)Math.Clamp(limitMs, 0, int.MaxValue)))
        {
            _parkEnds = true;
            _wake.Signal();
            _thread.Join();
        }
    }

    /// <summary>The connections that were set aside; the caller's from now on. After <see cref="EndPark"/>.</summary>
    internal IReadOnlyList<NbdConnection> TakeParked() => _parked;

    /// <summary>All there was to do before the end is done, or its time is over.</summary>
    private bool IsStopped()
    {
        if (_parking)
            SetAside();
        if (_clientCount == _parked.Count || _now >= _stopDeadline)
            return true;
        if (_parkEnds)
            LogUnsettled();
        return _parkEnds;
    }

    private void BeginPark()
    {
        _stopping = true;
        _parking = true;
        _stalled.Clear();
        _stalledLarge.Clear();
        foreach (NbdConnection? connection in _connections)
        {
            if (connection is not null)
                PrepareToPark(connection);
        }
    }

    /// <summary>
    /// From now on the client begins nothing. A header that was taken goes back to what was received, and so does the beginning of a payload, where
    /// there is room; the rest of a longer one is waited for.
    /// </summary>
    private void PrepareToPark(NbdConnection connection)
    {
        if (connection.Ending)
            return;
        if (connection.HasTls)
        {
            // What TLS has agreed upon cannot be handed over.
            EndInput(connection);
            return;
        }

        int index = connection.ReceivingSlot;
        if (connection.HasHeader)
        {
            PutBack(connection, default);
        }
        else if (index >= 0 && _slots[index].Errno == 0 && connection.PayloadReceived <= NbdConnection.InputBytes)
        {
            PutBack(connection, _shares.Buffer.GetSpan(_slots[index].Data.Offset, (int)connection.PayloadReceived));
            connection.ReceivingSlot = -1;
            Release(index);
        }
    }

    /// <summary>Puts the header that was taken last, and what was received of its payload, back before what was not taken.</summary>
    private static void PutBack(NbdConnection connection, ReadOnlySpan<byte> payload)
    {
        Span<byte> input = connection.Input.GetSpan(0, NbdConnection.MaxUntakenBytes);
        int header = connection.Session.ExtendedHeaders ? NbdProtocol.ExtendedRequestBytes : NbdProtocol.RequestBytes;
        Span<byte> untaken = connection.Untaken;
        untaken.CopyTo(input[(header + payload.Length)..]);
        payload.CopyTo(input[header..]);
        connection.Header.Encode(input);
        connection.InputStart = 0;
        connection.InputEnd = header + payload.Length + untaken.Length;
        connection.HasHeader = false;
    }

    /// <summary>Takes the clients out whose requests are all answered, to the last byte.</summary>
    private void SetAside()
    {
        for (int index = 0; index < _connections.Length; index++)
        {
            if (_connections[index] is not { Ending: false, SlotsInUse: 0 } connection)
                continue;
            try
            {
                _poll.Remove(connection.Socket);
            }
            catch (CbdException error)
            {
                Break(connection, error.Message);
                continue;
            }

            connection.Ending = true;
            _connections[index] = null;
            _parked.Add(connection);
        }
    }

    private void LogUnsettled()
    {
        int count = _clientCount - _parked.Count;
        _log($"{count} client(s) were disconnected: within {_patience.ParkMs} ms they had not sent all of a write, or had not read all of their replies, or their requests were not done");
    }
}
