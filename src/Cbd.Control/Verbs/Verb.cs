using System.CommandLine;
using System.Globalization;

namespace Cbd.Control.Verbs;

/// <summary>One verb: its command line, and what it does to a host, here or at the other end of a control socket.</summary>
internal sealed record Verb(Command Command, Action<ParseResult, IControl, VerbOutput> Execute)
{
    /// <summary>A verb that prints the list of an operation.</summary>
    public static Verb List<T>(
        Operation<TransportTarget, IReadOnlyList<T>> operation, string description, params (string Header, Func<T, string> Cell)[] columns)
    {
        var transport = CommonOptions.Transport();
        var format = CommonOptions.Output();
        return new Verb(new Command(operation.Name, description) { transport, format }, (line, control, output) =>
        {
            output.Format = line.GetValue(format);
            output.List(control.Execute(operation, new TransportTarget { Transport = line.GetValue(transport) }), columns);
        });
    }

    /// <summary>The same for a list of this host, or of all hosts.</summary>
    public static Verb List<T>(
        Operation<ListRequest, IReadOnlyList<T>> operation, string description, params (string Header, Func<T, string> Cell)[] columns)
    {
        var transport = CommonOptions.Transport();
        var all = CommonOptions.All();
        var format = CommonOptions.Output();
        return new Verb(new Command(operation.Name, description) { transport, all, format }, (line, control, output) =>
        {
            output.Format = line.GetValue(format);
            output.List(control.Execute(operation, new ListRequest { Transport = line.GetValue(transport), All = line.GetValue(all) }), columns);
        });
    }

    /// <summary>dev-stop: by id, or by what the device is called.</summary>
    public static Verb StopDevice()
    {
        var transport = CommonOptions.Transport();
        var item = VerbOptions.Text("--dev", "-d", "the device: its id, or what it is called", "N|NAME", required: true);
        var force = CommonOptions.Force("even if clients are connected");
        return new Verb(new Command(Operations.StopDevice.Name, "Stop a device of this host") { transport, item, force }, (line, control, _) =>
        {
            var text = line.GetValue(item)!;
            var stop = new StopRequest { Transport = line.GetValue(transport), Force = line.GetValue(force) };
            if (IsId(text, "--dev", out var id))
            {
                control.Execute(Operations.StopDevice, stop with { Id = id }).ThrowIfStopping();
                return;
            }

            Rules.CheckName(text, "device");
            if (Find(control, text) is { } found)
                control.Execute(Operations.StopDevice, stop with { Transport = found.Transport, Id = found.Device, Name = text }).ThrowIfStopping();
            else
                control.Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Device, Name = text });
        });
    }

    /// <summary>backend-stop: by id or name, or by the path of its disk, also of one that is wanted and away.</summary>
    public static Verb StopBackend()
    {
        var transport = VerbOptions.Number("--transport", "-t", "the transport; with an id 0 if it is left out, else all are looked at");
        var item = BackendArgument.Option("the backend: its id, its name, or the disk's path from / or ./ on");
        var force = CommonOptions.Force("even if blkdevs use it: they answer with EIO until it is started again");
        return new Verb(new Command(Operations.StopBackend.Name, "Stop a backend of this host") { transport, item, force }, (line, control, _) =>
        {
            var text = line.GetValue(item)!;
            var stop = new StopRequest { Transport = line.GetValue(transport) ?? 0, Force = line.GetValue(force) };
            if (IsId(text, "--backend", out var id))
                control.Execute(Operations.StopBackend, stop with { Id = id }).ThrowIfStopping();
            else if (FindServed(control, line.GetValue(transport), ref text) is { } found)
                control.Execute(Operations.StopBackend, stop with { Transport = found.Transport, Id = found.Id }).ThrowIfStopping();
            else
                control.Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Backend, Name = text });
        });
    }

    /// <summary>The backend of this host with that name or path, which is made absolute, on a transport or on all; null if none is served.</summary>
    private static (int Transport, int Id)? FindServed(IControl control, int? given, ref string text)
    {
        var isPath = text.StartsWith('/') || text.StartsWith('.') || StartBackendOptions.IsDiskScheme(text);
        if (isPath)
            text = PathText.FromCaller(text);
        else
            Rules.CheckName(text, "backend");
        var found = new List<(int Transport, int Id)>();
        foreach (var there in control.Execute(Operations.ListTransports, new ControlRequest()).Where(t => t.TransportId >= 0 && (given is null || t.TransportId == given)))
        {
            var said = text;
            found.AddRange(control.Execute(Operations.ListBackends, new ListRequest { Transport = there.TransportId })
                .Where(b => b.BackendId >= 0 && (isPath ? b.Path : b.Name) == said).Select(b => (there.TransportId, b.BackendId)));
        }

        return found.Count < 2 ? found.Select(f => ((int, int)?)f).FirstOrDefault()
            : throw Rules.Invalid($"'{text}' is served as {string.Join(" and ", found.Select(f => $"backend {f.Id} of transport {f.Transport}"))}: give -t and the id of one");
    }

    /// <summary>A number is always an id.</summary>
    public static bool IsId(string text, string option, out int id)
    {
        id = 0;
        if (text.Length == 0 || !text.AsSpan(text[0] == '-' ? 1 : 0).ContainsAnyExceptInRange('0', '9'))
        {
            if (!int.TryParse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture, out id))
                throw Rules.Invalid($"{option} is '{text}'; give a number or a name");
            return true;
        }

        return false;
    }

    /// <summary>The device of this host with a name; null if none is there.</summary>
    private static (int Transport, int Device)? Find(IControl control, string name)
    {
        foreach (var transport in control.Execute(Operations.ListTransports, new ControlRequest()).Where(t => t.TransportId >= 0))
        {
            var own = control.Execute(Operations.ListDevices, new ListRequest { Transport = transport.TransportId });
            if (own.FirstOrDefault(d => d.BlkdevId >= 0 && d.Name == name) is { } device)
                return (transport.TransportId, device.BlkdevId);
        }

        return null;
    }

    /// <summary>A verb that clears what <paramref name="item"/> names.</summary>
    public static Verb Clear(Operation<ClearRequest, Done> operation, string description, Option<int?> item, string forced)
    {
        var transport = CommonOptions.Transport();
        var force = CommonOptions.Force(forced);
        var fenced = CommonOptions.Fenced();
        return new Verb(new Command(operation.Name, description) { transport, item, force, fenced }, (line, control, _) =>
            control.Execute(operation, new ClearRequest
            {
                Transport = line.GetValue(transport),
                Id = line.GetValue(item)!.Value,
                Force = line.GetValue(force),
                Fenced = line.GetValue(fenced),
            }));
    }
}

/// <summary>A verb with its options, parsed and ready to be done.</summary>
internal sealed record ParsedVerb(Verb Verb, ParseResult Result)
{
    public string Name => Verb.Command.Name;

    public void Execute(IControl control, VerbOutput output) => Verb.Execute(Result, control, output);
}
