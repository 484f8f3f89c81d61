using Cbd.Protocol.Blkdevs;
using Cbd.Blocks;
using Cbd.Protocol.Channels;
using Cbd.Memory;

namespace Cbd.Host.Threads;

/// <summary>
/// A blkdev as a block device: what exports and in-process users drive. Its queues are attached channels; each is given
/// out once, and comes back when it is disposed. Thread-safe.
/// </summary>
internal sealed class BlkdevDevice(BlkdevState state, MappedMemory memory, Queue<MappedMemory, SafePolicy>[] queues, BeatCondition condition) : IBlockDevice
{
    private readonly Lock _lock = new();
    private readonly bool[] _given = new bool[queues.Length];

    public BlockDeviceInfo Info => state.Info;

    public int MaxQueues => queues.Length;

    IBlockQueue IBlockDevice.OpenQueue(int depth, NativeBuffer? buffers) => OpenQueue(depth, buffers);

    public BlkdevQueue OpenQueue(int depth, NativeBuffer? buffers = null)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(depth);
        lock (_lock)
        {
            int index = Array.IndexOf(_given, false);
            if (index < 0)
                throw new CbdException(CbdErrorKind.Exhausted, $"all {queues.Length} queues of device {state.Blkdev} are in use: start it with more --queues");
            var queue = new BlkdevQueue(state, memory, queues[index], condition, depth, buffers, () => TakeBack(index));
            _given[index] = true;
            return queue;
        }
    }

    public void Dispose()
    {
    }

    private void TakeBack(int index)
    {
        lock (_lock)
            _given[index] = false;
    }
}
