using Cbd.Blocks;
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
/// <para>Each slot has room for the largest request, its header in front: a request arrives by one read and is answered by
/// one write from the same place, payload on a page boundary. What is never used is never touched.</para>
/// <para>The channels of a file system share one queue of requests in the kernel, and every sleeper on it is woken by
/// each. So the first pump alone waits for requests; one that finds more than it can take wakes the next, which helps
/// until there is nothing left.</para>
/// </remarks>
internal sealed class FusePump : IDisposable
{
    /// <summary>Requests in flight; also the depth of the queue. A loop device has 128.</summary>
    internal const int SlotCount = 128;

    /// <summary>Room in front of a slot's payload.</summary>
    private const int PrefixBytes = 4096;

    /// <summary>Requests read before the queue is polled: what was read is under way while more is read.</summary>
    private const int ReadBatch = 8;

    private const int StopMilliseconds = 10_000;

    /// <summary>Slots that nobody needed for so long give their memory back.</summary>
    internal const int GiveBackMilliseconds = 15_000;

    private readonly FuseChannel _channel;
    private readonly FuseFile _file;
    private readonly IBlockQueue _queue;
    private readonly NativeBuffer _buffer;
    private readonly EventPoll _poll = new(2);
    private readonly PollWake _wake = new();
    private readonly bool _watchesChannel;
    private readonly HelperSleep? _sleep;
    private readonly PumpIdle<FuseSleeper> _idle;
    private readonly int[] _free = new int[SlotCount];
    private readonly ulong[] _unique = new ulong[SlotCount];
    private readonly BlockRequest[] _requests = new BlockRequest[SlotCount];
    private readonly int[] _refused = new int[SlotCount];
    private readonly BlockCompletion[] _completions = new BlockCompletion[SlotCount];
    private readonly Thread _thread;
    private readonly long _stride;
    private readonly bool[] _touched = new bool[SlotCount];
    private int _freeCount;
    private int _leastFree;
    private long _nextGiveBack;
    private int _refusedCount;
    private bool _ended;
    private volatile bool _stopRequested;
    private PumpCounters _counters;

    /// <param name="file">What is served.</param>
    /// <param name="channel">Its requests; the pump's from here on.</param>
    /// <param name="number">Number of this pump. Pump 0 waits for requests.</param>
    /// <param name="mode">How its thread waits.</param>
    internal FusePump(FuseFile file, FuseChannel channel, int number, PollMode mode)
    {
        _file = file;
        _channel = channel;
        _watchesChannel = number == 0;
        _sleep = _watchesChannel ? null : new HelperSleep();
        _stride = PrefixBytes + file.MaxTransferBytes;
        _buffer = new NativeBuffer(SlotCount * _stride);
        for (int slot = SlotCount; slot > 0; slot--)
            _free[_freeCount++] = slot - 1;
        _leastFree = SlotCount;
        try
        {
            _queue = file.Device.OpenQueue(SlotCount, _buffer);
            _idle = new PumpIdle<FuseSleeper>(new FuseSleeper(_poll, _queue, _sleep), _queue, mode);
            _poll.Add(_wake, 0);
            if (_watchesChannel)
                _poll.Add(channel, 1);
        }
        catch
        {
            _queue?.Dispose();
            DisposeParts();
            throw;
        }

        _thread = new Thread(Run) { IsBackground = true, Name = $"fuse-pump-{number}" };
    }

    /// <summary>The pump that helps when this one has more than it can take; set before <see cref="Start"/>.</summary>
    internal FusePump? Next { get; set; }

    /// <summary>Managed memory that the thread allocated since it began to serve. Any thread.</summary>
    internal long AllocatedBytes => _counters.Statistics.AllocatedBytes;

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

    private void DisposeParts()
    {
        _poll.Dispose();
        _wake.Dispose();
        _channel.Dispose();
        _buffer.Dispose();
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

        // What was read here and not answered gets an error now, and with the last channel the file system ends.
        if (_file.HasFailed)
            _channel.Dispose();
    }

