using Cbd.Memory;
using Cbd.Memory.Sockets;

namespace Cbd.Exports.Nbd.Tls;

/// <summary>The clients of one export that speak TLS. Thread-safe.</summary>
/// <param name="server">Does the handshakes.</param>
/// <param name="limit">Most at once, those included that only take their last replies.</param>
/// <param name="lingerMs">How long a client has to take its last replies.</param>
/// <param name="log">Where messages go.</param>
internal sealed class TlsRelays(TlsServer server, int limit, int lingerMs, Action<string> log)
{
    private readonly Lock _lock = new();
    private readonly HashSet<TlsRelay> _relays = [];

    internal bool IsRequired => server.IsRequired;

    /// <summary>
    /// Puts TLS between a client and the socket that is returned, which then is this client without TLS. The relay owns
    /// <paramref name="client"/>, also where this throws.
    /// </summary>
    /// <exception cref="CbdException">No descriptor or thread is left for it, or too many are there.</exception>
    internal (StreamSocket Plain, TlsRelay Relay) Begin(long id, StreamSocket client)
    {
        StreamSocket? plain = null;
        StreamSocket? inner = null;
        TlsRelay? relay = null;
        bool started = false;
        try
        {
            lock (_lock)
            {
                if (_relays.Count >= limit)
                    throw new CbdException(CbdErrorKind.Exhausted, $"{limit} clients with TLS are connected or take their last replies, which is the limit; disconnect some");
                (plain, inner) = StreamSocket.CreateConnectedPair();
                relay = new TlsRelay(id, server, client, inner, lingerMs, log, Remove);
                _relays.Add(relay);
            }

            relay.Start();
            started = true;
            return (plain, relay);
        }
        catch (OutOfMemoryException error)
        {
            throw new CbdException(CbdErrorKind.Exhausted, "no memory is left for its TLS", error);
        }
        finally
        {
            if (!started)
            {
                if (relay is not null)
                    Remove(relay);
                client.Dispose();
                plain?.Dispose();
                inner?.Dispose();
            }
        }
    }

    /// <summary>Waits until all have ended; their plain halves are closed already. Who takes nothing is not waited for.</summary>
    internal void End() => End(2L * lingerMs);

    /// <summary>The same, with another limit.</summary>
    internal void End(long limitMs)
    {
        TlsRelay[] relays;
        lock (_lock)
            relays = [.. _relays];
        long deadline = Environment.TickCount64 + limitMs;
        foreach (TlsRelay relay in relays)
        {
            if (relay.Join((int)Math.Max(0, deadline - Environment.TickCount64)))
                continue;
            relay.Abort();
            relay.Join(Timeout.Infinite);
        }
    }

    private void Remove(TlsRelay relay)
    {
        lock (_lock)
            _relays.Remove(relay);
    }
}
