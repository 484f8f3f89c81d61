using System.Runtime.CompilerServices;
using Cbd.Blocks;

namespace Cbd.Protocol.Channels;

/// <summary>What happened on one side of a channel.</summary>
internal enum FlightEventKind
{
    // Of commands: the hot path.

    /// <summary>The queue stored a command.</summary>
    Issued = 1,

    /// <summary>The queue stored a command of an older epoch again, in the one it is in.</summary>
    Reissued,

    /// <summary>The queue stored the identical line again, since nobody fetched it.</summary>
    Repeated,

    /// <summary>The queue took the completion of a command.</summary>
    Completed,

    /// <summary>The handler took a command.</summary>
    Fetched,

    /// <summary>The handler stored the completion of a command.</summary>
    Answered,

    // Of the channel: its life.
    Offered,
    Attached,
    Reset,
    Closing,
    Detached,
    Closed,
    Quarantined,

    /// <summary>Somebody else has the channel.</summary>
    Lost,

    /// <summary>The other side broke a rule.</summary>
    Failed,
}

/// <summary>
/// One event, decoded. <paramref name="TimeMicroseconds"/> is on the clock that Poll is given. A command's
/// <paramref name="Length"/> is bytes, of an answer those of its payload; <paramref name="Operation"/> is 0 where it cannot
/// be told any more.
/// </summary>
internal readonly record struct FlightEvent(
    long TimeMicroseconds,
    FlightEventKind Kind,
    ulong Epoch,
    ulong Sequence = 0,
    BlockOperation Operation = 0,
    BlockFlags Flags = BlockFlags.None,
    long Offset = 0,
    long Length = 0,
    int Tag = 0,
    int Error = 0,
    string Detail = "");

/// <summary>
/// The last events of one side of one channel, in private memory: for whoever wants to know what led to a failure. One
/// thread records, with a few plain stores and no allocation for a command; any thread reads.
/// </summary>
/// <remarks>
/// Commands and the events of the channel's life are kept apart, so that the few of the one kind are not lost among the
/// many of the other.
/// </remarks>
internal sealed class FlightRecorder
{
    /// <summary>Events of commands that are kept; a power of two.</summary>
    public const int CommandCount = 512;

    /// <summary>Events of the channel's life that are kept.</summary>
    public const int TransitionCount = 64;

    private const int SectorShift = 9;
    private const int EpochBits = 20;
    private const ulong EpochMask = (1 << EpochBits) - 1;

    private readonly Entry[] _commands = new Entry[CommandCount];
    private readonly Transition[] _transitions = new Transition[TransitionCount];
    private long _commandsRecorded;
    private long _transitionsRecorded;

    /// <summary>
    /// A command's event in 32 bytes: time in µs (53 bits), kind (5), operation (3), flags (3); offset; sequence (44), epoch
    /// (20); length in sectors (32), tag (16), errno (16).
    /// </summary>
    private struct Entry
    {
        public ulong TimeAndKind;
        public ulong Offset;
        public ulong SequenceAndEpoch;
        public ulong LengthTagError;
    }

    private struct Transition
    {
        public long TimeMicroseconds;
        public long CommandsBefore;
        public ulong Epoch;
        public FlightEventKind Kind;
        public string Detail;
    }

    /// <param name="channel">The channel.</param>
    public FlightRecorder(int channel) => Channel = channel;

    public int Channel { get; }

    /// <summary>Events recorded so far, of which the last ones are kept. Any thread.</summary>
    public long Recorded => Volatile.Read(ref _commandsRecorded) + Volatile.Read(ref _transitionsRecorded);

    /// <summary>Records a command on its way to the disk.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Command(FlightEventKind kind, long now, ulong epoch, ulong sequence, BlockOperation operation, BlockFlags flags, long offset, long length, int tag)
    {
        ref Entry entry = ref _commands[(int)_commandsRecorded & (CommandCount - 1)];
        entry.TimeAndKind = ((ulong)now << 11) | ((ulong)kind << 6) | ((ulong)operation << 3) | (ulong)flags;
        entry.Offset = (ulong)offset;
        entry.SequenceAndEpoch = (sequence << EpochBits) | (epoch & EpochMask);
        entry.LengthTagError = ((ulong)Math.Min(length >> SectorShift, uint.MaxValue) << 32) | ((ulong)(uint)tag << 16);
        // Publishes the entry to readers.
        Volatile.Write(ref _commandsRecorded, _commandsRecorded + 1);
    }

