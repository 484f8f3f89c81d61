using System.Diagnostics;
using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Cbd.Control.Api.Client;
using Cbd.Control.Server;
using Cbd.Memory;
using Cbd.Host;
using Cbd.Tests.Host;
using Xunit;

namespace Cbd.Tests.Control;

/// <summary>The real server and the real client, with lists instead of a node behind them.</summary>
public sealed class ControlOverTheSocket : IAsyncLifetime
{
    private readonly TemporaryDirectory _directory = new();
    private readonly ListedNode _node = new();
    private readonly WrittenLog _log = new();
    private ControlServer _server = null!;

    private string SocketPath => _directory.File("cbdd.sock");

    private ControlClient Client => new(SocketPath);

    public async ValueTask InitializeAsync() => _server = await StartAsync(new PeerAccess(ControlSyscalls.EffectiveUserId));

    public async ValueTask DisposeAsync()
    {
        await _server.DisposeAsync();
        _directory.Dispose();
    }

    private Task<ControlServer> StartAsync(PeerAccess access, IControl? control = null) =>
        ControlServer.StartAsync(new CheckedControl(control ?? _node), SocketPath, access, _log);

    private (int Status, JsonElement Body) Ask(string method, string target, string? body = null)
    {
        var (status, answer) = HttpExchange.Send(SocketPath, method, target, body is null ? null : Encoding.UTF8.GetBytes(body));
        return (status, JsonDocument.Parse(answer).RootElement);
    }

    [Fact]
    public async Task A_verb_may_take_its_time_while_the_daemon_answers()
    {
        await _server.DisposeAsync();
        _server = await StartAsync(new PeerAccess(ControlSyscalls.EffectiveUserId), new InterceptedControl(_node, request =>
        {
            Thread.Sleep(1_500);
            return request;
        }));
        Assert.Equal(200, HttpExchange.Send(SocketPath, "GET", "/v1/transports", null, silenceMs: 500, patienceMs: 600_000).Status);
    }

    [Fact]
    public async Task A_hundred_starts_that_take_long_keep_no_list_and_no_stop_waiting()
    {
        using var end = new ManualResetEventSlim();
        await _server.DisposeAsync();
        _server = await StartAsync(new PeerAccess(ControlSyscalls.EffectiveUserId), new InterceptedControl(_node, request =>
        {
            if (request is RegisterTransportOptions)
                end.Wait(TestContext.Current.CancellationToken);
            return request;
        }));
        List<Socket> verbs = Many(100, "POST /v1/transports HTTP/1.1\r\nHost: cbdd\r\nContent-Type: application/json\r\nContent-Length: 28\r\n\r\n{\"host\":\"a\",\"path\":\"/dev/r\"}");
        try
        {
            Assert.Equal(200, HttpExchange.Send(SocketPath, "GET", "/v1/transports", null).Status);
            // There is none of that number, which is an answer.
            Assert.Equal(404, HttpExchange.Send(SocketPath, "DELETE", "/v1/transports/0/backends/9", null).Status);
        }
        finally
        {
            end.Set();
            verbs.ForEach(verb => verb.Dispose());
        }
    }

    [Theory]
    [InlineData("")]
    [InlineData("GET /v1/trans")]
    [InlineData("POST /v1/transports HTTP/1.1\r\nHost: cbdd\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{")]
    public void More_clients_than_there_may_be_that_do_nothing_make_room_for_one_that_does(string text)
    {
        int limit = ControlConnections.LimitFor(ProcessLimits.OpenFiles);
        List<Socket> silent = Many(limit + 1, text);
        try
        {
            Assert.Equal(200, HttpExchange.Send(SocketPath, "GET", "/v1/transports", null).Status);
            // Which of them is not said: they are taken in side by side.
            Eventually.True(() => silent.Any(static client => client.Poll(0, SelectMode.SelectRead)));
        }
        finally
        {
            silent.ForEach(client => client.Dispose());
        }
    }

    private List<Socket> Many(int count, string text)
    {
        var clients = new List<Socket>();
        for (var i = 0; i < count; i++)
        {
            clients.Add(new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified));
            clients[i].Connect(new UnixDomainSocketEndPoint(SocketPath));
            if (text.Length != 0)
                clients[i].Send(Encoding.ASCII.GetBytes(text));
        }

