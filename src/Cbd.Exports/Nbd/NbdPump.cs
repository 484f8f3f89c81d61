using System.Collections.Concurrent;
using System.Diagnostics;
using Cbd.Blocks;
using Cbd.Exports.Pumping;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Cbd.Host;

namespace Cbd.Exports.Nbd;

/// <summary>
/// One thread with one queue of the device and some of the clients: receives requests, submits them, and sends the
/// replies. Nothing is locked, allocated or handed to another thread per request.
/// </summary>
/// <remarks>
/// <see cref="ClientShares"/> says how much a client may have. Requests that find no slot or no memory wait in the order of
/// their arrival, one per client, and nothing more is received from a client whose request waits: that is the back-pressure. A
/// client that gives back too slowly what others wait for is ended (<see cref="MinimumRate"/>).
/// </remarks>
internal sealed partial class NbdPump : IDisposable
{
    /// <summary>Depth of the queue.</summary>
    private const int QueueDepth = ClientShares.SlotCount;

    /// <summary>Looks around, one a second, between two of which unneeded memory is given back.</summary>
    private const int GiveBackLooks = 15;

    private readonly IBlockDevice _device;
    private readonly IBlockQueue _queue;
    private readonly int _clientLimit;
    private readonly ClientPatience _patience;
    private readonly Action<string> _log;
    private readonly Action _clientGone;
    private readonly ClientShares _shares;
    private readonly EventPoll _poll = new(64);
    private readonly PollWake _wake = new();
    private readonly PumpIdle<SocketSleeper> _idle;
    private readonly ConcurrentQueue<NbdConnection> _arrivals = new();
    private readonly NbdConnection?[] _connections;

    /// <summary>The common slots, then one of each client.</summary>
    private readonly RequestSlot[] _slots;
    private readonly BlockCompletion[] _completions = new BlockCompletion[QueueDepth];
    private readonly Thread _thread;

    // Connections with something to do, each at most once in each list.
    private readonly Queue<NbdConnection> _ready;
    private readonly Queue<NbdConnection> _unsent;
    private readonly Queue<NbdConnection> _closing;

    // Those whose request waits for what others hold; requests of either kind wait for their like.
    private readonly LinkedList<NbdConnection> _stalled = new();
    private readonly LinkedList<NbdConnection> _stalledLarge = new();
    private Shortage _shortage;
    private Shortage _shortageOfLarge;

    private SlotList _free = SlotList.Empty;

    /// <summary>Requests for which the queue had no room.</summary>
    private SlotList _refused = SlotList.Empty;

    /// <summary>A slot came back, so a stalled request may go on.</summary>
    private bool _released;
    private BlockDeviceInfo _info;
    private NbdExportInfo _exportInfo;
    private long _now;
    private long _lastLook;
    private int _looks;
    private long _stopDeadline = long.MaxValue;
    private bool _stopping;
    private volatile bool _stopRequested;
    private volatile bool _parkRequested;
    private volatile bool _parkEnds;
    private bool _parking;
    private volatile bool _isParked;
    private PumpCounters _counters;
    private int _clientCount;

