using Cbd.Memory;

namespace Cbd.Protocol.Format;

/// <summary>What a handler does with its channel. Stored: values are fixed and only ever added to.</summary>
internal enum HandlerCondition : byte
{
    Serving = 1,

    /// <summary>The blkdev's bytes broke a rule: nothing is fetched any more until a reset.</summary>
    Failed = 2,

    /// <summary>It serves, and cannot fetch now: the disk or its buffers are full. Unfetched commands have to wait.</summary>
    Stalled = 3,

    /// <summary>The channel was quarantined, and nothing of it is at the disk or will be stored any more: a last word.</summary>
    Drained = 4,
}

/// <summary>
/// The handler's ctrl line of a channel: life cycle and diagnosis, never flow control. One line, stored by the handler
/// only.
/// <list type="table">
/// <item><term>+0, 8</term><description>epoch of the channel that it serves</description></item>
/// <item><term>+8, 1</term><description><see cref="HandlerCondition"/></description></item>
/// <item><term>+9, 7</term><description>zero</description></item>
/// <item><term>+16, 8</term><description>session: epoch of the backend's claim</description></item>
/// <item><term>+24, 8</term><description>sequence of the last command fetched</description></item>
/// <item><term>+32, 8</term><description>sequence of the last completion posted</description></item>
/// <item><term>+40, 16</term><description>zero</description></item>
/// <item><term>+56, 4</term><description>CRC32C (<see cref="LineSeal"/>, slot 0)</description></item>
/// <item><term>+60, 4</term><description>zero</description></item>
/// </list>
/// </summary>
internal readonly record struct HandlerCtrlLine(
    ulong Epoch, HandlerCondition Condition, ulong Session, ulong Fetched, ulong Posted)
{
    /// <summary>Seals with the seal of this channel and epoch, and stores the line.</summary>
    public void Store<TMemory>(in TMemory memory, long offset, LineSeal seal)
        where TMemory : struct, ISharedMemory
    {
        var line = new Line
        {
            Word0 = Epoch,
            Word1 = (byte)Condition,
            Word2 = Session,
            Word3 = Fetched,
            Word4 = Posted,
        };
        seal.Seal(ref line, 0);
        memory.WriteLine(offset, line);
    }

    /// <summary>
    /// Reads the line once; false if it is not a whole line of <paramref name="epoch"/>, which counts as attached.
    /// </summary>
    public static bool TryLoad<TMemory>(
        in TMemory memory, RegionGeometry geometry, int channel, ulong epoch, out HandlerCtrlLine ctrl)
        where TMemory : struct, ISharedMemory
    {
        memory.ReadLine(geometry.ChannelOffset(channel) + ChannelLayout.HandlerCtrlOffset, out Line line);
        ctrl = default;
        if (line.Word0 != epoch || !new LineSeal(geometry.RegionId, channel, LineKind.HandlerCtrl, epoch).Holds(line, 0))
            return false;
        ctrl = new HandlerCtrlLine(line.Word0, (HandlerCondition)(byte)line.Word1, line.Word2, line.Word3, line.Word4);
        return true;
    }

    /// <summary>Whether the session has said that nothing of the channel, quarantined in that epoch, is at its disk any more.</summary>
    public static bool IsDrained<TMemory>(in TMemory memory, RegionGeometry geometry, int channel, ulong epoch, ulong session)
        where TMemory : struct, ISharedMemory =>
        TryLoad(memory, geometry, channel, epoch, out HandlerCtrlLine line) && line.Condition == HandlerCondition.Drained && line.Session == session;
}
