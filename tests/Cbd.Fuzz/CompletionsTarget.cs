using Cbd.Blocks;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Fuzz;

/// <summary>
/// A queue with requests in flight, and a handler that stores whatever the input says: completion lines, ctrl lines, claim
/// words, read payload. The queue stores nothing outside of what is its own, and answers each request at most once.
/// </summary>
internal sealed class CompletionsTarget : IFuzzTarget
{
    private const int Requests = 24;
    private readonly NativeBuffer _data = new(Requests * 16384);
    private readonly BlockDeviceInfo _disk = new() { SizeBytes = 1 << 20, CanDiscard = true, CanZeroFast = true, CanCache = true };

    public void Run(ReadOnlySpan<byte> input)
    {
        var fields = new FuzzInput(input);
        var channel = new FuzzedChannel();
        var state = new BlkdevState(0, 1, 0, new BackendSession(7, new Guid("dddddddd-0000-0000-0000-000000000001"), _disk), 1);
        channel.Word = new ClaimWord(ClaimState.Claimed, 1, 5);
        var queue = new Queue<FencedMemory, SafePolicy>(channel.ForQueue(), channel.Geometry, FuzzedChannel.Channel, channel.Word, state, 0, new QueueOptions { DeadlineMicroseconds = 1000 }, () => { });
        queue.Offer();
        Attach(channel);
        var answers = new int[Requests];
        var completions = new BlockCompletion[8];
        long now = 0;
        int submitted = 0;
        ulong session = 7;
        ulong sequence = 1;
        for (int turn = 0; turn < 64 && !fields.IsEmpty; turn++)
        {
            switch (fields.Byte() % 9)
            {
                case 0:
                    if (submitted < Requests && queue.TrySubmit(Request(ref fields, submitted)))
                        submitted++;
                    break;
                case 1 or 2:
                    StoreCompletion(channel, ref fields, ref sequence);
                    break;
                case 3:
                    now += fields.Byte() * 20L;
                    Take(queue.Poll(now, completions));
                    break;
                case 4:
                    channel.Word = channel.TakeWord(ref fields);
                    break;
                case 5:
                    Attach(channel);
                    sequence = 1;
                    break;
                case 6:
                    channel.StoreAnywhere(ref fields);
                    break;
                case 7:
                    new HandlerCtrlLine(channel.Word.Epoch, (HandlerCondition)fields.Byte(), session, fields.UInt16(), fields.UInt16()).Store(
                        channel.Memory, channel.Layout.HandlerCtrlLineOffset, new LineSeal(channel.Geometry.RegionId, FuzzedChannel.Channel, LineKind.HandlerCtrl, channel.Word.Epoch));
                    break;
                default:
                    state.Adopt(new BackendSession(++session, new Guid(fields.Byte() % 2, 0, 0, new byte[8]), _disk));
                    break;
            }
        }

        queue.BeginClose();
        for (int turn = 0; turn < 8; turn++)
            Take(queue.Poll(now += 500, completions));
        queue.Fence();
        for (int turn = 0; turn < 8; turn++)
            Take(queue.Poll(now += 500, completions));

        void Take(int count)
        {
            foreach (BlockCompletion done in completions.AsSpan(0, count))
            {
                FuzzTargets.Check(done.Cookie < (ulong)submitted, "an answer is for a request that was made");
                FuzzTargets.Check(answers[(int)done.Cookie]++ == 0, "a request is answered once");
            }
        }
    }

    private BlockRequest Request(ref FuzzInput fields, int index)
    {
        var operation = (BlockOperation)(fields.Byte() % 7 + 1);
        int length = (fields.Byte() % 32 + 1) * 512;
        bool hasData = operation is BlockOperation.Read or BlockOperation.Write or BlockOperation.BlockStatus;
        return new BlockRequest(
            (ulong)index, operation, BlockFlags.None, operation == BlockOperation.Flush ? 0 : fields.UInt16() % 2000 * 512L,
            operation == BlockOperation.Flush ? 0 : length, hasData ? new BufferSlice(_data, index * 16384L, length) : default);
    }

    private static void Attach(FuzzedChannel channel)
    {
        channel.Word = channel.Word.With(ClaimState.Attached);
        new HandlerCtrlLine(channel.Word.Epoch, HandlerCondition.Serving, 7, 0, 0).Store(
            channel.Memory, channel.Layout.HandlerCtrlLineOffset, new LineSeal(channel.Geometry.RegionId, FuzzedChannel.Channel, LineKind.HandlerCtrl, channel.Word.Epoch));
    }

    /// <summary>Mostly the next one, for the command with that number, whose tag and payload are looked up; else anything.</summary>
    private static void StoreCompletion(FuzzedChannel channel, ref FuzzInput fields, ref ulong sequence)
    {
        byte kind = fields.Byte();
        ulong number = (kind & 1) != 0 ? fields.UInt64() : sequence;
        ulong answered = (kind & 2) != 0 ? fields.Byte() : sequence;
        channel.Memory.ReadLine(channel.Layout.CommandRingOffset + (long)(answered % FuzzedChannel.RingSlots) * 64, out Line line);
        CommandLine command = CommandLine.FromLine(line);
        var completion = new CompletionLine(
            number, channel.Word.Epoch, answered, (kind & 4) != 0 ? fields.UInt16() : command.Tag, (kind & 8) != 0 ? fields.UInt16() : (ushort)0, 0,
            (kind & 16) != 0 ? fields.UInt32() : command.Operation is BlockOperation.Read ? command.PayloadLength : command.Operation is BlockOperation.BlockStatus ? 16u : 0);
        if (command.Operation == BlockOperation.BlockStatus)
        {
            // One extent: length and state.
            Span<byte> extent = stackalloc byte[16];
            BitConverter.TryWriteBytes(extent, (kind & 64) != 0 ? fields.UInt64() : (ulong)command.Length);
            BitConverter.TryWriteBytes(extent[8..], fields.Byte() % 5);
            if (command.PayloadOffset <= channel.Layout.PoolBytes - 16)
                channel.Memory.Write(channel.Layout.ReadPoolOffset + command.PayloadOffset, extent);
        }

        if ((kind & 32) == 0 && command.PayloadOffset + (ulong)completion.PayloadLength <= (ulong)channel.Layout.PoolBytes)
        {
            var payload = new byte[completion.PayloadLength];
            channel.Memory.Read(channel.Layout.ReadPoolOffset + command.PayloadOffset, payload);
            completion = completion with { PayloadCrc = ~Crc32C.Append(uint.MaxValue, payload) };
        }

        uint slot = (uint)number % FuzzedChannel.RingSlots;
        channel.StoreLine(LineKind.Completion, channel.Layout.CompletionRingOffset + slot * 64, slot, completion.ToLine(), (kind & 128) == 0);
        if ((kind & 129) == 0)
            sequence++;
    }
}
