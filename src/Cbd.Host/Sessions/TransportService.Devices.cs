using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;
using Cbd.Memory;
using Cbd.Host.Devices;
using Microsoft.Extensions.Logging;

namespace Cbd.Host.Sessions;

/// <summary>The devices of a transport, and its channels.</summary>
internal sealed partial class TransportService
{
    private const int ClearingWaitMs = 10_000;

    public StartedDevice StartDevice(StartDeviceOptions options, Func<int, IExport> openExport)
    {
        lock (_verbs)
            return StartOneDevice(options, openExport);
    }

    public void StopDevice(int device, bool force)
    {
        lock (_verbs)
            StopOneDevice(device, force);
    }

    private StartedDevice StartOneDevice(StartDeviceOptions options, Func<int, IExport> openExport)
    {
        CheckUsable();
        int queues = options.Queues ?? Math.Min(Environment.ProcessorCount, 4);
        if (queues is < 1 or > BlkdevBody.MaxQueues)
            throw new CbdException(CbdErrorKind.Invalid, $"queues is {queues}: give a number from 1 to {BlkdevBody.MaxQueues}");
        AwaitClearing(options.Backend);
        // A given address is opened, and its name resolved, before the lock is taken; the default one needs the id.
        IExport? given = options.Nbd is null ? null : openExport(-1);
        DeviceService device;
        try
        {
            device = ClaimDevice(options, queues, id => given ?? openExport(id));
        }
        catch
        {
            given?.Dispose();
            throw;
        }

        try
        {
            device.Attach();
        }
        catch
        {
            lock (_lock)
                _devices.Remove(device.Device);
            device.DisposeExport();
            throw;
        }

        try
        {
            device.Serve();
        }
        catch
        {
            // No thread or memory for the export: a device that nobody can reach, or stop, must not stay.
            device.Stop(force: true);
            lock (_lock)
                _devices.Remove(device.Device);
            throw;
        }

        _logger.LogInformation("device {Device}: started on backend {Backend} with {Queues} queue(s), {Name}", device.Device, device.Backend, queues, device.Name);
        return new StartedDevice(device.Device, device.Name);
    }

    /// <summary>
    /// A blkdev of a host that is proven dead, of an earlier life of our own say, is cleared by housekeeping here or
    /// elsewhere as soon as its channels are drained: waits for that, where a refusal would only ask to try again. What
    /// is still in the way afterwards refuses the claim.
    /// </summary>
    private void AwaitClearing(int backend)
    {
        long limit = MonotonicClock.Milliseconds + ClearingWaitMs;
        while (HasDyingBlkdev(backend) && MonotonicClock.Milliseconds < limit)
        {
            CheckUsable();
            Thread.Sleep(StepIntervalMs);
        }
    }

    private bool HasDyingBlkdev(int backend)
    {
        lock (_lock)
        {
            CheckUsable();
            Tracker.Sample(MonotonicClock.Milliseconds);
            return _blkdevRegistry.List().Any(l => l.Body?.BackendId == backend &&
                (l.Word.State == ClaimState.Clearing || (l.Liveness == Liveness.Dead && l.Word.State != ClaimState.Quarantined)));
        }
    }

    private void StopOneDevice(int device, bool force)
    {
        // Also while this host registers anew.
        if (FindLostDevice(device) is { } lost)
        {
            StopLostDevice(lost);
            return;
        }

        CheckUsable();
        DeviceService service = FindDevice(device);
        if (!force && service.DescribeUse() is { } use)
            throw new CbdException(CbdErrorKind.Busy, $"device {device} is in use {use}, or stop it with --force");
        service.Stop(force);
        lock (_lock)
            _devices.Remove(device);
        AnnounceChange();
        _logger.LogInformation("device {Device} stopped", device);
    }

