using Cbd.Blocks;
using Cbd.Protocol.Format;
using Cbd.Memory;

namespace Cbd.Protocol.Channels;

/// <content>From the command ring to commands that concern the channel rightly.</content>
internal sealed partial class Handler<TMemory, TPolicy>
{
    /// <summary>
    /// How much is begun in one turn, so that channels of one thread share it, and the blkdev has the first answers while the
    /// handler is at the next commands: what the disk does is answered at the end of the turn.
    /// </summary>
    private const int TurnBudget = 64;

    /// <summary>What a command takes of that: if it was answered at once this, and one for each 16 KiB of payload; if it is at the disk.</summary>
    private const int AnsweredCost = 1, AnsweredPayloadShift = 14, StartedCost = 16;

    private static int Cost(in CommandLine command, bool isAtDisk) =>
        isAtDisk ? StartedCost : AnsweredCost + (int)(command.PayloadLength >> AnsweredPayloadShift);

    private bool Fetch()
    {
        bool any = false;
        int budget = TurnBudget;
        if (_hasPending)
        {
            int busy = _busy;
            if (!TryStart(_pending))
                return false;
            budget -= Cost(_pending, _busy > busy);
            _hasPending = false;
            any = _changed = true;
        }

        while (budget > 0 && !_stopping)
        {
            ulong sequence = _fetched + 1;
            uint slot = (uint)sequence & _ringMask;
            long at = _layout.CommandRingOffset + slot * 64L;
            _memory.ReadLine(at, out Line line);
            if (!Arrival<TPolicy>.Holds(line, _commandSeal, _word.Epoch, sequence, slot))
                break;
            any = _changed = true;
            _fetched = sequence;
            CommandLine command = CommandLine.FromLine(line);
            PrefetchPayload(sequence + 1);
            if (!Accept(command))
                break;
            _flight.Command(FlightEventKind.Fetched, _now, _word.Epoch, sequence, command.Operation, command.Flags, command.Offset, command.Length, command.Tag);
            if (!TPolicy.CopyOnce)
            {
                _memory.ReadLine(at, out line);
                command = CommandLine.FromLine(line);
            }

            int busy = _busy;
            if (!TryStart(command))
            {
                _pending = command;
                _hasPending = _changed = true;
                break;
            }

            budget -= Cost(command, _busy > busy);
        }

        return any;
    }

    /// <summary>
    /// Has the first bytes of the next command's payload brought (a write's), or of the place for it claimed (a read's),
    /// while the present one is done, if it seems to be there: a hint, from words that are not checked.
    /// </summary>
    private void PrefetchPayload(ulong sequence)
    {
        long at = _layout.CommandRingOffset + ((uint)sequence & _ringMask) * 64L;
        if (_memory.Peek(at) != sequence)
            return;
        BlockOperation operation = CommandLine.OperationOf(_memory.Peek(at + CommandLine.OperationWordOffset));
        (uint offset, uint length) = CommandLine.PayloadOf(_memory.Peek(at + CommandLine.PayloadWordOffset));
        length = Math.Min(length, QueueOptions.PrefetchBytes);
        if (length == 0 || offset > _layout.PoolBytes - length)
            return;
        if (operation == BlockOperation.Write)
            _memory.Prefetch(_layout.WritePoolOffset + offset, length, forWrite: false);
        else if (operation == BlockOperation.Read)
            _memory.Prefetch(_layout.ReadPoolOffset + offset, length, forWrite: true);
    }

    /// <summary>Validates what concerns the channel; the disk's own gate validates the rest.</summary>
    private bool Accept(in CommandLine command)
    {
        if (TPolicy.KeepCredits && _fetched - _posted > (ulong)_depth)
            return Fail($"command {command.Sequence} exceeds the depth {_depth}");
        if (command.Operation is < BlockOperation.Read or > BlockOperation.Cache)
            return Fail($"command {command.Sequence} has operation {(byte)command.Operation}, which does not exist");
        if ((command.Flags & ~(BlockFlags.ForceUnitAccess | BlockFlags.NoUnmap | BlockFlags.FastZero)) != 0)
            return Fail($"command {command.Sequence} has flags 0x{(byte)command.Flags:x2}, which do not exist");
        bool fits = command.Operation switch
        {
            BlockOperation.Read or BlockOperation.Write =>
                command.PayloadLength == command.Length && IsPiece(command),
            BlockOperation.BlockStatus => command.PayloadLength >= BlockExtent.EncodedSizeBytes && IsPiece(command),
            _ => command.PayloadLength == 0,
        };
        return fits || Fail($"command {command.Sequence} has payload {command.PayloadOffset}+{command.PayloadLength}, which does not fit its length {command.Length} or the pool of {_layout.PoolBytes} bytes");
    }

    private bool IsPiece(in CommandLine command) =>
        command.PayloadLength > 0 &&
        command.PayloadLength <= _layout.PoolBytes / 2 &&
        command.PayloadOffset <= _layout.PoolBytes - command.PayloadLength;
}
