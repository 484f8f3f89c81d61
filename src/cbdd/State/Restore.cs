using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon.State;

/// <summary>
/// Starts again what the record has pending, in its order. What fails is reported, one line each, and stays pending.
/// </summary>
internal sealed class Restore(IControl control, StateRecord record, ILogger logger)
{
    /// <summary>Returns how many could not be started. <paramref name="isStopping"/> is asked before each.</summary>
    public int Run(Func<bool> isStopping)
    {
        var failures = 0;
        // By index: a started entry keeps its place, and pending ones before it may learn a new backend id.
        for (var i = 0; i < record.Entries.Count && !isStopping(); i++)
        {
            var entry = record.Entries[i];
            if (!entry.IsPending)
                continue;
            try
            {
                logger.LogInformation("restored {What}", Start(entry));
            }
            catch (CbdException e)
            {
                failures++;
                logger.LogError("not restored: {What}: {Reason}", Describe(entry), e.Message);
            }
        }

        return failures;
    }

    private string Start(StateEntry entry)
    {
        if (entry.Transport is { } transport)
        {
            var id = control.Execute(Operations.RegisterTransport, new RegisterTransportOptions
            {
                Host = transport.Host,
                Path = transport.Region,
                Coherence = transport.Coherence,
            }).TransportId;
            return $"transport {id} on {transport.Region}";
        }

        if (entry.Backend is { } backend)
            return $"backend {StartBackend(backend)} on {backend.Path}";
        var device = StartDevice(entry.Device!);
        return $"device {device.Node}{(device.Note is null ? "" : $": {device.Note}")}";
    }

    private int StartBackend(BackendEntry backend)
    {
        var transport = TransportOf(backend.Region);
        // A record that our killed self left in the region is taken over, so that blkdevs of other hosts go on.
        var left = FindBackend(transport, backend.BackendId);
        var takesOver = left is not null && StateRecord.IsSameDisk(left.Path, backend.Path) && left.Alive != "alive";
        return control.Execute(Operations.StartBackend, new StartBackendOptions
        {
            Transport = transport,
            // Of a disk without a file the region knows the last size.
            Path = takesOver ? left!.Path : backend.Path,
            Handlers = backend.Handlers,
            Backend = takesOver ? backend.BackendId : null,
            ReadOnly = backend.ReadOnly,
            Engine = backend.Engine,
            BlockBytes = backend.BlockSize,
            Mode = PollModeText.Parse(backend.Mode ?? PollModeText.Adaptive),
        }).BackendId;
    }

    private StartedDevice StartDevice(DeviceEntry device)
    {
        var transport = TransportOf(device.Region);
        var backend = FindBackend(transport, device.BackendId)
            ?? throw new CbdException(CbdErrorKind.NotFound, $"there is no backend {device.BackendId}; start it, then the device");
        if (!StateRecord.IsSameDisk(backend.Path, device.BackendPath))
        {
            throw new CbdException(CbdErrorKind.Invalid,
                $"backend {device.BackendId} is '{backend.Path}' now and was '{device.BackendPath}'; start the device on the right one by hand");
        }

        return control.Execute(Operations.StartDevice, new StartDeviceOptions
        {
            Transport = transport,
            Backend = device.BackendId,
            Queues = device.Queues,
            Attach = device.Attach,
            Nbd = device.Nbd,
            Tls = device.Tls?.ToOptions(),
            NbdConnections = device.NbdConnections ?? NbdLimits.DefaultConnections,
            NbdHandshakeSeconds = device.NbdHandshakeSeconds ?? NbdLimits.DefaultHandshakeSeconds,
            Insecure = device.Insecure,
            ReadOnly = device.ReadOnly,
            Mode = PollModeText.Parse(device.Mode ?? PollModeText.Adaptive),
            OnBackendLoss = LossText.Parse(device.OnBackendLoss ?? LossText.Queue),
            LossTimeoutSeconds = device.LossTimeout ?? 0,
        });
    }

    private BackendDescription? FindBackend(int transport, int backend) =>
        control.Execute(Operations.ListBackends, new ListRequest { Transport = transport, All = true }).FirstOrDefault(b => b.BackendId == backend);

    private int TransportOf(string region) =>
        control.Execute(Operations.ListTransports, new ControlRequest()).FirstOrDefault(t => t.Path == region)?.TransportId
        ?? throw new CbdException(CbdErrorKind.NotFound, $"the transport on '{region}' is not registered");

    private static string Describe(StateEntry entry) => entry switch
    {
        { Transport: { } transport } => $"transport on {transport.Region}",
        { Backend: { } backend } => $"backend {backend.BackendId} ({backend.Path}) on {backend.Region}",
        { Device: { } device } => $"device {device.BlkdevId} on backend {device.BackendId} ({device.BackendPath}) of {device.Region}",
        _ => throw new InvalidOperationException("a state entry is nothing"),
    };
}
