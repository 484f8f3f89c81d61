using Cbd.Protocol.Format;

namespace Cbd.Simulation.Region;

/// <summary>What an entry or channel is in when somebody dies.</summary>
internal enum MatrixState
{
    ChannelClaimed,
    ChannelOffered,
    ChannelIdle,
    ChannelFetched,
    ChannelNotFetched,
    ChannelNotCopied,
    ChannelClosing,
    ChannelDetached,
    ChannelOfferedAgain,
    HostClaiming,
    HostRegistering,
    HostActive,
    HostClosing,
    BackendClaiming,
    BackendTakingOver,
    BackendActive,
    BackendClosing,
    BackendActiveUsed,
    BackendClosingUsed,
    BackendLatched,
    BackendFlushingDirect,
    BackendFlushingBuffered,
    BlkdevClaiming,
    BlkdevActive,
    BlkdevClosing,
    BlkdevKept,
    BlkdevAdopting,
    Clearer,
    Leaver,
    Formatter,
    Everybody,
}

/// <summary>Whose process ends.</summary>
internal enum MatrixDeath
{
    /// <summary>The host of the entry itself.</summary>
    Owner,
    Blkdev,
    Backend,
    Both,
}

/// <summary>What has to be seen after the death, before the cell counts.</summary>
internal enum MatrixOutcome
{
    /// <summary>The claim word of that claim becomes FREE.</summary>
    Freed,

    /// <summary>CLOSING, DETACHED by its handler, FREE.</summary>
    DrainedAndFreed,

    /// <summary>CLOSING, then FREE.</summary>
    ClosedAndFreed,

    /// <summary>A later epoch of the same life of the channel is attached, or it is freed at the end of the device.</summary>
    AttachedAnew,

    /// <summary>CLEARING, then FREE.</summary>
    ClearedAndFreed,

    /// <summary>ORPHANED, with a record that can be read.</summary>
    Orphaned,

    /// <summary>FREE, and no writer word names it.</summary>
    FreedWithWriter,

    /// <summary>The next session of the backend starts with the latched errno.</summary>
    LatchInherited,

    /// <summary>The next session is sent a flush.</summary>
    FlushRepeated,

    /// <summary>The user's flush fails.</summary>
    FlushFailed,

    /// <summary>The region is formatted, by somebody else.</summary>
    Formatted,

    /// <summary>Every claim of the dead hosts is over.</summary>
    AllCleared,
}

/// <summary>One case of the crash matrix.</summary>
/// <param name="State">In what.</param>
/// <param name="Death">Who dies.</param>
/// <param name="Outcome">What is seen then.</param>
/// <param name="Row">The first column, or columns, of the table in docs/protocol.md.</param>
/// <param name="Column">The header of the column there.</param>
/// <param name="Text">The text of the cell there.</param>
internal sealed record MatrixCell(MatrixState State, MatrixDeath Death, MatrixOutcome Outcome, string Row, string Column, string Text)
{
    /// <summary>The name by which it is counted.</summary>
    public string Name => $"{State}/{Death}";
}

/// <summary>
/// The crash matrix of docs/protocol.md as data: the simulator counts each case when that death happened in that state
/// and its outcome was seen, the directed runs aim at each, and a test compares the document with it.
/// </summary>
internal static class CrashMatrix
{
    private const string BlkdevDies = "blkdev's host dies", BackendDies = "backend's host dies", BothDie = "both die", HostDies = "its host dies", WhoGoesOn = "who goes on";

