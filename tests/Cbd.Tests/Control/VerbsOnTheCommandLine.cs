using System.CommandLine.Help;
using Cbd.Control.Verbs;
using Cbd.Memory;
using Cbd.Host;
using Cbd.Tests.Architecture;
using Xunit;

namespace Cbd.Tests.Control;

public sealed class VerbsOnTheCommandLine : IDisposable
{
    private readonly VerbSet _verbs = VerbSet.ForDaemon();
    private readonly ListedNode _node = new();

    public void Dispose() => _node.Dispose();

    private string Run(string line, bool toTerminal = false)
    {
        var output = new StringWriter();
        _verbs.ParseLine(line).Execute(_node, new VerbOutput(output, toTerminal));
        return output.ToString();
    }

    private string Refused(string line)
    {
        var error = Assert.Throws<CbdException>(() => Run(line));
        Assert.Equal(CbdErrorKind.Invalid, error.Kind);
        Assert.DoesNotContain('\n', error.Message);
        Assert.Empty(_node.Calls);
        return error.Message;
    }

    [Fact]
    public void Every_verb_of_the_design_is_there() => Assert.Equal(
        [
            "adm", "backend-clear", "backend-fault", "backend-list", "backend-resize", "backend-start", "backend-stop", "channel-list", "dev-clear",
            "dev-list", "dev-start", "dev-stop", "dump", "host-clear", "host-list", "tp-info", "tp-list", "tp-reg", "tp-unreg",
        ],
        _verbs.Names.Order(StringComparer.Ordinal));

    [Fact]
    public void The_table_of_the_document_names_every_option_of_every_verb()
    {
        string[] rows = [.. File.ReadLines(Path.Combine(SourceTree.Root, "docs", "operations.md")).Where(line => line.StartsWith("| `", StringComparison.Ordinal))];
        var missing = new List<string>();
        foreach (var name in _verbs.Names)
        {
            var row = rows.FirstOrDefault(line => line.Split('|')[1].Contains($"`{name}`", StringComparison.Ordinal)) ?? "";
            var words = row.Split([' ', '`', '[', ']', '/', '|', '\\'], StringSplitOptions.RemoveEmptyEntries);
            missing.AddRange(_verbs.Parse([name]).CommandResult.Command.Options
                .Where(option => option is not HelpOption && !option.Aliases.Append(option.Name).Any(words.Contains))
                .Select(option => $"{name} {option.Name}"));
        }

        Assert.Empty(missing);
    }

    [Fact]
    public void A_backend_is_said_by_id_by_name_by_host_and_name_or_by_path()
    {
        Run("tp-reg -H alpha -p /r");
        Run("backend-start -p /own --name own");
        _node.AddForeignBackend(0, 5, "/a", "alive", "data");
        int On(string words)
        {
            Run($"dev-start -b {words} --nbd unix:/s");
            return _node.Execute(Operations.ListDevices, new ListRequest()).MaxBy(d => d.BlkdevId)!.BackendId;
        }

        Assert.Equal((0, 5, 0, 0), (On("own"), On("data"), On("0"), On("alpha/own")));
        _node.AddForeignBackend(0, 6, "/b", "alive", "data", host: 4);
        var error = Assert.Throws<CbdException>(() => On("data"));
        Assert.Equal(CbdErrorKind.Busy, error.Kind);
        Assert.Equal("'data' is more than one backend: ?/data (backend 5), beta/data (backend 6): give HOST/NAME or the id", error.Message);
        Assert.Equal(6, On("beta/data"));
        Run("backend-start -p /c --name data");
        Assert.Equal(1, On("data"));
        Assert.Equal(CbdErrorKind.NotFound, Assert.Throws<CbdException>(() => On("gamma/data")).Kind);
        // It may be started later.
        var missing = Assert.Throws<CbdException>(() => On("nothing"));
        Assert.Equal((CbdErrorKind.NotFound, true), (missing.Kind, missing.MayPass));
        Assert.Equal(CbdErrorKind.Invalid, Assert.Throws<CbdException>(() => On("7b")).Kind);

        Run("backend-clear -b beta/data --force");
        Assert.Equal("clear backend 0 6 True False", _node.Calls[^1]);
        Run("backend-stop -b data");
        Assert.Equal("stop backend 0 1 False", _node.Calls[^1]);
        Run("backend-stop -b /own");
        Assert.Equal("stop backend 0 0 False", _node.Calls[^1]);
    }

    [Fact]
    public void Tp_reg_takes_the_short_options_of_cbd_utils_and_prints_the_transport_id()
    {
        Assert.Equal("0\n", Run("tp-reg -H alpha -p /dev/shm/r -f -F"));
        Assert.Equal($"{new RegisterTransportOptions { Host = "alpha", Path = "/dev/shm/r", Format = true, Force = true }}", _node.Calls[0]);
    }

