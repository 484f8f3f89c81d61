namespace Cbd.Memory;

/// <summary>
/// A doorbell: a 32-bit word in the low half of an aligned 64-bit word of the region. 1 = its owner sleeps, 0 = it does
/// not. Offsets are those of the 64-bit word.
/// </summary>
/// <remarks>
/// Sleeper: <see cref="Announce"/>, poll once more, and only if there is nothing <see cref="DoorbellSleeper.Wait"/>;
/// then <see cref="Retract"/>. Ringer: store the messages, then <see cref="Ring"/> once. Both store, then fence, then
/// load, so at least one of them sees the other. A doorbell is a hint: the sleeper's time-out bounds what a lost wake
/// costs (a peer on another kernel, or one that died between its exchange and its wake).
/// </remarks>
public static class Doorbells
{
    private const ulong Asleep = 1;
    private const ulong Awake = 0;

    /// <summary>
    /// Wakes the owner if it sleeps; true if it had to. Everything stored before is visible to the owner's next poll:
    /// the fence orders it before the load of the word, and pairs with the owner's <see cref="Announce"/>. Once per
    /// batch of messages: it costs a full fence and a load, and a system call only if the owner sleeps.
    /// </summary>
    public static bool Ring<TMemory>(in TMemory memory, long offset)
        where TMemory : struct, ISharedMemory
    {
        memory.FullFence();
        if (memory.ReadAcquire(offset) != Asleep || memory.CompareExchange(offset, Awake, Asleep) != Asleep)
            return false;
        memory.Wake(offset);
        return true;
    }

    /// <summary>Says that this side is about to sleep; what is loaded afterwards is no older than that.</summary>
    public static void Announce<TMemory>(in TMemory memory, long offset)
        where TMemory : struct, ISharedMemory
    {
        memory.WriteRelease(offset, Asleep);
        memory.FullFence();
    }

    /// <summary>Says that this side is awake.</summary>
    public static void Retract<TMemory>(in TMemory memory, long offset)
        where TMemory : struct, ISharedMemory => memory.WriteRelease(offset, Awake);
}
