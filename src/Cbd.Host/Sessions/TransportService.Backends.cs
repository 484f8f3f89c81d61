using Cbd.Protocol.Backends;
using Cbd.Protocol.Channels;
using Cbd.Disks;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;
using Cbd.Host.Backends;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Sessions;

/// <summary>The backends of a transport.</summary>
internal sealed partial class TransportService
{
    private const int TakeOverLockWaitMs = 10_000;

    /// <summary>The kernel holds the lock of a daemon that was killed until its last I/O has ended.</summary>
    private const int StartLockWaitMs = 1_000;
    private const int StepIntervalMs = 10;

    public int StartBackend(StartBackendOptions options, IReadOnlyList<FileIdentity> regions)
    {
        lock (_verbs)
            return StartOneBackend(options, regions);
    }

    /// <param name="leaves">This host ends: the blkdevs wait for the next session, instead of failing.</param>
    public void StopBackend(int backend, bool force, bool leaves)
    {
        lock (_verbs)
            StopOneBackend(backend, force, leaves);
    }

    private int StartOneBackend(StartBackendOptions options, IReadOnlyList<FileIdentity> regions)
    {
        CheckUsable();
        if (options.Handlers is < 1 or > BackendBody.MaxHandlers)
            throw new CbdException(CbdErrorKind.Invalid, $"handlers is {options.Handlers}: give a number from 1 to {BackendBody.MaxHandlers}");
        if (options.Backend is { } wanted)
            CheckTakeOver(wanted);
        Disk disk = Disk.Open(new DiskOptions
        {
            Path = options.Path,
            ReadOnly = options.ReadOnly,
            Engine = DiskOptions.ParseEngine(options.Engine),
            LogicalBlockBytes = options.BlockBytes,
            Regions = regions,
            LockWaitMs = options.Backend is null ? StartLockWaitMs : TakeOverLockWaitMs,
            Faults = options.Faults is { } faults ? new FaultSet(FaultSpec.ParseAll(faults)) : null,
        });
        try
        {
            BackendBody body = Describe(options, disk);
            BackendClaim<MappedMemory, SafePolicy> claim = options.Backend is { } id ? TakeOver(id, body, options.Fenced) : StartNew(body);
            BackendService service = Serve(options, disk, claim);
            _logger.LogInformation("backend {Backend}: {Path} started, session {Session}, {Engine}, {Handlers} handler(s)", claim.Backend, options.Path, claim.Session, disk.Engine, options.Handlers);
            service.LogFaults();
            // Blkdevs that wait for this session look at once; and so do we, for their offers.
            AnnounceChange();
            _sleeper.Interrupt();
            return claim.Backend;
        }
        catch
        {
            disk.Dispose();
            throw;
        }
    }

    private BackendService Serve(StartBackendOptions options, Disk disk, BackendClaim<MappedMemory, SafePolicy> claim)
    {
        try
        {
            var service = new BackendService(_memory, Geometry, claim, disk, _condition, options, _logger);
            lock (_lock)
                _backends.Add(claim.Backend, service);
            return service;
        }
        catch
        {
            claim.EndClose();
            throw;
        }
    }

    private void StopOneBackend(int backend, bool force, bool leaves)
    {
        CheckUsable();
        BackendService service = FindBackend(backend);
        service.Claim.BeginClose(force);
        if (force && !leaves && service.Claim.MarkStopped())
            AnnounceChange();
        service.Stop(force);
        lock (_lock)
            _backends.Remove(backend);
        AnnounceChange();
        _logger.LogInformation("backend {Backend} stopped", backend);
    }

    public void SetFaults(int backend, IReadOnlyList<string> faults)
    {
        // Not under the lock of the verbs: a stop may be waiting for what a fault holds back, after a failure, too.
        lock (_lock)
            CheckOpen();
        FindBackend(backend).SetFaults(FaultSpec.ParseAll(faults));
    }

    public void ClearBackend(int backend, bool force, bool fenced)
    {
        lock (_lock)
        {
            CheckUsable();
            if (_backends.TryGetValue(backend, out BackendService? own))
            {
                if (own.Served.FlushError == 0)
                    throw new CbdException(CbdErrorKind.Busy, $"backend {backend} is served by this host and has nothing to clear: stop it with backend-stop");
                own.ClearFlushError();
                _logger.LogWarning("backend {Backend}: the latched flush failure was cleared by the operator", backend);
                return;
            }

            _opened.Tracker.Sample(MonotonicClock.Milliseconds);
            BackendListing listing = FindListing(backend);
            if (listing.Liveness == Liveness.Alive)
                throw new CbdException(CbdErrorKind.Busy, $"backend {backend} is served by host {listing.Word.Host}, which is alive: stop it there with backend-stop");
            if (listing.Word.State == ClaimState.Quarantined)
            {
                if (!fenced)
                    throw new CbdException(CbdErrorKind.Busy, $"backend {backend} is quarantined: nothing proves that its host is dead; if that machine is off or cut off, clear it with --fenced");
                _opened.Clearing.ReleaseBackend(backend);
                return;
            }

            if (listing.Word.State != ClaimState.Orphaned)
                throw new CbdException(CbdErrorKind.Busy, $"backend {backend} belongs to host {listing.Word.Host}, which is {Text(listing.Liveness)}: clear that with host-clear first");
            if (listing.Blkdevs.Count > 0 && !force)
                throw new CbdException(CbdErrorKind.Busy, $"backend {backend} has waiting blkdevs ({string.Join(", ", listing.Blkdevs)}): bring it back with backend-start -b {backend}, stop them with dev-stop, or clear it with --force, which fails them");
            ClaimOperations<MappedMemory, SafePolicy>.TrySwap(_memory, Geometry.BackendOffset(backend), listing.Word, listing.Word.Freed());
        }

        AnnounceChange();
    }