        return clients;
    }

    [Fact]
    public void A_daemon_that_is_there_and_does_not_answer_is_an_error_of_its_own()
    {
        var path = _directory.File("deaf.sock");
        using var deaf = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        deaf.Bind(new UnixDomainSocketEndPoint(path));
        deaf.Listen(0);
        // The second finds the queue full, and cannot even connect.
        for (var i = 0; i < 2; i++)
        {
            var error = Assert.Throws<CbdException>(() => HttpExchange.Send(path, "GET", "/v1/transports", null, silenceMs: 100, patienceMs: 100));
            Assert.Equal(CbdErrorKind.TimedOut, error.Kind);
            Assert.Contains($"the daemon on '{path}' is there and does not answer within 0.2 s", error.Message);
        }
    }

    [Fact]
    public void Every_call_reaches_the_node_with_its_arguments_and_its_answer_comes_back()
    {
        var register = new RegisterTransportOptions
        {
            Host = "alpha",
            Path = "/dev/shm/r",
            Format = true,
            Force = true,
            SizeBytes = 1L << 40,
            Hosts = 2,
            Backends = 3,
            Blkdevs = 4,
            Channels = 5,
            ChannelSizeBytes = 1 << 20,
            RingSlots = 64,
            PayloadCrc = false,
            Coherence = "hardware",
        };
        var backend = new StartBackendOptions
        {
            Path = "/dev/sdb",
            Handlers = 128,
            Backend = 9,
            ReadOnly = true,
            Engine = "pread",
            BlockBytes = 4096,
            Fenced = true,
            Mode = PollMode.Sleep,
        };
        var device = new StartDeviceOptions
        {
            Backend = 9,
            Queues = 128,
            Nbd = "unix:/run/x.nbd",
            Tls = new TlsOptions { Require = false, Certificates = "/pki", VerifyPeer = true, Allow = ["alice", "bob"] },
            NbdConnections = 7,
            NbdHandshakeSeconds = 30,
            Insecure = true,
            ReadOnly = true,
            Mode = PollMode.Busy,
            OnBackendLoss = OnBackendLoss.Queue,
            LossTimeoutSeconds = 60,
        };
        var client = Client;
        Assert.Equal(0, client.Execute(Operations.RegisterTransport, register).TransportId);
        Assert.Equal(9, client.Execute(Operations.StartBackend, backend).BackendId);
        Assert.Equal(new StartedDevice(0, "unix:/run/x.nbd", Name: "cbd0"), client.Execute(Operations.StartDevice, device));
        SameFromBoth(Operations.ListTransports, new ControlRequest());
        SameFromBoth(Operations.GetTransport, new TransportTarget());
        SameFromBoth(Operations.ListHosts, new TransportTarget());
        SameFromBoth(Operations.ListBackends, new ListRequest { All = true });
        SameFromBoth(Operations.ListDevices, new ListRequest { All = true });
        SameFromBoth(Operations.ListChannels, new TransportTarget());
        SameFromBoth(Operations.ReadFlights, new FlightFilter { Device = 5, Channel = 6 });
        client.Execute(Operations.SetFaults, new FaultsRequest { Id = 9, Faults = ["delay,ms=1", "error,op=flush"] });
        client.Execute(Operations.ClearHost, new ClearRequest { Id = 1, Force = true });
        client.Execute(Operations.ClearBackend, new ClearRequest { Id = 1, Fenced = true });
        Assert.Equal(new ResizedBackend(1L << 41), client.Execute(Operations.ResizeBackend, new ResizeRequest { Id = 9, SizeBytes = 1L << 41 }));
        Assert.Equal(new ResizedBackend(7, "device 0: keeps its old size"), client.Execute(Operations.ResizeBackend, new ResizeRequest { Id = 9, SizeBytes = 7 }));
        Assert.Equal(2147483648, client.Execute(Operations.ResizeBackend, new ResizeRequest { Id = 9 }).SizeBytes);
        client.Execute(Operations.ClearDevice, new ClearRequest { Id = 1, Force = true, Fenced = true });
        client.Execute(Operations.StopDevice, new StopRequest { Id = 0, Force = true });
        client.Execute(Operations.StopBackend, new StopRequest { Id = 9 });
        client.Execute(Operations.UnregisterTransport, new TransportTarget());
        Assert.Equal(
            [
                $"{register}", $"{backend}", $"{device}", $"{new FlightFilter { Device = 5, Channel = 6 }}", $"{new FlightFilter { Device = 5, Channel = 6 }}",
                "set faults 0 9 delay,ms=1 error,op=flush", "clear host 0 1 True False", "clear backend 0 1 False True",
                "resize backend 0 9 2199023255552", "resize backend 0 9 7", "resize backend 0 9 ",
                "clear device 0 1 True True", "stop device 0 0 True", "stop backend 0 9 False", "unregister 0",
            ],
            _node.Calls);
    }

    private void SameFromBoth<TRequest, TAnswer>(Operation<TRequest, TAnswer> operation, TRequest request)
        where TRequest : ControlRequest
        where TAnswer : class =>
        Assert.Equivalent(_node.Execute(operation, request), Client.Execute(operation, request), strict: true);

    [Fact]
    public void Lists_of_this_host_and_of_all_hosts_differ()
    {
        var client = Client;
        client.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "a", Path = "/r" });
        _node.AddForeignBackend(0, 3, "/dev/sdz", "dead");
        Assert.Empty(client.Execute(Operations.ListBackends, new ListRequest()));
        Assert.Equal("dead", Assert.Single(client.Execute(Operations.ListBackends, new ListRequest { All = true })).Alive);
    }

    [Theory]
    [InlineData(CbdErrorKind.Busy)]
    [InlineData(CbdErrorKind.Exhausted)]
    [InlineData(CbdErrorKind.TimedOut)]
    public void An_error_of_the_node_arrives_as_it_was_thrown(CbdErrorKind kind)
    {
        _node.Failure = new CbdException(kind, "host 'ä' is taken by a live host; choose another name");
        var client = Client;
        var error = Assert.Throws<CbdException>(() =>
            client.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "ä", Path = "/r" }));
        Assert.Equal(kind, error.Kind);
        Assert.Equal("host 'ä' is taken by a live host; choose another name", error.Message);
    }

    [Fact]
    public void Errors_are_problem_details_with_a_kind()
    {
        var (status, problem) = Ask("GET", "/v1/transports/7");
        Assert.Equal(404, status);
        Assert.Equal("not_found", problem.GetProperty("kind").GetString());
        Assert.Equal(404, problem.GetProperty("status").GetInt32());
        Assert.Equal("there is no transport 7; tp-list shows those that are", problem.GetProperty("detail").GetString());
    }

    [Fact]
    public void What_is_still_stopping_is_answered_as_no_answer_in_time_with_the_reason()
    {
        var client = Client;
        client.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "a", Path = "/r" });
        client.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/d" });
        _node.StopAnswer = StopAnswer.Stopping("backend 0 is stopping: the disk does not answer");
        var (status, problem) = Ask("POST", "/v1/transports/0/backends/0/stop", "{}");
        Assert.Equal(504, status);
        Assert.Equal("timed_out", problem.GetProperty("kind").GetString());
        Assert.Equal("backend 0 is stopping: the disk does not answer", problem.GetProperty("detail").GetString());
    }

    [Theory]
    [InlineData("GET", "/v1/transports/0/flights?channel=-1", null, 400, "channel id -1 is negative")]
    [InlineData("POST", "/v1/transports/0/backends", """{"path":"/d","mode":"lazy"}""", 400, "mode is 'lazy': use adaptive, busy or sleep")]
    [InlineData("POST", "/v1/transports/0/backends", """{"path":"/d","mode":1}""", 400, "not the JSON it must be")]
    [InlineData("POST", "/v1/transports/0/backends", """{"path":"/d","transport":1}""", 400, "transport")]
    [InlineData("POST", "/v1/transports/0/backends/0/stop", """{"id":1}""", 400, "id")]
    [InlineData("POST", "/v1/transports/0/devices", """{"backend_id":0,"attach":"scsi"}""", 400, "attach 'scsi' is not known; use auto, ublk, nbd, fuse or none")]
    [InlineData("PUT", "/v1/transports/0/backends/0/faults", """{"faults":["melt"]}""", 400, "fault 'melt'")]
    [InlineData("GET", "/v1/transports/x", null, 400, "Failed to bind parameter")]
    [InlineData("GET", "/v1/transports/99999999999", null, 400, "Failed to bind parameter")]
    [InlineData("GET", "/v1/transports/-1", null, 400, "transport id -1 is negative")]
    [InlineData("GET", "/v1/transports/0/backends?all=perhaps", null, 400, "backends?all=perhaps has an argument that is not right")]
    [InlineData("GET", "/v1/nothing", null, 404, "there is no GET /v1/nothing")]
    [InlineData("GET", "/", null, 404, "there is no GET /")]
    [InlineData("PUT", "/v1/transports", null, 405, "PUT /v1/transports is not a method of it")]
    [InlineData("POST", "/v1/transports", null, 400, "not right")]
    [InlineData("POST", "/v1/transports", "{", 400, "not the JSON it must be")]
    [InlineData("POST", "/v1/transports", "null", 400, "the request is not right")]
    [InlineData("POST", "/v1/transports", """{"host":"a"}""", 400, "path")]
    [InlineData("POST", "/v1/transports", """{"host":"a","path":"/r","colour":1}""", 400, "colour")]
    [InlineData("POST", "/v1/transports", """{"host":"","path":"/r"}""", 400, "the host name is empty")]
    [InlineData("POST", "/v1/transports", """{"host":"a","path":"r"}""", 400, "the region path 'r' is relative")]
    [InlineData("POST", "/v1/transports", """{"host":"a","path":"/r","format":true,"channels":0}""", 400, "number of channels is 0; it must be 1 to 32768")]
    [InlineData("POST", "/v1/transports", """{"host":"a","path":"/r","size_bytes":4096}""", 400, "--size is chosen when a region is formatted")]
    [InlineData("POST", "/v1/transports", """{"host":"a","path":"/r","coherence":"software"}""", 400, "only 'hardware'")]
    [InlineData("POST", "/v1/transports/0/backends", """{"path":"/d","handlers":0}""", 400, "number of handlers is 0; it must be 1 to 128")]
    [InlineData("POST", "/v1/transports/0/backends", """{"path":"/d","handlers":129}""", 400, "number of handlers is 129")]
    [InlineData("POST", "/v1/transports/0/backends", """{"path":"/d","backend_id":-1}""", 400, "backend id -1 is negative")]
    [InlineData("POST", "/v1/transports/0/backends", """{"path":"/d","block_size":513}""", 400, "block size 513")]
    [InlineData("POST", "/v1/transports/0/backends/0/resize", """{"size_bytes":0}""", 400, "the size of the disk is 0; it must be at least 1")]
    [InlineData("POST", "/v1/transports/0/backends/0/resize", """{"size":4096}""", 400, "size")]
    [InlineData("POST", "/v1/transports/0/backends/-1/resize", "{}", 400, "backend id -1 is negative")]
    [InlineData("POST", "/v1/transports/0/backends", """{"path":"/d","engine":"aio"}""", 400, "engine 'aio'")]
    [InlineData("POST", "/v1/transports/0/backends", """{"path":""}""", 400, "the disk path is empty")]
    [InlineData("POST", "/v1/transports/0/devices", """{"backend_id":0,"queues":0}""", 400, "number of queues is 0; it must be 1 to 128")]
    [InlineData("POST", "/v1/transports/0/devices", """{"backend_id":0,"queues":129}""", 400, "number of queues is 129")]
    [InlineData("POST", "/v1/transports/0/devices", """{"backend_id":-5}""", 400, "backend id -5 is negative")]
    [InlineData("POST", "/v1/transports/0/devices", """{"backend_id":0,"nbd":"http://x"}""", 400, "NBD address 'http://x'")]
    [InlineData("POST", "/v1/transports/0/devices/-1/stop", "{}", 400, "device id -1 is negative")]
    [InlineData("POST", "/v1/transports/0/backends/-1/stop", "{}", 400, "backend id -1 is negative")]
    [InlineData("POST", "/v1/transports/0/hosts/-1/clear", "{}", 400, "host id -1 is negative")]
    public void A_wrong_request_is_answered_with_one_line_and_does_not_reach_the_node(
        string method, string target, string? body, int status, string reason)
    {
        var (answered, problem) = Ask(method, target, body);
        Assert.Equal(status, answered);
        var detail = problem.GetProperty("detail").GetString()!;
        Assert.Contains(reason, detail);
        Assert.DoesNotContain('\n', detail);
        Assert.Empty(_node.Calls);
    }

    [Fact]
    public void A_body_over_the_limit_is_refused_and_the_daemon_goes_on()
    {
        var body = $$"""{"host":"a","path":"/{{new string('x', ControlServer.MaxBodyBytes)}}"}""";
        var (status, problem) = Ask("POST", "/v1/transports", body);
        Assert.Equal(413, status);
        Assert.Contains($"longer than {ControlServer.MaxBodyBytes} bytes", problem.GetProperty("detail").GetString());
        Assert.Empty(Client.Execute(Operations.ListTransports, new ControlRequest()));
    }

    [Fact]
    public void Garbage_ends_its_own_connection_only()
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        socket.Connect(new UnixDomainSocketEndPoint(SocketPath));
        socket.Send("\0\u0001\u0002 not http\r\n\r\n"u8);
        var answer = new byte[4096];
        var length = 0;
        for (int received; (received = socket.Receive(answer.AsSpan(length))) > 0;)
            length += received;
        Assert.StartsWith("HTTP/1.1 400", Encoding.ASCII.GetString(answer, 0, length), StringComparison.Ordinal);
        Assert.Empty(Client.Execute(Operations.ListTransports, new ControlRequest()));
    }

    [Fact]
    public async Task A_bug_behind_a_route_is_an_answer_and_a_log_line_and_not_the_end()
    {
        await _server.DisposeAsync();
        _server = await StartAsync(new PeerAccess(ControlSyscalls.EffectiveUserId), new InterceptedControl(_node, request =>
            request is StartBackendOptions ? throw new InvalidOperationException("the writer word is its own") : request));
        var client = Client;
        client.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "a", Path = "/r" });
        var error = Assert.Throws<CbdException>(() => client.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/d" }));
        Assert.Equal("this is a bug in cbdd, please report it: InvalidOperationException: the writer word is its own", error.Message);
        Assert.Contains("error control: POST /v1/transports/0/backends failed inside: System.InvalidOperationException", _log.ToString());
        Assert.Single(client.Execute(Operations.ListTransports, new ControlRequest()));
    }

    [Fact]
    public async Task A_client_without_the_right_is_refused_by_name()
    {
        Assert.SkipUnless(Environment.IsPrivilegedProcess, "needs root, to become another user");
        Assert.SkipUnless(File.Exists("/usr/bin/curl"), "needs curl");
        await _server.DisposeAsync();
        // A group that nobody is in, and a mode that lets everybody through: only the check of the peer is left.
        _server = await StartAsync(new PeerAccess(0, new SocketGroup("storage", 54321)));
        File.SetUnixFileMode(SocketPath, (UnixFileMode)0b110_110_110);
        File.SetUnixFileMode(_directory.Path, (UnixFileMode)0b111_101_101);
        var (exit, output) = AsNobody("curl", "-s", "-i", "--unix-socket", SocketPath, "http://cbdd/v1/transports");
        Assert.Equal(0, exit);
        Assert.Contains("403 Forbidden", output);
        Assert.Contains("control client without the right: uid 65534 may not use this daemon; run it as root, or add that user", output);
        Assert.Empty(_node.Calls);
    }

    [Fact]
    public async Task The_socket_is_0600_or_0660_with_a_group()
    {
        Assert.Equal(UnixFileMode.UserRead | UnixFileMode.UserWrite, File.GetUnixFileMode(SocketPath));
        if (!Environment.IsPrivilegedProcess)
            return;
        await _server.DisposeAsync();
        _server = await StartAsync(new PeerAccess(0, new SocketGroup("storage", 54321)));
        Assert.Equal(
            UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.GroupWrite,
            File.GetUnixFileMode(SocketPath));
        Assert.Equal("54321", Output("stat", "-c", "%g", SocketPath).Trim());
    }

    [Fact]
    public async Task The_socket_goes_with_the_server()
    {
        await _server.DisposeAsync();
        Assert.False(File.Exists(SocketPath));
        var error = Assert.Throws<NoDaemonException>(() => Client.Execute(Operations.ListTransports, new ControlRequest()));
        Assert.Equal(
            $"no daemon answers on '{SocketPath}' (there is no socket); start one with: cbdd --run-dir {_directory.Path}", error.Message);
        _server = await StartAsync(new PeerAccess(ControlSyscalls.EffectiveUserId));
    }

    [Fact]
    public void The_OpenAPI_document_is_the_one_in_docs()
    {
        var (status, body) = HttpExchange.Send(SocketPath, "GET", OpenApiDocument.Path, null);
        Assert.Equal(200, status);
        var served = Encoding.UTF8.GetString(body).ReplaceLineEndings("\n").TrimEnd('\n') + "\n";
        var path = Path.Combine(RepositoryRoot(), "docs", "openapi.json");
        if (Environment.GetEnvironmentVariable("CBD_UPDATE_SNAPSHOTS") == "1")
            File.WriteAllText(path, served);
        Assert.True(File.ReadAllText(path) == served,
            "docs/openapi.json is not what the daemon serves; look at the change, then run this test with CBD_UPDATE_SNAPSHOTS=1");
    }

    private static string RepositoryRoot()
    {
        var directory = AppContext.BaseDirectory;
        while (!File.Exists(Path.Combine(directory, "Cbd.slnx")))
            directory = Path.GetDirectoryName(directory) ?? throw new InvalidOperationException("no Cbd.slnx above the tests");
        return directory;
    }

    private static (int Exit, string Output) AsNobody(params string[] words) => Start("setpriv",
        ["--reuid", "65534", "--regid", "65534", "--clear-groups", "--", .. words]);

    private static string Output(string program, params string[] words) => Start(program, words).Output;

    private static (int Exit, string Output) Start(string program, string[] words)
    {
        using var process = Process.Start(new ProcessStartInfo(program, words) { RedirectStandardOutput = true })!;
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output);
    }
}
