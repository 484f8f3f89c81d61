using System.Runtime.InteropServices;
using Cbd.Blocks;
using Cbd.Exports.InFlight;
using Cbd.Exports.Pumping;
using Cbd.Memory;
using Cbd.Memory.Fuse;
using Cbd.Memory.Sockets;
using Cbd.Host;

namespace Cbd.Exports.Fuse;

/// <summary>
/// One thread with one queue of the device and one channel of <c>/dev/fuse</c>: reads requests of the kernel, submits
/// them, and writes the answers. Nothing is locked, allocated or handed to another thread per request.
/// </summary>
/// <remarks>
/// <para>Requests lie in the queue's <see cref="InFlightRecord"/> from before they are read until they are answered, so that a successor
/// can go on at any instruction. Replies are made elsewhere: they overwrite nothing of a request.</para>
/// <para>The channels of a file system share one queue of requests in the kernel, and every sleeper on it is woken by
/// each. So the first pump alone waits for requests; one that finds more than it can take wakes the next, which helps
/// until there is nothing left.</para>
/// </remarks>
internal sealed class FusePump : IDisposable
{
    /// <summary>Successors that may execute a request again; one that ends so many is refused.</summary>
    internal const int MaxDeaths = 3;

    /// <summary>Requests read before the queue is polled: what was read is under way while more is read.</summary>
    private const int ReadBatch = 8;

    private const int StopMilliseconds = 10_000;

    /// <summary>Longest reply but for a read, and the most that is looked at of a message but for a write's payload.</summary>
    private const int ScratchBytes = 4096;

    private readonly FuseFile _file;
    private readonly InFlightRecord _record;
    private readonly IBlockQueue _queue;
    private readonly NativeBuffer _reply = new(ScratchBytes);
    private readonly byte[] _message = new byte[ScratchBytes];
    private readonly EventPoll _poll = new(2);
    private readonly PollWake _wake = new();
    private readonly bool _watchesChannel;
    private readonly HelperSleep? _sleep;
    private readonly PumpIdle<FuseSleeper> _idle;
    private readonly BlockRequest[] _requests = new BlockRequest[InFlightLayout.SlotCount];
    private readonly int[] _refused = new int[InFlightLayout.SlotCount];
    private readonly BlockCompletion[] _completions = new BlockCompletion[InFlightLayout.SlotCount];
    private readonly bool[] _isLeft = new bool[InFlightLayout.SlotCount];
    private readonly int[] _left;
    private readonly Thread _thread;
    private int _leftCount;
    private int _refusedCount;
    private bool _isWatching;
    private bool _ended;
    private bool _isOver;
    private volatile bool _stopRequested;
    private PumpCounters _counters;

    /// <param name="file">What is served.</param>
    /// <param name="channel">Its requests; the pump's from here on.</param>
    /// <param name="record">Where requests lie; the pump's from here on. What it holds already is done first.</param>
    /// <param name="number">Number of this pump. Pump 0 waits for requests.</param>
    /// <param name="mode">How its thread waits.</param>
    internal FusePump(FuseFile file, FuseChannel channel, InFlightRecord record, int number, PollMode mode)
    {
        _file = file;
        Channel = channel;
        _record = record;
        _watchesChannel = number == 0;
        _sleep = _watchesChannel ? null : new HelperSleep();
        try
        {
            _left = record.FindOpen(SlotState.Taken);
            _queue = file.Device.OpenQueue(InFlightLayout.SlotCount, record.Memory);
            _idle = new PumpIdle<FuseSleeper>(new FuseSleeper(_poll, _queue, _sleep), _queue, mode);
            _poll.Add(_wake, 0);
            if (_left.Length == 0 && file.MayRead)
                Watch();
        }
        catch
        {
            _queue?.Dispose();
            DisposeParts();
            throw;
        }

        _thread = new Thread(Run) { IsBackground = true, Name = $"fuse-pump-{number}" };
    }

    /// <summary>Requests of the kernel.</summary>
    internal FuseChannel Channel { get; }

    /// <summary>The pump that helps when this one has more than it can take; set before <see cref="Start"/>.</summary>
    internal FusePump? Next { get; set; }

    /// <summary>A process before this one left requests that the device has to do again.</summary>
    internal bool HasLeft => _left.Length > 0;

    /// <summary>Managed memory that the thread allocated since it began to serve. Any thread.</summary>
    internal long AllocatedBytes => _counters.Statistics.AllocatedBytes;

