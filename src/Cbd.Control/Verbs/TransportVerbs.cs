using System.CommandLine;
using Cbd.Host;

namespace Cbd.Control.Verbs;

/// <summary>tp-reg, tp-unreg, tp-list, tp-info, host-list, host-clear, channel-list, dump.</summary>
internal static class TransportVerbs
{
    public static IEnumerable<Verb> All() =>
        [Register(), Unregister(), ListTransports(), Info(), ListHosts(), ClearHost(), ListChannels(), Dump()];

    private static Verb Register()
    {
        var host = VerbOptions.Text("--host", "-H", "name of this host on the transport", "HOST", required: true);
        var path = VerbOptions.Text("--path", "-p", "the shared region: a file, /dev/shm/…, /dev/daxX.Y, a PCI resource", "PATH", required: true);
        var format = VerbOptions.Flag("--format", "-f", "format the region first");
        var formatIfEmpty = VerbOptions.Flag("--format-if-empty", null, "format the region first if it is missing or all zeros, and never else");
        var force = VerbOptions.Flag("--force", "-F", "format over what is there; never over a live host");
        var size = VerbOptions.Size("--size", "size of the region file, which is made or made longer, never shorter; all of its space is reserved, e.g. 512M");
        var hosts = VerbOptions.Number("--hosts", null, "host entries to format");
        var backends = VerbOptions.Number("--backends", null, "backend entries to format");
        var blkdevs = VerbOptions.Number("--blkdevs", null, "blkdev entries to format");
        var channels = VerbOptions.Number("--channels", null, "channels to format");
        var channelSize = VerbOptions.Size("--channel-size", "bytes of one channel to format");
        var ringSlots = VerbOptions.Number("--ring-slots", null, "commands in flight per channel to format");
        var payloadCrc = VerbOptions.Choice("--payload-crc", null, "payload carries a CRC32C", "on", "on", "off");
        var coherence = VerbOptions.Text("--coherence", null, "how caches of the hosts agree; needed for devdax and PCI BARs", "hardware");
        var timeout = CommonOptions.Timeout("three dead-times and five seconds of waiting for other hosts");
        var command = new Command(Operations.RegisterTransport.Name, "Register this host on a region, formatting it first if asked; prints the transport id")
        {
            host, path, format, formatIfEmpty, force, size, hosts, backends, blkdevs, channels, channelSize, ringSlots, payloadCrc, coherence, timeout,
        };
        return new Verb(command, (line, control, output) => output.Line(control.Execute(Operations.RegisterTransport, new RegisterTransportOptions
        {
            Host = line.GetValue(host)!,
            Path = PathText.FromCaller(line.GetValue(path)!),
            Format = line.GetValue(format),
            FormatIfEmpty = line.GetValue(formatIfEmpty),
            Force = line.GetValue(force),
            SizeBytes = line.GetValue(size),
            Hosts = line.GetValue(hosts),
            Backends = line.GetValue(backends),
            Blkdevs = line.GetValue(blkdevs),
            Channels = line.GetValue(channels),
            ChannelSizeBytes = line.GetValue(channelSize),
            RingSlots = line.GetValue(ringSlots),
            PayloadCrc = line.GetValue(payloadCrc) == "on",
            Coherence = line.GetValue(coherence),
            TimeoutSeconds = line.GetValue(timeout),
        }).TransportId));
    }

