using Cbd.Disks;
using Cbd.Host.Backends;
using Cbd.Host.Threads;
using Cbd.Host.Wanted;
using Cbd.Memory;
using Cbd.Protocol.Backends;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Transports;

/// <summary>Starts, stops and changes backends on one transport. Thread-safe.</summary>
internal sealed class BackendVerbs(Transport transport)
{
    private const int JoinIntervalMs = 100;

    /// <summary>Names of backends that are being started.</summary>
    private readonly HashSet<string> _startingNames = [];
    private readonly DiskReservations _reservations = new(transport.Node.DisksDirectory, transport.Node.Access.Trust, transport.Node.Logger);

    private ILogger Logger => transport.Logger;

    private int StopWaitMs => transport.Node.DiskWaitMs;

    /// <param name="options">The disk, and how it is served.</param>
    /// <param name="regions">Files that are refused as disks.</param>
    /// <param name="describeHolder">Names who has a disk that is in use, as the rest of a sentence; null if that is not known.</param>
    public int Start(StartBackendOptions options, IReadOnlyList<FileIdentity> regions, Func<string, string?> describeHolder)
    {
        using IDisposable operation = transport.Begin();
        if (options.Handlers is < 1 or > BackendBody.MaxHandlers)
            throw new CbdException(CbdErrorKind.Invalid, $"handlers is {options.Handlers}: give a number from 1 to {BackendBody.MaxHandlers}");
        BackendLife<MappedMemory, SafePolicy> life;
        lock (transport.StateLock)
        {
            transport.CheckUsable();
            transport.CheckGoesOn();
            if (options.Backend is { } wanted)
                CheckTakeOver(wanted);
            if (options.Name is { } name && transport.BackendServers.Exists(b => b.Name == name))
                throw new CbdException(CbdErrorKind.Busy, $"backend name '{name}' is taken on this host: stop that backend with backend-stop -b {name}, or give another --name");
            if (options.Name is { } starting && _startingNames.Contains(starting))
                throw new CbdException(CbdErrorKind.Busy, $"a backend with the name '{starting}' is being started on this host: try again in a moment, or give another --name") { MayPass = true };
            life = new BackendLife<MappedMemory, SafePolicy>(transport.Session, new BackendWish(options.Backend, options.Fenced, IsConfirmed: !options.IsUnattended, WaitMs: options.Limit?.LeftMs), MonotonicClock.Milliseconds);
            if (options.Name is { } taken)
                _startingNames.Add(taken);
        }

        try
        {
            return Start(life, options, regions, describeHolder);
        }
        finally
        {
            if (options.Name is { } name)
            {
                lock (transport.StateLock)
                    _startingNames.Remove(name);
            }
        }
    }

    private int Start(BackendLife<MappedMemory, SafePolicy> life, StartBackendOptions options, IReadOnlyList<FileIdentity> regions, Func<string, string?> describeHolder)
    {
        var waiting = new DiskLockWait(options, regions, describeHolder, transport.Node.Access.RightsOf(options.Caller));
        Disk disk;
        try
        {
            disk = waiting.Open(why =>
            {
                transport.CheckGoesOn();
                options.Limit?.Check(why);
                lock (transport.StateLock)
                {
                    life.Session.CheckUsable();
                    life.AwaitDisk(why, MonotonicClock.Milliseconds);
                }
            });
        }
        catch
        {
            Drop(life);
            throw;
        }

        BackendServer server = Serve(life, options, disk);
        Logger.LogInformation("backend {Backend}: {Path} started, session {Session}, {Engine}, {Handlers} handler(s)", life.Backend, options.Path, life.Epoch, disk.Engine, options.Handlers);
        server.LogFaults();
        // Blkdevs that wait for this session look at once; and so do we, for their offers.
        transport.AnnounceChange();
        return life.Backend;
    }

