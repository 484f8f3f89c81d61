using Cbd.Disks;
using Cbd.Memory;
using Cbd.Host.Attachments;
using Cbd.Host.Logs;
using Cbd.Host.Transports;
using Cbd.Host.Wanted;
using Microsoft.Extensions.Logging;

namespace Cbd.Host;

/// <summary>A host in this process: see <see cref="INode"/>. Thread-safe.</summary>
internal sealed class Node : INode
{
    private readonly NodeOptions _options;
    private readonly IExportFactory _exports;
    private readonly IKernelExports? _kernel;
    private readonly OperationHandlers _operations;
    private readonly Lock _lock = new();
    private readonly Lock _keepLock = new();
    private readonly Dictionary<int, Transport> _transports = [];
    private readonly HashSet<string> _startingNames = [];
    private readonly LogQueue _log;
    private readonly bool _ownsLog;
    private readonly ManualResetEvent _ends = new(false);
    private readonly Thread _watchdog;
    private bool _disposed;

    /// <summary>Starts a thread, or throws because none can be had: for tests.</summary>
    internal Action<Thread> StartThread { get; init; } = NeededThread.Begin;

    /// <param name="options">See there.</param>
    /// <param name="exports">What makes sockets for devices that this machine's kernel does not get.</param>
    /// <param name="kernel">
    /// Gives devices to this machine's kernel; null if none can be. What killed daemons left there is removed now.
    /// </param>
    public Node(NodeOptions options, IExportFactory exports, IKernelExports? kernel = null)
    {
        _ownsLog = options.Logger is not QueuedLog;
        _log = options.Logger is QueuedLog queued ? queued.Queue : new LogQueue(options.Logger);
        _options = _ownsLog ? options with { Logger = _log.CreateLogger("node") } : options;
        _exports = exports;
        _kernel = kernel;
        _operations = NodeOperations.Of(this);
        try
        {
            _kernel?.CleanUp(Log, IsKept);
            _watchdog = NeededThread.Start("cbd-watch", Watch);
        }
        catch
        {
            if (_ownsLog)
                _log.Dispose();
            throw;
        }
    }

    /// <summary>Ids that a registration in progress has taken, with the region it works on.</summary>
    private readonly Dictionary<int, FileIdentity?> _opening = [];

