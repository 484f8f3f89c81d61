namespace Cbd.Host;

/// <summary>Which method of a node does which operation.</summary>
internal static class NodeOperations
{
    public static OperationHandlers Of(Node node) => new OperationHandlers()
        .Add(Operations.ListTransports, _ => node.ListTransports())
        .Add(Operations.RegisterTransport, r => new TransportStarted { TransportId = node.RegisterTransport(r) })
        .Add(Operations.GetTransport, r => node.GetTransport(r.Transport))
        .Add(Operations.UnregisterTransport, r => node.UnregisterTransport(r.Transport))
        .Add(Operations.ListChannels, r => node.ListChannels(r.Transport))
        .Add(Operations.ReadFlights, r => node.ReadFlights(r.Transport, r))
        .Add(Operations.ListHosts, r => node.ListHosts(r.Transport))
        .Add(Operations.ClearHost, r => node.ClearHost(r.Transport, r.Id, r.Force, r.Fenced))
        .Add(Operations.ListBackends, r => node.ListBackends(r.Transport, r.All))
        .Add(Operations.StartBackend, r => new BackendStarted { BackendId = node.StartBackend(r) })
        .Add(Operations.StopBackend, r => node.StopBackend(r.Transport, r.Id, r.Force, r.Leaves))
        .Add(Operations.ClearBackend, r => node.ClearBackend(r.Transport, r.Id, r.Force, r.Fenced))
        .Add(Operations.ResizeBackend, r => node.ResizeBackend(r.Transport, r.Id, r.SizeBytes))
        .Add(Operations.SetFaults, r => node.SetFaults(r.Transport, r.Id, r.Faults))
        .Add(Operations.ListDevices, r => node.ListDevices(r.Transport, r.All))
        .Add(Operations.StartDevice, r => node.StartDevice(r))
        .Add(Operations.StopDevice, r => node.StopDevice(r.Transport, r.Id, r.Force, r.Name))
        .Add(Operations.ClearDevice, r => node.ClearDevice(r.Transport, r.Id, r.Force, r.Fenced));
}
