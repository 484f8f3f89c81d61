namespace Cbd.Protocol.Channels;

/// <summary>Limits of one queue. Times in microseconds of the clock that is handed to <c>Poll</c>.</summary>
internal sealed record QueueOptions
{
    /// <summary>
    /// So many bytes of the next payload are brought ahead: enough for the CPU's own prefetcher to see where it goes.
    /// </summary>
    internal const int PrefetchBytes = 512;

    /// <summary>
    /// After so many bytes of payload a turn ends, with more to come at once: what was copied is still in this core's
    /// cache when the user gets it.
    /// </summary>
    internal const long CollectBytes = 256 << 10;

    /// <summary>Commands outstanding at most; 0: as many as the ring has slots.</summary>
    public int Depth { get; init; }

    /// <summary>After this long without an answer a command is looked after.</summary>
    public long DeadlineMicroseconds { get; init; } = 1_000_000;

    /// <summary>How often an unfetched command is stored again before the channel is reset.</summary>
    public int RepeatLimit { get; init; } = 2;

    /// <summary>How often a bad payload is sent again before the request fails with EIO.</summary>
    public int PayloadAttempts { get; init; } = 3;

    /// <summary>Acknowledged resets of one session without a completion before requests fail with EIO.</summary>
    public int FruitlessResets { get; init; } = 3;

    /// <summary>Largest piece that a request is split into, bytes; 0: half a pool, which is also the most.</summary>
    public int PieceBytes { get; init; }
}
