namespace Cbd.Simulation;

/// <summary>What the users of a disk did and saw, and whether that is a legal history of it.</summary>
/// <remarks>
/// A write that was not answered, or failed, may take effect at any time. A read may return a write only if no other
/// write was answered before the read began that was itself begun after the first was answered.
/// </remarks>
public sealed class History(int blocks)
{
    private const long Never = long.MaxValue;
    private readonly List<Write>[] _writes = MakeBlocks(blocks);
    private long _clock;
    private long _nextId;

    private sealed class Write
    {
        public required long Id { get; init; }
        public required long Began { get; init; }
        public long Answered { get; set; } = Never;
        public bool Durable { get; set; }
        public bool ForceUnitAccess { get; init; }
        public int Life { get; init; }
    }

    /// <summary>Number of the user's present life; a user who died without a flush was promised nothing.</summary>
    public int Life { get; set; }

    /// <summary>A write begins; returns the id to stamp its block with.</summary>
    public long BeginWrite(int block, bool forceUnitAccess)
    {
        long id = ++_nextId;
        _writes[block].Add(new Write { Id = id, Began = ++_clock, ForceUnitAccess = forceUnitAccess, Life = Life });
        return id;
    }

    public void EndWrite(int block, long id, bool success)
    {
        if (!success)
            return;
        Write write = _writes[block].Find(w => w.Id == id)!;
        write.Answered = ++_clock;
        write.Durable |= write.ForceUnitAccess;
    }

    /// <summary>A read or a flush begins.</summary>
    public long Begin() => ++_clock;

    /// <summary>A flush that began at <paramref name="began"/> succeeded.</summary>
    public void EndFlush(long began)
    {
        foreach (List<Write> writes in _writes)
        {
            foreach (Write write in writes)
                write.Durable |= write.Answered < began;
        }
    }

    /// <summary>
    /// Acknowledged writes that no flush covered may be gone, and the user was told so, or is gone: those of earlier
    /// lives, or of all.
    /// </summary>
    public void ForgiveUnflushed(bool presentLifeToo)
    {
        foreach (List<Write> writes in _writes)
        {
            foreach (Write write in writes)
            {
                if (!write.Durable && (presentLifeToo || write.Life < Life))
                    write.Answered = Never;
            }
        }
    }

    /// <summary>Throws unless a read that began at <paramref name="began"/> may return <paramref name="id"/>.</summary>
    public void CheckRead(int block, long id, long began)
    {
        Write? seen = _writes[block].Find(w => w.Id == id)
            ?? throw new SimulationException($"block {block} reads as write {id}, which was never begun there");
        foreach (Write other in _writes[block])
        {
            if (other.Began > seen.Answered && other.Answered < began)
                throw new SimulationException($"block {block} reads as write {id} (answered at {seen.Answered}), although write {other.Id} was begun at {other.Began} and answered at {other.Answered}, before the read began at {began}");
        }
    }

    private static List<Write>[] MakeBlocks(int blocks)
    {
        var lists = new List<Write>[blocks];
        for (int i = 0; i < blocks; i++)
            lists[i] = [new Write { Id = 0, Began = 0, Answered = 0, Durable = true }];
        return lists;
    }
}

/// <summary>A safety or progress rule did not hold.</summary>
public sealed class SimulationException(string message, Exception? inner = null) : Exception(message, inner);