    /// <summary>Offers a disk again whose backend was lost with this host's claim.</summary>
    public void StartAnew(BackendLife<MappedMemory, SafePolicy> life, StartBackendOptions options, Disk disk)
    {
        try
        {
            Serve(life, options, disk);
            Logger.LogWarning("backend {Backend}: offered again", life.Backend);
        }
        catch (CbdException e)
        {
            Logger.LogError("backend {Backend}: not offered again: {Reason}", life.Backend, e.Message);
            transport.Node.BackendLost?.Invoke(transport.Path, life.Backend, $"it was not offered again: {e.Message}");
        }

        transport.AnnounceChange();
    }

    /// <summary>
    /// Stops a backend. If the disk does not finish its requests in time it goes on by itself, and the answer says so; forced, what
    /// hangs is left to the end of this process, and it throws TimedOut.
    /// </summary>
    /// <param name="leaves">This host ends: the blkdevs wait for the next session, instead of failing.</param>
    public StopAnswer Stop(int backend, bool force, bool leaves)
    {
        using IDisposable operation = transport.Begin();
        BackendServer server;
        lock (transport.StateLock)
        {
            transport.CheckUsable();
            server = FindOwn(backend);
            server.Life.BeginStop(force, leaves, MonotonicClock.Milliseconds);
        }

        // Blkdevs wait for a host that leaves.
        if (!leaves || !server.Life.Claim!.IsUsed)
            _reservations.Remove(server.Disk, transport.Geometry.RegionId, backend, server.Life.Claim!.Session);
        return FinishStop(server, force);
    }

    /// <summary>Waits for the end of a stop that was accepted.</summary>
    public StopAnswer FinishStop(BackendServer server, bool force)
    {
        if (server.Life.Stage == BackendStage.Abandoned)
            throw new CbdException(CbdErrorKind.TimedOut, $"backend {server.Backend}: {server.Life.Status.Reason}");
        server.BeginEnd();
        long limit = MonotonicClock.Milliseconds + StopWaitMs;
        while (!TryFinishStop(server, JoinIntervalMs))
        {
            if (MonotonicClock.Milliseconds < limit && (force || !transport.Verbs.IsEnding))
                continue;
            int backend = server.Backend;
            if (!force)
            {
                lock (transport.StateLock)
                    server.Life.StopTakesLong("the disk does not finish its requests", MonotonicClock.Milliseconds);
                return StopAnswer.Stopping($"backend {backend}: the disk did not finish its requests within {StopWaitMs / 1000} s: it is stopping, and ends by itself when the disk answers; see backend-list, or stop it with --force");
            }

            lock (transport.StateLock)
                server.Life.Abandon(MonotonicClock.Milliseconds);
            server.Abandon();
            throw new CbdException(CbdErrorKind.TimedOut, $"backend {backend}: the disk does not finish its requests; they are left to the kernel, and the entry and the disk's lock to the end of this process: restart the daemon when the disk answers again");
        }

        return StopAnswer.Gone;
    }

    /// <summary>True when nothing is left of a backend that stops.</summary>
    public bool TryFinishStop(BackendServer server, int timeoutMs)
    {
        if (!server.TryEnd(timeoutMs))
            return false;
        lock (transport.StateLock)
        {
            server.Life.EndStop(MonotonicClock.Milliseconds);
            if (!transport.BackendServers.Remove(server))
                return true;
            server.Life.Session.Remove(server.Life);
        }

        transport.AnnounceChange();
        Logger.LogInformation("backend {Backend} stopped", server.Backend);
        return true;
    }

    /// <summary>The backend of this host whose disk is that file or device; null if there is none.</summary>
    public int? FindOn(in FileStatus disk)
    {
        BackendServer[] servers;
        lock (transport.StateLock)
            servers = [.. transport.BackendServers];
        foreach (BackendServer server in servers)
        {
            if (FileStatus.TryGet(server.Options.Path, out FileStatus own) == 0 && own.Device == disk.Device && own.Inode == disk.Inode)
                return server.Backend;
        }

        return null;
    }

    public void SetFaults(int backend, IReadOnlyList<string> faults)
    {
        BackendServer server;
        // Not CheckUsable: a stop may be waiting for what a fault holds back, after a failure, too.
        lock (transport.StateLock)
        {
            transport.CheckOpen();
            server = FindOwn(backend);
        }

        server.SetFaults(FaultSpec.ParseAll(faults));
    }

