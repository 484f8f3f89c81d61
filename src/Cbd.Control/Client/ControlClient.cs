using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using Cbd.Control.Json;
using Cbd.Memory;
using Cbd.Host;

namespace Cbd.Control.Client;

/// <summary>
/// The node of a daemon, over its control socket. Thread-safe, no connection is kept. Errors arrive as the
/// <see cref="CbdException"/> that the daemon threw; <see cref="NoDaemonException"/> if none answers.
/// </summary>
internal sealed class ControlClient(string socketPath) : INode
{
    private const string Transports = "/v1/transports";

    public int RegisterTransport(RegisterTransportOptions options) =>
        Post(Transports, TransportRequest.From(options), ControlJson.Default.TransportRequest, ControlJson.Default.TransportStarted).TransportId;

    public void UnregisterTransport(int transport) => Send("DELETE", At(transport), null);

    public IReadOnlyList<TransportDescription> ListTransports() =>
        Array.ConvertAll(Get(Transports, ControlJson.Default.TransportInfoArray), info => info.ToDescription());

    public TransportDescription GetTransport(int transport) =>
        Get(At(transport), ControlJson.Default.TransportInfo).ToDescription();

    public IReadOnlyList<HostDescription> ListHosts(int transport) =>
        Array.ConvertAll(Get(At(transport) + "/hosts", ControlJson.Default.HostInfoArray), info => info.ToDescription());

    public void ClearHost(int transport, int host, bool force, bool fenced) =>
        Clear($"{At(transport)}/hosts/{host}/clear", force, fenced);

    public int StartBackend(StartBackendOptions options) => Post(
        At(options.Transport) + "/backends", BackendRequest.From(options),
        ControlJson.Default.BackendRequest, ControlJson.Default.BackendStarted).BackendId;

    public void StopBackend(int transport, int backend, bool force) =>
        Stop($"{At(transport)}/backends/{backend}/stop", force);

    public void ClearBackend(int transport, int backend, bool force, bool fenced) =>
        Clear($"{At(transport)}/backends/{backend}/clear", force, fenced);

    public ResizedBackend ResizeBackend(int transport, int backend, long? sizeBytes)
    {
        var resized = Post(
            $"{At(transport)}/backends/{backend}/resize", new ResizeRequest { SizeBytes = sizeBytes },
            ControlJson.Default.ResizeRequest, ControlJson.Default.BackendResized);
        return new ResizedBackend(resized.SizeBytes, resized.Note ?? "");
    }

    public void SetFaults(int transport, int backend, IReadOnlyList<string> faults) => Send(
        "PUT", $"{At(transport)}/backends/{backend}/faults", Serialize(new FaultsRequest { Faults = faults }, ControlJson.Default.FaultsRequest));

    public IReadOnlyList<BackendDescription> ListBackends(int transport, bool all) => Array.ConvertAll(
        Get($"{At(transport)}/backends?all={Text(all)}", ControlJson.Default.BackendInfoArray), info => info.ToDescription());

    public StartedDevice StartDevice(StartDeviceOptions options)
    {
        var started = Post(
            At(options.Transport) + "/devices", DeviceRequest.From(options),
            ControlJson.Default.DeviceRequest, ControlJson.Default.DeviceStarted);
        return new StartedDevice(started.BlkdevId, started.DevName, started.Note ?? "");
    }

    public void StopDevice(int transport, int device, bool force) =>
        Stop($"{At(transport)}/devices/{device}/stop", force);

    public void ClearDevice(int transport, int device, bool force, bool fenced) =>
        Clear($"{At(transport)}/devices/{device}/clear", force, fenced);

    public IReadOnlyList<DeviceDescription> ListDevices(int transport, bool all) => Array.ConvertAll(
        Get($"{At(transport)}/devices?all={Text(all)}", ControlJson.Default.DeviceInfoArray), info => info.ToDescription());

    public IReadOnlyList<ChannelDescription> ListChannels(int transport) =>
        Array.ConvertAll(Get(At(transport) + "/channels", ControlJson.Default.ChannelInfoArray), info => info.ToDescription());

    public IReadOnlyList<FlightDescription> ReadFlights(int transport, FlightFilter filter)
    {
        string query = string.Join('&', new[] { ("device", filter.Device), ("backend", filter.Backend), ("channel", filter.Channel) }
            .Where(part => part.Item2 is not null).Select(part => $"{part.Item1}={part.Item2}"));
        return Array.ConvertAll(Get($"{At(transport)}/flights?{query}", ControlJson.Default.FlightInfoArray), info => info.ToDescription());
    }

    /// <summary>Nothing: the daemon's node lives on.</summary>
    public void Dispose()
    {
    }

    private static string At(int transport) => $"{Transports}/{transport}";

    private static string Text(bool value) => value ? "true" : "false";

    private void Stop(string target, bool force) =>
        Send("POST", target, Serialize(new StopRequest { Force = force }, ControlJson.Default.StopRequest));

    private void Clear(string target, bool force, bool fenced) =>
        Send("POST", target, Serialize(new ClearRequest { Force = force, Fenced = fenced }, ControlJson.Default.ClearRequest));

    private T Get<T>(string target, JsonTypeInfo<T> type) => Read(Send("GET", target, null), type);

    private TAnswer Post<TRequest, TAnswer>(
        string target, TRequest request, JsonTypeInfo<TRequest> requestType, JsonTypeInfo<TAnswer> answerType) =>
        Read(Send("POST", target, Serialize(request, requestType)), answerType);

    private byte[] Send(string method, string target, byte[]? body)
    {
        var (status, answer) = HttpExchange.Send(socketPath, method, target, body);
        if (status is >= 200 and < 300)
            return answer;
        throw Read(answer, ControlJson.Default.ControlProblem).ToException();
    }

    private static byte[] Serialize<T>(T request, JsonTypeInfo<T> type) => JsonSerializer.SerializeToUtf8Bytes(request, type);

    private static T Read<T>(byte[] answer, JsonTypeInfo<T> type)
    {
        try
        {
            return JsonSerializer.Deserialize(answer, type)
                ?? throw new CbdException(CbdErrorKind.Corrupt, "the daemon answered null; are cbdctrl and cbdd of one version?");
        }
        catch (JsonException e)
        {
            throw new CbdException(CbdErrorKind.Corrupt, $"the daemon's answer is not the JSON it must be ({e.Message}); are cbdctrl and cbdd of one version?", e);
        }
    }
}