    /// <summary>Answers what a process before this one had done. Before <see cref="Start"/>, and before any pump executes anything.</summary>
    internal void AnswerAgain()
    {
        foreach (int slot in _record.FindOpen(SlotState.Answerable))
            Reply(slot);
    }

    /// <exception cref="CbdException">No thread can be had.</exception>
    internal void Start() => NeededThread.Begin(_thread);

    /// <summary>Asks the thread to end when what it has read is answered. Any thread.</summary>
    internal void RequestStop()
    {
        _stopRequested = true;
        _wake.Signal();
    }

    /// <summary>Makes the thread look at what has changed. Any thread.</summary>
    internal void Wake() => _wake.Signal();

    /// <summary>Waits for the end of the thread and frees what it used. A pump that was never started is only freed.</summary>
    public void Dispose()
    {
        _thread.JoinIfStarted();
        _queue.Dispose();
        DisposeParts();
    }

    /// <summary>As <see cref="Dispose"/>, after the file was parked: what is in flight is for the next process.</summary>
    internal void Park()
    {
        _thread.JoinIfStarted();
        _record.ForgetDeaths();
        Dispose();
    }

    private void DisposeParts()
    {
        _poll.Dispose();
        _wake.Dispose();
        Channel.Dispose();
        _record.Dispose();
        _reply.Dispose();
    }

    private void Run()
    {
        PumpThread.UseExactTimers();
        try
        {
            Serve();
        }
        catch (CbdException error)
        {
            _file.Log($"the device failed: {error.Message}");
            _file.Fail();
        }

        if (_file.IsParked)
            return;
        _isOver = true;
        // Duplicates of the channel may be open elsewhere: the kernel gives no error by itself for what was read here.
        RefuseOpen(SlotState.Taken);
        if (_file.HasFailed && !_file.TryEndConnection())
            Channel.Dispose();
    }

    private void Serve()
    {
        long stopDeadline = 0;
        _counters.Begin();
        ExecuteLeft();
        while (true)
        {
            bool progressed = ReadRequests();
            progressed |= OfferRefused();
            int completed = _queue.Poll(_completions);
            for (int i = 0; i < completed; i++)
                Answer(_completions[i]);
            progressed |= completed > 0;
            if (_file.HasFailed || _file.IsParked || (_stopRequested && MayEnd(ref stopDeadline)))
                return;
            _counters.EndTurn();
            _idle.Sleeper.CanTake = !_ended && _file.MayRead && _record.TryReceive();
            if (_idle.Next(progressed, mayWait: true, _queue.Outstanding) > 0)
                _wake.Clear();
        }
    }

    /// <summary>All that was read is answered, or has had its time: the backend may be away for good.</summary>
    private bool MayEnd(ref long deadline)
    {
        long now = Environment.TickCount64;
        if (deadline == 0)
            deadline = now + StopMilliseconds;
        return _record.IsEmpty || now >= deadline;
    }

    /// <summary>Ends the sleep of a pump that does not wait for requests itself. Any thread.</summary>
    private void Help()
    {
        if (_sleep is { } sleep && sleep.TryEnd())
            _wake.Signal();
    }

    private void Watch()
    {
        _isWatching = true;
        if (_watchesChannel)
            _poll.Add(Channel, 1);
    }

    /// <summary>Executes what a process before this one had taken and not done, in the order in which it came.</summary>
    private void ExecuteLeft()
    {
        _leftCount = _left.Length;
        foreach (int slot in _left)
            _isLeft[slot] = true;
        foreach (int slot in _left)
            ExecuteLeft(slot);
    }

    private void ExecuteLeft(int slot)
    {
        ref InFlightSlot line = ref _record.Slot(slot);
        // The count is stored before the request can end this process, too. While nobody executes it, no process dies of it.
        if (_file.Life is not { CountsDeaths: false } && _queue is not IRepeatingQueue { IsBackendAway: true } && _record.CountDeath(slot) >= MaxDeaths)
        {
            _file.Log($"a request ({line.Kind} of {line.Length} bytes at {line.Offset}) was in flight when {MaxDeaths} daemons died one after the other: it gets an I/O error");
            Finish(slot, Errno.EIO);
            return;
        }

        if (line.Kind == SlotKind.Message)
        {
            ExecuteMessage(slot);
            return;
        }

        Submit(slot, (BlockOperation)line.Kind, (BlockFlags)line.Flags, (long)line.Offset, (long)line.Length);
    }

