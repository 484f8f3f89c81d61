using System.Net;
using System.Net.Sockets;
using Cbd.Memory;
using Microsoft.AspNetCore.Connections;
using Microsoft.AspNetCore.Server.Kestrel.Transport.Sockets;
using Microsoft.Extensions.Logging;

namespace Cbd.Control.Server;

/// <summary>
/// Accepts the clients of the control socket. Some descriptors are kept for a time when no other can be had: then one client is let
/// in with them, and can look and stop things; the next ones wait. Kestrel's own listener would try again at once, for ever.
/// </summary>
/// <param name="bind">Gives the socket that listens, which is this object's then.</param>
/// <param name="logger">Where a shortage is told.</param>
internal sealed class ControlListener(Func<EndPoint, Socket> bind, ILogger logger) : IConnectionListenerFactory, IConnectionListener
{
    /// <summary>For the client, and for the record that its verb may write.</summary>
    private const int SpareCount = 4;

    /// <summary>For the verb of a client that was let in without them.</summary>
    private const int LeftCount = 2;

    private static readonly TimeSpan s_pause = TimeSpan.FromMilliseconds(200);

    private readonly List<FileDescriptor> _spare = new(SpareCount + LeftCount);
    private readonly SocketConnectionContextFactory _connections = new(new SocketConnectionFactoryOptions(), logger);
    private EndPoint? _endPoint;
    private Socket? _socket;
    private bool _shortageIsTold;

    public EndPoint EndPoint => _endPoint ?? throw new InvalidOperationException("not bound");

    public ValueTask<IConnectionListener> BindAsync(EndPoint endpoint, CancellationToken cancellationToken = default)
    {
        _socket = bind(endpoint);
        _endPoint = endpoint;
        KeepSpares();
        return ValueTask.FromResult<IConnectionListener>(this);
    }

    /// <summary>The next client; null when there are no more. One call at a time.</summary>
    public async ValueTask<ConnectionContext?> AcceptAsync(CancellationToken cancellationToken = default)
    {
        Socket socket = _socket ?? throw new InvalidOperationException("not bound");
        for (bool isShort = false; ;)
        {
            try
            {
                Socket client = await socket.AcceptAsync(cancellationToken);
                if (Create(client, isShort) is { } connection)
                    return connection;
            }
            catch (SocketException e) when (e.SocketErrorCode is SocketError.TooManyOpenSockets or SocketError.NoBufferSpaceAvailable)
            {
                isShort = true;
                if (!_shortageIsTold)
                    logger.LogWarning("a client waits at the control socket{Remedy}", Exhaustion.RemedyOf(e.SocketErrorCode == SocketError.NoBufferSpaceAvailable ? Errno.ENOBUFS : MissingDescriptor()));
                _shortageIsTold = true;
                // Who waits stays in the backlog, and would be tried again at once.
                if (!GiveSpares())
                    await Task.Delay(s_pause, cancellationToken);
            }
            catch (OutOfMemoryException)
            {
                await Task.Delay(s_pause, cancellationToken);
            }
            catch (Exception e) when (e is ObjectDisposedException or SocketException { SocketErrorCode: SocketError.OperationAborted })
            {
                return null;
            }
            catch (SocketException e)
            {
                // One that left while it waited is nothing to wait for.
                if (e.SocketErrorCode is not (SocketError.ConnectionAborted or SocketError.ConnectionReset))
                    await Task.Delay(s_pause, cancellationToken);
            }
        }
    }

    public ValueTask UnbindAsync(CancellationToken cancellationToken = default)
    {
        _socket?.Dispose();
        return ValueTask.CompletedTask;
    }

    public ValueTask DisposeAsync()
    {
        _socket?.Dispose();
        GiveSpares();
        _connections.Dispose();
        return ValueTask.CompletedTask;
    }

    /// <summary>Null if there is no memory for it: the next one may have more luck.</summary>
    private ConnectionContext? Create(Socket client, bool isShort)
    {
        try
        {
            // What was given up for this client is for its verb, too.
            if (!isShort && KeepSpares())
                _shortageIsTold = false;
            return _connections.Create(client);
        }
        catch (Exception e) when (e is OutOfMemoryException or SocketException or ObjectDisposedException)
        {
            client.Dispose();
            return null;
        }
    }

    /// <summary>EMFILE or ENFILE: the socket's exception does not tell which.</summary>
    private static int MissingDescriptor()
    {
        int error = FileDescriptor.TryOpen("/", OpenFlags.ReadOnly, 0, out FileDescriptor? descriptor);
        descriptor?.Dispose();
        return error == -Errno.ENFILE ? Errno.ENFILE : Errno.EMFILE;
    }

    /// <summary>Keeps as many as leave some for the client that was just let in; false if these are fewer than <see cref="SpareCount"/>.</summary>
    private bool KeepSpares()
    {
        while (_spare.Count < SpareCount + LeftCount && FileDescriptor.TryOpen("/", OpenFlags.ReadOnly, 0, out FileDescriptor? descriptor) == 0)
            _spare.Add(descriptor!);
        GiveSpares(Math.Max(0, _spare.Count - LeftCount));
        return _spare.Count == SpareCount;
    }

    /// <summary>False if there are none.</summary>
    private bool GiveSpares(int kept = 0)
    {
        bool any = _spare.Count > kept;
        while (_spare.Count > kept)
        {
            _spare[^1].Dispose();
            _spare.RemoveAt(_spare.Count - 1);
        }

        return any;
    }
}