    public IReadOnlyList<BackendDescription> ListBackends(bool all)
    {
        lock (_lock)
        {
            CheckOpen();
            _opened.Tracker.Sample(MonotonicClock.Milliseconds);
            return [.. _backendRegistry.List().Where(l => all || _backends.ContainsKey(l.Backend)).Select(Describe)];
        }
    }

    private BackendDescription Describe(BackendListing listing) => new()
    {
        BackendId = listing.Backend,
        HostId = listing.Body?.HostId ?? listing.Word.Host,
        Path = listing.Body?.Path ?? "",
        Alive = Text(listing.Liveness),
        State = StateName(listing.Word.State),
        Blkdevs = listing.Blkdevs,
        SizeBytes = listing.Body?.SizeBytes ?? 0,
        BlockBytes = listing.Body?.LogicalBlockBytes ?? 0,
        ReadOnly = listing.Body?.ReadOnly ?? false,
        Handlers = listing.Body?.Handlers ?? 0,
        Engine = _backends.TryGetValue(listing.Backend, out BackendService? own) ? own.Engine : listing.Body is null ? "" : listing.Body.Engine switch
        {
            BackendEngine.IoUring => "io_uring",
            BackendEngine.Pread => "pread",
            _ => "direct",
        },
        FlushError = listing.Body?.FlushError ?? 0,
        CpuUs = own?.Usage.CpuMicroseconds,
        AllocatedBytes = own?.Usage.AllocatedBytes,
        Session = listing.Word.Epoch,
        IsStopped = listing.Body?.IsStopped ?? false,
        Faults = own?.Faults,
    };

    private static BackendBody Describe(StartBackendOptions options, Disk disk)
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
            Path = options.Path,
        };
    }

    private BackendClaim<MappedMemory, SafePolicy> StartNew(BackendBody body)
    {
        lock (_lock)
            return _backendRegistry.Start(body, isServedHere: id => _backends.ContainsKey(id) || _heldDisks.Exists(h => h.Backend == id));
    }

    /// <summary>Refuses what no lock can make right, before the disk is opened.</summary>
    private void CheckTakeOver(int backend)
    {
        lock (_lock)
        {
            // Whatever its entry says, if somebody has taken it away.
            if (_backends.ContainsKey(backend))
                throw new CbdException(CbdErrorKind.Busy, $"backend {backend} is served by this host: stop it with backend-stop first");
            _opened.Tracker.Sample(MonotonicClock.Milliseconds);
            _backendRegistry.ReadRecord(backend);
            BackendListing listing = FindListing(backend);
            if (listing.Liveness == Liveness.Alive && listing.Word.State == ClaimState.Active)
                throw new CbdException(CbdErrorKind.Busy, $"backend {backend} is served by host {listing.Word.Host}, which is alive: stop it there with backend-stop first");
        }
    }

    private BackendClaim<MappedMemory, SafePolicy> TakeOver(int backend, BackendBody body, bool fenced)
    {
        long limit = MonotonicClock.Milliseconds + 2L * _node.DeadMs + TakeOverLockWaitMs;
        while (true)
        {
            lock (_lock)
            {
                if (_backendRegistry.TakeOver(backend, body, fenced, MonotonicClock.Milliseconds, out BackendClaim<MappedMemory, SafePolicy>? claim) == StepResult.Done)
                    return claim!;
            }

            CheckUsable();
            if (MonotonicClock.Milliseconds > limit)
                throw new CbdException(CbdErrorKind.TimedOut, $"backend {backend}: its old session is neither alive nor proven dead: see host-list; if its machine is off or cut off, start with --fenced");
            Thread.Sleep(StepIntervalMs);
        }
    }

    private static void StopService(BackendService service, bool force)
    {
        service.Claim.BeginClose(force);
        service.Stop(force);
    }

    private BackendService FindBackend(int backend)
    {
        lock (_lock)
        {
            if (_backends.TryGetValue(backend, out BackendService? own))
                return own;
            BackendListing listing = FindListing(backend);
            throw new CbdException(CbdErrorKind.Denied, $"backend {backend} belongs to host {listing.Body?.HostId ?? listing.Word.Host}, not to this one: stop it there, or clear it with backend-clear if that host is dead");
        }
    }

    private BackendListing FindListing(int backend) =>
        _backendRegistry.List().FirstOrDefault(l => l.Backend == backend)
            ?? throw new CbdException(CbdErrorKind.NotFound, $"backend {backend} does not exist on transport {Id}: see backend-list --all");
}
