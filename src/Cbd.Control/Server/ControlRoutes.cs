using Cbd.Control.Json;
using Cbd.Host;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Routing;

namespace Cbd.Control.Server;

/// <summary>The control API: one route per method of <see cref="INode"/>, no state of its own.</summary>
internal static class ControlRoutes
{
    private const string Transports = "/v1/transports";
    private const string Transport = "/v1/transports/{transport}";

    /// <summary>Adds the routes. <paramref name="node"/> validates what they pass on (<see cref="CheckedNode"/>).</summary>
    public static void Map(IEndpointRouteBuilder routes, CheckedNode node)
    {
        MapTransports(routes, node);
        MapHosts(routes, node);
        MapBackends(routes, node);
        MapFaults(routes, node);
        MapDevices(routes, node);
    }

    private static void MapTransports(IEndpointRouteBuilder routes, CheckedNode node)
    {
        Describe(routes.MapGet(Transports, () => List(node.ListTransports(), TransportInfo.From)),
            "tp-list", "Lists the transports this host is registered on");
        Describe(routes.MapPost(Transports, (TransportRequest request) =>
                new TransportStarted { TransportId = node.RegisterTransport(request.ToOptions()) }),
            "tp-reg", "Registers this host on a region, formatting it first if asked");
        Describe(routes.MapGet(Transport, (int transport) => TransportInfo.From(node.GetTransport(transport))),
            "tp-info", "Describes one transport");
        Describe(routes.MapDelete(Transport, (int transport) =>
            {
                node.UnregisterTransport(transport);
                return TypedResults.NoContent();
            }),
            "tp-unreg", "Leaves a transport");
        Describe(routes.MapGet(Transport + "/channels", (int transport) =>
                List(node.ListChannels(transport), ChannelInfo.From)),
            "channel-list", "Lists the channels in use");
        Describe(routes.MapGet(Transport + "/flights", (int transport, int? device, int? backend, int? channel) =>
                List(node.ReadFlights(transport, new FlightFilter { Device = device, Backend = backend, Channel = channel }), FlightInfo.From)),
            "dump", "The last events of the channels of which this host has a side");
    }

    private static void MapHosts(IEndpointRouteBuilder routes, CheckedNode node)
    {
        Describe(routes.MapGet(Transport + "/hosts", (int transport) => List(node.ListHosts(transport), HostInfo.From)),
            "host-list", "Lists the hosts of a transport");
        Describe(routes.MapPost(Transport + "/hosts/{host}/clear", (int transport, int host, ClearRequest request) =>
            {
                node.ClearHost(transport, host, request.Force, request.Fenced);
                return TypedResults.NoContent();
            }),
            "host-clear", "Clears what a dead host left");
    }

    private static void MapBackends(IEndpointRouteBuilder routes, CheckedNode node)
    {
        const string backends = Transport + "/backends";
        Describe(routes.MapGet(backends, (int transport, bool? all) =>
                List(node.ListBackends(transport, all ?? false), BackendInfo.From)),
            "backend-list", "Lists the backends of this host, or of all hosts");
        Describe(routes.MapPost(backends, (int transport, BackendRequest request) =>
                new BackendStarted { BackendId = node.StartBackend(request.ToOptions(transport)) }),
            "backend-start", "Offers a disk");
        Describe(routes.MapPost(backends + "/{backend}/stop", (int transport, int backend, StopRequest request) =>
            {
                node.StopBackend(transport, backend, request.Force);
                return TypedResults.NoContent();
            }),
            "backend-stop", "Stops a backend of this host");
        Describe(routes.MapPost(backends + "/{backend}/clear", (int transport, int backend, ClearRequest request) =>
            {
                node.ClearBackend(transport, backend, request.Force, request.Fenced);
                return TypedResults.NoContent();
            }),
            "backend-clear", "Clears a backend whose owner is gone, or a latched flush failure");
        Describe(routes.MapPost(backends + "/{backend}/resize", (int transport, int backend, ResizeRequest request) =>
                BackendResized.From(node.ResizeBackend(transport, backend, request.SizeBytes))),
            "backend-resize", "Makes a served backend larger");
    }

    private static void MapFaults(IEndpointRouteBuilder routes, CheckedNode node)
    {
        Describe(routes.MapPut(Transport + "/backends/{backend}/faults", (int transport, int backend, FaultsRequest request) =>
            {
                node.SetFaults(transport, backend, request.Faults);
                return TypedResults.NoContent();
            }),
            "backend-fault", "Puts other faults in the place of those in force on a backend of this host");
    }

    private static void MapDevices(IEndpointRouteBuilder routes, CheckedNode node)
    {
        const string devices = Transport + "/devices";
        Describe(routes.MapGet(devices, (int transport, bool? all) =>
                List(node.ListDevices(transport, all ?? false), DeviceInfo.From)),
            "dev-list", "Lists the devices of this host, or of all hosts");
        Describe(routes.MapPost(devices, (int transport, DeviceRequest request) =>
            {
                var started = node.StartDevice(request.ToOptions(transport));
                return DeviceStarted.From(started);
            }),
            "dev-start", "Starts a device on a backend; answers when it can be used");
        Describe(routes.MapPost(devices + "/{device}/stop", (int transport, int device, StopRequest request) =>
            {
                node.StopDevice(transport, device, request.Force);
                return TypedResults.NoContent();
            }),
            "dev-stop", "Stops a device of this host");
        Describe(routes.MapPost(devices + "/{device}/clear", (int transport, int device, ClearRequest request) =>
            {
                node.ClearDevice(transport, device, request.Force, request.Fenced);
                return TypedResults.NoContent();
            }),
            "dev-clear", "Clears a device whose host is dead");
    }

    private static void Describe(RouteHandlerBuilder route, string verb, string summary)
    {
        route.WithName(verb).WithSummary(summary).WithTags("cbd");
        foreach (var kind in ErrorKinds.All)
            route.Produces<ControlProblem>(ErrorKinds.HttpStatus(kind), ControlServer.ProblemContentType);
    }

    private static TInfo[] List<TDescription, TInfo>(
        IReadOnlyList<TDescription> items, Func<TDescription, TInfo> from)
    {
        var infos = new TInfo[items.Count];
        for (var i = 0; i < infos.Length; i++)
            infos[i] = from(items[i]);
        return infos;
    }
}
