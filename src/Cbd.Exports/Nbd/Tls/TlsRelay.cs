using System.Net.Security;
using System.Security.Authentication;
using Cbd.Memory;
using Cbd.Memory.Sockets;

namespace Cbd.Exports.Nbd.Tls;

/// <summary>
/// One client that speaks TLS: decrypts what it sends into one half of a socket pair, and encrypts what comes from there.
/// The other half is a plain client to everything else. Two threads, one per direction, so that neither waits for the
/// other; what is under way is bounded by their buffers and the sockets'.
/// </summary>
/// <remarks>
/// The ends: a client that ends its sending still gets its replies. When the other half is closed, what it sent is
/// delivered, for <see cref="ClientPatience.TlsLingerMs"/> at most, with TLS's own end behind it. When the client is gone, the other half
/// finds the end. Any thread may <see cref="Abort"/>.
/// </remarks>
internal sealed class TlsRelay
{
    /// <summary>Bytes in one go and direction: two of TLS's records.</summary>
    private const int BufferBytes = 32 << 10;

    /// <summary>Enough for OpenSSL, with certificates; a thread's default is 8 MiB.</summary>
    private const int StackBytes = 512 << 10;

    private readonly long _id;
    private readonly TlsServer _server;
    private readonly StreamSocket _client;
    private readonly StreamSocket _inner;
    private readonly int _lingerMs;
    private readonly Action<string> _log;
    private readonly Action<TlsRelay> _ended;
    private readonly Thread _fromClient;
    private readonly Lock _lock = new();

    /// <summary>Nothing of the client is decrypted any more.</summary>
    private readonly ManualResetEventSlim _received = new();
    private bool _closed;
    private volatile bool _isSilent;

    /// <param name="id">Number of the client, for messages.</param>
    /// <param name="server">Does the handshake.</param>
    /// <param name="client">The client's socket; the relay owns it.</param>
    /// <param name="inner">One half of a socket pair; the relay owns it.</param>
    /// <param name="lingerMs">How long a client has to take its last replies.</param>
    /// <param name="log">Where messages go.</param>
    /// <param name="ended">Called when both sockets are closed, by a thread of the relay.</param>
    internal TlsRelay(long id, TlsServer server, StreamSocket client, StreamSocket inner, int lingerMs, Action<string> log, Action<TlsRelay> ended)
    {
        _id = id;
        _server = server;
        _client = client;
        _inner = inner;
        _lingerMs = lingerMs;
        _log = log;
        _ended = ended;
        _fromClient = new Thread(Run, StackBytes) { IsBackground = true, Name = "nbd-tls-in" };
    }

    /// <exception cref="CbdException">No thread can be had.</exception>
    internal void Start() => NeededThread.Begin(_fromClient);

    /// <summary>Ends both directions now; what is under way is lost. Nothing is logged any more.</summary>
    internal void Abort()
    {
        _isSilent = true;
        EndBoth();
    }

    /// <summary>Waits until all of it has ended, this long at most; only after <see cref="Start"/>.</summary>
    internal bool Join(int timeoutMs) => _fromClient.Join(timeoutMs);

    private void Run()
    {
        try
        {
            using SslStream? stream = Accept();
            if (stream is not null)
                Relay(stream);
        }
        finally
        {
            // Under the lock, so that Abort never meets the number of another file.
            lock (_lock)
            {
                _closed = true;
                _client.Dispose();
                _inner.Dispose();
            }

            _ended(this);
        }
    }

    private SslStream? Accept()
    {
        var transport = new RelayStream(_client, _inner);
        try
        {
            return _server.Accept(transport);
        }
        catch (Exception error)
        {
            // Of whatever kind: what this client sent, or cannot have for it, must not end the daemon.
            _isSilent |= transport.IsInnerOver;
            Log($"TLS: {Describe(error)}");
            return null;
        }
    }

    private void Relay(SslStream stream)
    {
        var toClient = new Thread(() => SendToClient(stream), StackBytes) { IsBackground = true, Name = "nbd-tls-out" };
        if (!NeededThread.TryBegin(toClient))
        {
            Log("no memory or thread is left for it");
            return;
        }

        ReceiveFromClient(stream);
        _inner.Shutdown(sendingOnly: true);
        // Replies may still come, as long as the disk needs; once there are no more, the client takes them or is dropped.
        _inner.WaitOver();
        if (!toClient.Join(_lingerMs))
        {
            EndBoth();
            toClient.Join();
        }
    }

    private void ReceiveFromClient(SslStream stream)
    {
        byte[] buffer = GC.AllocateUninitializedArray<byte>(BufferBytes);
        try
        {
            int count;
            while ((count = stream.Read(buffer)) > 0)
            {
                if (_inner.SendAll(buffer.AsSpan(0, count)) != 0)
                    return;
            }
        }
        catch (Exception error)
        {
            // A connection that just ends is nothing to tell, as without TLS; broken TLS is.
            if (error.InnerException is not null || error is not IOException)
                Log($"TLS: {Describe(error)}");
        }
        finally
        {
            _received.Set();
        }
    }

    private void SendToClient(SslStream stream)
    {
        byte[] buffer = GC.AllocateUninitializedArray<byte>(BufferBytes);
        try
        {
            while (true)
            {
                SocketResult result = _inner.Receive(buffer);
                if (result.Count > 0)
                    stream.Write(buffer.AsSpan(0, result.Count));
                else if (result.WouldBlock)
                    _inner.WaitReadable();
                else
                    break;
            }

            // The end of a session is not locked against what is being decrypted: both at once damage the session's memory. The other half of
            // the pair is closed, so the reader ends soon.
            if (!_received.Wait(_lingerMs))
            {
                EndBoth();
                return;
            }

            stream.ShutdownAsync().GetAwaiter().GetResult();
            _client.Shutdown(sendingOnly: true);
        }
        catch (Exception error)
        {
            if (error.InnerException is not null || error is not IOException)
                Log($"TLS: {Describe(error)}");
            // Nothing reaches this client any more: its requests end too.
            EndBoth();
        }
    }

    private void EndBoth()
    {
        lock (_lock)
        {
            if (_closed)
                return;
            _client.Shutdown(sendingOnly: false);
            _inner.Shutdown(sendingOnly: false);
        }
    }

    private void Log(string reason)
    {
        if (_isSilent)
            return;
        _isSilent = true;
        _log($"client {_id} was disconnected: {reason}");
    }

    /// <summary>The innermost reason says most: OpenSSL's own.</summary>
    private static string Describe(Exception error)
    {
        if (error is CbdException or AuthenticationException { InnerException: AuthenticationException })
            return error.Message;
        while (error.InnerException is { } inner)
            error = inner;
        return error.Message.ReplaceLineEndings(" ");
    }
}