    public void ClearDevice(int device, bool force, bool fenced)
    {
        ClaimWord word;
        lock (_lock)
        {
            CheckUsable();
            if (_devices.ContainsKey(device))
                throw new CbdException(CbdErrorKind.Busy, $"device {device} is this host's own: stop it with dev-stop{(force ? " --force" : "")}");
            _opened.Tracker.Sample(MonotonicClock.Milliseconds);
            BlkdevListing listing = _blkdevRegistry.List().FirstOrDefault(l => l.Blkdev == device)
                ?? throw new CbdException(CbdErrorKind.NotFound, $"device {device} does not exist on transport {Id}: see dev-list --all");
            if (listing.Liveness == Liveness.Alive)
                throw new CbdException(CbdErrorKind.Busy, $"device {device} belongs to host {listing.Word.Host}, which is alive: stop it there with dev-stop");
            if (listing.Word.State == ClaimState.Quarantined && !fenced)
                throw new CbdException(CbdErrorKind.Busy, $"device {device} is quarantined: nothing proves that its host and its backend's are dead; if those machines are off or cut off, clear it with --fenced");
            word = listing.Word;
        }

        if (word.State == ClaimState.Quarantined)
        {
            ReleaseQuarantined(device, word);
            return;
        }

        // A device without its host is cleared with it: the host's other entries are as dead.
        ClearOneHost(word.Host, force, fenced);
    }

    /// <param name="word">The claim that the operator vouches for.</param>
    private void ReleaseQuarantined(int device, ClaimWord word)
    {
        long limit = MonotonicClock.Milliseconds + 2L * _node.DeadMs + 5000;
        while (true)
        {
            lock (_lock)
            {
                CheckUsable();
                if (_opened.Clearing.ReleaseBlkdev(device, word, MonotonicClock.Milliseconds) == StepResult.Done)
                {
                    _logger.LogWarning("transport {Transport}: quarantined device {Device} cleared ({Authority})", Id, device, ClearAuthority.Fenced);
                    AnnounceChange();
                    return;
                }
            }

            if (MonotonicClock.Milliseconds > limit)
                throw new CbdException(CbdErrorKind.TimedOut, $"device {device} could not be cleared yet: its backend's host has not said that it is done with it, or is not judged yet; try again");
            Thread.Sleep(StepIntervalMs);
        }
    }

    /// <param name="force">A host of this machine is killed; without proof of death what it had is quarantined.</param>
    /// <param name="fenced">An operator vouches for its death.</param>
    public void ClearHost(int host, bool force, bool fenced)
    {
        CheckOther(host);
        if (force)
            KillLocal(host);
        ClearOneHost(host, force, fenced);
    }

    private void CheckOther(int host)
    {
        if ((uint)host >= (uint)Geometry.HostCount)
            throw new CbdException(CbdErrorKind.NotFound, $"host {host} does not exist: ids go from 0 to {Geometry.HostCount - 1}; see host-list");
        if (host == Host.Host)
            throw new CbdException(CbdErrorKind.Invalid, $"host {host} is this one: leave with tp-unreg");
    }

    private void ClearOneHost(int host, bool force, bool fenced)
    {
        CheckOther(host);
        ClearAuthority authority = fenced ? ClearAuthority.Fenced : force ? ClearAuthority.Forced : ClearAuthority.Proof;
        bool first = true;
        long limit = MonotonicClock.Milliseconds + 2L * _node.DeadMs + 5000;
        while (true)
        {
            lock (_lock)
            {
                CheckUsable();
                if (first && Tracker.Sample(host, MonotonicClock.Milliseconds).Word.State == ClaimState.Free)
                    throw new CbdException(CbdErrorKind.NotFound, $"host {host} is not registered on transport {Id}: see host-list");
                first = false;
                switch (_opened.Clearing.Step(host, authority, MonotonicClock.Milliseconds))
                {
                    case ClearResult.Cleared:
                        _logger.LogWarning("transport {Transport}: host {Host} cleared ({Authority})", Id, host, authority);
                        AnnounceChange();
                        return;
                    case ClearResult.Quarantined:
                        _logger.LogWarning("transport {Transport}: host {Host} cleared without proof of death; what it had is quarantined", Id, host);
                        AnnounceChange();
                        return;
                    case ClearResult.NotAllowed:
                        throw new CbdException(
                            CbdErrorKind.Busy,
                            Tracker.Get(host).Liveness == Liveness.Alive
                                ? $"host {host} ('{Tracker.Get(host).Name}') is alive: unregister it there with tp-unreg, end its daemon, or, on this machine, let --force kill it"
                                : $"nothing proves that host {host} ('{Tracker.Get(host).Name}') is dead: if its machine is off or cut off, clear it with --fenced; --force quarantines what it had");
                }
            }

            if (MonotonicClock.Milliseconds > limit)
                throw new CbdException(CbdErrorKind.TimedOut, $"host {host} could not be cleared yet: a handler still drains; try again");
            Thread.Sleep(StepIntervalMs);
        }
    }

