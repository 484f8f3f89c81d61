namespace Cbd.Protocol.Format;

/// <summary>States of a claim word. Stored: values are fixed and only ever added to.</summary>
internal enum ClaimState : byte
{
    Free = 0,

    /// <summary>Taken, owns nothing yet; anyone may free it after a dead-time.</summary>
    Claiming = 1,

    Active = 2,

    /// <summary>Owner is leaving (entries); the blkdev asked for the end (channels).</summary>
    Closing = 3,

    /// <summary>Somebody else clears what a dead owner left.</summary>
    Clearing = 4,

    /// <summary>Cleared without proof of death: nobody may reuse it.</summary>
    Quarantined = 5,

    /// <summary>Hosts only: name published, waiting for the rescan. Body is valid.</summary>
    Registering = 6,

    /// <summary>
    /// Backends: the owner is gone, the body stays as the record for the blkdevs that wait, and for the next start of
    /// the disk. Blkdevs: the owner is dead, and the entry and the backend's writer word are reserved for the next life of its host
    /// (<see cref="ClaimWord.NoHost"/>).
    /// </summary>
    Orphaned = 7,

    /// <summary>Blkdevs only: an orphan that its host takes up again. The body of the orphan is the record until the claim is active.</summary>
    Adopting = 8,

    /// <summary>Channels only: taken by a blkdev.</summary>
    Claimed = 16,

    /// <summary>Channels only: the blkdev's ctrl line names backend and session; a handler may attach.</summary>
    Offered = 17,

    /// <summary>Channels only: the handler serves it.</summary>
    Attached = 18,

    /// <summary>Channels only: the handler has drained and stores nothing any more.</summary>
    Detached = 19,
}

/// <summary>
/// The first 64-bit word of every entry of every area, changed only by compare-and-swap.
/// <list type="table">
/// <item><term>bits 0–39</term><description>epoch: number of this claim or life; raised by every claim and every
/// channel reset, never used twice</description></item>
/// <item><term>bits 40–55</term><description>host: id of the claiming host (0 when free)</description></item>
/// <item><term>bits 56–63</term><description><see cref="ClaimState"/></description></item>
/// </list>
/// </summary>
internal readonly record struct ClaimWord(ulong Raw)
{
    /// <summary>The largest epoch; an entry that reached it stays as it is and is never claimed again.</summary>
    public const ulong MaxEpoch = (1UL << 40) - 1;

    /// <summary>
    /// The host of an orphaned blkdev: no entry has this id. Hosts of the version before clear by the host id of a word, and so
    /// leave it alone.
    /// </summary>
    public const int NoHost = ushort.MaxValue;

    public ClaimWord(ClaimState state, int host, ulong epoch)
        : this(((ulong)state << 56) | ((ulong)(ushort)host << 40) | (epoch & MaxEpoch))
    {
    }

    public ClaimState State => (ClaimState)(Raw >> 56);

    public int Host => (ushort)(Raw >> 40);

    public ulong Epoch => Raw & MaxEpoch;

    /// <summary>The same claim in another state.</summary>
    public ClaimWord With(ClaimState state) => new(state, Host, Epoch);

    /// <summary>A new claim by <paramref name="host"/>: the next epoch.</summary>
    public ClaimWord Next(ClaimState state, int host) => new(state, host, checked(Epoch + 1));

    /// <summary>The same claim without a host: what the next life of its host takes up again.</summary>
    public ClaimWord Orphaned() => new(ClaimState.Orphaned, NoHost, Epoch);

    /// <summary>The free word that keeps the epoch, so that it is never used twice.</summary>
    public ClaimWord Freed() => new(ClaimState.Free, 0, Epoch);

    public override string ToString() => $"{State} host {Host} epoch {Epoch}";
}
