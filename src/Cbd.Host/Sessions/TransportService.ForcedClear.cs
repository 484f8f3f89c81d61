using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Sessions;

/// <summary>host-clear --force of a host that lives on this machine.</summary>
internal sealed partial class TransportService
{
    private const int KillWaitMs = 20_000;

    /// <summary>
    /// Ends the process that is the host, if that is seen to live on this kernel, and waits until the kernel has given its
    /// lock back: then its death is proven. The process is found by that lock and by nothing that the region says. Throws,
    /// and kills nothing, where it is not found.
    /// </summary>
    private void KillLocal(int host)
    {
        HostSighting sighting = Look(host);
        if (sighting.Liveness != Liveness.Alive || sighting.Body is not { } body || body.BootId != ProcessIdentity.BootId)
            return;
        using ProcessDescriptor? process = ByteLockHolder.TryOpen(body.Pid, Region.Device, Region.Inode, Geometry.HostOffset(host));
        if (process is null)
            throw new CbdException(CbdErrorKind.Denied, $"host {host} ('{sighting.Name}') is alive, and its process (pid {body.Pid} there) cannot be found from here by the lock that it holds: end its daemon where it runs");
        if (process.ProcessId == Environment.ProcessId)
            throw new CbdException(CbdErrorKind.Invalid, $"host {host} ('{sighting.Name}') is this process itself: leave with tp-unreg");
        // The lock was this claim's while its word stands.
        if (Look(host).Word != sighting.Word)
            return;
        process.Kill();
        _logger.LogWarning("transport {Transport}: host {Host} ('{Name}'): process {Process} killed, because its entry is to be cleared by force", Id, host, sighting.Name, process.ProcessId);
        long limit = MonotonicClock.Milliseconds + KillWaitMs;
        if (!process.WaitForExit(KillWaitMs))
            throw new CbdException(CbdErrorKind.TimedOut, $"host {host} ('{sighting.Name}'): process {process.ProcessId} was killed and does not end: try again");
        // What it had at its disks may keep its files open a moment longer.
        while (Look(host) is { Liveness: Liveness.Alive } last && last.Word == sighting.Word)
        {
            if (MonotonicClock.Milliseconds > limit)
                throw new CbdException(CbdErrorKind.TimedOut, $"host {host} ('{sighting.Name}'): process {process.ProcessId} has ended, but the lock of its entry is still held: try again");
            Thread.Sleep(StepIntervalMs);
        }
    }

    private HostSighting Look(int host)
    {
        lock (_lock)
        {
            CheckUsable();
            return Tracker.Sample(host, MonotonicClock.Milliseconds);
        }
    }
}
