using static Cbd.Memory.KernelConstants;

namespace Cbd.Memory;

/// <summary>What this process may have, and what is kept for its verbs.</summary>
public static unsafe class ProcessLimits
{
    /// <summary>Descriptors below which a daemon cannot serve anything.</summary>
    public const int LeastOpenFiles = 64;

    /// <summary>Descriptors that clients of devices do not get, so that verbs work whatever clients do.</summary>
    private const int ReservedOpenFiles = 32;

    /// <summary>Descriptors at once (RLIMIT_NOFILE).</summary>
    public static int OpenFiles { get; } = (int)Math.Min(Read(LimitOpenFiles), int.MaxValue);

    /// <summary>Address space below which a daemon may be without a thread in the middle of its start, bytes.</summary>
    public const long LeastAddressSpace = 512L << 20;

    /// <summary>Bytes of address space (RLIMIT_AS); the largest number: no limit.</summary>
    public static long AddressSpace => (long)Math.Min(Read(LimitAddressSpace), long.MaxValue);

    /// <summary>Bytes of locked memory (RLIMIT_MEMLOCK); the largest number: no limit.</summary>
    internal static ulong LockedMemory => Read(LimitLockedMemory);

    /// <summary>Whether a client may keep the descriptor that it was given: numbers are given out from below.</summary>
    internal static bool IsForClients(FileDescriptor descriptor) => descriptor.Number < OpenFiles - ReservedOpenFiles;

    private static ulong Read(int resource)
    {
        // struct rlimit of 64-bit Linux: the soft and the hard limit, 8 bytes each.
        ulong* limit = stackalloc ulong[2];
        return LibC.GetLimit(resource, limit) < 0 ? ulong.MaxValue : limit[0];
    }
}