    /// <param name="device">What is served; stays the caller's.</param>
    /// <param name="number">Number of this pump, for its name.</param>
    /// <param name="mode">How its thread waits.</param>
    /// <param name="clientLimit">Most clients of the export.</param>
    /// <param name="patience">How long clients may keep others, and the end, waiting.</param>
    /// <param name="log">Where messages go.</param>
    /// <param name="clientGone">Called when a connection was closed.</param>
    internal NbdPump(IBlockDevice device, int number, PollMode mode, int clientLimit, ClientPatience patience, Action<string> log, Action clientGone)
    {
        _device = device;
        _info = device.Info;
        _exportInfo = NbdExportInfo.Describe(_info);
        _clientLimit = clientLimit;
        _patience = patience;
        _log = log;
        _clientGone = clientGone;
        _connections = new NbdConnection?[clientLimit];
        _slots = new RequestSlot[ClientShares.SlotCount + clientLimit];
        _headers = new NativeBuffer(_slots.Length * HeaderRoomBytes);
        _shares = new ClientShares(clientLimit);
        _ready = new Queue<NbdConnection>(clientLimit);
        _unsent = new Queue<NbdConnection>(clientLimit);
        _closing = new Queue<NbdConnection>(clientLimit);
        for (int index = 0; index < ClientShares.SlotCount; index++)
            _free.Append(_slots, index);
        try
        {
            _queue = device.OpenQueue(QueueDepth, _shares.Buffer);
            _idle = new PumpIdle<SocketSleeper>(new SocketSleeper(_poll, _queue), _queue, mode);
            _poll.Add(_wake, 0);
        }
        catch
        {
            _queue?.Dispose();
            DisposeParts();
            throw;
        }

        _thread = new Thread(Run) { IsBackground = true, Name = $"nbd-pump-{number}" };
    }

    /// <summary>What is asked behind each receipt; null: everything may be started.</summary>
    internal INbdInputGate? Lost { get; init; }

    /// <summary>Clients that were given to this pump and are not closed. Any thread.</summary>
    internal int ClientCount => Volatile.Read(ref _clientCount);

    /// <summary>What was done so far. Any thread; the numbers are from slightly different moments.</summary>
    internal PumpStatistics Statistics => _counters.Statistics;

    /// <exception cref="CbdException">No thread can be had.</exception>
    internal void Start() => NeededThread.Begin(_thread);

    /// <summary>Gives a client to this pump. Any thread, not after <see cref="RequestStop"/>.</summary>
    internal void Adopt(NbdConnection connection)
    {
        Interlocked.Increment(ref _clientCount);
        _arrivals.Enqueue(connection);
        _wake.Signal();
    }

    /// <summary>Asks the thread to answer what it has received, and to end. Any thread.</summary>
    internal void RequestStop()
    {
        _stopRequested = true;
        _wake.Signal();
    }

    /// <summary>Ends the thread as it is, and its connections: what the device has not done is not answered. Any thread.</summary>
    internal void Park()
    {
        _isParked = true;
        RequestStop();
    }

    /// <summary>Waits for the end of the thread, which was asked to end.</summary>
    internal void Join() => _thread.JoinIfStarted();

    /// <summary>Asks the gate again for those whose input it held up. Any thread, not after <see cref="Dispose"/>.</summary>
    internal void LookAgain() => _wake.Signal();

    /// <summary>Waits for the end of the thread and frees what it used. A pump that was never started is only freed.</summary>
    public void Dispose()
    {
        _thread.JoinIfStarted();
        // The queue owns the payload memory of what is still at the device; it goes first.
        _queue.Dispose();
        DisposeParts();
    }

    private void DisposeParts()
    {
        _poll.Dispose();
        _wake.Dispose();
        _shares.Dispose();
        _headers.Dispose();
        _vectors.Dispose();
    }

    private void Run()
    {
        PumpThread.UseExactTimers();
        _counters.Begin();
        try
        {
            Serve();
        }
        catch (CbdException error)
        {
            _log($"the device failed, its clients are disconnected: {error.Message}");
        }

        CloseAll();
        // After a failure clients still come; they are told by the end of their connection.
        while (!_stopRequested && !_parkRequested)
        {
            _poll.Wait(-1);
            _wake.Clear();
            CloseAll();
        }
    }

    private void CloseAll()
    {
        TakeArrivals();
        foreach (NbdConnection? connection in _connections)
        {
            if (connection is not null)
                Close(connection);
        }
    }

    private void Serve()
    {
        while (true)
        {
            _now = Stopwatch.GetTimestamp();
            bool progressed = RunReady();
            progressed |= PollDevice();
            if (_released)
                progressed |= ResumeStalled();
            SendUnsent();
            while (_closing.TryDequeue(out NbdConnection? connection))
                Close(connection);
            if (_now - _lastLook >= Stopwatch.Frequency)
                LookAround();
            if (_isParked || (_stopping && IsStopped()))
                return;
            _counters.EndTurn();
            bool mayWait = _ready.Count == 0 && !(_released && HasStalled);
            TakeEvents(_idle.Next(progressed, mayWait, _queue.Outstanding));
        }
    }

