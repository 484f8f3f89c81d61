using Cbd.Exports.Pumping;
using Cbd.Blocks;
using Cbd.Exports.Nbd.Tls;
using Cbd.Memory;
using Cbd.Memory.Store;
using Cbd.Host;

namespace Cbd.Exports.Nbd;

/// <summary>
/// An NBD server: fixed newstyle, one export with the empty name. One thread accepts, and one per queue serves.
/// All members are thread-safe.
/// </summary>
internal sealed partial class NbdExport : IExport
{
    private readonly Lock _lock = new();
    private readonly NbdListener _listener;
    private readonly SocketOptions _options;
    private readonly ClientPatience _patience;
    private readonly TlsRelays? _tls;
    private readonly KeptConnections _kept;
    private readonly Action<string> _log;
    private NbdPump[] _pumps = [];
    private NbdAcceptor? _acceptor;

    /// <summary>What the device is called.</summary>
    private string? _device;
    private bool _isServing;
    private int _admitted;
    private bool _refusalLogged;
    private bool _stopped;

    /// <param name="listener">Where clients come from; the export owns it.</param>
    /// <param name="options">Limits, and whether it is with TLS.</param>
    /// <param name="patience">How long clients may keep others, and the end, waiting.</param>
    /// <param name="tls">The TLS that the options ask for.</param>
    /// <param name="kept">Connections that outlive this process; stays the caller's.</param>
    /// <param name="log">Where messages go.</param>
    internal NbdExport(NbdListener listener, SocketOptions options, ClientPatience patience, TlsServer? tls, KeptConnections kept, Action<string> log)
    {
        _kept = kept;
        _listener = listener;
        _options = options;
        _patience = patience;
        _log = message => log($"{listener.Uri}: {message}");
        if (tls is null)
            return;
        // Those that only take their last replies have given their place back: as many again may come meanwhile.
        _tls = new TlsRelays(tls, 2 * options.Connections, patience.TlsLingerMs, _log);
        Note = tls.Note;
        if (Note.Length != 0)
            _log(Note);
    }

    /// <inheritdoc/>
    public string Note { get; } = "";

    /// <inheritdoc/>
    public string Uri => _listener.Uri;

    /// <inheritdoc/>
    public void KeepFor(string device)
    {
        _listener.KeepFor(device);
        _device = device;
    }

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
    public IReadOnlyList<PumpStatistics> GetStatistics() =>
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
                    pumps.Add(new NbdPump(device, number, mode, _options.Connections, _patience, _log, ClientGone));
            }
            catch
            {
                pumps.ForEach(static pump => pump.Dispose());
                throw;
            }

            // Before a thread runs: where one cannot be had, Stop ends those that do.
            Volatile.Write(ref _pumps, [.. pumps]);
            _served = device;
            pumps.ForEach(static pump => pump.Start());
            // Before anybody new: they have their places already.
            long last = TakeOver(device);
            _acceptor = new NbdAcceptor(
                _listener, () => NbdExportInfo.Describe(device.Info), _options.HandshakeSeconds, _tls, TryAdmit, LogRefused, ClientGone, HandOver, _log)
            {
                LastClient = last,
            };
            _acceptor.Start();
            _isServing = true;
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
            if (_acceptor is null)
                _listener.GiveUp();
            else
                _listener.Dispose();
            foreach (NbdPump pump in _pumps)
                pump.RequestStop();
            foreach (NbdPump pump in _pumps)
                pump.Dispose();
            _tls?.End();
        }
    }

    public void Dispose() => Stop(force: true);

    private bool TryAdmit()
    {
        if (Interlocked.Increment(ref _admitted) <= _options.Connections)
        {
            _refusalLogged = false;
            return true;
        }

        Interlocked.Decrement(ref _admitted);
        return false;
    }

    private void LogRefused()
    {
        if (!_refusalLogged)
            _log($"a client was refused: {_options.Connections} are connected, which is the limit; disconnect some, or start the device with a larger --nbd-connections");
        _refusalLogged = true;
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
