using System.Text.Json;
using Cbd.Memory;
using Cbd.Host;
using Xunit;

namespace Cbd.Tests.Control;

/// <summary>Golden texts: keys may be added, none renamed.</summary>
public sealed class JsonOfTheControlApi
{
    private static readonly ListedNode Node = NewNode();

    private static ListedNode NewNode()
    {
        var node = new ListedNode();
        node.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/dev/shm/r" });
        node.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdb" });
        node.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0 });
        return node;
    }

    /// <summary>As the daemon's routes write it.</summary>
    private static string Served<T>(T value) => JsonSerializer.Serialize(value, ControlJson.Plain.Of<T>());

    [Fact]
    public void A_transport() => Assert.Equal(
        """
        {"transport_id":0,"magic":"0x123456789abcdef0","version":1,"flags":"0x00000001","host_area_off":4096,
        "bytes_per_host_info":512,"host_num":16,"backend_area_off":12288,"bytes_per_backend_info":4096,"backend_num":32,
        "blkdev_area_off":143360,"bytes_per_blkdev_info":512,"blkdev_num":32,"channel_area_off":262144,
        "bytes_per_channel":4194304,"channel_num":64,"host_id":3,"my_host_id":3,"path":"/dev/shm/r","coherence":"hardware",
        "uuid":"00112233-4455-6677-8899-aabbccddeeff","hostname":"alpha","size_bytes":536870912,"ring_slots":128,
        "payload_crc":true,"failure":"","state":"running","quarantined_hosts":0,"quarantined_backends":0,"quarantined_blkdevs":0,
        "quarantined_channels":0,"reason":null,"since":null,"log_lost":0}
        """.ReplaceLineEndings(""),
        Served(Node.Execute(Operations.GetTransport, new TransportTarget())));

    [Fact]
    public void Hosts() => Assert.Equal(
        """
        [{"host_id":3,"hostname":"alpha","alive":"alive","state":"ACTIVE","mine":true,"quarantined":0},
        {"host_id":4,"hostname":"beta","alive":"unknown","state":"ACTIVE","mine":false,"quarantined":0}]
        """.ReplaceLineEndings(""),
        Served(Node.Execute(Operations.ListHosts, new TransportTarget())));

    [Fact]
    public void Backends() => Assert.Equal(
        """
        [{"backend_id":0,"host_id":3,"name":null,"backend_path":"/dev/sdb","disk_identity":"file:/dev/sdb","alive":"alive","blkdevs":[],"state":"ACTIVE",
        "size_bytes":1073741824,"block_size":512,"read_only":false,"handlers":1,"engine":"io_uring","flush_error":0,
        "session":0,"stopped":false,"cpu_us":null,"allocated_bytes":null,"faults":null,
        "reason":null,"since":null}]
        """.ReplaceLineEndings(""),
        Served(Node.Execute(Operations.ListBackends, new ListRequest { All = true })));

    [Fact]
    public void Faults_of_a_backend()
    {
        using var node = new ListedNode();
        node.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/dev/shm/r" });
        node.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdb", Faults = ["error,op=write,errno=EIO"] });
        IReadOnlyList<BackendDescription> backends = node.Execute(Operations.ListBackends, new ListRequest());
        Assert.Contains("\"faults\":[{\"spec\":\"error,op=write,errno=EIO\",\"struck\":2}],", Served(backends), StringComparison.Ordinal);
        Assert.Equivalent(backends, ThereAndBack(backends), strict: true);
    }

    [Fact]
    public void Flight_recorders()
    {
        IReadOnlyList<FlightDescription> flights = Node.Execute(Operations.ReadFlights, new FlightFilter());
        Assert.StartsWith(
            """
            [{"transport_id":0,"channel_id":4,"side":"queue","backend_id":2,"blkdev_id":1,"recorded":700,"events":[
            {"time":"2026-01-02T03:04:05.006Z","event":"issued","epoch":9,"sequence":12,"operation":"write","flags":"fua",
            "offset":8192,"length":4096,"tag":3,"error":0,"detail":""},
            """.ReplaceLineEndings(""),
            Served(flights), StringComparison.Ordinal);
        Assert.Equivalent(flights, ThereAndBack(flights), strict: true);
    }

    [Fact]
    public void Devices() => Assert.Equal(
        """
        [{"blkdev_id":0,"host_id":3,"backend_id":0,"name":"cbd0","dev_name":"nbd+unix:///?socket=/run/cbd/cbd0.nbd","node":"","alive":"alive",
        "state":"running","queues":2,"size_bytes":1073741824,"read_only":false,"loss":"","on_backend_loss":null,"loss_timeout":null,"note":null,
        "reason":null,"since":null}]
        """.ReplaceLineEndings(""),
        Served(Node.Execute(Operations.ListDevices, new ListRequest { All = true })));

    [Fact]
    public void Channels() => Assert.Equal(
        """
        [{"channel_id":0,"blkdev_id":1,"backend_id":2,"state":"ATTACHED","epoch":1099511627775,"outstanding":17,
        "quarantined":false,"host_id":3}]
        """.ReplaceLineEndings(""),
        Served(Node.Execute(Operations.ListChannels, new TransportTarget())));

    [Fact]
    public void A_transport_is_the_same_after_the_way_there_and_back()
    {
        TransportDescription transport = Node.Execute(Operations.GetTransport, new TransportTarget());
        Assert.Equal(transport, ThereAndBack(transport));
    }

    [Fact]
    public void A_device_is_the_same_after_the_way_there_and_back()
    {
        DeviceDescription device = Node.Execute(Operations.ListDevices, new ListRequest { All = true })[0] with
        {
            State = "failing",
            Loss = "its host is gone",
            OnBackendLoss = OnBackendLoss.Queue,
            LossTimeoutSeconds = 30,
            Reason = "its host is gone",
            Since = new DateTime(2026, 1, 2, 3, 4, 5, DateTimeKind.Utc),
        };
        Assert.Equal(device, ThereAndBack<IReadOnlyList<DeviceDescription>>([device])[0]);
        Assert.EndsWith(
            "\"on_backend_loss\":\"queue\",\"loss_timeout\":30,\"note\":null,\"reason\":\"its host is gone\",\"since\":\"2026-01-02T03:04:05Z\"}]",
            Served<IReadOnlyList<DeviceDescription>>([device]), StringComparison.Ordinal);
        device = device with { OnBackendLoss = OnBackendLoss.Fail, LossTimeoutSeconds = 0, Note = "", Reason = "" };
        Assert.Null(device.Note ?? device.Reason);
        Assert.Equal(device, ThereAndBack<IReadOnlyList<DeviceDescription>>([device])[0]);
    }

    [Fact]
    public void A_magic_that_is_no_number_is_refused() =>
        Assert.Throws<JsonException>(() => JsonSerializer.Deserialize(
            Served(Node.Execute(Operations.GetTransport, new TransportTarget())).Replace("0x123456789abcdef0", "0x12", StringComparison.Ordinal),
            ControlJson.Default.TransportDescription));

    private static T ThereAndBack<T>(T value) => JsonSerializer.Deserialize(Served(value), ControlJson.Plain.Of<T>())!;

    [Theory]
    [InlineData("""{"path":"/d","colour":1}""")]
    [InlineData("""{"path":"/d","path":"/e"}""")]
    [InlineData("""{"handlers":2}""")]
    [InlineData("""{"path":null}""")]
    [InlineData("""{"path":"/d","handlers":"2"}""")]
    [InlineData("""{"path":"/d","handlers":99999999999}""")]
    public void A_request_with_an_unknown_repeated_missing_or_mistyped_key_is_refused(string body) =>
        Assert.Throws<JsonException>(() => JsonSerializer.Deserialize(body, ControlJson.Default.StartBackendOptions));

    [Fact]
    public void What_a_request_leaves_out_has_its_default()
    {
        Assert.Equal(
            new StartBackendOptions { Path = "/d" },
            JsonSerializer.Deserialize("""{"path":"/d"}""", ControlJson.Default.StartBackendOptions));
        Assert.Equal(
            new RegisterTransportOptions { Host = "a", Path = "/r" },
            JsonSerializer.Deserialize("""{"path":"/r","host":"a"}""", ControlJson.Default.RegisterTransportOptions));
        Assert.Equal(
            new StartDeviceOptions { Backend = 1 },
            JsonSerializer.Deserialize("""{"backend_id":1}""", ControlJson.Default.StartDeviceOptions));
    }

    [Fact]
    public void An_answer_may_have_keys_of_a_later_version() => Assert.Equal(
        5, JsonSerializer.Deserialize("""{"backend_id":5,"later":true}""", ControlJson.Default.BackendStarted)!.BackendId);
}
