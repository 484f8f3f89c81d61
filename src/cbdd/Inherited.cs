using Cbd.Memory.Sockets;
using Cbd.Memory.Store;
using Cbd.Programs.Daemon.Supervision;
using Cbd.Programs.Daemon.Upgrading;

namespace Cbd.Programs.Daemon;

/// <summary>What a daemon has from whoever started it. Thread-safe.</summary>
/// <param name="Given">Sockets that a service manager opened for it.</param>
/// <param name="Kept">Sockets of devices that outlived the daemon before.</param>
/// <param name="Store">What keeps descriptors over the death of this daemon; null if nothing does.</param>
/// <param name="Manager">The way to the service manager or supervisor; null if there is none.</param>
/// <param name="WatchdogMs">How long the manager waits for a sign of life; null: for ever.</param>
/// <param name="Words">What the supervisor says of itself.</param>
internal sealed record Inherited(GivenSockets Given, KeptSockets Kept, DescriptorStore? Store, NotifySocket? Manager, long? WatchdogMs, SupervisorWords Words)
{
    private int _isReady;

    /// <summary>The manager was told so.</summary>
    public bool IsReady => Volatile.Read(ref _isReady) != 0;

    /// <summary>What this daemon has kept outlives it: somebody starts the next process.</summary>
    public bool MayPark()
    {
        // A service manager that has the store itself does not say whether it stops this process for good.
        if (Store is null || Words.Program is null)
            return false;
        // Whether it is there is seen when something is sent.
        Manager?.SayStatus("the worker ends, and is started again");
        return !Store.IsGone;
    }

    /// <summary>Tells the supervisor that this process takes signals from now on.</summary>
    public void SayHandlers() => Manager?.SayForSure("STATUS=starting", WorkerMessage.Handlers);

    /// <summary>
    /// Tells the manager that the daemon answers, and that what the command line asks for is done, or waits for something. What it waits for is told each time.
    /// </summary>
    /// <param name="waits">What it waits for; empty: nothing.</param>
    public void SayReady(string waits)
    {
        if (Interlocked.Exchange(ref _isReady, 1) == 0)
            Manager?.SayForSure("READY=1");
        Manager?.SayStatus(waits);
    }

    /// <summary>Tells the manager that the daemon answers, and that all that the command line asks for is done.</summary>
    public void SayStarted()
    {
        SayReady("");
        Manager?.SayForSure(WorkerMessage.Started);
    }
}
