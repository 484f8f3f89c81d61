using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>
/// The queue of a disk that never waits for a device: a request is done when it is submitted, and reported by the next Poll.
/// </summary>
internal abstract class ImmediateQueue : IBlockQueue
{
    private readonly Disk _disk;
    private readonly WakeEvent _wake = new();
    private readonly BlockCompletion[] _done;
    private int _first;
    private bool _disposed;

    protected ImmediateQueue(Disk disk, int depth)
    {
        _disk = disk;
        _done = new BlockCompletion[depth];
    }

    public int Outstanding { get; private set; }

    public bool TrySubmit(in BlockRequest request)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (Outstanding == _done.Length)
            return false;
        int result = 0;
        int error = RequestGate.Check(_disk.Info, request);
        if (error == 0)
            result = Execute(request);
        int index = _first + Outstanding++;
        if (index >= _done.Length)
            index -= _done.Length;
        _done[index] = new BlockCompletion(request.Cookie, error, result);
        return true;
    }

    public int Poll(Span<BlockCompletion> completions)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        int count = Math.Min(completions.Length, Outstanding);
        for (int i = 0; i < count; i++)
        {
            completions[i] = _done[_first];
            if (++_first == _done.Length)
                _first = 0;
        }
        Outstanding -= count;
        return count;
    }

    public void Wait(int timeoutMicroseconds)
    {
        ObjectDisposedException.ThrowIf(_disposed, this);
        if (Outstanding == 0)
            _wake.Wait(timeoutMicroseconds);
    }

    public void Interrupt() => _wake.Signal();

    public virtual void Dispose()
    {
        _disposed = true;
        _wake.Dispose();
    }

    /// <summary>Does a checked request, which cannot fail; returns the bytes of payload stored.</summary>
    protected abstract int Execute(in BlockRequest request);
}
