using System.Runtime.InteropServices;
using Cbd.Memory;

namespace Cbd.Programs.Daemon;

/// <summary>
/// SIGTERM or SIGINT: the first asks for a clean end. A later one ends the process at once, but not within a second of the first:
/// service managers and scripts send some twice. Thread-safe.
/// </summary>
internal sealed class StopSignal : IDisposable
{
    /// <summary>Signals that come so soon after the first are one with it.</summary>
    public const int OneSignalMs = 1_000;

    private readonly ManualResetEventSlim _isSet = new();
    private readonly Action<PosixSignal> _endAtOnce;
    private readonly Func<long> _nowMs;
    private PosixSignal _first;
    private long _firstMs;
    private volatile bool _isIgnored;

    /// <param name="endAtOnce">Ends the process as that signal does; null: so it does.</param>
    /// <param name="nowMs">A monotonic clock; null: the machine's.</param>
    public StopSignal(Action<PosixSignal>? endAtOnce = null, Func<long>? nowMs = null)
    {
        // Who waits for this process, or for its supervisor, knows that signal.
        _endAtOnce = endAtOnce ?? (static signal => ProcessSignals.EndBy(signal == ProcessSignals.EndForGood ? PosixSignal.SIGTERM : signal));
        _nowMs = nowMs ?? (static () => Environment.TickCount64);
    }

    public bool IsSet => _isSet.IsSet;

    /// <summary>This process ends by itself, soon: later signals change nothing.</summary>
    public bool IsIgnored
    {
        get => _isIgnored;
        set => _isIgnored = value;
    }

    /// <summary>A signal came. One thread at a time; never waits.</summary>
    public void Handle(PosixSignal signal)
    {
        var now = _nowMs();
        if (_isSet.IsSet)
        {
            if (now - _firstMs >= OneSignalMs && !IsIgnored)
                _endAtOnce(signal);
            return;
        }

        (_first, _firstMs) = (signal, now);
        _isSet.Set();
    }

    /// <summary>Waits for the first signal and returns it.</summary>
    public PosixSignal Wait()
    {
        _isSet.Wait();
        return _first;
    }

    public void Dispose() => _isSet.Dispose();
}
