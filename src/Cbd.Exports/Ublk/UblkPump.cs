using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Cbd.Blocks;
using Cbd.Exports.Pumping;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Cbd.Host;

namespace Cbd.Exports.Ublk;

/// <summary>
/// One thread with one queue of the kernel's block device and one of ours: it fetches requests through its ring, submits
/// them, and commits their results; a commit asks for the next request at once. Nothing is locked, allocated or handed
/// to another thread per request.
/// </summary>
/// <remarks>
/// Each tag has a private buffer of the largest payload, into which the kernel copies what is written, in this thread,
/// before it announces the request, and out of which it copies what was read when it is committed: so payload costs no
/// system call, and one enters the kernel for any number of requests. Pages that are never used take no memory, and the
/// block layer uses low tags first.
/// </remarks>
internal sealed class UblkPump : IDisposable
{
    /// <summary>Requests in flight of one queue.</summary>
    internal const int Depth = 128;

    private const ulong WakeUserData = ulong.MaxValue - 1;
    private const int FailedSleepMicroseconds = 1_000_000;

    private readonly int _number;
    private readonly int _maxTransferBytes;
    private readonly Action<string> _log;
    private readonly NativeBuffer _payload;
    private readonly ReadOnlyMapping _descriptors;
    private readonly IBlockQueue _queue;
    private readonly IoUring _ring;
    private readonly RingDoorbell _doorbell;
    private readonly PumpIdle<RingSleeper> _idle;
    private readonly PollWake _wake = new();
    private readonly BlockCompletion[] _completions = new BlockCompletion[Depth];
    private readonly BlockRequest[] _requests = new BlockRequest[Depth];
    private readonly bool[] _isAtDevice = new bool[Depth];

    /// <summary>Tags whose request is not at the device yet, oldest first.</summary>
    private readonly Queue<int> _waiting = new(Depth);
    private readonly Thread _thread;
    private readonly ManualResetEventSlim _hasAsked = new();

    private bool _isWakeArmed;
    private bool _hasFailed;
    private volatile bool _stopRequested;
    private volatile bool _isParked;
    private volatile bool _isRefused;
    private PumpCounters _counters;

    /// <param name="file">/dev/ublkcN; stays the caller's.</param>
    /// <param name="device">What is served; stays the caller's.</param>
    /// <param name="number">Number of the queue in the kernel's device.</param>
    /// <param name="maxTransferBytes">Largest payload of a request, whole pages.</param>
    /// <param name="mode">How its thread waits.</param>
    /// <param name="log">Where messages go.</param>
    internal UblkPump(FileDescriptor file, IBlockDevice device, int number, int maxTransferBytes, PollMode mode, Action<string> log)
    {
        _number = number;
        _maxTransferBytes = maxTransferBytes;
        _log = log;
        int pageBytes = Environment.SystemPageSize;
        _descriptors = ReadOnlyMapping.Map(
            file, UblkProtocol.DescriptorsOffset(number, pageBytes), UblkProtocol.DescriptorsBytes(Depth, pageBytes), "descriptors of a ublk queue");
        _payload = new NativeBuffer((long)Depth * maxTransferBytes);
        IoUring? ring = null;
        try
        {
            // A commit per tag, the doorbell and the wake.
            int error = IoUring.TryCreate(Depth + 2, out ring);
            if (error == 0)
                error = ring!.RegisterFile(file);
            if (error != 0)
                throw new SystemCallException("io_uring_setup", -error, "queue of a ublk device");
            _ring = ring!;
            _queue = device.OpenQueue(Depth, _payload);
        }
        catch
        {
            ring?.Dispose();
            _descriptors.Dispose();
            _payload.Dispose();
            _wake.Dispose();
            throw;
        }

        _doorbell = new RingDoorbell(_ring);
        _idle = new PumpIdle<RingSleeper>(new RingSleeper(_ring, _doorbell, _queue), _queue, mode);
        _thread = new Thread(Run) { IsBackground = true, Name = $"ublk-pump-{number}" };
    }

    /// <summary>What was done so far. Any thread; the numbers are from slightly different moments.</summary>
    internal PumpStatistics Statistics => _counters.Statistics;

    /// <summary>Starts the thread, which asks for requests at once: the kernel starts the device when all pumps have.</summary>
    /// <exception cref="CbdException">No thread can be had.</exception>
    internal void Start() => NeededThread.Begin(_thread);

    /// <summary>Asks the thread to end when nothing of it is at the device, whether the kernel ended its fetches or not. Any thread.</summary>
    internal void RequestStop()
    {
        _stopRequested = true;
        _wake.Signal();
    }

    /// <summary>Ends the thread as it is: what the device has not done is not answered, and the kernel keeps it for another server. Any thread.</summary>
    internal void Park()
    {
        _isParked = true;
        _wake.Signal();
    }

    /// <summary>Waits until the kernel was asked for all requests of a queue that was started. Whether it will give them; false if one was refused.</summary>
    internal bool AwaitAsked()
    {
        _hasAsked.Wait();
        return !_isRefused;
    }

    /// <summary>Waits for the end of the thread and frees what it used. A pump that was never started is only freed.</summary>
    public void Dispose()
    {
        _thread.JoinIfStarted();
        // The queue owns the payload memory of what is still at the device; it goes first. The ring gives up the
        // descriptor of the device's server side.
        _ring.Dispose();
        _queue.Dispose();
        _descriptors.Dispose();
        _payload.Dispose();
        _wake.Dispose();
        _hasAsked.Dispose();
    }

