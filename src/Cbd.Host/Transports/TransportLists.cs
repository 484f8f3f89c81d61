using Cbd.Host.Backends;
using Cbd.Host.Devices;
using Cbd.Host.Sessions;
using Cbd.Host.Threads;
using Cbd.Memory;
using Cbd.Protocol.Backends;
using Cbd.Protocol.Blkdevs;
using Cbd.Protocol.Channels;
using Cbd.Protocol.Format;
using Cbd.Protocol.Hosts;

namespace Cbd.Host.Transports;

/// <summary>What is on one transport, for lists. Thread-safe.</summary>
internal sealed class TransportLists(Transport transport)
{
    /// <summary>The time at which the monotonic clock was 0, as of the start: a time that is listed stays the same.</summary>
    private static readonly DateTime s_clockZero = ClockZero();

    /// <summary>Entries of the region that nobody may reuse yet.</summary>
    public QuarantineCounts CountQuarantined()
    {
        lock (transport.StateLock)
        {
            if (transport.IsClosed)
                return default;
            (int hosts, int backends, int blkdevs, int channels) = transport.Membership.Clearing.CountQuarantined();
            return new QuarantineCounts(hosts, backends, blkdevs, channels);
        }
    }

    public IReadOnlyList<HostDescription> ListHosts()
    {
        lock (transport.StateLock)
        {
            transport.CheckOpen();
            transport.Session.Tracker.Sample(MonotonicClock.Milliseconds);
            int[] quarantined = transport.Membership.Clearing.CountQuarantinedByHost();
            int own = transport.Session.Condition.IsFenced ? -1 : transport.Session.Claim.Host;
            return [.. transport.Session.Tracker.List().Select(h => new HostDescription(
                h.Host,
                h.Body?.Name ?? "",
                h.Host == own ? "alive" : LivenessText.Of(h.Liveness),
                LivenessText.Of(h.Word.State),
                h.Host == own,
                quarantined[h.Host]))];
        }
    }

    public IReadOnlyList<BackendDescription> ListBackends(bool all)
    {
        lock (transport.StateLock)
        {
            transport.CheckOpen();
            transport.Session.Tracker.Sample(MonotonicClock.Milliseconds);
            return [.. transport.Session.Backends.List().Where(l => all || transport.FindBackend(l.Backend) is not null).Select(Describe)];
        }
    }

    public IReadOnlyList<DeviceDescription> ListDevices(bool all)
    {
        lock (transport.StateLock)
        {
            transport.CheckOpen();
            transport.Session.Tracker.Sample(MonotonicClock.Milliseconds);
            DeviceServer[] lost = [.. transport.DeviceServers.Where(d => d.Life.Session.IsCleared || !d.Life.HasClaim)];
            DeviceServer[] own = [.. transport.DeviceServers.Except(lost)];
            return
            [
                .. transport.Session.Blkdevs.List()
                    .Select(l => (Listing: l, Server: Array.Find(own, d => d.Device == l.Blkdev)))
                    .Where(l => all || l.Server is not null)
                    .Select(l => Describe(l.Listing, l.Server)),
                .. lost.Select(DescribeLost),
            ];
        }
    }

    public IReadOnlyList<ChannelDescription> ListChannels()
    {
        var found = new List<ChannelDescription>();
        lock (transport.StateLock)
        {
            transport.CheckOpen();
            for (int channel = 0; channel < transport.Geometry.ChannelCount; channel++)
            {
                ClaimWord word = ClaimOperations<MappedMemory, SafePolicy>.Read(transport.Memory, transport.Geometry.ChannelOffset(channel));
                if (word.State == ClaimState.Free)
                    continue;
                bool known = BlkdevCtrlLine.TryLoad(transport.Memory, transport.Geometry, channel, word.Epoch, out BlkdevCtrlLine offer);
                found.Add(new ChannelDescription
                {
                    ChannelId = channel,
                    BlkdevId = known ? offer.Blkdev : -1,
                    BackendId = known ? offer.Backend : -1,
                    HostId = word.Host,
                    State = LivenessText.Of(word.State),
                    Epoch = word.Epoch,
                    Outstanding = OutstandingOn(channel, word),
                    Quarantined = word.State == ClaimState.Quarantined,
                });
            }
        }

        return found;
    }

