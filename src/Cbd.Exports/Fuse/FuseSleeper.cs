using Cbd.Blocks;
using Cbd.Exports.Pumping;
using Cbd.Memory.Sockets;

namespace Cbd.Exports.Fuse;

/// <summary>
/// Sleeps as <see cref="SocketSleeper"/>, for requests of the kernel. A turn that had work reads them without being told.
/// </summary>
/// <param name="poll">Has the channel, if this pump waits for requests, and what wakes the pump.</param>
/// <param name="queue">The device's.</param>
/// <param name="sleep">Tells the other pumps that this one sleeps; null if it waits for requests itself.</param>
internal struct FuseSleeper(EventPoll poll, IBlockQueue queue, HelperSleep? sleep) : IPumpSleeper
{
    private readonly SocketSleeper _sockets = new(poll, queue);

    /// <summary>Requests of the kernel could be taken; otherwise they are no reason to wake up. Set before each turn ends.</summary>
    internal bool CanTake { get; set; }

    public readonly int Look() => 0;

    public readonly int LookInSpin(bool deviceIsBusy) => 0;

    public readonly int Sleep(int timeoutMicroseconds)
    {
        sleep?.Begin();
        int events = _sockets.Sleep(timeoutMicroseconds);
        sleep?.End();
        return events;
    }

    public readonly bool TrySleepWithDevice(int timeoutMicroseconds, out int events)
    {
        sleep?.Begin();
        if (!CanTake)
        {
            queue.Wait(timeoutMicroseconds);
            events = 0;
        }
        else if (!_sockets.TrySleepWithDevice(timeoutMicroseconds, out events))
        {
            return false;
        }

        sleep?.End();
        return true;
    }
}

/// <summary>
/// Whether a pump that helps others is asleep, so that it is woken once by those who have more than they can take.
/// </summary>
internal sealed class HelperSleep
{
    private int _isAsleep;

    internal void Begin() => Volatile.Write(ref _isAsleep, 1);

    internal void End() => Volatile.Write(ref _isAsleep, 0);

    /// <summary>It sleeps, and the caller is the one to wake it. Any thread.</summary>
    internal bool TryEnd() => Volatile.Read(ref _isAsleep) != 0 && Interlocked.Exchange(ref _isAsleep, 0) != 0;
}
