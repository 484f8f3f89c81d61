namespace Cbd.Host.Sessions;

/// <summary>How long the life cycles and verbs of a host wait, milliseconds.</summary>
/// <param name="BeatMs">Period of the heartbeat.</param>
/// <param name="DeadMs">A heartbeat that stands still this long is a dead host's.</param>
internal sealed record HostTimes(int BeatMs, int DeadMs)
{
    /// <summary>A registration waits so long for other hosts to decide.</summary>
    public long RegisterMs { get; init; } = 3L * DeadMs + 5000;

    /// <summary>A device that is not served on all queues by then is taken back.</summary>
    public long AttachMs { get; init; } = 10_000;

    /// <summary>After this a forced stop quarantines channels that do not drain; another one says that it still waits.</summary>
    public long CloseMs { get; init; } = 10_000;

    /// <summary>A device waits so long for the clearing of a dead one on the same backend.</summary>
    public long ClearingMs { get; init; } = 10_000;

    /// <summary>A verb that clears waits so long for handlers that still drain.</summary>
    public long ClearVerbMs { get; init; } = 2L * DeadMs + 5000;

    /// <summary>A take-over waits so long for the old session to be judged.</summary>
    public long TakeOverMs { get; init; } = 2L * DeadMs + 10_000;

    /// <summary>A host that was cleared waits so long for what others still drain of its old claim.</summary>
    public long RejoinMs { get; init; } = 3_000;

    /// <summary>A host that leaves waits so long for what others still drain.</summary>
    public long LeaveMs { get; init; } = 5_000;
}