    private void Run()
    {
        PumpThread.UseExactTimers();
        _counters.Begin();
        for (int tag = 0; tag < Depth; tag++)
            Fetch(UblkProtocol.FetchRequest, tag, 0);
        // Linux 6.12 never lets go of a server that dies when it has asked for a part of a queue's requests: another one could not take over.
        while (_ring.PreparedCount is > 0 and var left && (left < Depth || !(_isParked || _stopRequested)))
            _ring.EnterAtOnce();
        // The kernel says at once what it refuses.
        TakeRequests();
        _hasAsked.Set();
        while (!_isParked && (!_stopRequested || (_queue.Outstanding != 0 && !_hasFailed)))
        {
            if (!_isWakeArmed)
                _isWakeArmed = _ring.PreparePoll(_wake, WakeUserData);
            bool progressed = TakeRequests();
            if (!_hasFailed)
                progressed |= PollDevice();
            _counters.EndTurn();
            if (_hasFailed)
                _ring.EnterAndWait(FailedSleepMicroseconds);
            else
                _idle.Next(progressed, mayWait: true, _queue.Outstanding);
        }
    }

    private bool TakeRequests()
    {
        bool progressed = false;
        while (_ring.TryReap(out ulong userData, out int result))
        {
            if (_doorbell.TryTake(userData, result))
                continue;
            if (userData == WakeUserData)
            {
                _isWakeArmed = false;
                _wake.Clear();
                continue;
            }

            progressed = true;
            if (result == UblkProtocol.ResultOk && userData < Depth)
                Begin((int)userData);
            else if (result != UblkProtocol.ResultAbort)
            {
                _isRefused = true;
                _log($"queue {_number}: the kernel ended the fetch of request {userData} with result {result}; it is not asked for again");
            }
        }

        return progressed;
    }

    private void Begin(int tag)
    {
        // One copy: the kernel's page is not looked at again.
        int size = Unsafe.SizeOf<UblkIoDescriptor>();
        var descriptor = MemoryMarshal.Read<UblkIoDescriptor>(_descriptors.GetSpan(tag * size, size));
        _counters.AddRequest();
        var room = new BufferSlice(_payload, (long)tag * _maxTransferBytes, _maxTransferBytes);
        int errno = UblkRequest.Translate(descriptor, tag, room, out _requests[tag]);
        if (errno != 0 || _hasFailed)
        {
            Commit(tag, errno != 0 ? -errno : -Errno.EIO);
            return;
        }

        _waiting.Enqueue(tag);
        SubmitWaiting();
    }

    /// <summary>Gives the device what it has room for, in the order of arrival.</summary>
    private void SubmitWaiting()
    {
        try
        {
            while (_waiting.TryPeek(out int tag) && _queue.TrySubmit(_requests[tag]))
            {
                _isAtDevice[tag] = true;
                _waiting.Dequeue();
            }
        }
        catch (CbdException error)
        {
            Fail(error);
        }
    }

    private bool PollDevice()
    {
        int count;
        try
        {
            count = _queue.Poll(_completions);
        }
        catch (CbdException error)
        {
            Fail(error);
            return true;
        }

        for (int i = 0; i < count; i++)
        {
            ref readonly BlockCompletion completion = ref _completions[i];
            int tag = checked((int)completion.Cookie);
            if (!_isAtDevice[tag])
                throw new InvalidOperationException($"the device completed request {tag}, which it does not have");
            _isAtDevice[tag] = false;
            ref readonly BlockRequest request = ref _requests[tag];
            int result = UblkRequest.ResultOf(completion, request.Operation, request.Data.Length);
            if (result > 0 && request.Operation == BlockOperation.Read)
                _counters.AddRead(result);
            else if (result > 0)
                _counters.AddWritten(result);
            Commit(tag, result);
        }

        SubmitWaiting();
        return count != 0;
    }

    /// <summary>The queue cannot be used any more: every request fails from now on, so that the kernel can end the device.</summary>
    private void Fail(CbdException error)
    {
        if (_hasFailed)
            return;
        _hasFailed = true;
        _log($"queue {_number}: the device failed, its requests get EIO: {error.Message}");
        while (_waiting.TryDequeue(out int tag))
            Commit(tag, -Errno.EIO);
        for (int tag = 0; tag < Depth; tag++)
        {
            if (_isAtDevice[tag])
                Commit(tag, -Errno.EIO);
            _isAtDevice[tag] = false;
        }
    }

    private void Commit(int tag, int result)
    {
        if (result < 0)
            _counters.AddFailed();
        Fetch(UblkProtocol.CommitAndFetchRequest, tag, result);
    }

    private void Fetch(uint code, int tag, int result)
    {
        var command = new UblkIoCommand
        {
            Queue = (ushort)_number,
            Tag = (ushort)tag,
            Result = result,
            Address = (ulong)(_payload.Address + ((nint)tag * _maxTransferBytes)),
        };
        if (!_ring.PrepareCommand(code, MemoryMarshal.AsBytes(new ReadOnlySpan<UblkIoCommand>(in command)), (ulong)tag))
            throw new InvalidOperationException("the ring has fewer entries than the queue has requests");
    }
}
