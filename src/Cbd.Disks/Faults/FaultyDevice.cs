using Cbd.Blocks;
using Cbd.Memory;

namespace Cbd.Disks;

/// <summary>
/// A block device whose requests are struck by faults on their way in. Does not show that the device lies in memory, so
/// that reads come this way too. Thread-safe; leaves the device itself to its owner.
/// </summary>
public sealed class FaultyDevice(IBlockDevice device, FaultSet faults) : IBlockDevice
{
    public BlockDeviceInfo Info => device.Info;

    public int MaxQueues => device.MaxQueues;

    public IBlockQueue OpenQueue(int depth, NativeBuffer? buffers = null) => new FaultyQueue(device.OpenQueue(depth, buffers), faults, depth);

    public void Dispose()
    {
    }
}