    private void Serve()
    {
        long stopDeadline = 0;
        _counters.Begin();
        while (true)
        {
            bool progressed = ReadRequests();
            progressed |= OfferRefused();
            int completed = _queue.Poll(_completions);
            for (int i = 0; i < completed; i++)
                Answer(_completions[i]);
            progressed |= completed > 0;
            if (_file.HasFailed || (_stopRequested && MayEnd(ref stopDeadline)))
                return;
            _counters.EndTurn();
            if (Environment.TickCount64 >= _nextGiveBack)
                GiveBack();
            _idle.Sleeper.CanTake = _freeCount > 0 && !_ended;
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
        return _freeCount == SlotCount || now >= deadline;
    }

    /// <summary>Ends the sleep of a pump that does not wait for requests itself. Any thread.</summary>
    private void Help()
    {
        if (_sleep is { } sleep && sleep.TryEnd())
            _wake.Signal();
    }

    private bool ReadRequests()
    {
        // Others read when this one is stopping, and the last one only ends with the file system.
        if (_ended)
            return false;
        int count = 0;
        while (count < ReadBatch && _freeCount > 0)
        {
            int slot = _free[_freeCount - 1];
            long start = Payload(slot) - FuseRequest.WritePayloadOffset;
            int length = _channel.Receive(_buffer, start, FuseRequest.WritePayloadOffset + _file.MaxTransferBytes);
            if (length == -Errno.EAGAIN)
                return count > 0;
            if (length == -Errno.ENOENT)
                continue;
            if (length < 0)
            {
                End(length);
                return count > 0;
            }

            count++;
            _freeCount--;
            _leastFree = Math.Min(_leastFree, _freeCount);
            _touched[slot] = true;
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
            _poll.Remove(_channel);
        _file.Ended();
    }

    private void Take(int slot, int length)
    {
        BlockDeviceInfo device = _file.Device.Info;
        ReadOnlySpan<byte> message = _buffer.GetSpan(Payload(slot) - FuseRequest.WritePayloadOffset, length);
        if (!FuseRequest.TryParse(message, device, _file.MaxTransferBytes, _file.Name, out FuseRequest request))
        {
            Release(slot);
            _file.Log($"the kernel sent {length} bytes that are no request; the file system is ended");
            _file.Fail();
            return;
        }

        _unique[slot] = request.Unique;
        if (request.Task != FuseTask.Device)
        {
            AnswerAtOnce(slot, request, device);
            Release(slot);
            return;
        }

        bool hasPayload = request.Operation is BlockOperation.Read or BlockOperation.Write;
        var data = hasPayload ? new BufferSlice(_buffer, Payload(slot), (int)request.Length) : default;
        _requests[slot] = new BlockRequest((ulong)slot, request.Operation, request.Flags, request.Offset, request.Length, data);
        if (!_queue.TrySubmit(_requests[slot]))
            _refused[_refusedCount++] = slot;
    }

    /// <summary>Offers again what the queue had no room for, in its order.</summary>
    private bool OfferRefused()
    {
        int offered = 0;
        while (offered < _refusedCount && _queue.TrySubmit(_requests[_refused[offered]]))
            offered++;
        if (offered == 0)
            return false;
        _refusedCount -= offered;
        Array.Copy(_refused, offered, _refused, 0, _refusedCount);
        return true;
    }

    private void AnswerAtOnce(int slot, in FuseRequest request, BlockDeviceInfo device)
    {
        if (request.Task == FuseTask.Ignore)
            return;
        if (request.Task == FuseTask.Refuse)
        {
            Send(slot, request.Errno, Payload(slot), 0);
            return;
        }

        if (request.Task == FuseTask.Close)
            _file.NoteRelease();
        // The request was read in full; its place is free for the answer.
        Span<byte> body = _buffer.GetSpan(Payload(slot), 256);
        int length = request.Task switch
        {
            FuseTask.Init => _file.Agree(request.Init) ? FuseReplies.Init(body, request.Init, _file.MaxTransferBytes) : -1,
            FuseTask.Lookup => FuseReplies.Lookup(body, device),
            FuseTask.GetAttributes => FuseReplies.GetAttributes(body, request.Node, device),
            FuseTask.Open => FuseReplies.Open(body),
            FuseTask.OpenDirectory => FuseReplies.OpenDirectory(body),
            FuseTask.StatFs => FuseReplies.StatFs(body, device),
            _ => 0,
        };
        Send(slot, length < 0 ? Errno.EIO : 0, Payload(slot), Math.Max(length, 0));
    }

    private void Answer(in BlockCompletion completion)
    {
        int slot = (int)completion.Cookie;
        ref readonly BlockRequest request = ref _requests[slot];
        // A device that stores less than it was asked for and calls that success has broken its contract.
        bool isShort = request.Operation == BlockOperation.Read && completion.Result != request.Length;
        if (completion.Error != 0 || isShort)
            Send(slot, completion.Error != 0 ? completion.Error : Errno.EIO, Payload(slot), 0);
        else if (request.Operation == BlockOperation.Read)
            Send(slot, 0, Payload(slot), (int)request.Length);
        else if (request.Operation == BlockOperation.Write)
            Send(slot, 0, Payload(slot), FuseReplies.Written(_buffer.GetSpan(Payload(slot), FuseReplies.HeaderBytes), (int)request.Length));
        else
            Send(slot, 0, Payload(slot), 0);
        Release(slot);
    }

    private void Send(int slot, int errno, long bodyStart, int bodyBytes)
    {
        long start = bodyStart - FuseReplies.HeaderBytes;
        FuseReplies.Header(_buffer.GetSpan(start, FuseReplies.HeaderBytes), _unique[slot], errno, bodyBytes);
        int error = _channel.Reply(_buffer, start, FuseReplies.HeaderBytes + bodyBytes);
        // Nobody waits any more, or the file system has ended, which the next read says.
        if (error is 0 or -Errno.ENOENT or -Errno.ENODEV)
            return;
        _file.Log($"an answer to the kernel was refused (errno {-error})");
        // The request would wait for ever.
        if (errno == 0)
            Send(slot, Errno.EIO, bodyStart, 0);
        else
            _file.Fail();
    }

    /// <summary>
    /// The free slots are a stack: those below its lowest height were not used since the last look. What a burst has touched is given
    /// back, and what is needed all the time stays.
    /// </summary>
    private void GiveBack()
    {
        for (int i = 0; i < _leastFree; i++)
        {
            int slot = _free[i];
            if (!_touched[slot])
                continue;
            _touched[slot] = false;
            ProcessMemory.GiveBack(_buffer, slot * _stride, _stride);
        }

        _leastFree = _freeCount;
        _nextGiveBack = Environment.TickCount64 + GiveBackMilliseconds;
    }

    private void Release(int slot) => _free[_freeCount++] = slot;

    private long Payload(int slot) => slot * _stride + PrefixBytes;
}
