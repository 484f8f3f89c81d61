using Cbd.Memory;

namespace Cbd.Channels;

/// <summary>
/// The doorbell words of a channel's ctrl page: 1 while a side sleeps. Hints only: a sleeper's time is bounded, so a
/// lost ring costs time and nothing else.
/// </summary>
public static class Doorbells
{
    /// <summary>
    /// Wakes the sleeper if there is one. Store what it is to see, then ring: the fence orders the store before the
    /// load of the word, and pairs with the sleeper's <see cref="Announce"/> before its last look.
    /// </summary>
    public static void Ring<TMemory>(in TMemory memory, long offset)
        where TMemory : struct, ISharedMemory
    {
        memory.FullFence();
        if (memory.ReadAcquire(offset) == 1 && memory.CompareExchange(offset, 0, 1) == 1)
            memory.Wake(offset);
    }

    /// <summary>Says that this side is about to sleep; look once more before sleeping.</summary>
    public static void Announce<TMemory>(in TMemory memory, long offset)
        where TMemory : struct, ISharedMemory
    {
        memory.WriteRelease(offset, 1);
        memory.FullFence();
    }

    /// <summary>Says that this side is awake.</summary>
    public static void Retract<TMemory>(in TMemory memory, long offset)
        where TMemory : struct, ISharedMemory => memory.WriteRelease(offset, 0);
}
