using Cbd.Host;
using Cbd.Memory;
using Cbd.Memory.Store;

namespace Cbd.Programs.Daemon;

/// <summary>
/// Tells the manager of this process, twice in the time that it waits for, that the daemon lives: that a verb which lists gets its answer. Where no
/// answer comes, the manager ends the daemon.
/// </summary>
internal sealed class SignsOfLife : IDisposable
{
    private const int EndMs = 1_000;
    private const int PauseMs = 10;

    private readonly INode _node;
    private readonly NotifySocket _manager;
    private readonly int _periodMs;
    private readonly ManualResetEvent _end = new(false);
    private readonly Thread _thread;

    private SignsOfLife(INode node, NotifySocket manager, long limitMs)
    {
        _node = node;
        _manager = manager;
        _periodMs = (int)Math.Clamp(limitMs / 2, 1, int.MaxValue);
        _thread = NeededThread.Start("cbd-alive", Run);
    }

    /// <summary>Begins if the manager waits for signs of life; null if not.</summary>
    /// <exception cref="CbdException">No thread can be had.</exception>
    public static SignsOfLife? Start(INode node, Inherited inherited) =>
        inherited is { Manager: { } manager, WatchdogMs: { } limit } ? new SignsOfLife(node, manager, limit) : null;

    public void Dispose()
    {
        _end.Set();
        // It may hang in what it watches: the end of the process does not wait for that.
        if (_thread.Join(EndMs))
            _end.Dispose();
    }

    private void Run()
    {
        do
        {
            _ = _node.ListTransports();
            // A queue that is full takes it later; too late is soon enough to see that the manager waits no more.
            while (!_manager.Say("WATCHDOG=1") && !_manager.IsGone && !_end.WaitOne(PauseMs))
                continue;
        }
        while (!_end.WaitOne(_periodMs));
    }
}
