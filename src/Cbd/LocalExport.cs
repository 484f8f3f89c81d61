using Cbd.Blocks;
using Cbd.Host;
using Cbd.Host.Threads;
using Cbd.Memory;

namespace Cbd;

/// <summary>Hands devices to this process instead of serving them.</summary>
internal sealed class LocalExports : IExportFactory
{
    public const string Address = "in-process";

    private LocalExport? _last;

    public IExport Open(string address, SocketOptions options) => _last = new LocalExport();

    /// <summary>The export that was opened last, which serves now. Under the lock of the host.</summary>
    public LocalExport TakeLast() => _last ?? throw new InvalidOperationException("the device that was started is not there");
}

/// <summary>
/// The queues of one blkdev of this process: those that a user has, and those that nobody has, which are polled here, because
/// the others wait for them when the backend comes back. Thread-safe.
/// </summary>
internal sealed class LocalExport : IExport
{
    private const int IdlePollMs = 20;

    /// <summary>Also held while a queue changes hands.</summary>
    private readonly Lock _lock = new();
    private readonly Stack<BlkdevQueue> _idle = [];
    private readonly List<LocalQueue> _open = [];
    private BlkdevDevice? _device;
    private Timer? _idlePoll;
    private int _idlePollMs = Timeout.Infinite;
    private bool _isStopped;
    private volatile bool _isOver;

    public string Uri => LocalExports.Address;

    public int ClientCount => 0;

    /// <summary>The device behind it is given back, and its id may be another device's.</summary>
    public bool IsOver => _isOver;

    public IBlockDevice Device => _device ?? throw new InvalidOperationException("the device is not served yet");

    public void Serve(IBlockDevice device, int queues, PollMode mode)
    {
        lock (_lock)
        {
            _device = (BlkdevDevice)device;
            for (int i = 0; i < queues; i++)
                _idle.Push(_device.OpenQueue(1));
            _idlePoll = new Timer(static export => ((LocalExport)export!).PollIdle(), this, Timeout.Infinite, Timeout.Infinite);
            PollWhileIdle();
        }
    }

    /// <summary>
    /// The timer runs only while a queue has no user. Each tick wakes a thread of the pool, which takes a CPU from those that
    /// spin. Under the lock.
    /// </summary>
    private void PollWhileIdle()
    {
        int periodMs = _idle.Count > 0 ? IdlePollMs : Timeout.Infinite;
        if (periodMs != _idlePollMs)
            _idlePoll!.Change(periodMs, periodMs);
        _idlePollMs = periodMs;
    }

    public LocalQueue OpenQueue(int depth, NativeBuffer? buffers)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(depth);
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_isStopped, typeof(LocalBlkdev));
            if (!_idle.TryPop(out BlkdevQueue? idle))
                throw new CbdException(CbdErrorKind.Exhausted, $"all {Device.MaxQueues} queues of the blkdev are open: dispose one, or open the blkdev with more queues");
            idle.End(isPolledOn: true);
            try
            {
                var queue = new LocalQueue(this, _device!.OpenQueue(depth, buffers), depth);
                _open.Add(queue);
                PollWhileIdle();
                return queue;
            }
            catch
            {
                _idle.Push(_device!.OpenQueue(1));
                throw;
            }
        }
    }

    /// <summary>A user is done with its queue: what of it is outstanding ends, and the channel is polled here.</summary>
    public void Close(LocalQueue queue)
    {
        lock (_lock)
        {
            if (!_open.Remove(queue))
                return;
            queue.End(isPolledOn: true);
            _idle.Push(_device!.OpenQueue(1));
            PollWhileIdle();
        }
    }

    /// <summary>Takes the queues from their users: when this returns, none of their threads is in one, or enters it.</summary>
    public void Stop(bool force)
    {
        lock (_lock)
        {
            if (_isStopped)
                return;
            _isStopped = true;
            _idlePoll?.Dispose();
            foreach (BlkdevQueue idle in _idle)
                idle.Dispose();
            foreach (LocalQueue queue in _open)
                queue.End(isPolledOn: false);
            _open.Clear();
        }
    }

    public void Dispose()
    {
        Stop(force: true);
        _isOver = true;
    }

    private void PollIdle()
    {
        lock (_lock)
        {
            if (_isStopped)
                return;
            foreach (BlkdevQueue idle in _idle)
                idle.Poll([]);
        }
    }
}