    [Fact]
    public void Tp_reg_takes_every_geometry_option()
    {
        Run("tp-reg --host alpha --path /r --format --force --size 4GiB --hosts 2 --backends 3 --blkdevs 4 --channels 5 "
            + "--channel-size 512K --ring-slots 64 --payload-crc off --coherence hardware");
        Assert.Equal(
            $"{new RegisterTransportOptions
            {
                Host = "alpha",
                Path = "/r",
                Format = true,
                Force = true,
                SizeBytes = 4L << 30,
                Hosts = 2,
                Backends = 3,
                Blkdevs = 4,
                Channels = 5,
                ChannelSizeBytes = 512 << 10,
                RingSlots = 64,
                PayloadCrc = false,
                Coherence = "hardware",
            }}",
            _node.Calls[0]);
    }

    [Fact]
    public void Paths_are_made_absolute_where_they_are_typed_and_disk_schemes_are_not()
    {
        Run("tp-reg -H a -p region");
        Run("backend-start -p ./disk.img");
        Run("backend-start -p memory:64M");
        Run("dev-start -b 0 --nbd unix:cbd.nbd");
        var here = Directory.GetCurrentDirectory();
        Assert.Contains($"Path = {here}/region,", _node.Calls[0]);
        Assert.Contains($"Path = {here}/disk.img,", _node.Calls[1]);
        Assert.Contains("Path = memory:64M,", _node.Calls[2]);
        Assert.Contains($"Nbd = unix:{here}/cbd.nbd,", _node.Calls[3]);
    }

    [Fact]
    public void An_at_sign_is_part_of_a_path()
    {
        Run("tp-reg -H a -p /@hosts");
        Assert.Contains("Path = /@hosts,", _node.Calls[0]);
    }

    [Fact]
    public void Faults_are_given_at_the_start_and_switched_later()
    {
        Run("tp-reg -H a -p /r");
        Assert.Equal("0\n", Run("backend-start -p /d --fault error,op=read --fault 'delay,ms=5'"));
        Assert.Equal(["error,op=read", "delay,ms=5"], _node.Execute(Operations.ListBackends, new ListRequest())[0].Faults!.Select(f => f.Spec));
        Assert.Equal("error,op=read\ndelay,ms=5\n", Run("backend-fault -b 0"));
        Assert.Equal("", Run("backend-fault -b 0 stuck error,count=1"));
        Assert.Equal("", Run("backend-fault -b 0 off"));
        Assert.Equal(["set faults 0 0 stuck error,count=1", "set faults 0 0 off"], _node.Calls.Skip(2));
        Run("backend-start -p /e");
        Assert.Equal(CbdErrorKind.Unsupported, Assert.Throws<CbdException>(() => Run("backend-fault -b 1")).Kind);
    }

    [Fact]
    public void Dump_prints_text_or_json_of_what_was_asked_for()
    {
        Assert.StartsWith("transport 0, channel 4, queue of device 1 on backend 2: 700 events", Run("dump"), StringComparison.Ordinal);
        Assert.StartsWith("[\n  {\n    \"transport_id\": 2,", Run("dump -t 2 -d 1 -b 2 --channel 4 -o json"), StringComparison.Ordinal);
        Assert.Equal(
            [$"{new FlightFilter()}", $"{new FlightFilter { Transport = 2, Device = 1, Backend = 2, Channel = 4 }}"],
            _node.Calls);
    }

    [Fact]
    public void Backend_start_prints_the_backend_id()
    {
        Run("tp-reg -H a -p /r");
        Assert.Equal("0\n", Run("backend-start -t 0 -p /dev/sdb -n 4 -b 0 --read-only --engine pread --block-size 4096 --fenced"));
        Assert.Equal(
            $"{new StartBackendOptions
            {
                Path = "/dev/sdb",
                Handlers = 4,
                Backend = 0,
                ReadOnly = true,
                Engine = "pread",
                BlockBytes = 4096,
                Fenced = true,
            }}",
            _node.Calls[1]);
    }

    [Fact]
    public void Backend_start_with_D_prints_the_device()
    {
        Run("tp-reg -H a -p /r");
        Assert.Equal("nbd+unix:///?socket=/run/cbd/cbd0.nbd\n", Run("backend-start -p /dev/sdb -D"));
    }

    [Fact]
    public void Backend_start_with_D_stops_the_backend_again_when_the_device_cannot_be_started()
    {
        Run("tp-reg -H a -p /r");
        var failing = new InterceptedControl(_node, request =>
            request is StartDeviceOptions ? throw new CbdException(CbdErrorKind.Exhausted, "no free channel") : request);
        var verb = _verbs.ParseLine("backend-start -p /dev/sdb --start-dev");
        var error = Assert.Throws<CbdException>(() => verb.Execute(failing, new VerbOutput(new StringWriter(), false)));
        Assert.Equal("no free channel", error.Message);
        Assert.Empty(_node.Execute(Operations.ListBackends, new ListRequest { All = true }));
    }

    [Fact]
    public void A_cache_size_is_parsed_and_refused()
    {
        var error = Assert.Throws<CbdException>(() => Run("backend-start -p /dev/sdb -c 512M"));
        Assert.Equal(CbdErrorKind.Unsupported, error.Kind);
        Assert.StartsWith("no cache in this version", error.Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("tp-unreg -t 2", "unregister 2")]
    [InlineData("host-clear -t 1 --host-id 5 --force --fenced", "clear host 1 5 True True")]
    [InlineData("host-clear --host-id 5", "clear host 0 5 False False")]
    [InlineData("backend-clear -t 1 -b 2 -F --fenced", "clear backend 1 2 True True")]
    [InlineData("backend-stop -b 2 --force", "stop backend 0 2 True")]
    [InlineData("backend-resize -t 1 -b 2 --size 4GiB", "resize backend 1 2 4294967296")]
    [InlineData("backend-resize --backend 2", "resize backend 0 2 ")]
    [InlineData("dev-stop -t1 -d 3", "stop device 1 3 False")]
    [InlineData("dev-stop --transport 1 --dev 3 -F", "stop device 1 3 True")]
    [InlineData("dev-clear -d 3 --fenced", "clear device 0 3 False True")]
    public void Stops_and_clears_reach_the_node(string line, string call)
    {
        try
        {
            Run(line);
        }
        catch (CbdException e) when (e.Kind == CbdErrorKind.NotFound)
        {
            // The lists are empty; what was asked is what is looked at.
        }

        Assert.Equal([call], _node.Calls);
    }

    [Fact]
    public void Stops_print_nothing()
    {
        Run("tp-reg -H a -p /r");
        Run("backend-start -p /dev/sdb -D");
        Assert.Equal("", Run("dev-stop -d 0"));
        Assert.Equal("", Run("backend-stop -b 0"));
        Assert.Equal("", Run("tp-unreg"));
    }

    [Fact]
    public void A_stop_of_what_is_still_stopping_ends_as_no_answer_in_time()
    {
        Run("tp-reg -H a -p /r");
        Run("backend-start -p /dev/sdb -D");
        _node.StopAnswer = StopAnswer.Stopping("device 0 is stopping: its node is open");
        foreach (string line in (string[])["dev-stop -d 0", "adm op=backend-stop,backend_id=0"])
        {
            var error = Assert.Throws<CbdException>(() => Run(line));
            Assert.Equal(CbdErrorKind.TimedOut, error.Kind);
            Assert.Equal("device 0 is stopping: its node is open", error.Message);
        }
    }

    [Fact]
    public void Backend_resize_prints_the_size_and_notes_what_devices_cannot_show()
    {
        Run("tp-reg -H a -p /r");
        Run("backend-start -p /dev/sdb");
        var notes = new List<string>();
        var output = new StringWriter();
        _verbs.ParseLine("backend-resize -b 0 --size 7").Execute(_node, new VerbOutput(output, false, notes.Add));
        Assert.Equal("7\n", output.ToString());
        Assert.Equal(["device 0: keeps its old size"], notes);
        Assert.Equal("2147483648\n", Run("backend-resize -b 0"));
    }

    [Fact]
    public void Dev_start_takes_its_options_and_prints_the_address()
    {
        Run("tp-reg -H a -p /r");
        Assert.Equal("tcp:0.0.0.0:10809\n", Run("dev-start -b 2 --queues 3 --nbd tcp:0.0.0.0:10809 --insecure --read-only"));
        Assert.Equal(
            $"{new StartDeviceOptions { Backend = 2, Queues = 3, Nbd = "tcp:0.0.0.0:10809", Insecure = true, ReadOnly = true }}",
            _node.Calls[1]);
        Run("dev-start -b 2 --on-backend-loss fail");
        Assert.Equal($"{new StartDeviceOptions { Backend = 2, OnBackendLoss = OnBackendLoss.Fail }}", _node.Calls[2]);
        Run("dev-start -b 2 --on-backend-loss queue --loss-timeout 90");
        Assert.Equal($"{new StartDeviceOptions { Backend = 2, LossTimeoutSeconds = 90 }}", _node.Calls[3]);
    }

    [Theory]
    [InlineData("", "off")]
    [InlineData("--tls off", "off")]
    [InlineData("--tls-certificates /pki", "require /pki")]
    [InlineData("--tls on --tls-certificates /pki", "on /pki")]
    [InlineData("--tls require --tls-certificates /pki --tls-verify-peer", "require /pki, peers verified")]
    [InlineData("--tls-certificates /pki --tls-verify-peer --tls-allow alice --tls-allow bob.example", "require /pki, peers verified, allowed: alice, bob.example")]
    public void Dev_start_takes_TLS(string words, string expected)
    {
        Run("tp-reg -H a -p /r");
        Run($"dev-start -b 2 --nbd unix:/s --nbd-connections 7 --nbd-handshake-seconds 30 {words}");
        Assert.Contains($"Tls = {(expected == "off" ? "" : expected)}, NbdConnections = 7, NbdHandshakeSeconds = 30,", $"{_node.Calls[1]}", StringComparison.Ordinal);
    }

    [Fact]
    public void Lists_are_JSON_when_piped_and_a_table_on_a_terminal()
    {
        Run("tp-reg -H alpha -p /r");
        Assert.StartsWith("[\n  {\n    \"transport_id\": 0,", Run("tp-list"), StringComparison.Ordinal);
        Assert.StartsWith("ID  HOST     PATH  SIZE", Run("tp-list", toTerminal: true), StringComparison.Ordinal);
        Assert.StartsWith("ID  HOST", Run("tp-list -o table"), StringComparison.Ordinal);
        Assert.StartsWith("[", Run("tp-list -o json", toTerminal: true), StringComparison.Ordinal);
        Assert.Equal("[]\n", Run("backend-list"));
        Assert.Contains("\"hostname\": \"beta\"", Run("host-list"));
        Assert.Contains("\"epoch\": 1099511627775", Run("channel-list"));
        Assert.Contains("\"magic\": \"0x123456789abcdef0\"", Run("tp-info"));
        Assert.Contains("bytes_per_host_info", Run("tp-info -o table"));
    }

    [Fact]
    public void Lists_of_all_hosts_are_asked_for_with_a()
    {
        Run("tp-reg -H alpha -p /r");
        _node.AddForeignBackend(0, 9, "/dev/sdz", "alive");
        Assert.DoesNotContain("/dev/sdz", Run("backend-list"));
        Assert.Contains("/dev/sdz", Run("backend-list -a"));
        Assert.Contains("/dev/sdz", Run("backend-list --all"));
        Assert.Equal("[]\n", Run("dev-list -a"));
    }

    [Theory]
    [InlineData("", "no verb given")]
    [InlineData("tp-lisst", "'tp-lisst' is not a known verb")]
    [InlineData("tp-list --bogus", "'--bogus' is not a known option")]
    [InlineData("tp-list more", "'more' is not a known argument")]
    [InlineData("tp-list -o xml", "--output is 'xml'; use json or table")]
    [InlineData("tp-reg -H a", "'--path' is required")]
    [InlineData("tp-reg -p /r", "'--host' is required")]
    [InlineData("tp-reg -H a -p", "argument missing")]
    [InlineData("tp-reg -H a -H b -p /r", "expects a single argument")]
    [InlineData("tp-reg -H a -p /r --size 12X", "'12X' is not a size")]
    [InlineData("tp-reg -H a -p /r --hosts many", "--hosts is 'many'")]
    [InlineData("tp-reg -H a -p /r --payload-crc maybe", "--payload-crc is 'maybe'; use on or off")]
    [InlineData("backend-start -p /d --engine aio", "--engine is 'aio'; use auto or io_uring or pread")]
    [InlineData("backend-start -p /d -n x", "--handlers is 'x'")]
    [InlineData("backend-stop", "'--backend' is required")]
    [InlineData("backend-resize", "'--backend' is required")]
    [InlineData("backend-resize -b 0 --size much", "'much' is not a size")]
    [InlineData("backend-stop -b 99999999999", "--backend is '99999999999'")]
    [InlineData("dev-start -t x -b 1", "--transport is 'x'")]
    [InlineData("dev-start -b 1 --on-backend-loss never", "--on-backend-loss is 'never'; use queue or fail")]
    [InlineData("dev-start -b 1 --loss-timeout soon", "--loss-timeout is 'soon'")]
    [InlineData("dev-stop -t 0", "'--dev' is required")]
    [InlineData("host-clear", "'--host-id' is required")]
    [InlineData("adm op=nonsense", "adm op 'nonsense' is not known")]
    [InlineData("tp-list --help", "asks for help")]
    [InlineData("tp-reg -H 'a", "has a ' without its end")]
    public void A_wrong_line_is_refused_with_one_line_and_nothing_is_done(string line, string reason) =>
        Assert.Contains(reason, Refused(line));
}
