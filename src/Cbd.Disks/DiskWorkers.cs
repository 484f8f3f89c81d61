namespace Cbd.Disks;

/// <summary>
/// A fixed number of threads that do a disk's blocking calls, started with the first request. They sleep while there
/// is nothing to do.
/// </summary>
internal sealed class DiskWorkers : IDisposable
{
    private const int StackBytes = 256 << 10;

    private readonly DescriptorDisk _disk;
    private readonly Thread?[] _threads;
    private readonly object _gate = new();
    private PendingRequest? _first;
    private PendingRequest? _last;
    private int _queued;
    private int _idle;
    private bool _stopping;

    public DiskWorkers(DescriptorDisk disk, int threadCount)
    {
        _disk = disk;
        _threads = new Thread?[threadCount];
    }

    /// <summary>Hands over a request; <see cref="PendingRequest.Finish"/> is called when it is done. Any thread.</summary>
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
            // A woken thread counts as idle until it runs, so idle ones alone do not tell that there are enough.
            if (++_queued > _idle)
                StartOne();
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
        foreach (Thread? thread in _threads)
            thread?.Join();
    }

    private void StartOne()
    {
        int index = Array.IndexOf(_threads, null);
        if (index < 0)
            return;
        var thread = new Thread(Work, StackBytes) { IsBackground = true, Name = "cbd-disk" };
        _threads[index] = thread;
        thread.Start();
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
                    _idle++;
                    Monitor.Wait(_gate);
                    _idle--;
                }
                request = _first;
                _queued--;
                _first = request.Next;
                if (_first is null)
                    _last = null;
            }
            request.Next = null;
            _disk.Execute(request);
            request.Finish();
        }
    }
}
