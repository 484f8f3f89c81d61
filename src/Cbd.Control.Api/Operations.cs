namespace Cbd.Control.Api;

/// <summary>Every operation of the control API. The server, the client and the description of the API are made from this table.</summary>
public static class Operations
{
    private const string Get = "GET";
    private const string Post = "POST";
    private const string Put = "PUT";
    private const string Delete = "DELETE";
    private const string Daemon = "/v1/daemon";
    private const string Wanted = "/v1/wanted";
    private const string Transports = "/v1/transports";
    private const string Transport = Transports + "/{transport}";
    private const string Hosts = Transport + "/hosts";
    private const string Backends = Transport + "/backends";
    private const string Backend = Backends + "/{backend}";
    private const string Devices = Transport + "/devices";
    private const string Device = Devices + "/{device}";

    public static readonly Operation<ControlRequest, IReadOnlyList<TransportDescription>> ListTransports =
        new("tp-list", Get, Transports, "Lists the transports this host is registered on");

    public static readonly Operation<RegisterTransportOptions, TransportStarted> RegisterTransport =
        new("tp-reg", Post, Transports, "Registers this host on a region, formatting it first if asked");

    public static readonly Operation<TransportTarget, TransportDescription> GetTransport =
        new("tp-info", Get, Transport, "Describes one transport");

    public static readonly Operation<TransportTarget, Done> UnregisterTransport =
        new("tp-unreg", Delete, Transport, "Leaves a transport", Done.Instance);

    public static readonly Operation<TransportTarget, IReadOnlyList<ChannelDescription>> ListChannels =
        new("channel-list", Get, Transport + "/channels", "Lists the channels in use");

    public static readonly Operation<FlightFilter, IReadOnlyList<FlightDescription>> ReadFlights =
        new("dump", Get, Transport + "/flights", "The last events of the channels of which this host has a side");

    public static readonly Operation<TransportTarget, IReadOnlyList<HostDescription>> ListHosts =
        new("host-list", Get, Hosts, "Lists the hosts of a transport");

    public static readonly Operation<ClearRequest, Done> ClearHost =
        new("host-clear", Post, Hosts + "/{host}/clear", "Clears what a dead host left", Done.Instance);

    public static readonly Operation<ListRequest, IReadOnlyList<BackendDescription>> ListBackends =
        new("backend-list", Get, Backends, "Lists the backends of this host, or of all hosts");

    public static readonly Operation<StartBackendOptions, BackendStarted> StartBackend =
        new("backend-start", Post, Backends, "Offers a disk");

    public static readonly Operation<StopRequest, StopAnswer> StopBackend =
        new("backend-stop", Post, Backend + "/stop", "Stops a backend of this host", StopAnswer.Gone);

    public static readonly Operation<ClearRequest, Done> ClearBackend =
        new("backend-clear", Post, Backend + "/clear", "Clears a backend whose owner is gone, or a latched flush failure", Done.Instance);

    public static readonly Operation<ResizeRequest, ResizedBackend> ResizeBackend =
        new("backend-resize", Post, Backend + "/resize", "Makes a served backend larger");

    public static readonly Operation<FaultsRequest, Done> SetFaults =
        new("backend-fault", Put, Backend + "/faults", "Puts other faults in the place of those in force on a backend of this host", Done.Instance);

    public static readonly Operation<ListRequest, IReadOnlyList<DeviceDescription>> ListDevices =
        new("dev-list", Get, Devices, "Lists the devices of this host, or of all hosts");

    public static readonly Operation<StartDeviceOptions, StartedDevice> StartDevice =
        new("dev-start", Post, Devices, "Starts a device on a backend; answers when it can be used");

    public static readonly Operation<StopRequest, StopAnswer> StopDevice =
        new("dev-stop", Post, Device + "/stop", "Stops a device of this host", StopAnswer.Gone);

    public static readonly Operation<ClearRequest, Done> ClearDevice =
        new("dev-clear", Post, Device + "/clear", "Clears a device whose host is dead", Done.Instance);

    public static readonly Operation<ControlRequest, WantedThings> ListWanted =
        new("wait", Get, Wanted, "Lists what this host should have, and where it stands");

    public static readonly Operation<ForgetRequest, Done> Forget =
        new("forget", Post, Wanted + "/forget", "Wants a thing no more that is not there", Done.Instance);

    public static readonly Operation<ControlRequest, DaemonDescription> GetDaemon =
        new("daemon-info", Get, Daemon, "Describes the process that answers");

    public static readonly Operation<UpgradeRequest, DaemonDescription> UpgradeDaemon =
        new("daemon-upgrade", Post, Daemon + "/upgrade", "Puts another program in the place of the one that runs; devices stay. Describes the old one");

    /// <summary>All of them, in the order of the description of the API.</summary>
    public static IReadOnlyList<Operation> All { get; } =
    [
        ListTransports, RegisterTransport, GetTransport, UnregisterTransport, ListChannels, ReadFlights, ListHosts, ClearHost,
        ListBackends, StartBackend, StopBackend, ClearBackend, ResizeBackend, SetFaults,
        ListDevices, StartDevice, StopDevice, ClearDevice,
        ListWanted, Forget,
        GetDaemon, UpgradeDaemon,
    ];
}
