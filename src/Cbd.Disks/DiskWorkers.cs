namespace Cbd.Disks;

/// <summary>
/// A fixed number of threads that do a disk's blocking calls, started with the first request. They sleep while there
/// is nothing to do.
/// </summary>
internal sealed class DiskWorkers : IDisposable
{
    private const int StackBytes = 256 << 10;

    private readonly DescriptorDisk _disk;
    private readonly int _threadCount;
    private readonly object _gate = new();
    private Thread[] _threads = [];
    private PendingRequest? _first;
    private PendingRequest? _last;
    private bool _stopping;

    public DiskWorkers(DescriptorDisk disk, int threadCount)
    {
        _disk = disk;
        _threadCount = threadCount;
    }

    /// <summary>Hands over a request; <see cref="PendingRequest.HandBack"/> is called when it is done. Any thread.</summary>
    public void Enqueue(PendingRequest request)
    {
        lock (_gate)
        {
            ObjectDisposedException.ThrowIf(_stopping, this);
            request.Next = null;
            if (_last is null)
                _first = request;
            else
                _last.Next = request;
            _last = request;
            if (_threads.Length == 0)
                Start();
            Monitor.Pulse(_gate);
        }
    }

    /// <summary>Stops the threads after what was enqueued is done.</summary>
    public void Dispose()
    {
        lock (_gate)
        {
            _stopping = true;
            Monitor.PulseAll(_gate);
        }
        foreach (Thread thread in _threads)
            thread.Join();
    }

    /// <summary>All of them at once, so that no later request pays for a start.</summary>
    private void Start()
    {
        _threads = new Thread[_threadCount];
        for (int i = 0; i < _threadCount; i++)
        {
            _threads[i] = new Thread(Work, StackBytes) { IsBackground = true, Name = "cbd-disk" };
            _threads[i].Start();
        }
    }

    private void Work()
    {
        while (true)
        {
            PendingRequest request;
            lock (_gate)
            {
                while (_first is null)
                {
                    if (_stopping)
                        return;
                    Monitor.Wait(_gate);
                }
                request = _first;
                _first = request.Next;
                if (_first is null)
                    _last = null;
            }
            request.Next = null;
            _disk.Execute(request);
            request.HandBack();
        }
    }
}
