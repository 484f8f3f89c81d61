using System.CommandLine;

namespace Cbd.Control.Verbs;

/// <summary>dev-start, dev-stop, dev-clear, dev-list.</summary>
internal static class DeviceVerbs
{
    public static IEnumerable<Verb> All() => [Start(), Verb.StopDevice(), Clear(), List()];

    private static Verb Start()
    {
        var transport = CommonOptions.Transport();
        var backend = BackendArgument.Option();
        var name = VerbOptions.Text("--name", null, "what the device, its node and its socket are called: a letter, then letters, digits, '.', '_' or '-'; by default cbdN", "NAME");
        var queues = VerbOptions.Number("--queues", null, "queues, 1 to 128; by default one per CPU, at most 4");
        var attach = VerbOptions.Text("--attach", null, "auto: the best that this kernel has of ublk, nbd, fuse, else NBD over a socket; one of these by name; none: NBD over a socket. By default auto, and none with --nbd, --tls and other options of a socket", "KIND");
        var nbd = VerbOptions.Text("--nbd", null, "where NBD clients connect: unix:PATH, tcp:HOST:PORT, or fd:NAME for a socket of the service manager; by default <run-dir>/NAME.nbd", "ADDRESS");
        var tls = new TlsVerbOptions();
        var connections = VerbOptions.NumberOr("--nbd-connections", null, $"NBD clients at once, 1 to {NbdLimits.MaxConnections}", NbdLimits.DefaultConnections);
        var handshake = VerbOptions.NumberOr("--nbd-handshake-seconds", null, $"an NBD client whose handshake takes longer is dropped, 1 to {NbdLimits.MaxHandshakeSeconds}", NbdLimits.DefaultHandshakeSeconds);
        var insecure = VerbOptions.Flag("--insecure", null, "allow TCP on an address that is not loopback without required TLS: no encryption, no login");
        var readOnly = VerbOptions.Flag("--read-only", null, "open the device read-only");
        var mode = CommonOptions.Mode();
        var onLoss = VerbOptions.Choice("--on-backend-loss", null, "while the backend is away requests wait (queue), or fail with EIO", LossText.Queue, LossText.Queue, LossText.Fail);
        var lossTimeout = VerbOptions.NumberOr("--loss-timeout", null, "seconds that they wait before they fail; 0: for ever", 0);
        var timeout = CommonOptions.Timeout("10");
        var command = new Command(Operations.StartDevice.Name, "Start a device on a backend; prints its node or NBD URI")
        {
            transport, backend, name, queues, attach, nbd, connections, handshake, insecure, readOnly, mode, onLoss, lossTimeout, timeout,
        };
        tls.AddTo(command);
        return new Verb(command, (line, control, output) => output.Device(control.Execute(Operations.StartDevice, new StartDeviceOptions
        {
            Transport = line.GetValue(transport),
            Backend = BackendArgument.Resolve(control, line.GetValue(transport), line.GetValue(backend)!),
            Name = line.GetValue(name),
            Queues = line.GetValue(queues),
            Attach = line.GetValue(attach),
            Nbd = line.GetValue(nbd) is { } address ? PathText.AddressFromCaller(address) : null,
            Tls = tls.Of(line),
            NbdConnections = line.GetValue(connections),
            NbdHandshakeSeconds = line.GetValue(handshake),
            Insecure = line.GetValue(insecure),
            ReadOnly = line.GetValue(readOnly),
            Mode = PollModeText.Parse(line.GetValue(mode)!),
            OnBackendLoss = LossText.Parse(line.GetValue(onLoss)!),
            LossTimeoutSeconds = line.GetValue(lossTimeout),
            TimeoutSeconds = line.GetValue(timeout),
        })));
    }

    private static Verb Clear() =>
        Verb.Clear(Operations.ClearDevice, "Clear a device whose host is dead", Device(), "without proof that its host is dead");

    private static Option<int?> Device() => VerbOptions.Number("--dev", "-d", "the device", required: true);

    private static Verb List() => Verb.List(
        Operations.ListDevices, "List the devices of this host, or of all hosts",
        ("ID", d => d.BlkdevId < 0 ? "" : $"{d.BlkdevId}"),
        ("NAME", d => d.Name ?? ""),
        ("HOST", d => $"{d.HostId}"),
        ("BACKEND", d => d.BackendId < 0 ? "" : $"{d.BackendId}"),
        ("DEVICE", d => d.Address),
        ("ALIVE", d => d.Alive),
        ("STATE", d => d.State),
        ("QUEUES", d => d.Queues == 0 ? "" : $"{d.Queues}"),
        ("SIZE", d => d.BlkdevId < 0 ? "" : VerbOutput.Size(d.SizeBytes)),
        ("MODE", d => d.ReadOnly ? "ro" : "rw"),
        ("ON LOSS", OnLoss),
        ("REASON", d => d.Reason ?? ""),
        ("NOTE", d => d.Note ?? ""));

    private static string OnLoss(DeviceDescription device) =>
        device.OnBackendLoss is not { } action ? ""
        : device.LossTimeoutSeconds > 0 ? $"{LossText.Of(action)} {device.LossTimeoutSeconds} s"
        : LossText.Of(action);
}
