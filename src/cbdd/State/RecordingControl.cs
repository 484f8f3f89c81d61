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
        if (request is StartDeviceOptions { Name: { } name } device)
            record.CheckName(name, device.Backend);
        // After tp-unreg nobody knows any more which region it was.
        var region = RegionOf(request);
        TAnswer answer;
        try
        {
            answer = inner.Execute(operation, request);
        }
        catch (CbdException e) when (e.Kind == CbdErrorKind.NotFound && request is StopRequest stop && operation == (Operation)Operations.StopBackend &&
            record.Forget(entry => entry.Backend is { } b && b.Region == region && b.BackendId == stop.Id))
        {
            // It could not be started again, and is wanted no more.
            return (TAnswer)(object)StopAnswer.Gone;
        }

        Record(operation, region, request, answer);
        Moved?.Invoke();
        return answer;
    }

    private void Forget(string name)
    {
        if (!record.Forget(entry => entry.Device?.Name == name))
            throw new CbdException(CbdErrorKind.NotFound, $"there is no device '{name}': see dev-list, and cbdctrl wait");
    }

    private void Record(Operation operation, string region, ControlRequest request, object answer)
    {
        switch (request, answer)
        {
            case (RegisterTransportOptions options, _):
                record.Add(new StateEntry
                {
                    Transport = new TransportEntry { Region = region, Host = options.Host, Coherence = options.Coherence },
                });
                break;
            case (StartBackendOptions options, BackendStarted started):
                record.Add(new StateEntry { Backend = Entry(region, options, started.BackendId) });
                break;
            case (StartDeviceOptions options, StartedDevice started):
                record.Add(new StateEntry { Device = Entry(region, options, started) });
                break;
            case (ResizeRequest resize, _):
                // The path of a disk without a file says its size.
                record.SetBackendPath(region, resize.Id, BackendPath(resize.Transport, resize.Id));
                break;
            // A thing that is still stopping is not wanted any more either.
            case (StopRequest stop, _) when operation == Operations.StopBackend:
                record.RemoveBackend(region, stop.Id);
                break;
            case (StopRequest stop, _):
                record.RemoveDevice(region, stop.Id);
                break;
            default:
                record.RemoveRegion(region);
                break;
        }
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

    private DeviceEntry Entry(string region, StartDeviceOptions options, StartedDevice started) => new()
    {
        Region = region,
        BlkdevId = started.Device,
        Name = started.Name,
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