    public static IReadOnlyList<MatrixCell> Cells { get; } =
    [
        .. Channel(MatrixState.ChannelClaimed, "CLAIMED",
            (MatrixOutcome.Freed, "somebody: FREE"),
            (MatrixOutcome.Freed, "nobody serves it; the blkdev's `dev-start` rolls back"),
            (MatrixOutcome.Freed, "FREE")),
        .. Channel(MatrixState.ChannelOffered, "OFFERED",
            (MatrixOutcome.Freed, "somebody: FREE. A handler that attaches meanwhile wins the swap: next row"),
            (MatrixOutcome.AttachedAnew, "the offer is repeated; a new session causes a reset"),
            (MatrixOutcome.Freed, "FREE")),
        .. Channel(MatrixState.ChannelIdle, "ATTACHED, idle",
            (MatrixOutcome.DrainedAndFreed, "somebody: CLOSING; handler: DETACHED; somebody: FREE"),
            (MatrixOutcome.AttachedAnew, "stays; the device says `waiting`; with a new session: reset, next epoch attached"),
            (MatrixOutcome.ClosedAndFreed, "CLOSING, then FREE: the session is over")),
        .. Channel(MatrixState.ChannelFetched, "ATTACHED, commands fetched",
            (MatrixOutcome.DrainedAndFreed, "the same; the handler's disk operations end first, their completions go nowhere"),
            (MatrixOutcome.AttachedAnew, "the same; the blkdev issues them again"),
            (MatrixOutcome.ClosedAndFreed, "the same")),
        .. Channel(MatrixState.ChannelNotFetched, "ATTACHED, commands not fetched",
            (MatrixOutcome.DrainedAndFreed, "the same; what is not fetched before CLOSING is never done"),
            (MatrixOutcome.AttachedAnew, "the same"),
            (MatrixOutcome.ClosedAndFreed, "the same")),
        .. Channel(MatrixState.ChannelNotCopied, "ATTACHED, completions not copied",
            (MatrixOutcome.DrainedAndFreed, "the same"),
            (MatrixOutcome.AttachedAnew, "done again, before anything newer is issued (hold)"),
            (MatrixOutcome.ClosedAndFreed, "the same")),
        .. Channel(MatrixState.ChannelClosing, "CLOSING",
            (MatrixOutcome.Freed, "handler: DETACHED; somebody: FREE"),
            (MatrixOutcome.Freed, "blkdev: FREE, when the session is proven over or has a successor"),
            (MatrixOutcome.Freed, "FREE")),
        .. Channel(MatrixState.ChannelDetached, "DETACHED",
            (MatrixOutcome.Freed, "somebody: FREE"),
            (MatrixOutcome.AttachedAnew, "blkdev: waits for a session, or FREE at `dev-stop`"),
            (MatrixOutcome.Freed, "FREE")),
        .. Channel(MatrixState.ChannelOfferedAgain, "OFFERED after a reset",
            (MatrixOutcome.DrainedAndFreed, "as ATTACHED: the same session may still drain the older epoch"),
            (MatrixOutcome.AttachedAnew, "as OFFERED"),
            (MatrixOutcome.ClosedAndFreed, "as ATTACHED")),

        Entry(MatrixState.HostClaiming, MatrixOutcome.Freed, "host | CLAIMING, REGISTERING", "FREE; it owned nothing"),
        Entry(MatrixState.HostRegistering, MatrixOutcome.Freed, "host | CLAIMING, REGISTERING", "FREE; it owned nothing"),
        Entry(MatrixState.HostActive, MatrixOutcome.ClearedAndFreed, "host | ACTIVE, CLOSING", "CLEARING, what it had, FREE"),
        Entry(MatrixState.HostClosing, MatrixOutcome.ClearedAndFreed, "host | ACTIVE, CLOSING", "CLEARING, what it had, FREE"),
        Entry(MatrixState.BackendClaiming, MatrixOutcome.Freed, "backend | CLAIMING, new", "FREE"),
        Entry(MatrixState.BackendTakingOver, MatrixOutcome.Orphaned, "backend | CLAIMING, taking over", "ORPHANED again: the record was kept"),
        Entry(MatrixState.BackendActive, MatrixOutcome.Freed, "backend | ACTIVE, CLOSING, no blkdev", "FREE"),
        Entry(MatrixState.BackendClosing, MatrixOutcome.Freed, "backend | ACTIVE, CLOSING, no blkdev", "FREE"),
        Entry(MatrixState.BackendActiveUsed, MatrixOutcome.Orphaned, "backend | ACTIVE, CLOSING, with blkdevs", "ORPHANED; `backend-start` of the disk, by whichever host can open it, or `--restore`"),
        Entry(MatrixState.BackendClosingUsed, MatrixOutcome.Orphaned, "backend | ACTIVE, CLOSING, with blkdevs", "ORPHANED; `backend-start` of the disk, by whichever host can open it, or `--restore`"),
        Entry(MatrixState.BackendLatched, MatrixOutcome.LatchInherited, "backend | flush failed, latch stored, not answered", "as above; the next session fails writes and flushes at once"),
        Entry(MatrixState.BackendFlushingDirect, MatrixOutcome.FlushRepeated, "backend | flush in flight", "with O_DIRECT the blkdev issues it again to the next session; without, it fails with EIO"),
        Entry(MatrixState.BackendFlushingBuffered, MatrixOutcome.FlushFailed, "backend | flush in flight", "with O_DIRECT the blkdev issues it again to the next session; without, it fails with EIO"),
        Entry(MatrixState.BlkdevClaiming, MatrixOutcome.FreedWithWriter, "blkdev | CLAIMING", "FREE, with the writer word"),
        Entry(MatrixState.BlkdevActive, MatrixOutcome.FreedWithWriter, "blkdev | ACTIVE, CLOSING", "after its channels: writer word, FREE; an ORPHANED backend that it used last is freed, too"),
        Entry(MatrixState.BlkdevClosing, MatrixOutcome.FreedWithWriter, "blkdev | ACTIVE, CLOSING", "after its channels: writer word, FREE; an ORPHANED backend that it used last is freed, too"),

        Entry(MatrixState.BlkdevKept, MatrixOutcome.Orphaned, "blkdev | ACTIVE, kept", "after its channels: ORPHANED, with the writer word; the next process of its host adopts it"),
        Entry(MatrixState.BlkdevAdopting, MatrixOutcome.Orphaned, "blkdev | ADOPTING", "ORPHANED again: the record was kept, and the writer word is this blkdev's, of one epoch or another"),

        new(MatrixState.Clearer, MatrixDeath.Owner, MatrixOutcome.Freed, "clearer | host CLEARING, entries in any of the states above", WhoGoesOn, "any other clearer: every step is one swap, done or not"),
        new(MatrixState.Leaver, MatrixDeath.Owner, MatrixOutcome.Freed, "host that leaves | CLOSING or CLEARING, lock free", WhoGoesOn, "somebody, as for any dead host"),
        new(MatrixState.Formatter, MatrixDeath.Owner, MatrixOutcome.Formatted, "formatter | magic FORMATTING; nobody can register", WhoGoesOn, "the next `tp-reg --format`, when the magic stood still for a dead-time (`Transports/Formatter.cs`)"),
        new(MatrixState.Everybody, MatrixDeath.Both, MatrixOutcome.AllCleared, "both hosts, nobody else there | everything as it was", WhoGoesOn, "whoever registers next"),
    ];

    /// <summary>The cell of a state and a death; null if the matrix has none.</summary>
    public static MatrixCell? Find(MatrixState state, MatrixDeath death)
    {
        foreach (MatrixCell cell in Cells)
        {
            if (cell.State == state && cell.Death == death)
                return cell;
        }

        return null;
    }

    private static MatrixCell Entry(MatrixState state, MatrixOutcome outcome, string row, string text) =>
        new(state, MatrixDeath.Owner, outcome, row, HostDies, text);

    private static MatrixCell[] Channel(MatrixState state, string row, params ReadOnlySpan<(MatrixOutcome Outcome, string Text)> cells) =>
    [
        new(state, MatrixDeath.Blkdev, cells[0].Outcome, row, BlkdevDies, cells[0].Text),
        new(state, MatrixDeath.Backend, cells[1].Outcome, row, BackendDies, cells[1].Text),
        new(state, MatrixDeath.Both, cells[2].Outcome, row, BothDie, cells[2].Text),
    ];
}