    public TAnswer Execute<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request)
        where TRequest : ControlRequest
        where TAnswer : class =>
        _operations.Execute(operation, request);

    /// <summary>Registers this host on a region, formatting it first if asked. Returns the transport id.</summary>
    public int RegisterTransport(RegisterTransportOptions request)
    {
        int id = TakeId();
        try
        {
            lock (_lock)
            {
                // Another file may be there by now: what is recorded and listed by its path would be two things.
                if (_transports.Values.Any(t => t.Path == request.Path))
                    throw new CbdException(CbdErrorKind.Busy, $"region '{request.Path}' is registered by this daemon already: see tp-list, or leave it first with tp-unreg -t {request.Path}");
            }

            OpenedTransport opened = TransportOpening.Open(id, request, _options, (device, inode) => IsTaken(id, new FileIdentity(device, inode)));
            var service = Make(id, request.Path, opened);
            bool late;
            lock (_lock)
            {
                late = _disposed;
                if (!late)
                    _transports.Add(id, service);
            }

            if (late)
            {
                service.Close();
                throw new CbdException(CbdErrorKind.Failed, "this daemon is stopping: start it again");
            }

            _options.Logger.LogInformation("transport {Transport}: {Path} registered as host {Host} ('{Name}')", id, request.Path, opened.Membership.Session.Claim.Host, opened.Membership.Session.Claim.Name);
            return id;
        }
        finally
        {
            lock (_lock)
                _opening.Remove(id);
        }
    }

    /// <summary>Leaves a transport. Refused while this host has backends or blkdevs on it (they are named).</summary>
    public void UnregisterTransport(int transport)
    {
        Transport left = Find(transport);
        left.Unregister();
        lock (_lock)
        {
            if (_transports.GetValueOrDefault(transport) == left)
                _transports.Remove(transport);
        }

        _options.Logger.LogInformation("transport {Transport} unregistered", transport);
    }

    public IReadOnlyList<TransportDescription> ListTransports()
    {
        lock (_lock)
            return [.. _transports.Values.OrderBy(t => t.Id).Select(Describe)];
    }

    public TransportDescription GetTransport(int transport) => Describe(Find(transport));

    public IReadOnlyList<HostDescription> ListHosts(int transport) => Find(transport).Lists.ListHosts();

    /// <summary>Clears what a dead host left. Without proof of death: refused, unless forced or fenced.</summary>
    public void ClearHost(int transport, int host, bool force, bool fenced) => Find(transport).Clears.ClearHost(host, force, fenced);

    /// <summary>Offers a disk. Returns the backend id.</summary>
    public int StartBackend(StartBackendOptions request)
    {
        Transport transport = Find(request.Transport);
        new CallerAccess(transport).CheckRegion(request.Caller);
        // Who may not even look there learns nothing of it.
        if (!StartBackendOptions.IsDiskScheme(request.Path) &&
            (_options.Access.RightsOf(request.Caller) is not { } rights || PathRights.TryGetStatus(rights, request.Path, out _) == 0))
            _kernel?.RefuseStacked(request.Path, transport.Geometry.RegionId);
        return transport.Backends.Start(request, Regions(), DescribeHolder);
    }

    /// <summary>
    /// Stops a backend; refused while blkdevs use it, unless forced: they answer with EIO then until it is started again.
    /// </summary>
    public StopAnswer StopBackend(int transport, int backend, bool force, bool leaves = false) => Find(transport).Backends.Stop(backend, force || leaves, leaves);

    public void LeaveBackend(int transport, int backend) => Find(transport).Backends.Stop(backend, force: true, leaves: true);

    public bool LiesOn(string disk, string node) => _kernel?.LiesOn(disk, node) ?? false;

    public void KeepNames(Func<IReadOnlyCollection<string>> names)
    {
        if (_kernel is null)
            return;
        lock (_keepLock)
        {
            // What is being started, or was just started, is not in a record yet.
            HashSet<string> kept;
            lock (_lock)
                kept = [.. _startingNames, .. _transports.Values.SelectMany(t => t.Devices.KernelNames())];
            kept.UnionWith(names());
            _kernel.KeepNames(kept, Owner);
        }
    }

    /// <summary>Who wants names of devices on this machine: copies of a state directory, and directories of one path in two containers, are others.</summary>
    private string Owner => $"{_options.HostUuid:D} {_options.StateDirectory}";

    public void LeaveTransport(int transport)
    {
        Transport left = Find(transport);
        left.Close();
        lock (_lock)
        {
            if (_transports.GetValueOrDefault(transport) == left)
                _transports.Remove(transport);
        }

        _options.Logger.LogInformation("transport {Transport} unregistered", transport);
    }

    /// <summary>Clears a backend whose owner is gone, or a latched flush failure of our own.</summary>
    public void ClearBackend(int transport, int backend, bool force, bool fenced) => Find(transport).Backends.Clear(backend, force, fenced);

    /// <summary>
    /// Makes a served backend of this host larger: to <paramref name="sizeBytes"/>, growing its disk if that has fewer and
    /// can be made larger from here; null: to what its disk has now. Never smaller. Devices notice by themselves.
    /// </summary>
    public ResizedBackend ResizeBackend(int transport, int backend, long? sizeBytes) => Find(transport).Backends.Resize(backend, sizeBytes);

    /// <summary>
    /// Puts other faults (see <see cref="StartBackendOptions.Faults"/>) in the place of those in force. What they held
    /// back goes on.
    /// </summary>
    public void SetFaults(int transport, int backend, IReadOnlyList<string> faults) => Find(transport).Backends.SetFaults(backend, faults);

    /// <summary>The backends of this host, or of all hosts.</summary>
    public IReadOnlyList<BackendDescription> ListBackends(int transport, bool all) => Find(transport).Lists.ListBackends(all);

    /// <summary>Starts a device on a backend and its export; answers when all queues are attached.</summary>
    public StartedDevice StartDevice(StartDeviceOptions request)
    {
        Transport transport = Find(request.Transport);
        var access = new CallerAccess(transport);
        access.CheckRegion(request.Caller);
        // It goes on as what it is, whatever else is asked for, or this kernel has by now.
        KeptLife? kept = _kernel is null ? null : _options.Kept?.TryTake(request.Name);
        using var start = new KeptStart(_options.Kept, kept);
        (string? kind, string note) = kept is not null ? (kept.Kind, "") : _kernel?.Choose(request.AskedAttach) ?? (null, "");
        using var name = new StartingName(this, request.Transport, request.Name, isOfKernel: kind is not null);
        if (_kernel is null || kind is null)
        {
            bool mayUse = access.MayUse(request.Caller, request.Backend, request.ReadOnly, out string? disk);
            if (mayUse && disk is not null)
            {
                // What was looked at is what is served: no other disk may be behind that id by then, whatever the request says.
                if (request.DiskIdentity is { } asked && !SameThing.IsSameDisk(asked, disk))
                    throw new CbdException(CbdErrorKind.Busy, $"backend {request.Backend} has another disk than the one that is asked for: see backend-list");
                request = request with { DiskIdentity = disk };
            }

            if (!mayUse && request.Nbd is { } address)
            {
                throw new CbdException(CbdErrorKind.Denied,
                    $"uid {request.Caller!.UserId}, who asks for it, may open neither the disk of backend {request.Backend} nor region '{transport.Path}', so the device is not served at '{address}': {_options.Access.RightsOf(request.Caller)!.Remedy}, or leave the address out: the socket is then for the user of cbdd alone");
            }

            string ofExport = "";
            StartedDevice started = transport.Devices.Start(request, name.Of, device =>
            {
                IExport export = _exports.Open(
                    request.Nbd ?? $"unix:{Path.Combine(_options.RunDirectory, device!)}.nbd",
                    SocketOptions.Of(request) with
                    {
                        Rights = _options.Access.RightsOf(request.Caller),
                        IsOwnAddress = request.Nbd is null,
                        Device = device ?? request.Name,
                        Trust = _options.Access.Trust,
                        // Who may not read the disk does not get a door to it either, whatever doors the operator opens in general.
                        Mode = mayUse ? _options.Access.SocketMode : AccessOptions.OwnerOnly,
                        Owner = !mayUse ? null : _options.Access.SocketOwner ?? (request.Caller is { } caller ? new FileOwner(caller.UserId, caller.GroupId, IsWanted: false) : null),
                    });
                ofExport = mayUse ? export.Note : $"the socket is for the user of cbdd alone, because uid {request.Caller!.UserId} may open neither the disk nor the region";
                return export;
            });
            return started with { Note = string.Join("; ", new[] { note, ofExport }.Where(part => part.Length != 0)) };
        }

        _kernel.CleanUp(Log, IsKept);
        if (kept is null && _options.Kept is { } lives && _kernel.Outlives(kind))
            start.Life = kept = lives.Begin(request.Name, transport.Geometry.RegionId, request.Backend, DeviceVerbs.CheckQueues(request), kind);
        return start.Done(transport.Devices.Start(request with { Nbd = null }, name.Of, device =>
        {
            _kernel.ReserveName(device!, Owner);
            return _kernel.Open(kind, new KernelExportOptions { Name = device!, Region = transport.Geometry.RegionId, Life = kept?.Attachment, Log = Log });
        }, kept));
    }

    public void EndLives(Predicate<string> isWanted)
    {
        if (_options.Kept is { } kept && kept.EndUnwanted(isWanted))
            _kernel?.CleanUp(Log, IsKept);
    }

    public void Park() => Array.ForEach(Transports(), static transport => transport.Devices.Park());

    /// <summary>Stops a device of this host. Refused while clients are connected, unless forced.</summary>
    public StopAnswer StopDevice(int transport, int device, bool force, string? name = null) => Find(transport).Devices.Stop(device, force, name);

    /// <summary>Clears a device whose host is dead.</summary>
    public void ClearDevice(int transport, int device, bool force, bool fenced) => Find(transport).Clears.ClearDevice(device, force, fenced);

    public IReadOnlyList<DeviceDescription> ListDevices(int transport, bool all) => Find(transport).Lists.ListDevices(all);

    public IReadOnlyList<ChannelDescription> ListChannels(int transport) => Find(transport).Lists.ListChannels();

    public IReadOnlyList<FlightDescription> ReadFlights(int transport, FlightFilter filter) => Find(transport).Lists.ReadFlights(filter);

    public void Dispose()
    {
        Transport[] services;
        lock (_lock)
        {
            if (_disposed)
                return;
            _disposed = true;
            services = [.. _transports.Values];
            _transports.Clear();
        }

        foreach (Transport service in services)
            service.Close();
        _ends.Set();
        _watchdog.Join();
        _ends.Dispose();
        if (_ownsLog)
            _log.Dispose();
    }

    private bool IsKept(string device) => _options.Kept?.HasGiven(device) == true;

    private void Log(string line) => _options.Logger.LogInformation("{Line}", line);

    /// <summary>What a device is called while it starts, before the list of devices has it: nobody else gets the name.</summary>
    private sealed class StartingName : IDisposable
    {
        private readonly Node _node;
        private readonly string _prefix;
        private readonly bool _isOfKernel;
        private string? _name;

        /// <summary>Throws Busy if the name that was asked for belongs to another device.</summary>
        public StartingName(Node node, int transport, string? asked, bool isOfKernel)
        {
            _node = node;
            _isOfKernel = isOfKernel;
            // Devices are numbered per transport; the first transport's have the plain names.
            _prefix = transport == 0 ? "cbd" : $"cbd{transport}.";
            if (asked is not null && !TryTake(asked))
                throw new CbdException(CbdErrorKind.Busy, $"device name '{asked}' is taken: stop that device with dev-stop (see dev-list), or give another --name");
        }

        /// <summary>The name that was asked for, or the default one for a device with that id.</summary>
        public string Of(int device)
        {
            if (_name is not null)
                return _name;
            string own = $"{_prefix}{device}";
            if (TryTakeDefault(own))
                return own;
            for (int number = 0; ; number++)
            {
                string name = $"{_prefix}{number}";
                if (TryTakeDefault(name))
                    return name;
            }
        }

        private bool TryTakeDefault(string name) =>
            !(_node._options.IsNameReserved?.Invoke(name) ?? false) && !(_isOfKernel && _node._kernel!.IsNameWanted(name, _node.Owner)) && TryTake(name);

        public void Dispose()
        {
            if (_name is null)
                return;
            lock (_node._lock)
                _node._startingNames.Remove(_name);
        }

        private bool TryTake(string name)
        {
            lock (_node._lock)
            {
                if (_node._transports.Values.Any(t => t.Devices.Names().Contains(name, StringComparer.Ordinal)) || !_node._startingNames.Add(name))
                    return false;
            }

            _name = name;
            return true;
        }
    }

    private int TakeId()
    {
        lock (_lock)
        {
            ObjectDisposedException.ThrowIf(_disposed, this);
            for (int id = 0; id < _options.MaxTransports; id++)
            {
                if (!_transports.ContainsKey(id) && _opening.TryAdd(id, null))
                    return id;
            }
        }

        throw new CbdException(CbdErrorKind.Exhausted, $"this daemon has {_options.MaxTransports} transports already: unregister one, or start cbdd with a larger --max-transports");
    }

    private bool IsTaken(int id, FileIdentity region)
    {
        lock (_lock)
        {
            bool taken = _transports.Values.Any(t => Identify(t) == region) || _opening.Any(o => o.Key != id && o.Value == region);
            if (!taken)
                _opening[id] = region;
            return taken;
        }
    }

    private IReadOnlyList<FileIdentity> Regions()
    {
        lock (_lock)
            return [.. _transports.Values.Select(Identify)];
    }

    /// <summary>Makes the transport; what was opened is given back if that cannot be.</summary>
    private Transport Make(int id, string path, OpenedTransport opened)
    {
        try
        {
            opened.Membership.KeepsLife = _options.Kept is { } kept ? kept.Attachments.Has : null;
            return new Transport(id, path, opened, _options, StartThread);
        }
        catch
        {
            // No thread or memory for the housekeeping: nothing of this registration may stay.
            opened.GiveBack();
            throw;
        }
    }

    /// <summary>Who has the lock of a disk: a backend of this daemon, or a process; null if that cannot be told.</summary>
    private string? DescribeHolder(string path)
    {
        if (FileStatus.TryGet(path, out FileStatus status) != 0)
            return null;
        foreach (Transport transport in Transports())
        {
            if (transport.Backends.FindOn(status) is { } backend)
                return $"backend {backend} of this daemon{(transport.Id == 0 ? "" : $" on transport {transport.Id}")} has it (backend-stop)";
        }

        using ProcessDescriptor? process = ByteLockHolder.TryOpen(0, status.Device, status.Inode, 0);
        return process is null ? null : $"process {process.ProcessId} has it locked";
    }

    private void Watch()
    {
        int lookMs = Math.Max(100, _options.FenceMs / 4);
        while (!_ends.WaitOne(lookMs))
        {
            foreach (Transport transport in Transports())
                transport.CheckHousekeeping();
        }
    }

    private Transport[] Transports()
    {
        lock (_lock)
            return [.. _transports.Values];
    }

    private static FileIdentity Identify(Transport transport) => new(transport.Region.Device, transport.Region.Inode);

    private Transport Find(int transport)
    {
        lock (_lock)
            return _transports.TryGetValue(transport, out Transport? service) ? service : throw Unknown(transport);
    }

    private static CbdException Unknown(int transport) =>
        new(CbdErrorKind.NotFound, $"transport {transport} is not registered: register a region with tp-reg, or see tp-list");

    private TransportDescription Describe(Transport transport)
    {
        Cbd.Protocol.Format.RegionGeometry geometry = transport.Geometry;
        QuarantineCounts quarantined = transport.Lists.CountQuarantined();
        return new TransportDescription
        {
            TransportId = transport.Id,
            Magic = Cbd.Protocol.Format.TransportInfo.Magic,
            Version = transport.Info.Version,
            Flags = (uint)transport.Info.Flags,
            HostAreaOffset = geometry.HostAreaOffset,
            BytesPerHost = geometry.BytesPerHost,
            HostCount = geometry.HostCount,
            BackendAreaOffset = geometry.BackendAreaOffset,
            BytesPerBackend = geometry.BytesPerBackend,
            BackendCount = geometry.BackendCount,
            BlkdevAreaOffset = geometry.BlkdevAreaOffset,
            BytesPerBlkdev = geometry.BytesPerBlkdev,
            BlkdevCount = geometry.BlkdevCount,
            ChannelAreaOffset = geometry.ChannelAreaOffset,
            BytesPerChannel = geometry.BytesPerChannel,
            ChannelCount = geometry.ChannelCount,
            HostId = transport.Session.Claim.Host,
            MyHostId = transport.Session.Claim.Host,
            HostName = transport.Session.Claim.Name,
            Path = transport.Path,
            Coherence = transport.Info.Coherence.ToString().ToLowerInvariant(),
            PayloadCrc = geometry.PayloadCrc,
            RingSlots = geometry.RingSlots,
            SizeBytes = geometry.SizeBytes,
            Uuid = geometry.RegionId,
            Failure = transport.Failure ?? "",
            State = transport.Membership.Status.State.ToString().ToLowerInvariant(),
            Reason = transport.Membership.Status.Reason,
            Since = TransportLists.SinceOf(transport.Membership.Status),
            LogLost = _log.Lost,
            QuarantinedHosts = quarantined.Hosts,
            QuarantinedBackends = quarantined.Backends,
            QuarantinedBlkdevs = quarantined.Blkdevs,
            QuarantinedChannels = quarantined.Channels,
        };
    }
}
