using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Hosts;

/// <summary>Whether the handler of a channel can still store into it.</summary>
internal enum HandlerEnd
{
    /// <summary>Not decided yet: look again later.</summary>
    Open = 0,

    /// <summary>Its session lives: it answers.</summary>
    Alive = 1,

    /// <summary>Its session is over, its host is proven dead, or it said that it is done: it stores nothing any more.</summary>
    Over = 2,

    /// <summary>Nothing proves either, and waiting does not help.</summary>
    Unproven = 3,
}

/// <summary>Judges the backend's side of channels whose blkdev is gone. One thread at a time (the tracker's).</summary>
internal static class HandlerEnds<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    /// <summary>Judges the session that the blkdev's ctrl line of this claim word names. An invalid line proves nothing.</summary>
    /// <param name="deadHost">A host whose death is as good as proven, whatever the tracker says; −1 for none.</param>
    public static HandlerEnd OfChannel(in TMemory memory, RegionGeometry geometry, LivenessTracker<TMemory, TPolicy> tracker, int channel, ClaimWord word, int deadHost = -1) =>
        !BlkdevCtrlLine.TryLoadLatest(memory, geometry, channel, word.Epoch, out BlkdevCtrlLine line) ? HandlerEnd.Unproven
        : word.State == ClaimState.Quarantined && HandlerCtrlLine.IsDrained(memory, geometry, channel, word.Epoch, line.Session) ? HandlerEnd.Over
        : OfSession(memory, geometry, tracker, line.Backend, line.Session, deadHost);

    /// <summary>Judges one session of a backend, by the tracker's last sample.</summary>
    /// <param name="deadHost">A host whose death is as good as proven, whatever the tracker says; −1 for none.</param>
    public static HandlerEnd OfSession(in TMemory memory, RegionGeometry geometry, LivenessTracker<TMemory, TPolicy> tracker, int backend, ulong session, int deadHost = -1)
    {
        if ((uint)backend >= (uint)geometry.BackendCount)
            return HandlerEnd.Unproven;
        ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(memory, geometry.BackendOffset(backend));
        // A later session begins, and an entry is freed or orphaned, only when the handlers of the old one are drained
        // or proven dead.
        if (word.Epoch > session || (word.Epoch == session && word.State is ClaimState.Free or ClaimState.Orphaned))
            return HandlerEnd.Over;
        if (word.Epoch == session && word.Host == deadHost)
            return HandlerEnd.Over;
        if (word.Epoch < session || (uint)word.Host >= (uint)geometry.HostCount)
            return HandlerEnd.Unproven;
        ulong hostEpoch = EntryBodies<TMemory>.TryReadBackend(memory, geometry, backend, session, out BackendBody body, out _)
            ? body.HostEpoch
            : tracker.Get(word.Host).Word.Epoch;
        Liveness liveness = tracker.Of(word.Host, hostEpoch);
        if (liveness == Liveness.Dead)
            return HandlerEnd.Over;
        return word.State switch
        {
            ClaimState.Quarantined => HandlerEnd.Unproven,
            ClaimState.Clearing => HandlerEnd.Open,
            _ when liveness == Liveness.Alive => HandlerEnd.Alive,
            _ => tracker.Get(word.Host).Settled ? HandlerEnd.Unproven : HandlerEnd.Open,
        };
    }
}
