using System.Runtime.InteropServices;

namespace Cbd.Programs.Daemon;

/// <summary>SIGTERM or SIGINT: the first asks for a clean end, the second ends at once. SIGPIPE is ignored.</summary>
internal sealed class StopSignal : IDisposable
{
    private const PosixSignal SigPipe = (PosixSignal)13;

    private readonly TaskCompletionSource<string> _signal = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly PosixSignalRegistration[] _registrations;

    public StopSignal() => _registrations =
    [
        PosixSignalRegistration.Create(PosixSignal.SIGTERM, Handle),
        PosixSignalRegistration.Create(PosixSignal.SIGINT, Handle),
        PosixSignalRegistration.Create(SigPipe, static signal => signal.Cancel = true),
    ];

    public bool IsSet => _signal.Task.IsCompleted;

    /// <summary>Ends with the name of the first signal.</summary>
    public Task<string> WaitAsync() => _signal.Task;

    public void Dispose()
    {
        foreach (var registration in _registrations)
            registration.Dispose();
    }

    private void Handle(PosixSignalContext signal) => signal.Cancel = _signal.TrySetResult(signal.Signal.ToString());
}