    public IReadOnlyList<FlightDescription> ReadFlights(FlightFilter filter)
    {
        var found = new List<(FlightRecorder Flight, string Side, int Backend, int Blkdev)>();
        lock (transport.StateLock)
        {
            transport.CheckOpen();
            CheckThere(filter);
            var channels = new HashSet<int>();
            foreach (DeviceServer device in transport.DeviceServers.Where(d => !d.Life.Session.IsCleared && (filter.Device is null || d.Device == filter.Device)))
            {
                channels.UnionWith(device.Flights.Select(f => f.Channel));
                found.AddRange(device.Flights.Where(f => Covers(filter, device.Life.Backend, f)).Select(f => (f, "queue", device.Life.Backend, device.Device)));
            }

            foreach (BackendServer served in transport.BackendServers)
            {
                found.AddRange(served.Flights
                    .Where(f => Covers(filter, served.Backend, f) && (filter.Device is null || channels.Contains(f.Channel)))
                    .Select(f => (f, "handler", served.Backend, -1)));
            }
        }

        // Housekeeping must not wait while all this is copied and put into words.
        return [.. found.OrderBy(f => f.Flight.Channel).Select(f => FlightText.Describe(f.Flight, transport.Id, f.Side, f.Backend, f.Blkdev))];
    }

    private void CheckThere(FlightFilter filter)
    {
        if (filter.Device is { } device && transport.FindDevice(device) is null)
            throw new CbdException(CbdErrorKind.NotFound, $"device {device} is not one of this host on transport {transport.Id}: see dev-list, and ask the daemon that has it");
        if (filter.Backend is { } backend && transport.FindBackend(backend) is null && !transport.DeviceServers.Exists(d => d.Life.Backend == backend))
            throw new CbdException(CbdErrorKind.NotFound, $"neither backend {backend} nor a device on it is this host's on transport {transport.Id}: see backend-list and dev-list --all");
    }

    private static bool Covers(FlightFilter filter, int backend, FlightRecorder flight) =>
        (filter.Backend is null || filter.Backend == backend) && (filter.Channel is null || filter.Channel == flight.Channel);

    /// <summary>The blkdev's own count where it is ours, else what the handler's ctrl line says.</summary>
    private long OutstandingOn(int channel, ClaimWord word)
    {
        foreach (DeviceServer device in transport.DeviceServers)
        {
            if (device.Life.Session.IsCleared)
                continue;
            int own = device.OutstandingOn(channel);
            if (own >= 0)
                return own;
        }

        return HandlerCtrlLine.TryLoad(transport.Memory, transport.Geometry, channel, word.Epoch, out HandlerCtrlLine ctrl)
            ? Math.Max(0, unchecked((long)(ctrl.Fetched - ctrl.Posted)))
            : 0;
    }

    private BackendDescription Describe(BackendListing listing)
    {
        BackendServer? own = transport.FindBackend(listing.Backend);
        LifeStatus? status = own?.Life.Status;
        return new BackendDescription
        {
            BackendId = listing.Backend,
            HostId = listing.Body?.HostId ?? listing.Word.Host,
            Name = listing.Body?.Name is { Length: > 0 } name ? name : null,
            Path = listing.Body?.Path ?? "",
            DiskIdentity = listing.Body?.Identity ?? "",
            Alive = LivenessText.Of(listing.Liveness),
            State = LivenessText.Of(listing.Word.State),
            Reason = status?.Reason is { Length: > 0 } reason ? reason : own?.Trouble ?? "",
            Since = SinceOf(status),
            Blkdevs = listing.Blkdevs,
            SizeBytes = listing.Body?.SizeBytes ?? 0,
            BlockBytes = listing.Body?.LogicalBlockBytes ?? 0,
            ReadOnly = listing.Body?.ReadOnly ?? false,
            Handlers = listing.Body?.Handlers ?? 0,
            Engine = own?.Engine ?? (listing.Body is null ? "" : listing.Body.Engine switch
            {
                BackendEngine.IoUring => "io_uring",
                BackendEngine.Pread => "pread",
                _ => "direct",
            }),
            FlushError = listing.Body?.FlushError ?? 0,
            CpuUs = own?.Usage.CpuMicroseconds,
            AllocatedBytes = own?.Usage.AllocatedBytes,
            Session = listing.Word.Epoch,
            IsStopped = listing.Body?.IsStopped ?? false,
            Faults = own?.Faults,
        };
    }

