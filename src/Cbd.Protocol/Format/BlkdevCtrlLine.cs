using Cbd.Memory;

namespace Cbd.Protocol.Format;

/// <summary>
/// The blkdev's ctrl line of a channel: what it offers, and to which session. One line, stored by the blkdev only.
/// <list type="table">
/// <item><term>+0, 8</term><description>epoch of the channel</description></item>
/// <item><term>+8, 2</term><description>backend id</description></item>
/// <item><term>+10, 2</term><description>blkdev id</description></item>
/// <item><term>+12, 2</term><description>depth: commands outstanding at most, 1 to ring slots</description></item>
/// <item><term>+14, 2</term><description>queue number within the blkdev</description></item>
/// <item><term>+16, 8</term><description>session: epoch of the backend's claim</description></item>
/// <item><term>+24, 8</term><description>epoch of the blkdev's claim</description></item>
/// <item><term>+32, 8</term><description>commands posted in this epoch; diagnosis only</description></item>
/// <item><term>+40, 8</term><description>completions copied in this epoch; diagnosis only</description></item>
/// <item><term>+48, 8</term><description>last session whose handler attached in this life of the channel; 0 for none. If it
/// is the session offered to, that session may still be draining an older epoch</description></item>
/// <item><term>+56, 4</term><description>CRC32C (<see cref="LineSeal"/>, slot 0)</description></item>
/// <item><term>+60, 4</term><description>zero</description></item>
/// </list>
/// </summary>
internal readonly record struct BlkdevCtrlLine(
    ulong Epoch,
    int Backend,
    int Blkdev,
    int Depth,
    int Queue,
    ulong Session,
    ulong BlkdevEpoch,
    ulong Posted,
    ulong Copied,
    ulong AttachedSession)
{
    /// <summary>Seals and stores the line.</summary>
    public void Store<TMemory>(in TMemory memory, RegionGeometry geometry, int channel)
        where TMemory : struct, ISharedMemory
    {
        var line = new Line
        {
            Word0 = Epoch,
            Word1 = (ushort)Backend | ((ulong)(ushort)Blkdev << 16) | ((ulong)(ushort)Depth << 32) | ((ulong)(ushort)Queue << 48),
            Word2 = Session,
            Word3 = BlkdevEpoch,
            Word4 = Posted,
            Word5 = Copied,
            Word6 = AttachedSession,
        };
        new LineSeal(geometry.RegionId, channel, LineKind.BlkdevCtrl, Epoch).Seal(ref line, 0);
        memory.WriteLine(geometry.ChannelOffset(channel) + ChannelLayout.BlkdevCtrlOffset, line);
    }

    /// <summary>
    /// Reads the line once; false if it is not a whole line of <paramref name="epoch"/>. Its fields are not validated
    /// against anything.
    /// </summary>
    public static bool TryLoad<TMemory>(
        in TMemory memory, RegionGeometry geometry, int channel, ulong epoch, out BlkdevCtrlLine ctrl)
        where TMemory : struct, ISharedMemory
    {
        memory.ReadLine(geometry.ChannelOffset(channel) + ChannelLayout.BlkdevCtrlOffset, out Line line);
        ctrl = default;
        if (line.Word0 != epoch || !new LineSeal(geometry.RegionId, channel, LineKind.BlkdevCtrl, epoch).Holds(line, 0))
            return false;
        ctrl = new BlkdevCtrlLine(
            line.Word0,
            (ushort)line.Word1,
            (ushort)(line.Word1 >> 16),
            (ushort)(line.Word1 >> 32),
            (ushort)(line.Word1 >> 48),
            line.Word2,
            line.Word3,
            line.Word4,
            line.Word5,
            line.Word6);
        return true;
    }

    /// <summary>
    /// The line of <paramref name="epoch"/>, or of the epoch before: a blkdev raises the epoch first and stores its line
    /// then, and may have died in between.
    /// </summary>
    public static bool TryLoadLatest<TMemory>(
        in TMemory memory, RegionGeometry geometry, int channel, ulong epoch, out BlkdevCtrlLine ctrl)
        where TMemory : struct, ISharedMemory =>
        TryLoad(memory, geometry, channel, epoch, out ctrl) ||
        (epoch > 1 && TryLoad(memory, geometry, channel, epoch - 1, out ctrl));

    /// <summary>The session offered to has served this channel before, and may still store into it.</summary>
    public bool MayBeDraining => AttachedSession != 0 && AttachedSession == Session;
}
