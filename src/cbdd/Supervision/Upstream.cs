using Cbd.Memory.Store;

namespace Cbd.Programs.Daemon.Supervision;

/// <summary>
/// The service manager of a supervisor, if it has one: it hears that the daemon is ready, stops, and lives, from the supervisor, which is the main process.
/// </summary>
internal sealed class Upstream : IDisposable
{
    private readonly NotifySocket? _manager;

    /// <param name="manager">The way to the manager; is owned.</param>
    /// <param name="watchdogMs">How long the manager waits for a sign of life; null: it does not.</param>
    public Upstream(NotifySocket? manager, long? watchdogMs)
    {
        _manager = manager;
        WatchdogMs = watchdogMs;
    }

    /// <summary>How long a worker may go without a sign of life; null: for ever.</summary>
    public long? WatchdogMs { get; }

    /// <summary>Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID, and removes them from the environment.</summary>
    public static Upstream FromEnvironment() => new(NotifySocket.TryFromEnvironment(), Watchdog.TakeFromEnvironment());

    public void SayReady() => _manager?.SayForSure("READY=1");

    public void SayStopping() => _manager?.SayForSure("STOPPING=1");

    /// <summary>False: the manager did not take it, and it is to be said again soon.</summary>
    public bool SayAlive() => _manager is null || _manager.Say("WATCHDOG=1") || _manager.IsGone;

    public void SayStatus(string status) => _manager?.SayStatus(status);

    public void Dispose() => _manager?.Dispose();
}
