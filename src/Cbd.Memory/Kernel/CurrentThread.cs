using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>Kernel settings of the calling thread.</summary>
public static unsafe class CurrentThread
{
    private const int MaskBytes = 1024;

    /// <summary>CPUs that a mask of this program can name.</summary>
    public const int MaximumCpus = MaskBytes * 8;

    /// <summary>
    /// How late timers of this thread may fire, ns; the kernel's default is 50 µs. 0 resets to the default.
    /// </summary>
    public static void SetTimerSlack(int nanoseconds)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(nanoseconds);
        if (LibC.PrCtl(PrctlSetTimerSlack, (nuint)nanoseconds, 0, 0, 0) < 0)
            throw SystemCallException.Last("prctl");
    }

    /// <summary>The timer slack of this thread, ns.</summary>
    public static int GetTimerSlack() => LibC.PrCtl(PrctlGetTimerSlack, 0, 0, 0, 0);

    /// <summary>Keeps this thread on one CPU. The thread must not be one of the thread pool.</summary>
    public static void PinToCpu(int cpu)
    {
        if ((uint)cpu >= MaximumCpus)
            throw new ArgumentOutOfRangeException(nameof(cpu), cpu, $"not from 0 to {MaximumCpus - 1}");
        byte* mask = stackalloc byte[MaskBytes];
        new Span<byte>(mask, MaskBytes).Clear();
        mask[cpu / 8] = (byte)(1 << (cpu % 8));
        if (LibC.SchedSetAffinity(0, MaskBytes, mask) < 0)
            throw SystemCallException.Last("sched_setaffinity", $"CPU {cpu}");
    }

    /// <summary>The CPUs on which this thread may run.</summary>
    public static IReadOnlyList<int> AllowedCpus()
    {
        byte* mask = stackalloc byte[MaskBytes];
        new Span<byte>(mask, MaskBytes).Clear();
        if (LibC.SchedGetAffinity(0, MaskBytes, mask) < 0)
            throw SystemCallException.Last("sched_getaffinity");
        var cpus = new List<int>();
        for (int cpu = 0; cpu < MaximumCpus; cpu++)
        {
            if ((mask[cpu / 8] & (1 << (cpu % 8))) != 0)
                cpus.Add(cpu);
        }

        return cpus;
    }
}
