using Cbd.Host;

namespace Cbd.Tests.Control;

/// <summary>Passes everything on; tests override the one call they change.</summary>
internal class ForwardingNode(INode inner) : INode
{
    public virtual int RegisterTransport(RegisterTransportOptions options) => inner.RegisterTransport(options);

    public void UnregisterTransport(int transport) => inner.UnregisterTransport(transport);

    public IReadOnlyList<TransportDescription> ListTransports() => inner.ListTransports();

    public TransportDescription GetTransport(int transport) => inner.GetTransport(transport);

    public IReadOnlyList<HostDescription> ListHosts(int transport) => inner.ListHosts(transport);

    public void ClearHost(int transport, int host, bool force, bool fenced) => inner.ClearHost(transport, host, force, fenced);

    public virtual int StartBackend(StartBackendOptions options) => inner.StartBackend(options);

    public void StopBackend(int transport, int backend, bool force) => inner.StopBackend(transport, backend, force);

    public void ClearBackend(int transport, int backend, bool force, bool fenced) => inner.ClearBackend(transport, backend, force, fenced);

    public ResizedBackend ResizeBackend(int transport, int backend, long? sizeBytes) => inner.ResizeBackend(transport, backend, sizeBytes);

    public IReadOnlyList<BackendDescription> ListBackends(int transport, bool all) => inner.ListBackends(transport, all);

    public virtual StartedDevice StartDevice(StartDeviceOptions options) => inner.StartDevice(options);

    public void StopDevice(int transport, int device, bool force) => inner.StopDevice(transport, device, force);

    public void ClearDevice(int transport, int device, bool force, bool fenced) => inner.ClearDevice(transport, device, force, fenced);

    public IReadOnlyList<DeviceDescription> ListDevices(int transport, bool all) => inner.ListDevices(transport, all);

    public IReadOnlyList<ChannelDescription> ListChannels(int transport) => inner.ListChannels(transport);

    public void SetFaults(int transport, int backend, IReadOnlyList<string> faults) => inner.SetFaults(transport, backend, faults);

    public IReadOnlyList<FlightDescription> ReadFlights(int transport, FlightFilter filter) => inner.ReadFlights(transport, filter);

    public void Dispose() => inner.Dispose();
}
