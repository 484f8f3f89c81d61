using Cbd.Host.Threads;
using Cbd.Memory;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Transports;

/// <summary>host-clear and dev-clear on one transport. Thread-safe.</summary>
internal sealed class ClearVerbs(Transport transport)
{
    private const int KillWaitMs = 20_000;

    private ILogger Logger => transport.Logger;

    /// <param name="force">A host of this machine is killed; without proof of death what it had is quarantined.</param>
    /// <param name="fenced">An operator vouches for its death.</param>
    public void ClearHost(int host, bool force, bool fenced)
    {
        using IDisposable operation = transport.Begin();
        CheckOther(host);
        if (force)
            KillLocal(host);
        ClearOneHost(host, force, fenced);
    }

    public void ClearDevice(int device, bool force, bool fenced)
    {
        using IDisposable operation = transport.Begin();
        ClaimWord word;
        lock (transport.StateLock)
        {
            transport.CheckUsable();
            if (transport.Session.UsesBlkdev(device))
                throw new CbdException(CbdErrorKind.Busy, $"device {device} is this host's own: stop it with dev-stop{(force ? " --force" : "")}");
            transport.Session.Tracker.Sample(MonotonicClock.Milliseconds);
            BlkdevListing listing = transport.Session.Blkdevs.List().FirstOrDefault(l => l.Blkdev == device)
                ?? throw new CbdException(CbdErrorKind.NotFound, $"device {device} does not exist on transport {transport.Id}: see dev-list --all");
            if (listing.Liveness == Liveness.Alive)
                throw new CbdException(CbdErrorKind.Busy, $"device {device} belongs to host {listing.Word.Host}, which is alive: stop it there with dev-stop");
            if (listing.Word.State == ClaimState.Quarantined && !fenced)
                throw new CbdException(CbdErrorKind.Busy, $"device {device} is quarantined: nothing proves that its host and its backend's are dead; if those machines are off or cut off, clear it with --fenced");
            word = listing.Word;
            if (word.State == ClaimState.Orphaned)
            {
                ReleaseOrphan(device, word);
                return;
            }

            if (word.State == ClaimState.Adopting && listing.Liveness != Liveness.Dead)
                throw new CbdException(CbdErrorKind.Busy, $"device {device} is being taken up by its daemon again: stop it there with dev-stop");
        }

        // A device without its host is cleared with it: the host's other entries are as dead.
        if (word.State == ClaimState.Quarantined)
            ReleaseQuarantined(device, word);
        else
            ClearOneHost(word.Host, force, fenced);
    }

    private void ReleaseOrphan(int device, ClaimWord word)
    {
        if (!transport.Membership.Clearing.ReleaseOrphan(device, word))
            throw new CbdException(CbdErrorKind.Busy, $"device {device} was taken up by its daemon again: stop it there with dev-stop") { MayPass = true };
        Logger.LogWarning("transport {Transport}: device {Device}, which waited for its daemon, was given up", transport.Id, device);
        transport.AnnounceChange();
    }

    /// <param name="word">The claim that the operator vouches for.</param>
    private void ReleaseQuarantined(int device, ClaimWord word)
    {
        Drive(
            now => transport.Membership.Clearing.ReleaseBlkdev(device, word, now) == StepResult.Done,
            $"device {device} could not be cleared yet: its backend's host has not said that it is done with it, or is not judged yet; try again");
        Logger.LogWarning("transport {Transport}: quarantined device {Device} cleared ({Authority})", transport.Id, device, ClearAuthority.Fenced);
        transport.AnnounceChange();
    }

    private void CheckOther(int host)
    {
        if ((uint)host >= (uint)transport.Geometry.HostCount)
            throw new CbdException(CbdErrorKind.NotFound, $"host {host} does not exist: ids go from 0 to {transport.Geometry.HostCount - 1}; see host-list");
        if (host == transport.Session.Claim.Host)
            throw new CbdException(CbdErrorKind.Invalid, $"host {host} is this one: leave with tp-unreg");
    }