    private static Verb Unregister()
    {
        var transport = VerbOptions.Text("--transport", "-t", "the transport: its id, or the region's path; by default 0", "N|PATH");
        var command = new Command(Operations.UnregisterTransport.Name, "Leave a transport") { transport };
        return new Verb(command, (line, control, _) =>
        {
            var text = line.GetValue(transport) ?? "0";
            if (Verb.IsId(text, "--transport", out var id))
            {
                control.Execute(Operations.UnregisterTransport, new TransportTarget { Transport = id });
                return;
            }

            var path = PathText.FromCaller(text);
            if (control.Execute(Operations.ListTransports, new ControlRequest()).FirstOrDefault(t => t.TransportId >= 0 && t.Path == path) is { } registered)
                control.Execute(Operations.UnregisterTransport, new TransportTarget { Transport = registered.TransportId });
            else
                control.Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Transport, Name = path });
        });
    }

    private static Verb ListTransports()
    {
        var format = CommonOptions.Output();
        var command = new Command(Operations.ListTransports.Name, "List the transports this host is registered on") { format };
        return new Verb(command, (line, control, output) =>
        {
            output.Format = line.GetValue(format);
            output.List(
                control.Execute(Operations.ListTransports, new ControlRequest()),
                ("ID", Known(t => $"{t.TransportId}")),
                ("HOST", t => t.TransportId < 0 ? t.HostName : $"{t.MyHostId} {t.HostName}"),
                ("PATH", t => t.Path),
                ("SIZE", Known(t => VerbOutput.Size(t.SizeBytes))),
                ("HOSTS", Known(t => $"{t.HostCount}")),
                ("BACKENDS", Known(t => $"{t.BackendCount}")),
                ("BLKDEVS", Known(t => $"{t.BlkdevCount}")),
                ("CHANNELS", Known(t => $"{t.ChannelCount} × {VerbOutput.Size(t.BytesPerChannel)}")),
                ("CRC", Known(t => t.PayloadCrc ? "on" : "off")),
                ("STATE", t => t.State),
                ("FAILURE", t => t.Failure));

            // Of one that is wanted and not registered nothing of the region is known.
            static Func<TransportDescription, string> Known(Func<TransportDescription, string> cell) => t => t.TransportId < 0 ? "" : cell(t);
        });
    }

    private static Verb Info()
    {
        var transport = CommonOptions.Transport();
        var format = CommonOptions.Output();
        var command = new Command(Operations.GetTransport.Name, "Show one transport: magic, version, flags, areas") { transport, format };
        return new Verb(command, (line, control, output) =>
        {
            output.Format = line.GetValue(format);
            output.Object(control.Execute(Operations.GetTransport, new TransportTarget { Transport = line.GetValue(transport) }));
        });
    }

    private static Verb ListHosts() => Verb.List(
        Operations.ListHosts, "List the hosts of a transport",
        ("ID", h => $"{h.HostId}"),
        ("NAME", h => h.HostName),
        ("ALIVE", h => h.Alive),
        ("STATE", h => h.State),
        ("MINE", h => h.Mine ? "yes" : "no"),
        ("QUARANTINED", h => h.Quarantined == 0 ? "" : $"{h.Quarantined}"));

    private static Verb ClearHost() => Verb.Clear(
        Operations.ClearHost, "Clear what a dead host left", VerbOptions.Number("--host-id", null, "the host entry", required: true),
        "a daemon of this machine is killed; without proof of death what it had is quarantined");

    private static Verb ListChannels() => Verb.List(
        Operations.ListChannels, "List the channels in use",
        ("ID", c => $"{c.ChannelId}"),
        ("BLKDEV", c => $"{c.BlkdevId}"),
        ("BACKEND", c => $"{c.BackendId}"),
        ("HOST", c => $"{c.HostId}"),
        ("STATE", c => c.State),
        ("EPOCH", c => $"{c.Epoch}"),
        ("OUTSTANDING", c => $"{c.Outstanding}"),
        ("QUARANTINED", c => c.Quarantined ? "yes" : "no"));

    private static Verb Dump()
    {
        var transport = CommonOptions.Transport();
        var device = VerbOptions.Number("--dev", "-d", "only channels of this device of this host");
        var backend = BackendArgument.Option("only channels to this backend: its id, or its name", required: false);
        var channel = VerbOptions.Number("--channel", null, "only this channel");
        var format = VerbOptions.Choice("--output", "-o", "text or json", "text", "text", "json");
        var command = new Command(Operations.ReadFlights.Name, "Print the last events of the channels of which this host has a side") { transport, device, backend, channel, format };
        return new Verb(command, (line, control, output) =>
        {
            var flights = control.Execute(Operations.ReadFlights, new FlightFilter
            {
                Transport = line.GetValue(transport),
                Device = line.GetValue(device),
                Backend = line.GetValue(backend) is { } text ? BackendArgument.Resolve(control, line.GetValue(transport), text) : null,
                Channel = line.GetValue(channel),
            });
            output.Format = line.GetValue(format);
            output.Text(flights, writer => FlightText.Write(writer, flights));
        });
    }
}

/// <summary>Options that many verbs have.</summary>
internal static class CommonOptions
{
    public static Option<int> Transport() => VerbOptions.NumberOr("--transport", "-t", "the transport", 0);

    public static Option<string?> Output()
    {
        var option = VerbOptions.Text("--output", "-o", "json or table; by default a table on a terminal, else JSON", "json|table");
        option.Validators.Add(result =>
        {
            if (result.Tokens.Count == 1 && result.Tokens[0].Value is not ("json" or "table"))
                result.AddError($"--output is '{result.Tokens[0].Value}'; use json or table");
        });
        return option;
    }

    public static Option<bool> Fenced() =>
        VerbOptions.Flag("--fenced", null, "you vouch that the other machine is off or cut off from the region and the disk");

    public static Option<bool> Force(string description) => VerbOptions.Flag("--force", "-F", description);

    public static Option<string> Mode() => VerbOptions.Choice(
        "--mode", null, "how its threads wait: adaptive (spin while busy, then sleep), busy (never sleep: a CPU each), sleep (never spin)",
        PollModeText.Adaptive, PollModeText.Adaptive, PollModeText.Busy, PollModeText.Sleep);

    public static Option<int?> Timeout(string otherwise) =>
        VerbOptions.Number("--timeout", null, $"seconds after which a start that is not done is taken back; by default {otherwise}");

    public static Option<bool> All() => VerbOptions.Flag("--all", "-a", "of all hosts, not only of this one");
}
