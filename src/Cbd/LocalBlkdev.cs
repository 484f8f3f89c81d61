using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd;

/// <summary>
/// A blkdev of this process: a disk of another host, or of another program, as a block device. All members may be called by
/// any thread; each queue is for one thread at a time.
/// </summary>
public sealed class LocalBlkdev : IBlockDevice
{
    private readonly LocalHost _host;
    private readonly LocalExport _export;
    private int _isDisposed;

    internal LocalBlkdev(LocalHost host, int id, LocalExport export)
    {
        _host = host;
        Id = id;
        _export = export;
    }

    /// <summary>Its id on the region: what <c>cbdctrl dev-list --all</c> shows.</summary>
    public int Id { get; }

    /// <inheritdoc/>
    public BlockDeviceInfo Info => _export.Device.Info;

    /// <inheritdoc/>
    public int MaxQueues => _export.Device.MaxQueues;

    /// <inheritdoc/>
    /// <remarks>
    /// Disposing the queue waits for its requests, at most 10 s and not while the backend is away. Requests that have
    /// not ended then may be executed later or not at all, but always before any later request of this blkdev.
    /// </remarks>
    public IBlockQueue OpenQueue(int depth, NativeBuffer? buffers = null) => _export.OpenQueue(depth, buffers);

    /// <summary>
    /// Ends the blkdev: closes its channels, waiting at most 10 s for the backend, and frees its entry. Queues that are open
    /// still are to be disposed; until then their outstanding requests, and new ones, are answered with ESHUTDOWN. Outstanding
    /// ones may have been executed or not; nothing of them is executed later, and their memory is not touched again.
    /// Never throws; may be called twice.
    /// </summary>
    public void Dispose()
    {
        if (Interlocked.Exchange(ref _isDisposed, 1) != 0)
            return;
        // An id is given out again: only a device that is still there is stopped.
        if (!_export.IsOver)
            _host.Stop(Id);
        _export.Stop(force: true);
    }
}
