using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>
/// Threads that do a disk's blocking calls. The first exists from the start, so that a request that needs one is never without; the
/// others come with the first request, as many as can be had. They sleep while there is nothing to do.
/// </summary>
internal sealed class DiskWorkers : IDisposable
{
    private const int StackBytes = 256 << 10;

    private readonly DescriptorDisk _disk;
    private readonly int _threadCount;
    private readonly object _gate = new();
    private readonly List<Thread> _threads = [];
    private PendingRequest? _first;
    private PendingRequest? _last;
    private bool _stopping;
    private bool _isComplete;

    /// <exception cref="CbdException">Not even one thread can be had.</exception>
    public DiskWorkers(DescriptorDisk disk, int threadCount)
    {
        _disk = disk;
        _threadCount = threadCount;
        Thread first = NewThread();
        NeededThread.Begin(first);
        _threads.Add(first);
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
            if (!_isComplete)
                StartOthers();
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
    private void StartOthers()
    {
        _isComplete = true;
        while (_threads.Count < _threadCount)
        {
            Thread thread = NewThread();
            if (!NeededThread.TryBegin(thread))
                return;
            _threads.Add(thread);
        }
    }

    private Thread NewThread() => new(Work, StackBytes) { IsBackground = true, Name = "cbd-disk" };

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
