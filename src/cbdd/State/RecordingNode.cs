using Cbd.Host.Devices;
using Cbd.Memory;
using Cbd.Host;

namespace Cbd.Programs.Daemon.State;

/// <summary>A node whose starts and stops are kept in a <see cref="StateRecord"/>.</summary>
internal sealed class RecordingNode(INode inner, StateRecord record) : INode
{
    public int RegisterTransport(RegisterTransportOptions options)
    {
        var transport = inner.RegisterTransport(options);
        record.Add(new StateEntry
        {
            Transport = new TransportEntry { Region = options.Path, Host = options.Host, Coherence = options.Coherence },
        });
        return transport;
    }

    public void UnregisterTransport(int transport)
    {
        var region = Region(transport);
        inner.UnregisterTransport(transport);
        record.RemoveRegion(region);
    }

    public int StartBackend(StartBackendOptions options)
    {
        var region = Region(options.Transport);
        var backend = inner.StartBackend(options);
        record.Add(new StateEntry
        {
            Backend = new BackendEntry
            {
                Region = region,
                BackendId = backend,
                Path = options.Path,
                Handlers = options.Handlers,
                ReadOnly = options.ReadOnly,
                Engine = options.Engine,
                BlockSize = options.BlockBytes,
                Mode = PollModeText.OfOther(options.Mode),
            },
        });
        return backend;
    }

    public void StopBackend(int transport, int backend, bool force)
    {
        var region = Region(transport);
        try
        {
            inner.StopBackend(transport, backend, force);
        }
        catch (StillStoppingException)
        {
            // It was accepted: no restart brings it back.
            record.RemoveBackend(region, backend);
            throw;
        }

        record.RemoveBackend(region, backend);
    }

    public ResizedBackend ResizeBackend(int transport, int backend, long? sizeBytes)
    {
        var region = Region(transport);
        var resized = inner.ResizeBackend(transport, backend, sizeBytes);
        // The path of a disk without a file says its size.
        record.SetBackendPath(region, backend, BackendPath(transport, backend));
        return resized;
    }

    public StartedDevice StartDevice(StartDeviceOptions options)
    {
        var region = Region(options.Transport);
        var started = inner.StartDevice(options);
        record.Add(new StateEntry
        {
            Device = new DeviceEntry
            {
                Region = region,
                BlkdevId = started.Device,
                BackendId = options.Backend,
                BackendPath = BackendPath(options.Transport, options.Backend),
                Queues = options.Queues,
                Attach = options.Attach,
                Nbd = options.Nbd,
                Tls = TlsEntry.From(options.Tls),
                NbdConnections = Other(options.NbdConnections, SocketOptions.DefaultConnections),
                NbdHandshakeSeconds = Other(options.NbdHandshakeSeconds, SocketOptions.DefaultHandshakeSeconds),
                Insecure = options.Insecure,
                ReadOnly = options.ReadOnly,
                Mode = PollModeText.OfOther(options.Mode),
                OnBackendLoss = options.OnBackendLoss == OnBackendLoss.Queue ? null : LossText.Of(options.OnBackendLoss),
                LossTimeout = options.LossTimeoutSeconds == 0 ? null : options.LossTimeoutSeconds,
            },
        });
        return started;
    }

    public void StopDevice(int transport, int device, bool force)
    {
        var region = Region(transport);
        try
        {
            inner.StopDevice(transport, device, force);
        }
        catch (StillStoppingException)
        {
            // It was accepted: no restart brings it back.
            record.RemoveDevice(region, device);
            throw;
        }

        record.RemoveDevice(region, device);
    }

    public IReadOnlyList<TransportDescription> ListTransports() => inner.ListTransports();

    public TransportDescription GetTransport(int transport) => inner.GetTransport(transport);

    public IReadOnlyList<HostDescription> ListHosts(int transport) => inner.ListHosts(transport);

    public void ClearHost(int transport, int host, bool force, bool fenced) =>
        inner.ClearHost(transport, host, force, fenced);

    public void ClearBackend(int transport, int backend, bool force, bool fenced) =>
        inner.ClearBackend(transport, backend, force, fenced);

    /// <summary>Not recorded, here and at the start: a fault is an experiment, and must not come back by itself.</summary>
    public void SetFaults(int transport, int backend, IReadOnlyList<string> faults) => inner.SetFaults(transport, backend, faults);

    public IReadOnlyList<BackendDescription> ListBackends(int transport, bool all) => inner.ListBackends(transport, all);

    public void ClearDevice(int transport, int device, bool force, bool fenced) =>
        inner.ClearDevice(transport, device, force, fenced);

    public IReadOnlyList<DeviceDescription> ListDevices(int transport, bool all) => inner.ListDevices(transport, all);

    public IReadOnlyList<ChannelDescription> ListChannels(int transport) => inner.ListChannels(transport);

    public IReadOnlyList<FlightDescription> ReadFlights(int transport, FlightFilter filter) => inner.ReadFlights(transport, filter);

    public void Dispose() => inner.Dispose();

    private static int? Other(int value, int usual) => value == usual ? null : value;

    private string Region(int transport) => inner.GetTransport(transport).Path;

    /// <summary>Empty if the backend went in this moment; a restore then refuses the device rather than guess.</summary>
    private string BackendPath(int transport, int backend)
    {
        try
        {
            return inner.ListBackends(transport, all: true).FirstOrDefault(b => b.BackendId == backend)?.Path ?? "";
        }
        catch (CbdException)
        {
            return "";
        }
    }
}
