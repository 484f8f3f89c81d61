using Cbd.Blocks;
using Cbd.Host;

namespace Cbd.Exports.Pumping;

/// <summary>
/// What a pump does when it has had its turn: look for events, spin or sleep. The one place for all pumps; a thread of its
/// own calls it after each turn.
/// </summary>
/// <remarks>
/// While requests are at the device, the pump sleeps for their completions and for events at once, if the queue can do
/// that. Of any other queue no sleep is ended by a completion: the pump looks again after short sleeps that grow. With
/// nothing at the device it sleeps until an event, or for the second after which a queue must be polled.
/// </remarks>
internal sealed class PumpIdle<TSleeper>(TSleeper sleeper, IBlockQueue queue, PollMode mode)
    where TSleeper : struct, IPumpSleeper
{
    private const int IdleSleepMicroseconds = 1_000_000;

    /// <summary>Longest sleep while the device works and can wake us: its deadlines are looked after in between.</summary>
    private const int DeviceSleepMicroseconds = 100_000;

    private TSleeper _sleeper = sleeper;
    private IdleStrategy _strategy = new(mode, queue);

    /// <summary>The way to sleep, for what a pump tells it.</summary>
    internal ref TSleeper Sleeper => ref _sleeper;

    /// <summary>Returns how many events there are, possibly after waiting.</summary>
    /// <param name="progressed">Something happened since the last call.</param>
    /// <param name="mayWait">There is nothing that the pump could do now.</param>
    /// <param name="outstanding">Requests at the device.</param>
    internal int Next(bool progressed, bool mayWait, int outstanding)
    {
        if (progressed)
            _strategy.Progressed();
        if (progressed || !mayWait)
            return _sleeper.Look();
        if (_strategy.KeepsSpinning)
        {
            int seen = _sleeper.LookInSpin(deviceIsBusy: outstanding != 0);
            if (seen == 0)
                _strategy.Yield();
            return seen;
        }

        if (outstanding == 0)
            return _sleeper.Sleep(IdleSleepMicroseconds);
        if (_sleeper.TrySleepWithDevice(DeviceSleepMicroseconds, out int events))
            return events;
        return _sleeper.Sleep(_strategy.NextSleepMicroseconds());
    }
}
