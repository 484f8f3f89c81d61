using Cbd.Blocks;

namespace Cbd.Protocol.Channels;

/// <summary>
/// One session of a backend as its handlers see it. Thread-safe: shared by all handler threads of the backend.
/// </summary>
internal sealed class ServedBackend
{
    private readonly Lock _latchLock = new();
    private readonly Action<int> _storeFlushError;
    private readonly Func<int, ulong, bool> _isEntitled;
    private volatile int _flushError;

    /// <param name="backend">Backend id.</param>
    /// <param name="session">Epoch of the backend's claim.</param>
    /// <param name="disk">The disk that is served.</param>
    /// <param name="flushError">0, or the errno that an earlier session latched.</param>
    /// <param name="storeFlushError">Stores a latched errno in the backend's entry; returns when it is stored.</param>
    /// <param name="isEntitled">Whether the blkdev of this id and epoch may use the backend.</param>
    public ServedBackend(
        int backend,
        ulong session,
        IBlockDevice disk,
        int flushError,
        Action<int> storeFlushError,
        Func<int, ulong, bool> isEntitled)
    {
        Backend = backend;
        Session = session;
        Disk = disk;
        _flushError = flushError;
        _storeFlushError = storeFlushError;
        _isEntitled = isEntitled;
    }

    public int Backend { get; }

    public ulong Session { get; }

    public IBlockDevice Disk { get; }

    /// <summary>0, or the errno with which writes and flushes fail since a flush failed.</summary>
    public int FlushError => _flushError;

    /// <summary>Whether the blkdev of this id and epoch may use the backend.</summary>
    public bool IsEntitled(int blkdev, ulong epoch) => _isEntitled(blkdev, epoch);

    /// <summary>
    /// Latches a failed flush: stored in the entry first, so that it outlives this process, then in force here. The
    /// caller posts the completion afterwards. The first errno stays.
    /// </summary>
    public void LatchFlushError(int error)
    {
        lock (_latchLock)
        {
            if (_flushError != 0)
                return;
            _storeFlushError(error);
            _flushError = error;
        }
    }

    /// <summary>Forgets a latched failure (backend-clear); the entry is cleared by the caller.</summary>
    public void ClearFlushError()
    {
        lock (_latchLock)
        {
            _storeFlushError(0);
            _flushError = 0;
        }
    }
}