    /// <summary>Makes a backend larger; answers when this host's own devices on it have been told, too.</summary>
    public ResizedBackend Resize(int backend, long? sizeBytes)
    {
        using IDisposable operation = transport.Begin();
        BackendServer server;
        lock (transport.StateLock)
        {
            transport.CheckUsable();
            server = transport.FindBackend(backend) ?? throw new CbdException(CbdErrorKind.Denied, $"backend {backend} belongs to host {transport.Session.FindBackend(backend).Word.Host}, not to this one: resize it there");
        }

        long size;
        lock (server.GrowthLock)
        {
            if (server.Life.Stage != BackendStage.Serving)
                throw new CbdException(CbdErrorKind.Busy, $"backend {backend} is {server.Life.Status.State.ToString().ToLowerInvariant()}: start it again, then resize it");
            long before = server.Life.Claim!.Body.SizeBytes;
            size = BackendGrowth.Grow(server.Life, server, sizeBytes);
            if (size != before)
                Logger.LogInformation("backend {Backend}: size {Before} -> {Size} bytes", backend, before, size);
        }

        transport.AnnounceChange();
        return new ResizedBackend(size, string.Join("; ", ShowSizes(backend)));
    }

    public void Clear(int backend, bool force, bool fenced)
    {
        using IDisposable operation = transport.Begin();
        BackendServer? own;
        lock (transport.StateLock)
        {
            transport.CheckUsable();
            own = transport.FindBackend(backend);
            if (own is null)
                transport.Session.ClearBackend(backend, force, fenced, MonotonicClock.Milliseconds);
            else if (own.Served.FlushError == 0)
                throw new CbdException(CbdErrorKind.Busy, $"backend {backend} is served by this host and has nothing to clear: stop it with backend-stop");
            else
                own.ClearFlushError();
        }

        if (own is null)
            transport.AnnounceChange();
        else
            Logger.LogWarning("backend {Backend}: the latched flush failure was cleared by the operator", backend);
    }

    /// <summary>What a body says of a disk.</summary>
    internal static BackendBody Describe(StartBackendOptions options, Disk disk)
    {
        Cbd.Blocks.BlockDeviceInfo info = disk.Info;
        BackendFlags flags = BackendFlags.None;
        if (info.ReadOnly)
            flags |= BackendFlags.ReadOnly;
        if (info.CanDiscard)
            flags |= BackendFlags.CanDiscard;
        if (info.CanZeroFast)
            flags |= BackendFlags.CanZeroFast;
        if (info.CanCache)
            flags |= BackendFlags.CanCache;
        if (info.IsRotational)
            flags |= BackendFlags.Rotational;
        if (disk.IsBuffered)
            flags |= BackendFlags.Buffered;
        return new BackendBody
        {
            Flags = flags,
            SizeBytes = info.SizeBytes,
            LogicalBlockBytes = info.LogicalBlockBytes,
            PhysicalBlockBytes = info.PhysicalBlockBytes,
            DiscardGranularityBytes = info.DiscardGranularityBytes,
            MaxTransferBytes = info.MaxTransferBytes,
            DurabilityId = info.DurabilityId,
            Handlers = options.Handlers,
            Engine = disk.Engine switch { "io_uring" => BackendEngine.IoUring, "pread" => BackendEngine.Pread, _ => BackendEngine.Direct },
            Identity = disk.Identity,
            OldIdentity = disk.OldIdentity,
            Path = options.Path,
            Name = options.Name ?? "",
        };
    }

