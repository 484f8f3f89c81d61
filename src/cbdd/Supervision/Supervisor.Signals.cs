using System.Runtime.InteropServices;
using Cbd.Control;
using Cbd.Host;
using Cbd.Memory;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon.Supervision;

/// <summary>The part of a supervisor that takes signals and passes them on.</summary>
internal sealed partial class Supervisor
{
    private void TakeSignals()
    {
        while (_signals.TryDequeue(out var signal))
        {
            if (signal is PosixSignal.SIGTERM or PosixSignal.SIGINT or ProcessSignals.EndForGood)
                TakeStop(signal);
            else if (_worker is not null)
                Hold(signal);
        }

        SendHeld();
    }

    private void TakeStop(PosixSignal signal)
    {
        var now = MonotonicClock.Milliseconds;
        var isLater = _isStopping && now - _stopAtMs >= StopSignal.OneSignalMs;
        if (!_isStopping)
        {
            _upstream.SayStopping();
            _isStopping = true;
            _stopAtMs = now;
        }

        if (_worker is not null && isLater)
        {
            // It ends at once, also one that cannot take it yet.
            _held.Clear();
            _worker.Process.Send(signal);
            return;
        }

        // SIGTERM asks a worker to leave all to the next one: there is none. SIGINT is ignored by what was started in the background.
        Hold(ProcessSignals.EndForGood);
        if (_worker is null)
            GiveUp();
    }

    private void GiveUp()
    {
        if (_kept.Names.Count == 0)
        {
            _end = ErrorKinds.ExitSuccess;
            return;
        }

        // In the region the devices that were served are reserved for the next worker, and only a worker can end them.
        _logger.LogInformation("a worker is started to end what is kept: {Names}", string.Join(", ", _kept.Names));
        _isGivingUp = true;
        _startAtMs = MonotonicClock.Milliseconds;
    }

    private void Hold(PosixSignal signal)
    {
        if (!_held.Contains(signal))
            _held.Add(signal);
    }

    /// <summary>A worker that has no handlers yet would be killed by what it is to handle.</summary>
    private void SendHeld()
    {
        if (_worker is null || !_hasHandlers || (_isGivingUp && _readyAtMs is null))
            return;
        foreach (var signal in _held)
            _worker.Process.Send(signal);
        _held.Clear();
    }
}