    private void TakeEvents(int count)
    {
        for (int i = 0; i < count; i++)
        {
            SocketEvents events = _poll.GetEvent(i, out ulong token);
            if (token == 0)
            {
                _wake.Clear();
                TakeArrivals();
                if (Lost is not null)
                    LookAtHeld();
                if (_stopRequested && !_stopping)
                    BeginStop();
                else if (_parkRequested && !_stopping)
                    BeginPark();
                continue;
            }

            NbdConnection? connection = _connections[token - 1];
            if (connection is null)
                continue;
            if ((events & (SocketEvents.Error | SocketEvents.HangUp | SocketEvents.PeerClosed)) != 0)
            {
                connection.HangUpSeen = true;
                connection.Readable = true;
                // While it is stalled nobody would read the end of it; while it is blocked nobody would send.
                if ((events & (SocketEvents.Error | SocketEvents.HangUp)) != 0 && (connection.OutputBlocked || connection.Ending))
                    Break(connection);
            }

            if ((events & SocketEvents.Readable) != 0)
                connection.Readable = true;
            if ((events & SocketEvents.Writable) != 0 && connection.OutputBlocked)
                Unblock(connection);
            MakeReady(connection);
        }
    }

    private void LookAtHeld()
    {
        foreach (NbdConnection? connection in _connections)
        {
            if (connection is { IsHeld: true })
                MakeReady(connection);
        }
    }

    private void TakeArrivals()
    {
        while (_arrivals.TryDequeue(out NbdConnection? connection))
        {
            int index = Array.IndexOf(_connections, null);
            if (index < 0)
                throw new InvalidOperationException($"a pump was given more than {_clientLimit} clients");
            connection.Index = index;
            connection.LastMoved = _now;
            _connections[index] = connection;
            try
            {
                _poll.Add(connection.Socket, (ulong)index + 1, WatchInput);
            }
            catch (CbdException error)
            {
                Break(connection, error.Message);
            }

            MakeReady(connection);
            if (_parking)
                PrepareToPark(connection);
            else if (_stopping)
                EndInput(connection);
        }
    }

    private void BeginStop()
    {
        _stopping = true;
        _stopDeadline = _now + (_patience.StopSeconds * Stopwatch.Frequency);
        foreach (NbdConnection? connection in _connections)
        {
            if (connection is not null)
                EndInput(connection);
        }
    }

    private bool HasStalled => _stalled.Count != 0 || _stalledLarge.Count != 0;

    /// <summary>Once a second: gives memory back, and ends the client that holds others up most, and those that left replies behind.</summary>
    private void LookAround()
    {
        _lastLook = _now;
        if (++_looks % GiveBackLooks == 0)
            _shares.GiveBackUnused();
        if (_clientCount == 0)
            return;
        NbdConnection? slowest = null;
        foreach (NbdConnection? connection in _connections)
        {
            if (connection is null or { Broken: true })
                continue;
            if (IsTooSlow(connection) && (slowest is null || connection.Hold.SharedBytes > slowest.Hold.SharedBytes))
                slowest = connection;
            if (connection is { Ending: true, OutputBlocked: true } && _now - connection.LastMoved > _patience.LastRepliesSeconds * Stopwatch.Frequency)
                Break(connection, $"it sends nothing more, and has read nothing for {_patience.LastRepliesSeconds} s");
        }

        // One at a time: what it gives back may be enough for all who wait.
        if (slowest is { Broken: false })
        {
            Break(slowest, $"it held {slowest.Hold.Slots} requests and {slowest.Hold.SharedBytes} bytes that others waited for, " +
                $"and moved less than {MinimumRate.BytesWanted(slowest.Hold.SharedBytes, _patience.RateLooks)} bytes in {_patience.RateLooks} s");
        }

        _shortage = ShortageNow(_stalled);
        _shortageOfLarge = ShortageNow(_stalledLarge);
    }