    public IReadOnlyList<HostDescription> ListHosts()
    {
        lock (_lock)
        {
            CheckOpen();
            Tracker.Sample(MonotonicClock.Milliseconds);
            int[] quarantined = _opened.Clearing.CountQuarantinedByHost();
            bool isOurs = !_condition.IsFenced;
            return [.. Tracker.List().Select(h => new HostDescription(
                h.Host,
                h.Body?.Name ?? "",
                isOurs && h.Host == Host.Host ? "alive" : Text(h.Liveness),
                StateName(h.Word.State),
                isOurs && h.Host == Host.Host,
                quarantined[h.Host]))];
        }
    }

    public IReadOnlyList<DeviceDescription> ListDevices(bool all)
    {
        lock (_lock)
        {
            CheckOpen();
            Tracker.Sample(MonotonicClock.Milliseconds);
            return [.. _blkdevRegistry.List().Where(l => all || _devices.ContainsKey(l.Blkdev)).Select(Describe), .. _lostDevices.Select(DescribeLost)];
        }
    }

    public IReadOnlyList<ChannelDescription> ListChannels()
    {
        var found = new List<ChannelDescription>();
        lock (_lock)
        {
            CheckOpen();
            for (int channel = 0; channel < Geometry.ChannelCount; channel++)
            {
                ClaimWord word = ClaimOperations<MappedMemory, SafePolicy>.Read(_memory, Geometry.ChannelOffset(channel));
                if (word.State == ClaimState.Free)
                    continue;
                bool known = BlkdevCtrlLine.TryLoad(_memory, Geometry, channel, word.Epoch, out BlkdevCtrlLine offer);
                found.Add(new ChannelDescription
                {
                    ChannelId = channel,
                    BlkdevId = known ? offer.Blkdev : -1,
                    BackendId = known ? offer.Backend : -1,
                    HostId = word.Host,
                    State = StateName(word.State),
                    Epoch = word.Epoch,
                    Outstanding = OutstandingOn(channel, word),
                    Quarantined = word.State == ClaimState.Quarantined,
                });
            }
        }

        return found;
    }

    /// <summary>The blkdev's own count where it is ours, else what the handler's ctrl line says.</summary>
    private long OutstandingOn(int channel, ClaimWord word)
    {
        foreach (DeviceService device in _devices.Values)
        {
            int own = device.OutstandingOn(channel);
            if (own >= 0)
                return own;
        }

        return HandlerCtrlLine.TryLoad(_memory, Geometry, channel, word.Epoch, out HandlerCtrlLine ctrl)
            ? Math.Max(0, unchecked((long)(ctrl.Fetched - ctrl.Posted)))
            : 0;
    }

    private DeviceDescription Describe(BlkdevListing listing)
    {
        bool own = _devices.TryGetValue(listing.Blkdev, out DeviceService? device);
        return new DeviceDescription
        {
            BlkdevId = listing.Blkdev,
            HostId = listing.Body?.HostId ?? listing.Word.Host,
            BackendId = listing.Body?.BackendId ?? -1,
            Name = own ? device!.Name : listing.Body?.Name ?? "",
            Node = own ? device!.Node : "",
            Alive = own ? "alive" : Text(listing.Liveness),
            State = own ? device!.State : StateName(listing.Word.State),
            Loss = own ? device!.Loss : "",
            OnBackendLoss = own ? device!.LossPolicy.Action : null,
            LossTimeoutSeconds = own ? (int)(device!.LossPolicy.TimeoutMs / 1000) : null,
            Queues = own ? device!.QueueCount : listing.Body?.Channels.Count ?? 0,
            SizeBytes = own ? device!.Info.SizeBytes : listing.Body is { } body ? SizeOf(body.BackendId) : 0,
            ReadOnly = listing.Body?.ReadOnly ?? false,
            Note = own ? device!.Note : "",
        };
    }