    /// <summary>Records the answer to a command. What the command was stands in its own event.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Answer(FlightEventKind kind, long now, ulong epoch, ulong sequence, int tag, int error)
    {
        ref Entry entry = ref _commands[(int)_commandsRecorded & (CommandCount - 1)];
        entry.TimeAndKind = ((ulong)now << 11) | ((ulong)kind << 6);
        entry.Offset = 0;
        entry.SequenceAndEpoch = (sequence << EpochBits) | (epoch & EpochMask);
        entry.LengthTagError = ((ulong)(uint)tag << 16) | (ushort)error;
        Volatile.Write(ref _commandsRecorded, _commandsRecorded + 1);
    }

    /// <summary>Records an event of the channel's life.</summary>
    public void Life(FlightEventKind kind, long now, ulong epoch, string detail = "")
    {
        ref Transition transition = ref _transitions[(int)(_transitionsRecorded % TransitionCount)];
        transition.TimeMicroseconds = now;
        transition.CommandsBefore = _commandsRecorded;
        transition.Epoch = epoch;
        transition.Kind = kind;
        transition.Detail = detail;
        Volatile.Write(ref _transitionsRecorded, _transitionsRecorded + 1);
    }

    /// <summary>The events that are kept, oldest first. Any thread; what is overwritten meanwhile is left out.</summary>
    public IReadOnlyList<FlightEvent> Read()
    {
        (Transition[] transitions, _) = Copy(_transitions, ref _transitionsRecorded);
        (Entry[] commands, long first) = Copy(_commands, ref _commandsRecorded);
        ulong lastEpoch = transitions.Length > 0 ? transitions[^1].Epoch : 0;
        var events = new List<FlightEvent>(transitions.Length + commands.Length);
        var asked = new Dictionary<(ulong Epoch, ulong Sequence), FlightEvent>();
        int next = 0;
        for (int i = 0; i < commands.Length; i++)
        {
            while (next < transitions.Length && transitions[next].CommandsBefore <= first + i)
                events.Add(Decode(transitions[next++]));
            FlightEvent found = Decode(commands[i], lastEpoch);
            if (found.Kind is not (FlightEventKind.Completed or FlightEventKind.Answered))
                asked[(found.Epoch, found.Sequence)] = found;
            else if (asked.TryGetValue((found.Epoch, found.Sequence), out FlightEvent command))
                found = found with { Operation = command.Operation, Flags = command.Flags, Offset = command.Offset, Length = command.Length };
            events.Add(found);
        }

        while (next < transitions.Length)
            events.Add(Decode(transitions[next++]));
        // What happened before the first Poll, which brings the time, was just before it.
        for (int i = events.Count - 2; i >= 0; i--)
        {
            if (events[i].TimeMicroseconds == 0)
                events[i] = events[i] with { TimeMicroseconds = events[i + 1].TimeMicroseconds };
        }

        return events;
    }

    /// <summary>Copies what is kept and drops what the recording thread may have changed under the copy.</summary>
    private static (T[] Copied, long First) Copy<T>(T[] ring, ref long recorded)
    {
        long end = Volatile.Read(ref recorded);
        T[] copy = [.. ring];
        Interlocked.MemoryBarrier();
        // The next one may be half stored.
        long first = Math.Min(end, Math.Max(0, Volatile.Read(ref recorded) + 1 - ring.Length));
        var kept = new T[Math.Max(0, end - first)];
        for (int i = 0; i < kept.Length; i++)
            kept[i] = copy[(first + i) % ring.Length];
        return (kept, first);
    }

    private static FlightEvent Decode(in Transition transition) =>
        new(transition.TimeMicroseconds, transition.Kind, transition.Epoch, Detail: transition.Detail);

    private static FlightEvent Decode(in Entry entry, ulong lastEpoch)
    {
        ulong epoch = (lastEpoch & ~EpochMask) | (entry.SequenceAndEpoch & EpochMask);
        return new FlightEvent(
            (long)(entry.TimeAndKind >> 11),
            (FlightEventKind)((entry.TimeAndKind >> 6) & 31),
            epoch > lastEpoch ? epoch - EpochMask - 1 : epoch,
            entry.SequenceAndEpoch >> EpochBits,
            (BlockOperation)((entry.TimeAndKind >> 3) & 7),
            (BlockFlags)(entry.TimeAndKind & 7),
            (long)entry.Offset,
            (long)(entry.LengthTagError >> 32) << SectorShift,
            (int)(entry.LengthTagError >> 16) & 0xFFFF,
            (int)entry.LengthTagError & 0xFFFF);
    }
}
