using System.Buffers;
using System.Diagnostics;
using Cbd.Exports.Nbd.Tls;
using Cbd.Exports.Pumping;
using Cbd.Memory;
using Cbd.Memory.Sockets;

namespace Cbd.Exports.Nbd;

/// <summary>
/// One thread that accepts clients and leads their handshakes, all at once and without waiting for any of them: each receives
/// once, then it is the next one's turn. A client whose handshake is over goes to a pump; one that takes too long is dropped. If
/// there are too many clients, the one that has been in its handshake for longest makes room for a new one.
/// </summary>
internal sealed class NbdAcceptor : IDisposable
{
    private const ulong WakeToken = 0;
    private const ulong ListenerToken = 1;

    /// <summary>How long nobody is accepted after the process ran out of descriptors or memory.</summary>
    private const long PauseMs = 200;

    private readonly NbdListener _listener;
    private readonly Func<NbdExportInfo> _describe;
    private readonly int _handshakeSeconds;
    private readonly TlsRelays? _tls;
    private readonly Func<bool> _tryAdmit;
    private readonly Action _refused;
    private readonly Action _clientGone;
    private readonly Action<NbdConnection> _handOver;
    private readonly Action<string> _log;
    private readonly EventPoll _poll = new(16);
    private readonly PollWake _wake = new();
    private readonly Dictionary<ulong, Client> _clients = [];
    private readonly Thread _thread;
    private ulong _lastToken = ListenerToken;
    private bool _listening;
    private long _resumeAt = long.MaxValue;
    private volatile bool _stopRequested;

    /// <param name="listener">Where clients come from; stays the caller's.</param>
    /// <param name="describe">What a client is told of the device.</param>
    /// <param name="handshakeSeconds">How long a client may take, TLS included.</param>
    /// <param name="tls">Where there is TLS.</param>
    /// <param name="tryAdmit">Counts a client in; false if there are too many.</param>
    /// <param name="refused">A client was turned away because there are too many, none of them in its handshake.</param>
    /// <param name="clientGone">Counts a client out that was not handed over.</param>
    /// <param name="handOver">Takes a client whose handshake is over.</param>
    /// <param name="log">Where messages go.</param>
    internal NbdAcceptor(
        NbdListener listener, Func<NbdExportInfo> describe, int handshakeSeconds, TlsRelays? tls, Func<bool> tryAdmit,
        Action refused, Action clientGone, Action<NbdConnection> handOver, Action<string> log)
    {
        _handshakeSeconds = handshakeSeconds;
        _tls = tls;
        _listener = listener;
        _describe = describe;
        _tryAdmit = tryAdmit;
        _refused = refused;
        _clientGone = clientGone;
        _handOver = handOver;
        _log = log;
        _thread = new Thread(Run) { IsBackground = true, Name = "nbd-accept" };
    }

    /// <summary>The number of the last client before the first one of this acceptor.</summary>
    internal long LastClient
    {
        init => _lastToken = ListenerToken + (ulong)value;
    }

    /// <exception cref="CbdException">No thread can be had.</exception>
    internal void Start() => NeededThread.Begin(_thread);

    /// <summary>Ends the thread, if it was started, and drops the clients in their handshake.</summary>
    public void Dispose()
    {
        _stopRequested = true;
        _wake.Signal();
        _thread.JoinIfStarted();
        _poll.Dispose();
        _wake.Dispose();
    }

    private static long Now => Stopwatch.GetTimestamp();

    private void Run()
    {
        _poll.Add(_wake, WakeToken);
        Listen();
        while (!_stopRequested)
        {
            int count = _poll.Wait(TimeoutNanoseconds());
            for (int i = 0; i < count; i++)
            {
                _poll.GetEvent(i, out ulong token);
                Client? client = null;
                try
                {
                    if (token == ListenerToken)
                        Accept();
                    else if (token != WakeToken && _clients.TryGetValue(token, out client))
                        Advance(client);
                }
                catch (OutOfMemoryException)
                {
                    // What cannot be had fails one client, not the device.
                    if (client is not null)
                        Drop(client, "no memory is left for it");
                    Pause("no memory is left for another client");
                }
            }

            DropLate();
            if (Now >= _resumeAt)
                TryListen();
        }

        foreach (Client client in _clients.Values.ToArray())
            DropNow(client, "");
    }

