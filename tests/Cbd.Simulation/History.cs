namespace Cbd.Simulation;

/// <summary>What the users of a disk did and saw, and whether that is a legal history of it.</summary>
/// <remarks>
/// A write may take effect at any time, and more than once, until it is answered, or until the epochs in which it was
/// sent are drained. A read may return a write only if nothing newer was certain before the read began: no other write
/// was begun after this one could take effect for the last time, and answered before the read; and no other value was
/// seen by a read in between.
/// </remarks>
internal sealed class History(int blocks)
{
    private const long Never = long.MaxValue;
    private readonly List<Write>[] _writes = MakeBlocks(blocks);
    private readonly List<Sight>[] _sights = MakeSights(blocks);

    /// <summary>When a block may last have gone back to an older value.</summary>
    private readonly long[] _revertedAt = new long[blocks];
    private long _clock;
    private long _nextId;

    private sealed class Write
    {
        public required long Id { get; init; }
        public required long Began { get; init; }

        /// <summary>When its user was told that it is done.</summary>
        public long Answered { get; set; } = Never;

        /// <summary>From here on it cannot take effect any more.</summary>
        public long Over { get; set; } = Never;
        public bool Durable { get; set; }
        public bool ForceUnitAccess { get; init; }
        public int Life { get; init; }

        /// <summary>It was answered at this time, and the disk dropped it in a flush that failed.</summary>
        public long Dropped { get; set; } = Never;

        /// <summary>The disk dropped the block while this was not answered: it may have been in there.</summary>
        public bool MayBeDropped { get; set; }
    }

    /// <summary>A read saw this value at some time from Began to Ended.</summary>
    private readonly record struct Sight(long Id, long Began, long Ended);

    /// <summary>Number of the user's present life; a user who died without a flush was promised nothing.</summary>
    public int Life { get; set; }

    /// <summary>A write begins; returns the id to stamp its block with.</summary>
    public long BeginWrite(int block, bool forceUnitAccess)
    {
        long id = ++_nextId;
        _writes[block].Add(new Write { Id = id, Began = ++_clock, ForceUnitAccess = forceUnitAccess, Life = Life });
        return id;
    }

    /// <param name="isGivenUp">It was given up because the backend was away: it lands before anything that is begun later, or never.</param>
    public void EndWrite(int block, long id, bool success, bool isGivenUp = false)
    {
        if (isGivenUp)
            Find(block, id)!.Over = ++_clock;
        if (!success)
            return;
        Write write = Find(block, id)!;
        write.Answered = write.Over = ++_clock;
        // It may also have been done, or done again, after that.
        if (write.MayBeDropped && !write.ForceUnitAccess)
            write.Answered = Never;
        write.Durable |= write.ForceUnitAccess;
    }

    /// <summary>A read or a flush begins.</summary>
    public long Begin() => ++_clock;

    /// <summary>A flush that began at <paramref name="began"/> succeeded.</summary>
    public void EndFlush(long began)
    {
        for (int block = 0; block < _writes.Length; block++)
        {
            List<Write> writes = _writes[block];
            foreach (Write write in writes)
            {
                if (write.Dropped < began && !writes.Exists(w => w.Began > write.Dropped && w.Answered < began))
                    throw new SimulationException($"a flush that began at {began} succeeded, although the disk had dropped write {write.Id} of block {block}, answered at {write.Dropped}");
                write.Durable |= write.Answered < began;
            }
        }
    }

    /// <summary>
    /// Acknowledged writes that no flush covered may be gone, and the user was told so, or is gone: those of earlier
    /// lives, or of all.
    /// </summary>
    public void ForgiveUnflushed(bool presentLifeToo)
    {
        for (int block = 0; block < _writes.Length; block++)
        {
            foreach (Write write in _writes[block])
            {
                if (!presentLifeToo && write.Life >= Life)
                    continue;
                write.Dropped = Never;
                if (!write.Durable)
                    write.Answered = Never;
            }

            Revert(block);
        }
    }

    /// <summary>
    /// The disk dropped what it had of a block in a flush that failed, and has write <paramref name="kept"/> again; its
    /// user is told by that flush.
    /// </summary>
    public void Drop(int block, long kept)
    {
        Write? rest = Find(block, kept);
        foreach (Write write in _writes[block])
        {
            if (write.Durable || write == rest || (rest is not null && write.Over < rest.Began))
                continue;
            if (write.Answered == Never)
            {
                write.MayBeDropped = write.Over == Never;
                continue;
            }

            // Of two that overlapped nobody knows which one the disk had before.
            write.Dropped = rest is not null && write.Began > rest.Over ? write.Answered : Never;
            write.Answered = Never;
        }

        Revert(block);
    }

    /// <summary>Nothing that a life of the user sent can take effect any more: all its epochs are drained.</summary>
    public void EndLife(int life)
    {
        long now = ++_clock;
        foreach (List<Write> writes in _writes)
        {
            foreach (Write write in writes)
            {
                if (write.Life == life && write.Over == Never)
                    write.Over = now;
            }
        }
    }

    /// <summary>The user of that life was told that the write is done, and no flush has covered it.</summary>
    public bool IsOwed(int block, long id, int life) =>
        Find(block, id) is { Durable: false } write && write.Answered != Never && write.Life == life;

    /// <summary>Throws unless a read that began at <paramref name="began"/> may return <paramref name="id"/>.</summary>
    public void CheckRead(int block, long id, long began)
    {
        Write seen = Find(block, id)
            ?? throw new SimulationException($"block {block} reads as write {id}, which was never begun there");
        foreach (Write other in _writes[block])
        {
            if (other.Began > seen.Over && other.Answered < began)
                throw new SimulationException($"block {block} reads as write {id} (begun at {seen.Began}, answered or over at {seen.Over}), although write {other.Id} was begun at {other.Began} and answered at {other.Answered}, before the read began at {began}");
        }

        foreach (Sight sight in _sights[block])
        {
            if (sight.Id != id && sight.Began > seen.Over && sight.Ended < began)
                throw new SimulationException($"block {block} reads as write {id} (begun at {seen.Began}, answered or over at {seen.Over}), although a read from {sight.Began} to {sight.Ended} saw write {sight.Id}, before the read began at {began}");
        }

        // A read that was on its way then may have seen either.
        if (began <= _revertedAt[block])
            return;
        List<Sight> sights = _sights[block];
        sights.Add(new Sight(id, began, ++_clock));
        if (sights.Count > 64)
            sights.RemoveAt(0);
    }

    private void Revert(int block)
    {
        _revertedAt[block] = ++_clock;
        _sights[block].Clear();
    }

    private Write? Find(int block, long id)
    {
        List<Write> writes = _writes[block];
        for (int i = writes.Count - 1; i >= 0; i--)
        {
            if (writes[i].Id == id)
                return writes[i];
        }

        return null;
    }

    private static List<Write>[] MakeBlocks(int blocks)
    {
        var lists = new List<Write>[blocks];
        for (int i = 0; i < blocks; i++)
            lists[i] = [new Write { Id = 0, Began = 0, Answered = 0, Over = 0, Durable = true }];
        return lists;
    }

    private static List<Sight>[] MakeSights(int blocks)
    {
        var lists = new List<Sight>[blocks];
        for (int i = 0; i < blocks; i++)
            lists[i] = [];
        return lists;
    }
}

/// <summary>A safety or progress rule did not hold.</summary>
internal sealed class SimulationException(string message, Exception? inner = null) : Exception(message, inner);
