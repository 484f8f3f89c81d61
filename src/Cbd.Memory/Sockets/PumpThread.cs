using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory.Sockets;

/// <summary>What a thread that polls may ask of the scheduler, for itself.</summary>
public static class PumpThread
{
    /// <summary>
    /// Makes short sleeps of the calling thread end in time: the kernel otherwise may add 50 µs to each.
    /// </summary>
    public static void UseExactTimers() => _ = LibC.PrCtl(PrctlSetTimerSlack, 1, 0, 0, 0);

    /// <summary>Lets another runnable thread have this CPU; returns at once if there is none.</summary>
    public static void Yield() => _ = LibC.SchedYield();
}