    /// <summary>Claims the entry of an open disk and starts its handlers. Throws, with the disk closed and nothing held, if that cannot be.</summary>
    private BackendServer Serve(BackendLife<MappedMemory, SafePolicy> life, StartBackendOptions options, Disk disk)
    {
        BackendServer? server = null;
        PreparedFile? space = null;
        try
        {
            BackendBody body = Describe(options, disk);
            WantedRules<SafePolicy>.CheckDisk(options.DiskIdentity, body.DiskIdentity, options.Path, options.Backend, options.Name);
            _reservations.Check(disk, transport.Geometry.RegionId);
            space = _reservations.Prepare(disk, transport.Path, transport.Geometry.RegionId);
            lock (transport.StateLock)
                life.BeginClaim(body, MonotonicClock.Milliseconds);
            AwaitClaim(life, options.Limit);
            // Before any blkdev can write to it, and wait for it.
            if (space is not null)
                _reservations.Make(space, new DiskReservation(disk.Identity, transport.Path, transport.Geometry.RegionId, life.Backend, life.Session.Claim.Name), life.Claim!.Session);
            server = new BackendServer(life, options, disk, (BeatCondition)life.Session.Condition, Logger);
            lock (transport.StateLock)
            {
                life.BeginServing(server.Offer, MonotonicClock.Milliseconds);
                transport.BackendServers.Add(server);
            }

            return server;
        }
        catch
        {
            // Threads that were started have attached no channel yet.
            server?.BeginEnd();
            server?.TryEndKeepingDisk(Timeout.Infinite, out _);
            bool isFree;
            lock (transport.StateLock)
                isFree = life.GiveUpStart();
            if (isFree)
                _reservations.Remove(disk, transport.Geometry.RegionId, life.Backend, life.Epoch);
            disk.Dispose();
            Drop(life);
            throw;
        }
        finally
        {
            space?.Dispose();
        }
    }

    private void AwaitClaim(BackendLife<MappedMemory, SafePolicy> life, StartLimit? startLimit)
    {
        while (true)
        {
            lock (transport.StateLock)
            {
                if (life.TryClaim(MonotonicClock.Milliseconds))
                    return;
            }

            transport.CheckGoesOn();
            startLimit?.Check(life.Status.Reason);
            Thread.Sleep(Transport.StepIntervalMs);
        }
    }

    private void Drop(BackendLife<MappedMemory, SafePolicy> life)
    {
        lock (transport.StateLock)
        {
            life.EndStop(MonotonicClock.Milliseconds);
            life.Session.Remove(life);
        }
    }

    /// <summary>Refuses what no lock can make right, before the disk is opened.</summary>
    private void CheckTakeOver(int backend)
    {
        // Whatever its entry says, if somebody has taken it away.
        if (transport.Session.UsesBackend(backend))
            throw new CbdException(CbdErrorKind.Busy, $"backend {backend} is served by this host: stop it with backend-stop first");
        transport.Session.Tracker.Sample(MonotonicClock.Milliseconds);
        transport.Session.Backends.ReadRecord(backend);
        BackendListing listing = transport.Session.FindBackend(backend);
        if (listing.Liveness == Liveness.Alive && listing.Word.State == ClaimState.Active)
            throw new CbdException(CbdErrorKind.Busy, $"backend {backend} is served by host {listing.Word.Host}, which is alive: stop it there with backend-stop first") { MayPass = true };
    }

    private BackendServer FindOwn(int backend)
    {
        if (transport.FindBackend(backend) is { } own)
            return own;
        BackendListing listing = transport.Session.FindBackend(backend);
        if (transport.Session.UsesBackend(backend))
            throw new CbdException(CbdErrorKind.Busy, $"backend {backend} is being started: try again in a moment");
        throw new CbdException(CbdErrorKind.Denied, $"backend {backend} belongs to host {listing.Body?.HostId ?? listing.Word.Host}, not to this one: stop it there, or clear it with backend-clear if that host is dead");
    }

    /// <summary>Own devices on the backend see its size at once; what they could not show is returned, in words.</summary>
    private List<string> ShowSizes(int backend)
    {
        var notes = new List<string>();
        DeviceServer[] devices;
        lock (transport.StateLock)
        {
            devices = [.. transport.DeviceServers.Where(d => d.Life.Backend == backend)];
            foreach (DeviceServer device in devices)
                device.Life.Watch(MonotonicClock.Milliseconds);
        }

        foreach (DeviceServer device in devices)
        {
            device.ShowSize();
            if (device.Note.Length > 0)
                notes.Add($"device {device.Device}: {device.Note}");
        }

        return notes;
    }
}
