using Cbd.Memory;
using Cbd.Protocol.Format;

namespace Cbd.Protocol;

/// <summary>
/// The entries of one area of a region: hosts, backends, blkdevs or channels. Every claim of a free entry is made here. Any
/// thread, any host.
/// </summary>
internal readonly struct EntryRegistry<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    private readonly TMemory _memory;
    private readonly Func<int, long> _offsetOf;

    private EntryRegistry(in TMemory memory, Func<int, long> offsetOf, int count)
    {
        _memory = memory;
        _offsetOf = offsetOf;
        Count = count;
    }

    /// <summary>How many entries the area has.</summary>
    public int Count { get; }

    public static EntryRegistry<TMemory, TPolicy> Hosts(in TMemory memory, RegionGeometry geometry) =>
        new(memory, geometry.HostOffset, geometry.HostCount);

    public static EntryRegistry<TMemory, TPolicy> Backends(in TMemory memory, RegionGeometry geometry) =>
        new(memory, geometry.BackendOffset, geometry.BackendCount);

    public static EntryRegistry<TMemory, TPolicy> Blkdevs(in TMemory memory, RegionGeometry geometry) =>
        new(memory, geometry.BlkdevOffset, geometry.BlkdevCount);

    public static EntryRegistry<TMemory, TPolicy> Channels(in TMemory memory, RegionGeometry geometry) =>
        new(memory, geometry.ChannelOffset, geometry.ChannelCount);

    /// <summary>The claim word of an entry. Throws if the id is outside the area.</summary>
    public ClaimWord Read(int id) => ClaimOperations<TMemory, TPolicy>.Read(_memory, _offsetOf(id));

    /// <summary>Whether an entry may be claimed: it is free, and has an epoch left.</summary>
    public bool IsClaimable(int id, out ClaimWord word)
    {
        word = Read(id);
        return word.State == ClaimState.Free && word.Epoch != ClaimWord.MaxEpoch;
    }

    /// <summary>
    /// Claims an entry, if it is free. The claimer looks at the claim of its own host afterwards, and gives the entry back if
    /// that is over: a claim made after the host was cleared would be nobody's to clear.
    /// </summary>
    /// <param name="id">Its id.</param>
    /// <param name="state">What it becomes.</param>
    /// <param name="host">Whose it becomes.</param>
    /// <param name="claimed">Its claim word, if it was claimed.</param>
    public bool TryClaim(int id, ClaimState state, int host, out ClaimWord claimed)
    {
        claimed = default;
        if (!IsClaimable(id, out ClaimWord word))
            return false;
        claimed = word.Next(state, host);
        return ClaimOperations<TMemory, TPolicy>.TrySwap(_memory, _offsetOf(id), word, claimed);
    }

    /// <summary>Claims the first free entry; false if there is none.</summary>
    /// <param name="state">What it becomes.</param>
    /// <param name="host">Whose it becomes.</param>
    /// <param name="isUsedHere">Ids that this process has in use still, whatever their entries say.</param>
    /// <param name="id">Its id, if there was one.</param>
    /// <param name="claimed">Its claim word, if there was one.</param>
    public bool TryClaimAny(ClaimState state, int host, Predicate<int>? isUsedHere, out int id, out ClaimWord claimed)
    {
        for (id = 0; id < Count; id++)
        {
            if (!(isUsedHere?.Invoke(id) ?? false) && TryClaim(id, state, host, out claimed))
                return true;
        }

        id = -1;
        claimed = default;
        return false;
    }

    /// <summary>Entries that are not free, each with its claim word.</summary>
    public List<(int Id, ClaimWord Word)> ListTaken()
    {
        var found = new List<(int, ClaimWord)>();
        for (int id = 0; id < Count; id++)
        {
            ClaimWord word = Read(id);
            if (word.State != ClaimState.Free)
                found.Add((id, word));
        }

        return found;
    }
}