    private bool IsTooSlow(NbdConnection connection)
    {
        if (connection.Hold.IsNothing)
        {
            connection.Rate.Reset();
            return false;
        }

        bool isItsTurn = connection.ReceivingSlot >= 0 || connection.OutputBlocked;
        bool isWaitedFor = connection.Hold.LargePages != 0 && _shortageOfLarge.IsOfOthersThan(connection);
        if (connection.Hold.OrdinaryPages != 0 || connection.Hold.LargePages == 0)
            isWaitedFor |= _shortage.IsOfOthersThan(connection);
        return isItsTurn && isWaitedFor && connection.Rate.IsTooSlow(connection.Hold.SharedBytes, connection.MovedBytes, _patience.RateLooks);
    }

    private static Shortage ShortageNow(LinkedList<NbdConnection> stalled)
    {
        var shortage = default(Shortage);
        foreach (NbdConnection connection in stalled)
            shortage.Note(connection);
        return shortage;
    }

    private void MakeReady(NbdConnection connection)
    {
        if (connection.InReady || connection.InStalled || connection.Closed)
            return;
        connection.InReady = true;
        _ready.Enqueue(connection);
    }

    /// <summary>Receives nothing more; what was received whole is still answered.</summary>
    private void EndInput(NbdConnection connection)
    {
        if (connection.Ending)
            return;
        connection.Ending = true;
        connection.HasHeader = false;
        connection.StalledNode.List?.Remove(connection.StalledNode);
        if (connection.ReceivingSlot >= 0)
        {
            Release(connection.ReceivingSlot);
            connection.ReceivingSlot = -1;
        }

        CloseIfDone(connection);
    }

    /// <summary>Receives and sends nothing more; what is at the device ends there first.</summary>
    private void Break(NbdConnection connection, string? reason = null)
    {
        if (reason is not null && !connection.Broken)
            _log($"client {connection.Id} was disconnected: {reason}");
        connection.Broken = true;
        EndInput(connection);
        while (!connection.Replies.IsEmpty)
            Release(connection.Replies.RemoveFirst(_slots));
        CloseIfDone(connection);
    }

    private void CloseIfDone(NbdConnection connection)
    {
        if (!connection.Ending || connection.SlotsInUse != 0 || connection.InClosing)
            return;
        connection.InClosing = true;
        _closing.Enqueue(connection);
    }

    private void Close(NbdConnection connection)
    {
        _connections[connection.Index] = null;
        connection.Dispose();
        // Before the count says it: there is a place for the next client then.
        _clientGone();
        Interlocked.Decrement(ref _clientCount);
    }

    private void Release(int index)
    {
        ref RequestSlot slot = ref _slots[index];
        NbdConnection connection = slot.Connection ?? throw new InvalidOperationException($"request slot {index} is released twice");
        ReturnData(ref slot);
        slot = default;
        bool isReserve = index >= ClientShares.SlotCount;
        _shares.ReturnSlot(ref connection.Hold, connection.Index, isReserve);
        if (!isReserve)
            _free.Append(_slots, index);
        _released = true;
        connection.SlotsInUse--;
        if (isReserve && connection.InStalled && RoomBytes(connection.Header) <= ClientShares.ReserveBytes)
        {
            // Its own room is free again: perhaps it need not wait for others'.
            connection.StalledNode.List!.Remove(connection.StalledNode);
            MakeReady(connection);
        }

        if (connection.AtShare)
        {
            connection.AtShare = false;
            MakeReady(connection);
        }

        CloseIfDone(connection);
    }

    private void ReturnData(ref RequestSlot slot)
    {
        if (slot.Data.Length == 0)
            return;
        _shares.ReturnData(ref slot.Connection!.Hold, slot.Data);
        slot.Data = default;
        _released = true;
    }
}
