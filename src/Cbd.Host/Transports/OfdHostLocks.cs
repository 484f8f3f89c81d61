using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;

namespace Cbd.Host.Transports;

/// <summary>The locks of host entries as OFD locks on bytes of the region's file. Thread-safe.</summary>
internal sealed class OfdHostLocks(RegionMapping region) : IHostLocks
{
    private readonly Lock _lock = new();
    private readonly Dictionary<int, RegionByteLock> _held = [];

    public bool TryLock(int host)
    {
        lock (_lock)
        {
            // A second lock through one open file description would succeed.
            if (_held.ContainsKey(host) || RegionByteLock.TryAcquire(region.Descriptor, Offset(host)) is not { } taken)
                return false;
            _held.Add(host, taken);
            return true;
        }
    }

    public void Unlock(int host)
    {
        lock (_lock)
        {
            if (_held.Remove(host, out RegionByteLock? held))
                held.Dispose();
        }
    }

    public bool IsHeld(int host, ulong device, ulong inode)
    {
        // Seen under other numbers, it is another file to the kernel, whose locks say nothing.
        if (device != region.Device || inode != region.Inode)
            return true;
        lock (_lock)
        {
            if (_held.ContainsKey(host))
                return true;
        }

        return RegionByteLock.IsHeld(region.Descriptor, Offset(host));
    }

    /// <summary>Any lock of the file: host entries of other versions have other sizes.</summary>
    public bool IsAnyHeld(ulong device, ulong inode)
    {
        if (device != region.Device || inode != region.Inode)
            return true;
        lock (_lock)
        {
            if (_held.Count > 0)
                return true;
        }

        return RegionByteLock.IsAnyHeld(region.Descriptor);
    }

    /// <summary>The host area follows the transport info in every region, so a region's own geometry is not asked.</summary>
    private static long Offset(int host) => TransportInfo.SizeBytes + (long)HostEntry.SizeBytes * host;
}