    private static DeviceDescription DescribeLost(DeviceService device) => new()
    {
        BlkdevId = device.Device,
        HostId = device.Host,
        BackendId = device.Backend,
        Name = device.Name,
        Node = device.Node,
        Alive = "dead",
        State = device.State,
        Loss = device.Loss,
        OnBackendLoss = device.LossPolicy.Action,
        LossTimeoutSeconds = (int)(device.LossPolicy.TimeoutMs / 1000),
        Queues = device.QueueCount,
        SizeBytes = device.Info.SizeBytes,
        ReadOnly = device.Info.ReadOnly,
    };

    /// <summary>Size of the disk that a device of another host is on, bytes; 0 while it cannot be read.</summary>
    private long SizeOf(int backend)
    {
        ClaimWord word = ClaimOperations<MappedMemory, SafePolicy>.Read(_memory, Geometry.BackendOffset(backend));
        return EntryBodies<MappedMemory>.TryReadBackendRecord(_memory, Geometry, backend, word.Epoch, out BackendBody disk, out _, out _) ? disk.SizeBytes : 0;
    }

    /// <summary>Claims the entry, the channels and the export's address; everything is given back if one is missing.</summary>
    private DeviceService ClaimDevice(StartDeviceOptions options, int queues, Func<int, IExport> openExport)
    {
        lock (_lock)
        {
            Tracker.Sample(MonotonicClock.Milliseconds);
            if ((uint)options.Backend >= (uint)Geometry.BackendCount)
                throw new CbdException(CbdErrorKind.NotFound, $"backend {options.Backend} does not exist: ids go from 0 to {Geometry.BackendCount - 1}; see backend-list --all");
            BlkdevClaim<MappedMemory, SafePolicy> claim = _blkdevRegistry.Claim(options.Backend, options.ReadOnly, id => _devices.ContainsKey(id) || _lostDevices.Exists(d => d.Device == id));
            var channels = new List<(int Channel, ClaimWord Word)>(queues);
            IExport? export = null;
            try
            {
                while (channels.Count < queues)
                {
                    if (!ChannelClaims<MappedMemory, SafePolicy>.TryClaim(_memory, Geometry, Host.Host, out int channel, out ClaimWord word))
                        throw new CbdException(CbdErrorKind.Exhausted, $"no free channel for queue {channels.Count + 1} of {queues}: all {Geometry.ChannelCount} are taken: use fewer --queues, stop a device, or format with more --channels");
                    channels.Add((channel, word));
                }

                export = openExport(claim.Blkdev);
                claim.Activate([.. channels.Select(c => c.Channel)], export.Uri);
                string identity = _backendRegistry.ReadRecord(options.Backend).Identity;
                var device = new DeviceService(_memory, Geometry, claim, channels, identity, export, options.Mode, new LossPolicy(options.OnBackendLoss, options.LossTimeoutSeconds * 1000L), AnnounceChange, _condition, _logger);
                _devices.Add(device.Device, device);
                return device;
            }
            catch
            {
                export?.Dispose();
                foreach ((int channel, ClaimWord word) in channels)
                    ChannelClaims<MappedMemory, SafePolicy>.Release(_memory, Geometry, channel, word);
                claim.End();
                throw;
            }
        }
    }

    private DeviceService FindDevice(int device)
    {
        lock (_lock)
        {
            if (_devices.TryGetValue(device, out DeviceService? own))
                return own;
            BlkdevListing listing = _blkdevRegistry.List().FirstOrDefault(l => l.Blkdev == device)
                ?? throw new CbdException(CbdErrorKind.NotFound, $"device {device} does not exist on transport {Id}: see dev-list --all");
            throw new CbdException(CbdErrorKind.Denied, $"device {device} belongs to host {listing.Word.Host}, not to this one: stop it there, or clear it with dev-clear if that host is dead");
        }
    }

    private static string Text(Liveness liveness) => liveness switch
    {
        Liveness.Alive => "alive",
        Liveness.Dead => "dead",
        _ => "unknown",
    };

    private static string StateName(ClaimState state) => state.ToString().ToLowerInvariant();
}
