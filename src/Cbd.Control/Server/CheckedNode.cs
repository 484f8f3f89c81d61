using Cbd.Memory;
using Cbd.Host;

namespace Cbd.Control.Server;

/// <summary>
/// The gate in front of a node: every number and text of a request, wherever it came from (socket, start-up verbs,
/// restore), is in its range before the node sees it.
/// </summary>
internal sealed class CheckedNode(INode inner) : INode
{
    public int RegisterTransport(RegisterTransportOptions options)
    {
        RequestRules.Check(options);
        return inner.RegisterTransport(options);
    }

    public void UnregisterTransport(int transport)
    {
        RequestRules.CheckId(transport, "transport");
        inner.UnregisterTransport(transport);
    }

    public IReadOnlyList<TransportDescription> ListTransports() => inner.ListTransports();

    public TransportDescription GetTransport(int transport)
    {
        RequestRules.CheckId(transport, "transport");
        return inner.GetTransport(transport);
    }

    public IReadOnlyList<HostDescription> ListHosts(int transport)
    {
        RequestRules.CheckId(transport, "transport");
        return inner.ListHosts(transport);
    }

    public void ClearHost(int transport, int host, bool force, bool fenced)
    {
        RequestRules.CheckId(transport, "transport");
        RequestRules.CheckId(host, "host");
        inner.ClearHost(transport, host, force, fenced);
    }

    public int StartBackend(StartBackendOptions options)
    {
        RequestRules.Check(options);
        return inner.StartBackend(options);
    }

    public void StopBackend(int transport, int backend, bool force)
    {
        RequestRules.CheckId(transport, "transport");
        RequestRules.CheckId(backend, "backend");
        inner.StopBackend(transport, backend, force);
    }

    public void ClearBackend(int transport, int backend, bool force, bool fenced)
    {
        RequestRules.CheckId(transport, "transport");
        RequestRules.CheckId(backend, "backend");
        inner.ClearBackend(transport, backend, force, fenced);
    }

    public ResizedBackend ResizeBackend(int transport, int backend, long? sizeBytes)
    {
        RequestRules.CheckId(transport, "transport");
        RequestRules.CheckId(backend, "backend");
        RequestRules.CheckDiskSize(sizeBytes);
        return inner.ResizeBackend(transport, backend, sizeBytes);
    }

    public void SetFaults(int transport, int backend, IReadOnlyList<string> faults)
    {
        RequestRules.CheckId(transport, "transport");
        RequestRules.CheckId(backend, "backend");
        RequestRules.CheckFaults(faults);
        inner.SetFaults(transport, backend, faults);
    }

    public IReadOnlyList<BackendDescription> ListBackends(int transport, bool all)
    {
        RequestRules.CheckId(transport, "transport");
        return inner.ListBackends(transport, all);
    }

    public StartedDevice StartDevice(StartDeviceOptions options)
    {
        RequestRules.Check(options);
        return inner.StartDevice(options);
    }

    public void StopDevice(int transport, int device, bool force)
    {
        RequestRules.CheckId(transport, "transport");
        RequestRules.CheckId(device, "device");
        inner.StopDevice(transport, device, force);
    }

    public void ClearDevice(int transport, int device, bool force, bool fenced)
    {
        RequestRules.CheckId(transport, "transport");
        RequestRules.CheckId(device, "device");
        inner.ClearDevice(transport, device, force, fenced);
    }

    public IReadOnlyList<DeviceDescription> ListDevices(int transport, bool all)
    {
        RequestRules.CheckId(transport, "transport");
        return inner.ListDevices(transport, all);
    }

    public IReadOnlyList<ChannelDescription> ListChannels(int transport)
    {
        RequestRules.CheckId(transport, "transport");
        return inner.ListChannels(transport);
    }

    public IReadOnlyList<FlightDescription> ReadFlights(int transport, FlightFilter filter)
    {
        RequestRules.CheckId(transport, "transport");
        if (filter.Device is { } device)
            RequestRules.CheckId(device, "device");
        if (filter.Backend is { } backend)
            RequestRules.CheckId(backend, "backend");
        if (filter.Channel is { } channel)
            RequestRules.CheckId(channel, "channel");
        return inner.ReadFlights(transport, filter);
    }

    public void Dispose() => inner.Dispose();
}