    private void TryListen()
    {
        try
        {
            Listen();
        }
        catch (CbdException)
        {
            // No memory for it in the kernel: later.
            _resumeAt = Now + (PauseMs * Stopwatch.Frequency / 1000);
        }
    }

    private void Listen()
    {
        _resumeAt = long.MaxValue;
        if (!_listening)
            _poll.Add(_listener.Socket, ListenerToken, SocketEvents.Readable);
        _listening = true;
    }

    private long TimeoutNanoseconds()
    {
        long next = _resumeAt;
        foreach (Client client in _clients.Values)
            next = Math.Min(next, client.Deadline);
        if (next == long.MaxValue)
            return -1;
        long milliseconds = Math.Max(0, next - Now) * 1000 / Stopwatch.Frequency;
        return (milliseconds + 1) * 1_000_000;
    }

    private void Accept()
    {
        StreamSocket? socket = _listener.Socket.TryAccept(out int error);
        if (socket is null)
        {
            if (error is Errno.EMFILE or Errno.ENFILE or Errno.ENOBUFS or Errno.ENOMEM)
            {
                Pause($"a client waits to be accepted: errno {error} (no descriptor or memory left); raise the limit of open files");
            }

            return;
        }

        if (!_tryAdmit() && !(TryDropOldest() && _tryAdmit()))
        {
            _refused();
            socket.Dispose();
            return;
        }

        Client client;
        try
        {
            client = Take(socket);
        }
        catch (OutOfMemoryException)
        {
            socket.Dispose();
            _clientGone();
            throw;
        }

        try
        {
            _poll.Add(socket, client.Token, SocketEvents.Readable);
        }
        catch (CbdException failure)
        {
            Drop(client, failure.Message);
            return;
        }

        NbdHandshake.Greet(client.Output);
        Advance(client);
    }

    private Client Take(StreamSocket socket)
    {
        socket.TuneForRequests();
        NbdTlsState tls = _tls is null ? NbdTlsState.None : _tls.IsRequired ? NbdTlsState.Required : NbdTlsState.Offered;
        var client = new Client(
            ++_lastToken, socket, new NbdHandshake(_describe, "CBD block device", tls), Now + (_handshakeSeconds * Stopwatch.Frequency));
        _clients.Add(client.Token, client);
        return client;
    }

    /// <summary>Accepts nobody for a while. Who waits stays in the backlog, and would wake this thread again at once.</summary>
    private void Pause(string why)
    {
        if (!_listening)
            return;
        _log(why);
        _poll.Remove(_listener.Socket);
        _listening = false;
        _resumeAt = Now + (PauseMs * Stopwatch.Frequency / 1000);
    }

    /// <summary>Sends, understands and receives once, until the client has to do something or has had its turn.</summary>
    private void Advance(Client client)
    {
        for (bool hasReceived = false; ;)
        {
            if (!SendOutput(client))
                return;
            if (client.Handshake.State == NbdHandshakeState.Transmission)
            {
                HandOver(client);
                return;
            }

            if (client.Handshake.State == NbdHandshakeState.StartingTls && !TryBeginTls(client))
                return;
            int taken = client.Handshake.State == NbdHandshakeState.Talking
                ? client.Handshake.Advance(client.Received, client.Output)
                : 0;
            client.Taken(taken);
            if (taken != 0)
                continue;
            if (client.Handshake.State == NbdHandshakeState.Ended)
            {
                Drop(client, client.Handshake.Failure);
                return;
            }

            SocketResult result = hasReceived ? default : client.Socket.Receive(client.Room);
            if (hasReceived || result.WouldBlock)
            {
                Watch(client, SocketEvents.Readable);
                return;
            }

            hasReceived = true;

            if (result.Count <= 0)
            {
                Drop(client, "");
                return;
            }

            client.InputEnd += result.Count;
        }
    }