    private DeviceDescription Describe(BlkdevListing listing, DeviceServer? own)
    {
        LifeStatus? status = own?.Life.Status;
        return new DeviceDescription
        {
            BlkdevId = listing.Blkdev,
            HostId = listing.Body?.HostId ?? listing.Word.Host,
            BackendId = listing.Body?.BackendId ?? -1,
            Name = own?.Name,
            Address = own?.Address ?? listing.Body?.Name ?? "",
            Node = own?.Node ?? "",
            Alive = own is not null ? "alive" : LivenessText.Of(listing.Liveness),
            State = own is null ? LivenessText.Of(listing.Word.State) : StateOf(own),
            Reason = status?.Reason is { Length: > 0 } reason ? reason : own?.Trouble ?? "",
            Since = SinceOf(status),
            Loss = own?.Life.Loss ?? "",
            OnBackendLoss = own?.Life.LossPolicy.Action,
            LossTimeoutSeconds = (int?)(own?.Life.LossPolicy.TimeoutMs / 1000),
            Queues = own?.Life.QueueCount ?? listing.Body?.Channels.Count ?? 0,
            SizeBytes = own is not null ? own.Info.SizeBytes : listing.Body is { } body ? SizeOf(body.BackendId) : 0,
            ReadOnly = listing.Body?.ReadOnly ?? false,
            Note = own?.Note ?? "",
        };
    }

    private static DeviceDescription DescribeLost(DeviceServer device) => new()
    {
        BlkdevId = device.Device,
        HostId = device.Life.Session.Claim.Host,
        BackendId = device.Life.Backend,
        Name = device.Name,
        Address = device.Address,
        Node = device.Node,
        Alive = "dead",
        State = StateOf(device),
        Reason = device.Life.Status.Reason,
        Since = SinceOf(device.Life.Status),
        Loss = device.Life.Loss,
        OnBackendLoss = device.Life.LossPolicy.Action,
        LossTimeoutSeconds = (int)(device.Life.LossPolicy.TimeoutMs / 1000),
        Queues = device.Life.QueueCount,
        SizeBytes = device.Info.SizeBytes,
        ReadOnly = device.Info.ReadOnly,
    };

    /// <summary>The state as lists have it: a device that fails says why, one that waits whether its requests do.</summary>
    private static string StateOf(DeviceServer device)
    {
        LifeStatus status = device.Life.Status;
        return status.State switch
        {
            LifeState.Failed => $"failed: {status.Reason}",
            LifeState.Running or LifeState.Waiting when device.Trouble is { } trouble => $"failed: {trouble}",
            LifeState.Waiting when device.Life.IsFailing => "failing",
            var state => state.ToString().ToLowerInvariant(),
        };
    }

    internal static DateTime? SinceOf(LifeStatus? status) => status is null ? null : s_clockZero.AddMilliseconds(status.SinceMs);

    /// <summary>Size of the disk that a device of another host is on, bytes; 0 while it cannot be read.</summary>
    private long SizeOf(int backend)
    {
        if ((uint)backend >= (uint)transport.Geometry.BackendCount)
            return 0;
        ClaimWord word = ClaimOperations<MappedMemory, SafePolicy>.Read(transport.Memory, transport.Geometry.BackendOffset(backend));
        return EntryBodies<MappedMemory>.TryReadBackendRecord(transport.Memory, transport.Geometry, backend, word.Epoch, out BackendBody disk, out _, out _) ? disk.SizeBytes : 0;
    }

    private static DateTime ClockZero()
    {
        // The exact clock, read second: what is now, by the coarse one, is never in the future.
        DateTime zero = DateTime.UtcNow.AddMicroseconds(-MonotonicClock.Microseconds);
        return new DateTime(zero.Ticks / TimeSpan.TicksPerMillisecond * TimeSpan.TicksPerMillisecond, DateTimeKind.Utc);
    }
}