    private void ExecuteMessage(int slot)
    {
        BlockDeviceInfo device = _file.Device.Info;
        int length = MemoryMarshal.Read<int>(_record.Message(slot));
        if (!FuseRequest.TryParse(Gather(slot, length), length, device, _file.MaxTransferBytes, _file.Name, out FuseRequest request))
            throw new CbdException(CbdErrorKind.Invalid, $"the in-flight record is damaged: the message in slot {slot}, {length} bytes, is no request");
        if (request.Task != FuseTask.Device)
        {
            AnswerAtOnce(request, device);
            Released(slot);
            return;
        }

        _record.DescribeMessage(slot, (SlotKind)request.Operation, request.Flags, request.Offset, request.Length, Session);
        Submit(slot, request.Operation, request.Flags, request.Offset, request.Length);
    }

    private bool ReadRequests()
    {
        // Others read when this one is stopping, and the last one only ends with the file system.
        if (_ended || !_file.MayRead)
            return false;
        if (!_isWatching)
            Watch();
        int count = 0;
        while (count < ReadBatch && _record.TryReceive())
        {
            int slot = _record.Receiving;
            int length = Channel.Receive(
                _record.Memory, InFlightRecord.MessageOffsetOf(slot), InFlightLayout.MessageBytes, _record.PayloadOffsetOf(slot), _record.WindowBytes);
            if (length == -Errno.EAGAIN)
                return count > 0;
            if (length < 0)
            {
                // The kernel may have stored its beginning.
                _record.ReceiveAgain();
                if (length == -Errno.ENOENT)
                    continue;
                End(length);
                return count > 0;
            }

            count++;
            Take(slot, length);
        }

        // There may be more than this pump can take now.
        Next?.Help();
        return count > 0;
    }

    private void End(int error)
    {
        _ended = true;
        if (error != -Errno.ENODEV)
            _file.Log($"requests of the kernel cannot be read any more (errno {-error})");
        if (_watchesChannel)
            _poll.Remove(Channel);
        _file.Ended();
    }

    private void Take(int slot, int length)
    {
        BlockDeviceInfo device = _file.Device.Info;
        if (!FuseRequest.TryParse(Gather(slot, length), length, device, _file.MaxTransferBytes, _file.Name, out FuseRequest request))
        {
            _record.ReceiveAgain();
            _file.Log($"the kernel sent {length} bytes that are no request; the file system is ended");
            _file.Fail();
            return;
        }

        if (request.Task != FuseTask.Device)
        {
            AnswerAtOnce(request, device);
            _record.ReceiveAgain();
            return;
        }

        _record.Take((SlotKind)request.Operation, request.Flags, request.Unique, request.Offset, request.Length, Session);
        Submit(slot, request.Operation, request.Flags, request.Offset, request.Length);
    }

    private ulong Session => _file.Life?.Session ?? 0;

    /// <summary>The message in one piece: all of it that is looked at, but for the payload of a write.</summary>
    private ReadOnlySpan<byte> Gather(int slot, int length)
    {
        ReadOnlySpan<byte> head = _record.Message(slot);
        if (length <= head.Length)
            return head[..Math.Max(length, 0)];
        if (MemoryMarshal.Read<FuseProtocol.RequestHeader>(head).Operation == FuseOperation.Write)
            return head;
        int restBytes = Math.Min(Math.Min(length, ScratchBytes) - head.Length, (int)_record.Slot(slot).PageCount * InFlightLayout.PageBytes);
        head.CopyTo(_message);
        _record.Memory.GetSpan(_record.PayloadOffsetOf(slot), restBytes).CopyTo(_message.AsSpan(head.Length));
        return _message.AsSpan(0, head.Length + restBytes);
    }

    private void Submit(int slot, BlockOperation operation, BlockFlags flags, long offset, long length)
    {
        bool hasPayload = operation is BlockOperation.Read or BlockOperation.Write;
        BufferSlice data = hasPayload ? new BufferSlice(_record.Memory, _record.PayloadOffsetOf(slot), (int)length) : default;
        _requests[slot] = new BlockRequest((ulong)slot, operation, flags, offset, length, data);
        if (_refusedCount > 0 || !TryOffer(slot))
            _refused[_refusedCount++] = slot;
    }

    private bool TryOffer(int slot) => _isLeft[slot] && _queue is IRepeatingQueue repeating
        ? repeating.TryRepeat(_requests[slot], _record.Slot(slot).Session)
        : _queue.TrySubmit(_requests[slot]);