    /// <summary>Sends what was answered; false if some of it has to wait or the client is gone.</summary>
    private bool SendOutput(Client client)
    {
        while (client.Sent < client.Output.WrittenCount)
        {
            SocketResult result = client.Socket.Send(client.Output.WrittenSpan[client.Sent..]);
            if (result.WouldBlock)
            {
                Watch(client, SocketEvents.Writable);
                return false;
            }

            if (result.Count <= 0)
            {
                Drop(client, "");
                return false;
            }

            client.Sent += result.Count;
        }

        client.Output.ResetWrittenCount();
        client.Sent = 0;
        return true;
    }

    private void Watch(Client client, SocketEvents events)
    {
        if (client.Watched == events)
            return;
        client.Watched = events;
        _poll.Modify(client.Socket, client.Token, events);
    }

    /// <summary>Puts TLS between the client and this thread; false if the client is gone.</summary>
    private bool TryBeginTls(Client client)
    {
        // The acknowledgement was sent only now: who sent more before is not the one that wants TLS, but somebody who
        // wants plain words taken for those of the client.
        if (!client.Received.IsEmpty)
        {
            Drop(client, $"it sent {client.Received.Length} bytes behind STARTTLS before that was acknowledged");
            return false;
        }

        _poll.Remove(client.Socket);
        try
        {
            (client.Socket, client.Relay) = _tls!.Begin(client.Id, client.Socket);
            client.Handshake = client.Handshake.ContinueWithTls();
            client.Watched = SocketEvents.Readable;
            _poll.Add(client.Socket, client.Token, SocketEvents.Readable);
            return true;
        }
        catch (CbdException failure)
        {
            Drop(client, failure.Message);
            return false;
        }
    }

    private void HandOver(Client client)
    {
        _poll.Remove(client.Socket);
        _clients.Remove(client.Token);
        _handOver(new NbdConnection(client.Id, client.Socket, client.Received)
        {
            Session = client.Handshake.Session,
            Told = client.Handshake.Told,
            ClientFlags = client.Handshake.ClientFlags,
            HasTls = client.Relay is not null,
        });
    }

    private void DropLate()
    {
        long now = Now;
        foreach (Client client in _clients.Values.ToArray())
        {
            if (now >= client.Deadline)
                DropNow(client, $"its handshake took longer than {_handshakeSeconds} s");
        }
    }

    /// <summary>Makes room for another client; false if nobody is in its handshake.</summary>
    private bool TryDropOldest()
    {
        if (_clients.Values.MinBy(static client => client.Deadline) is not { } oldest)
            return false;
        DropNow(oldest, "it was in its handshake for longest when another client came and there was no place left");
        return true;
    }

    private void DropNow(Client client, string reason)
    {
        // Before its plain half is closed: the relay would wait for a client that takes nothing.
        client.Relay?.Abort();
        Drop(client, reason);
    }

    private void Drop(Client client, string reason)
    {
        if (reason.Length != 0)
            _log($"client {client.Id} was disconnected: {reason}");
        _clients.Remove(client.Token);
        client.Socket.Dispose();
        _clientGone();
    }

    /// <summary>A client in its handshake.</summary>
    private sealed class Client(ulong token, StreamSocket socket, NbdHandshake handshake, long deadline)
    {
        // One option always fits, so there is always room to receive while one is incomplete.
        private readonly byte[] _input = new byte[NbdHandshake.MaxOptionBytes + 64];
        private int _inputStart;

        internal ulong Token { get; } = token;
        internal long Id => (long)Token - (long)ListenerToken;
        internal StreamSocket Socket = socket;
        internal NbdHandshake Handshake = handshake;

        /// <summary>What stands between <see cref="Socket"/> and the client, where it speaks TLS.</summary>
        internal TlsRelay? Relay;
        internal long Deadline { get; } = deadline;
        internal ArrayBufferWriter<byte> Output { get; } = new(256);
        internal int Sent;
        internal int InputEnd;
        internal SocketEvents Watched = SocketEvents.Readable;

        internal ReadOnlySpan<byte> Received => _input.AsSpan(_inputStart..InputEnd);

        internal Span<byte> Room
        {
            get
            {
                Received.CopyTo(_input);
                InputEnd -= _inputStart;
                _inputStart = 0;
                return _input.AsSpan(InputEnd);
            }
        }

        internal void Taken(int count) => _inputStart += count;
    }
}
