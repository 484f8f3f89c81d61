using Cbd.Blocks;
using Cbd.Memory;
using Cbd.Runtime;

namespace Cbd.Exports.Nbd;

/// <summary>
/// An NBD server: fixed newstyle, one export with the empty name. One thread accepts, and one per queue serves.
/// All members are thread-safe.
/// </summary>
public sealed class NbdExport : IExport
{
    /// <summary>Most clients at once, those in their handshake included.</summary>
    public const int MaxClients = 128;

    private readonly Lock _lock = new();
    private readonly NbdListener _listener;
    private readonly Action<string> _log;
    private NbdPump[] _pumps = [];
    private NbdAcceptor? _acceptor;
    private int _admitted;
    private bool _refusalLogged;
    private bool _stopped;

    internal NbdExport(NbdListener listener, Action<string> log)
    {
        _listener = listener;
        _log = message => log($"{listener.Uri}: {message}");
    }

    /// <inheritdoc/>
    public string Uri => _listener.Uri;

    /// <inheritdoc/>
    public int ClientCount
    {
        get
        {
            int count = 0;
            foreach (NbdPump pump in Volatile.Read(ref _pumps))
                count += pump.ClientCount;
            return count;
        }
    }

    /// <summary>What each pump did so far.</summary>
    public IReadOnlyList<NbdPumpStatistics> GetStatistics() =>
        Array.ConvertAll(Volatile.Read(ref _pumps), static pump => pump.Statistics);

    /// <inheritdoc/>
    public void Serve(IBlockDevice device, int queues, PollMode mode)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(queues, 1);
        lock (_lock)
        {
            if (_stopped || _acceptor is not null)
                throw new InvalidOperationException($"{Uri} serves already or was stopped");
            var pumps = new List<NbdPump>(queues);
            try
            {
                for (int number = 0; number < queues; number++)
                    pumps.Add(new NbdPump(device, number, mode, MaxClients, _log, ClientGone));
            }
            catch
            {
                pumps.ForEach(static pump => pump.Dispose());
                throw;
            }

            pumps.ForEach(static pump => pump.Start());
            Volatile.Write(ref _pumps, [.. pumps]);
            _acceptor = new NbdAcceptor(
                _listener, () => NbdExportInfo.Describe(device.Info), TryAdmit, ClientGone, HandOver, _log);
            _acceptor.Start();
        }
    }

    /// <inheritdoc/>
    public void Stop(bool force)
    {
        lock (_lock)
        {
            if (_stopped)
                return;
            _stopped = true;
            _acceptor?.Dispose();
            _listener.Dispose();
            foreach (NbdPump pump in _pumps)
                pump.RequestStop();
            foreach (NbdPump pump in _pumps)
                pump.Dispose();
        }
    }

    public void Dispose() => Stop(force: true);

    private bool TryAdmit()
    {
        if (Interlocked.Increment(ref _admitted) <= MaxClients)
        {
            _refusalLogged = false;
            return true;
        }

        Interlocked.Decrement(ref _admitted);
        if (!_refusalLogged)
            _log($"a client was refused: {MaxClients} are connected, which is the limit; disconnect some");
        _refusalLogged = true;
        return false;
    }

    private void ClientGone() => Interlocked.Decrement(ref _admitted);

    private void HandOver(NbdConnection connection)
    {
        NbdPump[] pumps = _pumps;
        NbdPump least = pumps[0];
        foreach (NbdPump pump in pumps)
        {
            if (pump.ClientCount < least.ClientCount)
                least = pump;
        }

        least.Adopt(connection);
    }
}