    /// <summary>Offers again what the queue had no room for, in its order.</summary>
    private bool OfferRefused()
    {
        int offered = 0;
        while (offered < _refusedCount && TryOffer(_refused[offered]))
            offered++;
        if (offered == 0)
            return false;
        _refusedCount -= offered;
        Array.Copy(_refused, offered, _refused, 0, _refusedCount);
        return true;
    }

    private void AnswerAtOnce(in FuseRequest request, BlockDeviceInfo device)
    {
        if (request.Task == FuseTask.Ignore)
            return;
        if (request.Task == FuseTask.Close)
            _file.NoteRelease();
        Span<byte> body = _reply.GetSpan(FuseReplies.HeaderBytes, ScratchBytes - FuseReplies.HeaderBytes);
        int length = request.Task switch
        {
            FuseTask.Refuse => -request.Errno,
            FuseTask.Init => _file.Agree(request.Init) ? FuseReplies.Init(body, request.Init, _file.MaxTransferBytes) : -Errno.EIO,
            FuseTask.Lookup => FuseReplies.Lookup(body, device),
            FuseTask.GetAttributes => FuseReplies.GetAttributes(body, request.Node, device),
            FuseTask.Open => FuseReplies.Open(body),
            FuseTask.OpenDirectory => FuseReplies.OpenDirectory(body),
            FuseTask.StatFs => FuseReplies.StatFs(body, device),
            _ => 0,
        };
        Send(request.Unique, Math.Max(-length, 0), Math.Max(length, 0), 0, 0);
    }

    private void Answer(in BlockCompletion completion)
    {
        int slot = (int)completion.Cookie;
        ref readonly BlockRequest request = ref _requests[slot];
        // A device that stores less than it was asked for and calls that success has broken its contract.
        bool isShort = request.Operation == BlockOperation.Read && completion.Result != request.Length;
        Finish(slot, completion.Error == 0 && isShort ? Errno.EIO : completion.Error);
    }

    /// <summary>The device is done with a request, or never will be.</summary>
    private void Finish(int slot, int error)
    {
        _record.Complete(slot, error);
        Reply(slot);
    }

    /// <summary>Answers what is Answerable, from the result alone.</summary>
    private void Reply(int slot)
    {
        ref InFlightSlot line = ref _record.Slot(slot);
        int length = (int)line.Length;
        if (line.Error != 0)
            Send(line.Unique, line.Error, 0, 0, 0);
        else if (line.Kind == SlotKind.Read)
            Send(line.Unique, 0, 0, _record.PayloadOffsetOf(slot), length);
        else if (line.Kind == SlotKind.Write)
            Send(line.Unique, 0, FuseReplies.Written(_reply.GetSpan(FuseReplies.HeaderBytes, FuseReplies.HeaderBytes), length), 0, 0);
        else
            Send(line.Unique, 0, 0, 0, 0);
        Released(slot);
    }

    private void Released(int slot)
    {
        _record.Release(slot);
        if (!_isLeft[slot])
            return;
        _isLeft[slot] = false;
        // An error that is given at the end lifts nothing: what is refused here may still be under way.
        if (--_leftCount == 0 && !_isOver)
            _file.FinishQueue();
    }

    /// <summary>Everything that is not answered gets an error: no successor executes it.</summary>
    private void RefuseOpen(SlotState state)
    {
        foreach (int slot in _record.FindOpen(state))
            Finish(slot, Errno.EIO);
    }

    /// <summary>Sends the header, then what follows it in the memory of replies, then payload of the record.</summary>
    private void Send(ulong unique, int errno, int bodyBytes, long payloadOffset, int payloadBytes)
    {
        FuseReplies.Header(_reply.GetSpan(0, FuseReplies.HeaderBytes), unique, errno, bodyBytes + payloadBytes);
        int error = Channel.Reply(_reply, FuseReplies.HeaderBytes + bodyBytes, _record.Memory, payloadOffset, payloadBytes);
        // Nobody waits any more, or the file system has ended, which the next read says.
        if (error is 0 or -Errno.ENOENT or -Errno.ENODEV)
            return;
        _file.Log($"an answer to the kernel was refused (errno {-error})");
        // The request would wait for ever.
        if (errno == 0)
            Send(unique, Errno.EIO, 0, 0, 0);
        else
            _file.Fail();
    }
}
