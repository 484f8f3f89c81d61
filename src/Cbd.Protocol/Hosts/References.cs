using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Hosts;

/// <summary>
/// Who refers to a backend, and the writer words that say who may write. Any thread, any host. A blkdev refers to its
/// backend from ACTIVE until it is free; it looks at the backend's claim word again after becoming ACTIVE, and whoever
/// ends a backend takes its claim word out of ACTIVE before looking here: one of the two sees the other. One that is orphaned, or
/// being adopted, refers to it all the time.
/// </summary>
internal static class References<TMemory, TPolicy>
    where TMemory : struct, ISharedMemory
    where TPolicy : struct, IProtocolPolicy
{
    /// <summary>Ids of the blkdevs on a backend, in order.</summary>
    public static IReadOnlyList<int> BlkdevsOf(in TMemory memory, RegionGeometry geometry, int backend)
    {
        var found = new List<int>();
        for (int blkdev = 0; blkdev < geometry.BlkdevCount; blkdev++)
        {
            if (BackendOf(memory, geometry, blkdev) == backend)
                found.Add(blkdev);
        }

        return found;
    }

    /// <summary>
    /// Whether any blkdev is on a backend. One whose body cannot be read right now counts: its owner publishes it again
    /// with its next beat, or it is cleared.
    /// </summary>
    public static bool IsUsed(in TMemory memory, RegionGeometry geometry, int backend)
    {
        for (int blkdev = 0; blkdev < geometry.BlkdevCount; blkdev++)
        {
            int used = BackendOf(memory, geometry, blkdev);
            if (used == backend || used == Unreadable)
                return true;
        }

        return false;
    }

    /// <summary>
    /// Takes a blkdev out of the writer words of all backends. Whatever an adoption that came to nothing left of an earlier epoch goes,
    /// too: of one id there is one claim at a time.
    /// </summary>
    public static void FreeWriter(in TMemory memory, RegionGeometry geometry, int blkdev, ulong epoch)
    {
        for (int backend = 0; backend < geometry.BackendCount; backend++)
        {
            long offset = geometry.BackendOffset(backend) + BackendEntry.WriterOffset;
            ulong word = memory.ReadAcquire(offset);
            if (IsOf(new WriterWord(word), blkdev, epoch))
                ClaimOperations<TMemory, TPolicy>.TrySwap(memory, offset, new ClaimWord(word), new ClaimWord(WriterWord.None.Raw));
        }
    }

    /// <summary>
    /// Moves the writer word of a backend to the claim that adopts the blkdev which has it. False if that blkdev does not have it:
    /// somebody gave it up.
    /// </summary>
    public static bool TryMoveWriter(in TMemory memory, RegionGeometry geometry, int backend, int blkdev, ulong epoch)
    {
        long offset = geometry.BackendOffset(backend) + BackendEntry.WriterOffset;
        var own = new ClaimWord(new WriterWord(blkdev, epoch).Raw);
        ClaimWord seen = ClaimOperations<TMemory, TPolicy>.Read(memory, offset);
        return IsOf(new WriterWord(seen.Raw), blkdev, epoch) && ClaimOperations<TMemory, TPolicy>.TrySwap(memory, offset, seen, own);
    }

    private static bool IsOf(WriterWord word, int blkdev, ulong newestEpoch) => word != WriterWord.None && word.Blkdev == blkdev && word.Epoch <= newestEpoch;

    /// <summary>Frees orphaned backends that no blkdev uses any more; returns how many.</summary>
    public static int FreeUnusedOrphans(in TMemory memory, RegionGeometry geometry)
    {
        int count = 0;
        for (int backend = 0; backend < geometry.BackendCount; backend++)
        {
            long offset = geometry.BackendOffset(backend);
            ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(memory, offset);
            // No blkdev starts on an orphan, so it stays unused; a take-over changes the word, and this swap fails.
            if (word.State == ClaimState.Orphaned && !IsUsed(memory, geometry, backend) &&
                ClaimOperations<TMemory, TPolicy>.TrySwap(memory, offset, word, word.Freed()))
                count++;
        }

        return count;
    }

    private const int None = -1, Unreadable = -2;

    private static int BackendOf(in TMemory memory, RegionGeometry geometry, int blkdev)
    {
        long offset = geometry.BlkdevOffset(blkdev);
        while (true)
        {
            ClaimWord word = ClaimOperations<TMemory, TPolicy>.Read(memory, offset);
            if (word.State is ClaimState.Free or ClaimState.Claiming)
                return None;
            // The body of an orphan is of an earlier epoch where an adoption came to nothing.
            bool isRecord = word.State is ClaimState.Orphaned or ClaimState.Adopting;
            if (isRecord ? EntryBodies<TMemory>.TryReadBlkdevRecord(memory, geometry, blkdev, word.Epoch, out BlkdevBody body, out _, out _)
                : EntryBodies<TMemory>.TryReadBlkdev(memory, geometry, blkdev, word.Epoch, out body, out _))
                return body.BackendId;
            // Not whole: damaged, unless the entry has just changed hands.
            if (ClaimOperations<TMemory, TPolicy>.Read(memory, offset) == word)
                return Unreadable;
        }
    }
}
