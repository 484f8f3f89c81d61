using Cbd.Blocks;
using Cbd.Protocol.Channels;
using Cbd.Disks;
using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Fuzz;

/// <summary>
/// A handler, and a blkdev that stores whatever the input says: command lines, ctrl lines, claim words, payload. The handler
/// stores nothing outside of what is its own, and reaches nothing outside of the disk.
/// </summary>
internal sealed class CommandsTarget : IFuzzTarget
{
    private readonly Disk _disk = Disk.Open(new DiskOptions { Path = "memory:1M" });
    private readonly NativeBuffer _buffers = new(64 << 10);
    private readonly IBlockQueue _queue;

    public CommandsTarget() => _queue = _disk.OpenQueue(16, _buffers);

    public void Run(ReadOnlySpan<byte> input)
    {
        var fields = new FuzzInput(input);
        var channel = new FuzzedChannel();
        var backend = new ServedBackend(0, 7, _disk, 0, _ => { }, (blkdev, _) => blkdev == 0);
        var group = new HandlerGroup<FencedMemory, SafePolicy>(channel.ForHandler(), channel.Geometry, backend, _queue, _buffers);
        Offer(channel, epoch: 5);
        group.TryAttach(FuzzedChannel.Channel);
        ulong sequence = 1;
        for (int turn = 0; turn < 64 && !fields.IsEmpty; turn++)
        {
            switch (fields.Byte() % 8)
            {
                case 0 or 1 or 2:
                    StoreCommand(channel, ref fields, ref sequence);
                    break;
                case 3:
                    group.Poll();
                    break;
                case 4:
                    channel.Word = channel.TakeWord(ref fields);
                    break;
                case 5:
                    // A reset, as the blkdev would make it.
                    Offer(channel, channel.Word.Epoch + 1);
                    sequence = 1;
                    break;
                case 6:
                    channel.StoreAnywhere(ref fields);
                    break;
                default:
                    if (!group.Serves(FuzzedChannel.Channel))
                        group.TryAttach(FuzzedChannel.Channel);
                    break;
            }
        }

        for (int turn = 0; turn < 8 || _queue.Outstanding > 0; turn++)
            group.Poll();
        group.CollectFailures([]);
    }

    private static void Offer(FuzzedChannel channel, ulong epoch)
    {
        var word = new ClaimWord(ClaimState.Offered, 1, epoch);
        new BlkdevCtrlLine(word.Epoch, 0, 0, 4, 0, 7, 1, 0, 0, 0).Store(channel.Memory, channel.Geometry, FuzzedChannel.Channel);
        channel.Word = word;
    }

    /// <summary>Mostly the next one, for a place on the disk and in the pools, with the payload's right CRC; else anything.</summary>
    private static void StoreCommand(FuzzedChannel channel, ref FuzzInput fields, ref ulong sequence)
    {
        byte kind = fields.Byte();
        var command = new CommandLine(
            (kind & 1) != 0 ? fields.UInt64() : sequence,
            channel.Word.Epoch,
            (BlockOperation)(fields.Byte() % ((kind & 2) != 0 ? 256 : 9)),
            (BlockFlags)(fields.Byte() % ((kind & 2) != 0 ? 256 : 8)),
            (kind & 4) != 0 ? (long)fields.UInt64() : fields.UInt16() % 2100 * 512L,
            (kind & 8) != 0 ? (long)fields.UInt64() : fields.Byte() % 40 * 512L,
            (kind & 16) != 0 ? fields.UInt32() : (uint)(fields.Byte() % 48 * 512),
            0, 0, fields.Byte());
        command = command with { PayloadLength = (kind & 32) != 0 ? fields.UInt32() : (uint)command.Length };
        ulong pool = (ulong)channel.Layout.PoolBytes;
        if ((kind & 64) == 0 && command.PayloadOffset + (ulong)command.PayloadLength <= pool)
        {
            var payload = new byte[command.PayloadLength];
            channel.Memory.Read(channel.Layout.WritePoolOffset + command.PayloadOffset, payload);
            command = command with { PayloadCrc = ~Crc32C.Append(uint.MaxValue, payload) };
        }

        uint slot = (uint)command.Sequence % FuzzedChannel.RingSlots;
        channel.StoreLine(LineKind.Command, channel.Layout.CommandRingOffset + slot * 64, slot, command.ToLine(), (kind & 128) == 0);
        if ((kind & 129) == 0)
            sequence++;
    }
}
