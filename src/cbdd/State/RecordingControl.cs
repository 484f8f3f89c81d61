namespace Cbd.Programs.Daemon.State;

/// <summary>A gate that keeps in a <see cref="StateRecord"/> what was started and stopped behind it.</summary>
/// <remarks>Faults are not recorded: a fault is an experiment, and must not come back by itself.</remarks>
internal sealed class RecordingControl(IControl inner, StateRecord record) : IControl
{
    private static readonly HashSet<Operation> s_recorded =
    [
        Operations.RegisterTransport, Operations.UnregisterTransport, Operations.StartBackend, Operations.StopBackend,
        Operations.ResizeBackend, Operations.StartDevice, Operations.StopDevice,
    ];

    public TAnswer Execute<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request)
        where TRequest : ControlRequest
        where TAnswer : class
    {
        if (!s_recorded.Contains(operation))
            return inner.Execute(operation, request);
        // After tp-unreg nobody knows any more which region it was.
        var region = RegionOf(request);
        var answer = inner.Execute(operation, request);
        Record(operation, region, request, answer);
        return answer;
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
                record.Add(new StateEntry { Device = Entry(region, options, started.Device) });
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

    private DeviceEntry Entry(string region, StartDeviceOptions options, int id) => new()
    {
        Region = region,
        BlkdevId = id,
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