    private void ClearOneHost(int host, bool force, bool fenced)
    {
        CheckOther(host);
        ClearAuthority authority = fenced ? ClearAuthority.Fenced : force ? ClearAuthority.Forced : ClearAuthority.Proof;
        var result = ClearResult.Again;
        bool first = true;
        Drive(
            now =>
            {
                if (first && transport.Session.Tracker.Sample(host, now).Word.State == ClaimState.Free)
                    throw new CbdException(CbdErrorKind.NotFound, $"host {host} is not registered on transport {transport.Id}: see host-list");
                first = false;
                result = transport.Membership.Clearing.Step(host, authority, now);
                return result != ClearResult.Again;
            },
            $"host {host} could not be cleared yet: a handler still drains; try again");
        if (result == ClearResult.NotAllowed)
            throw Refuse(host);
        if (result == ClearResult.Cleared)
            Logger.LogWarning("transport {Transport}: host {Host} cleared ({Authority})", transport.Id, host, authority);
        else
            Logger.LogWarning("transport {Transport}: host {Host} cleared without proof of death; what it had is quarantined", transport.Id, host);
        transport.AnnounceChange();
    }

    private CbdException Refuse(int host)
    {
        HostSighting sighting = Look(host);
        return new CbdException(
            CbdErrorKind.Busy,
            sighting.Liveness == Liveness.Alive
                ? $"host {host} ('{sighting.Name}') is alive: unregister it there with tp-unreg, end its daemon, or, on this machine, let --force kill it"
                : $"nothing proves that host {host} ('{sighting.Name}') is dead: if its machine is off or cut off, clear it with --fenced; --force quarantines what it had");
    }

    /// <summary>Steps under the lock until done.</summary>
    private void Drive(Func<long, bool> step, string otherwise)
    {
        long limit = MonotonicClock.Milliseconds + transport.Node.Times.ClearVerbMs;
        while (true)
        {
            lock (transport.StateLock)
            {
                transport.CheckUsable();
                if (step(MonotonicClock.Milliseconds))
                    return;
            }

            transport.CheckGoesOn();
            if (MonotonicClock.Milliseconds > limit)
                throw new CbdException(CbdErrorKind.TimedOut, otherwise);
            Thread.Sleep(Transport.StepIntervalMs);
        }
    }

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
        using ProcessDescriptor? process = ByteLockHolder.TryOpen(body.Pid, transport.Region.Device, transport.Region.Inode, transport.Geometry.HostOffset(host));
        if (process is null)
            throw new CbdException(CbdErrorKind.Denied, $"host {host} ('{sighting.Name}') is alive, and its process (pid {body.Pid} there) cannot be found from here by the lock that it holds (it is another user's, or in another process namespace): end its daemon where it runs");
        if (process.ProcessId == Environment.ProcessId)
            throw new CbdException(CbdErrorKind.Invalid, $"host {host} ('{sighting.Name}') is this process itself: leave with tp-unreg");
        // The lock was this claim's while its word stands.
        if (Look(host).Word != sighting.Word)
            return;
        process.Kill();
        Logger.LogWarning("transport {Transport}: host {Host} ('{Name}'): process {Process} killed, because its entry is to be cleared by force", transport.Id, host, sighting.Name, process.ProcessId);
        long limit = MonotonicClock.Milliseconds + KillWaitMs;
        if (!process.WaitForExit(KillWaitMs))
            throw new CbdException(CbdErrorKind.TimedOut, $"host {host} ('{sighting.Name}'): process {process.ProcessId} was killed and does not end: try again");
        // What it had at its disks may keep its files open a moment longer.
        while (Look(host) is { Liveness: Liveness.Alive } last && last.Word == sighting.Word)
        {
            if (MonotonicClock.Milliseconds > limit)
                throw new CbdException(CbdErrorKind.TimedOut, $"host {host} ('{sighting.Name}'): process {process.ProcessId} has ended, but the lock of its entry is still held: try again");
            Thread.Sleep(Transport.StepIntervalMs);
        }
    }

    private HostSighting Look(int host)
    {
        lock (transport.StateLock)
        {
            transport.CheckUsable();
            return transport.Session.Tracker.Sample(host, MonotonicClock.Milliseconds);
        }
    }
}
