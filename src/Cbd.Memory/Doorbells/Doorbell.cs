namespace Cbd.Memory;

/// <summary>
/// A doorbell: a 32-bit word in the low half of an aligned 64-bit word of the region. 1 = its owner sleeps, 0 = it does
/// not. Offsets are those of the 64-bit word.
/// </summary>
/// <remarks>
/// Sleeper: <see cref="Arm"/>, poll its rings once more, and only if there is nothing
/// <see cref="DoorbellSleeper.Wait"/>; then <see cref="Disarm"/>. Ringer: store the messages, then <see cref="Ring"/>
/// once. Both store, then fence, then load, so at least one of them sees the other. A doorbell is a hint: the
/// sleeper's time-out bounds what a lost wake costs (a peer on another kernel, or one that died between its exchange
/// and its wake).
/// </remarks>
public static class Doorbell
{
    private const ulong Asleep = 1;
    private const ulong Awake = 0;

    /// <summary>Says that this side goes to sleep; what is loaded afterwards is no older than that.</summary>
    public static void Arm<TMemory>(in TMemory memory, ReadOnlySpan<long> doorbells)
        where TMemory : struct, ISharedMemory
    {
        foreach (long doorbell in doorbells)
            memory.WriteRelease(doorbell, Asleep);
        memory.FullFence();
    }

    /// <summary>Says that this side is awake.</summary>
    public static void Disarm<TMemory>(in TMemory memory, ReadOnlySpan<long> doorbells)
        where TMemory : struct, ISharedMemory
    {
        foreach (long doorbell in doorbells)
            memory.WriteRelease(doorbell, Awake);
    }

    /// <summary>
    /// Wakes the owner if it sleeps; true if it had to. Everything stored before is visible to the owner's next poll.
    /// Once per batch of messages: it costs a full fence and a load, and a system call only if the owner sleeps.
    /// </summary>
    public static bool Ring<TMemory>(in TMemory memory, long doorbell)
        where TMemory : struct, ISharedMemory
    {
        memory.FullFence();
        if (memory.ReadAcquire(doorbell) != Asleep || memory.CompareExchange(doorbell, Awake, Asleep) != Asleep)
            return false;
        memory.Wake(doorbell);
        return true;
    }
}
