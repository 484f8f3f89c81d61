namespace Cbd.Programs.Daemon.State;

/// <summary>A gate that keeps in a <see cref="StateRecord"/> what was started and stopped behind it.</summary>
/// <remarks>Faults are not recorded: a fault is an experiment, and must not come back by itself.</remarks>
internal sealed class RecordingControl(IControl inner, StateRecord record) : IControl
{
    private readonly WantedList _wanted = new(inner, record);
    private volatile bool _isStarting;

    private static readonly HashSet<Operation> s_recorded =
    [
        Operations.RegisterTransport, Operations.UnregisterTransport, Operations.StartBackend, Operations.StopBackend,
        Operations.ResizeBackend, Operations.StartDevice, Operations.StopDevice,
    ];

    /// <summary>The daemon still does what it was told at its start.</summary>
    public bool IsStarting
    {
        get => _isStarting;
        set => _isStarting = value;
    }

    /// <summary>Called after each verb that changed something.</summary>
    public Action? Moved { get; init; }

    public TAnswer Execute<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request)
        where TRequest : ControlRequest
        where TAnswer : class
    {
        if (operation == (Operation)Operations.ListWanted)
            return (TAnswer)(object)new WantedThings { Starting = IsStarting, Things = _wanted.Describe() };
        if (request is ForgetRequest forget)
        {
            Forget(forget.Name);
            return (TAnswer)(object)Done.Instance;
        }

        if (!s_recorded.Contains(operation))
            return inner.Execute(operation, request);
        // After tp-unreg nobody knows any more which region it was.
        var region = RegionOf(request);
        // A verb that is repeated means the device that is wanted already.
        if (request is StartDeviceOptions device && record.CheckStart(region, device, BackendPath(device.Transport, device.Backend)) is { } known)
            request = (TRequest)(object)(device with { Name = known });
        if (request is StartBackendOptions { Backend: null } start && FindLeft(region, start) is { } left)
            request = (TRequest)(object)(start with { Backend = left });
        var answer = Wanted(region, request) is { } wanted ? Start(operation, request, region, wanted)
            : Ended(region, operation, request) is { } ended ? Stop(operation, request, region, ended)
            : inner.Execute(operation, request);
        // The path of a disk without a file says its size.
        if (request is ResizeRequest resize)
            record.SetBackendPath(region, resize.Id, BackendPath(resize.Transport, resize.Id));
        Moved?.Invoke();
        return answer;
    }

    /// <summary>Intent, effect, confirmation: whatever of it fails, nothing of it is left.</summary>
    private TAnswer Start<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request, string region, StateEntry wanted)
        where TRequest : ControlRequest
        where TAnswer : class
    {
        var number = record.BeginStart(wanted);
        TAnswer answer;
        try
        {
            answer = inner.Execute(operation, request);
        }
        catch
        {
            record.DropStart(number);
            throw;
        }

        try
        {
            record.ConfirmStart(number, Confirmed(region, request, answer));
        }
        catch
        {
            TakeBack(request, answer);
            record.DropStart(number);
            throw;
        }

        return answer;
    }

    private TAnswer Stop<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request, string region, Predicate<StateEntry> ended)
        where TRequest : ControlRequest
        where TAnswer : class
    {
        var numbers = record.BeginStop(entry => !entry.IsPending && ended(entry));
        TAnswer answer;
        try
        {
            answer = inner.Execute(operation, request);
        }
        catch (CbdException e) when (e.Kind == CbdErrorKind.NotFound && operation == (Operation)Operations.StopBackend)
        {
            // It could not be started again, and is wanted no more.
            if (numbers.Count == 0 && !record.Forget(ended))
                throw;
            record.EndStop(numbers);
            return (TAnswer)(object)StopAnswer.Gone;
        }
        catch
        {
            record.CancelStop(numbers);
            throw;
        }

        // A thing that is still stopping is not wanted any more either.
        if (operation == (Operation)Operations.UnregisterTransport)
            record.EndStopOfRegion(region, numbers);
        else
            record.EndStop(numbers);
        return answer;
    }

    /// <summary>What a start verb wants; null if it is none.</summary>
    private StateEntry? Wanted(string region, ControlRequest request) => request switch
    {
        RegisterTransportOptions options => new StateEntry { Transport = new TransportEntry { Region = region, Host = options.Host, Coherence = options.Coherence } },
        StartBackendOptions options => new StateEntry { Backend = Entry(region, options, options.Backend ?? -1) },
        StartDeviceOptions options => new StateEntry { Device = Entry(region, options, -1, options.Name) },
        _ => null,
    };

    private StateEntry Confirmed(string region, ControlRequest request, object answer) => (request, answer) switch
    {
        (StartBackendOptions options, BackendStarted started) => new StateEntry { Backend = Entry(region, options, started.BackendId) },
        (StartDeviceOptions options, StartedDevice started) => new StateEntry { Device = Entry(region, options, started.Device, started.Name) },
        _ => Wanted(region, request)!,
    };

    /// <summary>What a stop verb ends; null if it is none.</summary>
    private static Predicate<StateEntry>? Ended(string region, Operation operation, ControlRequest request) => request switch
    {
        StopRequest stop when operation == Operations.StopBackend => entry => entry.Region == region && entry.Backend?.BackendId == stop.Id,
        StopRequest stop => entry => entry.Region == region && entry.Device?.BlkdevId == stop.Id,
        // What is on it is refused by the host, and must not be dropped by a death meanwhile.
        TransportTarget when operation == Operations.UnregisterTransport => entry => entry.Region == region && entry.Transport is not null,
        _ => null,
    };

    private void TakeBack(ControlRequest request, object answer)
    {
        try
        {
            switch (request, answer)
            {
                case (_, TransportStarted started):
                    inner.Execute(Operations.UnregisterTransport, new TransportTarget { Transport = started.TransportId });
                    break;
                case (StartBackendOptions options, BackendStarted started):
                    inner.Execute(Operations.StopBackend, new StopRequest { Transport = options.Transport, Id = started.BackendId });
                    break;
                case (StartDeviceOptions options, StartedDevice started):
                    inner.Execute(Operations.StopDevice, new StopRequest { Transport = options.Transport, Id = started.Device, Force = true });
                    break;
            }
        }
        catch (CbdException)
        {
            // The error that led here is the one to tell.
        }
    }

    /// <summary>
    /// The id under which the record has this disk, if its entry in the region is there and nobody serves it: blkdevs that wait for
    /// it go on.
    /// </summary>
    private int? FindLeft(string region, StartBackendOptions start)
    {
        // Of a file or a block device the region itself knows whether it is the same.
        if (!StartBackendOptions.IsDiskScheme(start.Path))
            return null;
        if (record.Entries.FirstOrDefault(e => e.IsPending && e.Backend is { } b && b.Region == region && b.Path == start.Path)?.Backend is not { } wanted)
            return null;
        return inner.Execute(Operations.ListBackends, new ListRequest { Transport = start.Transport, All = true })
            .Any(b => b.BackendId == wanted.BackendId && Reconciler.IsLeft(b, start.Path)) ? wanted.BackendId : null;
    }

    private void Forget(string name)
    {
        if (!record.Forget(entry => entry.Device?.Name == name))
            throw new CbdException(CbdErrorKind.NotFound, $"there is no device '{name}': see dev-list, and cbdctrl wait");
    }

    private static BackendEntry Entry(string region, StartBackendOptions options, int id) => new()
    {
        Region = region,
        BackendId = id,
        Path = options.Path,
        Handlers = options.Handlers,
        ReadOnly = options.ReadOnly,
        Engine = options.Engine,
        BlockSize = options.BlockBytes,
        Mode = PollModeText.OfOther(options.Mode),
    };

    private DeviceEntry Entry(string region, StartDeviceOptions options, int id, string? name) => new()
    {
        Region = region,
        BlkdevId = id,
        Name = name,
        BackendId = options.Backend,
        BackendPath = BackendPath(options.Transport, options.Backend),
        Queues = options.Queues,
        Attach = options.Attach,
        Nbd = options.Nbd,
        Tls = TlsEntry.From(options.Tls),
        NbdConnections = Other(options.NbdConnections, NbdLimits.DefaultConnections),
        NbdHandshakeSeconds = Other(options.NbdHandshakeSeconds, NbdLimits.DefaultHandshakeSeconds),
        Insecure = options.Insecure,
        ReadOnly = options.ReadOnly,
        Mode = PollModeText.OfOther(options.Mode),
        OnBackendLoss = options.OnBackendLoss == OnBackendLoss.Queue ? null : LossText.Of(options.OnBackendLoss),
        LossTimeout = Other(options.LossTimeoutSeconds, 0),
    };

    private static int? Other(int value, int usual) => value == usual ? null : value;

    private string RegionOf(ControlRequest request) => request switch
    {
        RegisterTransportOptions options => options.Path,
        TransportTarget target => inner.Execute(Operations.GetTransport, new TransportTarget { Transport = target.Transport }).Path,
        _ => throw new InvalidOperationException($"{request} is about no transport and is recorded"),
    };

    /// <summary>Empty if the backend went in this moment; a restore then refuses the device rather than guess.</summary>
    private string BackendPath(int transport, int backend)
    {
        try
        {
            return inner.Execute(Operations.ListBackends, new ListRequest { Transport = transport, All = true })
                .FirstOrDefault(b => b.BackendId == backend)?.Path ?? "";
        }
        catch (CbdException)
        {
            return "";
        }
    }
}
