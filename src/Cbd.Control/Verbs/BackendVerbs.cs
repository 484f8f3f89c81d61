using System.CommandLine;

namespace Cbd.Control.Verbs;

/// <summary>backend-start, -stop, -clear, -resize, -fault, -list, and the original's adm.</summary>
internal static class BackendVerbs
{
    public static IEnumerable<Verb> All() => [Start(), Verb.StopBackend(), Clear(), Resize(), Fault(), List(), Adm()];

    private static Verb Start()
    {
        var transport = CommonOptions.Transport();
        var path = VerbOptions.Text("--path", "-p", "the disk: a file, a block device, memory:SIZE or null:SIZE", "PATH", required: true);
        var handlers = VerbOptions.NumberOr("--handlers", "-n", "handler threads, 1 to 128", 1);
        var startDevice = VerbOptions.Flag("--start-dev", "-D", "start a device on it here, too; prints the device");
        var name = VerbOptions.Text("--name", null, "what the backend is called, alone on this host: a letter, then letters, digits, '.', '_' or '-'", "NAME");
        var backend = VerbOptions.Number("--backend", "-b", "take over this backend, whose session is gone; without it, the one that the disk is already, or a new one");
        var readOnly = VerbOptions.Flag("--read-only", null, "offer it read-only");
        var engine = VerbOptions.Choice("--engine", null, "how the disk is driven", "auto", "auto", "io_uring", "pread");
        var blockSize = VerbOptions.Number("--block-size", null, "logical block to offer: 512 or 4096; by default the disk's own");
        var cacheSize = VerbOptions.Text("--cache-size", "-c", "known from the original; there is no cache in this version", "SIZE");
        var fenced = CommonOptions.Fenced();
        var mode = CommonOptions.Mode();
        var faults = VerbOptions.Texts("--fault", "a fault that strikes its requests, as error,op=write,rate=0.01; off: to be switched later. May be repeated", "SPEC");
        var timeout = CommonOptions.Timeout("10");
        var command = new Command(Operations.StartBackend.Name, "Offer a disk on a transport; prints the backend id")
        {
            transport, path, name, handlers, startDevice, backend, readOnly, engine, blockSize, cacheSize, fenced, mode, faults, timeout,
        };
        return new Verb(command, (line, control, output) =>
        {
            if (line.GetValue(cacheSize) is { } size)
                throw new CbdException(CbdErrorKind.Unsupported, $"no cache in this version; leave --cache-size {size} out");
            var options = new StartBackendOptions
            {
                Transport = line.GetValue(transport),
                Path = PathText.FromCaller(line.GetValue(path)!),
                Name = line.GetValue(name),
                Handlers = line.GetValue(handlers),
                Backend = line.GetValue(backend),
                ReadOnly = line.GetValue(readOnly),
                Engine = line.GetValue(engine)!,
                BlockBytes = line.GetValue(blockSize),
                Fenced = line.GetValue(fenced),
                Mode = PollModeText.Parse(line.GetValue(mode)!),
                Faults = line.GetValue(faults) is { Length: > 0 } given ? given : null,
                TimeoutSeconds = line.GetValue(timeout),
            };
            var id = control.Execute(Operations.StartBackend, options).BackendId;
            if (line.GetValue(startDevice))
                output.Device(StartDeviceOn(control, options, id));
            else
                output.Line(id);
        });
    }

    /// <summary>-D: both or none. The backend that was started for it goes again if the device cannot be started.</summary>
    private static StartedDevice StartDeviceOn(IControl control, StartBackendOptions options, int backend)
    {
        try
        {
            return control.Execute(Operations.StartDevice, new StartDeviceOptions
            {
                Transport = options.Transport,
                Backend = backend,
                ReadOnly = options.ReadOnly,
                Mode = options.Mode,
                TimeoutSeconds = options.TimeoutSeconds,
            });
        }
        catch (CbdException e)
        {
            try
            {
                control.Execute(Operations.StopBackend, new StopRequest { Transport = options.Transport, Id = backend }).ThrowIfStopping();
            }
            catch (CbdException stop)
            {
                throw new CbdException(e.Kind, $"{e.Message}; backend {backend} was started and could not be stopped again: {stop.Message}", e);
            }

            throw;
        }
    }

    private static Verb Clear()
    {
        var transport = CommonOptions.Transport();
        var backend = Backend();
        var force = CommonOptions.Force("without proof that its owner is dead");
        var fenced = CommonOptions.Fenced();
        var command = new Command(Operations.ClearBackend.Name, "Clear a backend whose owner is gone, or a flush failure of this host's") { transport, backend, force, fenced };
        return new Verb(command, (line, control, output) => control.Execute(Operations.ClearBackend, new ClearRequest
        {
            Transport = line.GetValue(transport),
            Id = BackendArgument.Resolve(control, line.GetValue(transport), line.GetValue(backend)!),
            Force = line.GetValue(force),
            Fenced = line.GetValue(fenced),
        }));
    }

    private static Option<string?> Backend() => BackendArgument.Option();

    private static Verb Resize()
    {
        var transport = CommonOptions.Transport();
        var backend = Backend();
        var size = VerbOptions.Size("--size", "grow the disk to this size; by default the size that it has now is served");
        var command = new Command(Operations.ResizeBackend.Name, "Make a served backend of this host larger; prints its size in bytes")
        {
            transport, backend, size,
        };
        return new Verb(command, (line, control, output) =>
        {
            var resized = control.Execute(Operations.ResizeBackend, new ResizeRequest
            {
                Transport = line.GetValue(transport),
                Id = BackendArgument.Resolve(control, line.GetValue(transport), line.GetValue(backend)!),
                SizeBytes = line.GetValue(size),
            });
            output.Line(resized.SizeBytes);
            output.Note(resized.Note);
        });
    }

    private static Verb Fault()
    {
        var transport = CommonOptions.Transport();
        var backend = Backend();
        var specs = new Argument<string[]>("SPEC")
        {
            Description = "the faults that are in force from now on, or off; without any, those in force are printed",
            Arity = ArgumentArity.ZeroOrMore,
        };
        var command = new Command(Operations.SetFaults.Name, "Switch the faults of a backend of this host that was started with --fault") { transport, backend, specs };
        return new Verb(command, (line, control, output) =>
        {
            int id = BackendArgument.Resolve(control, line.GetValue(transport), line.GetValue(backend)!);
            if (line.GetValue(specs) is { Length: > 0 } given)
                control.Execute(Operations.SetFaults, new FaultsRequest { Transport = line.GetValue(transport), Id = id, Faults = given });
            else
                ShowFaults(control, line.GetValue(transport), id, output);
        });
    }

    private static void ShowFaults(IControl control, int transport, int id, VerbOutput output)
    {
        BackendDescription backend = control.Execute(Operations.ListBackends, new ListRequest { Transport = transport }).FirstOrDefault(b => b.BackendId == id)
            ?? throw new CbdException(CbdErrorKind.NotFound, $"this host has no backend {id} on transport {transport}; see backend-list");
        if (backend.Faults is null)
            throw new CbdException(CbdErrorKind.Unsupported, $"backend {id} was started without a place for faults; start it with --fault off, and switch them then");
        foreach (FaultDescription fault in backend.Faults)
            output.Line(fault.Spec);
    }

    private static Verb List() => Verb.List(
        Operations.ListBackends, "List the backends of this host, or of all hosts",
        ("ID", b => b.BackendId < 0 ? "" : $"{b.BackendId}"),
        ("HOST", b => $"{b.HostId}"),
        ("PATH", b => b.Path),
        ("ALIVE", b => b.Alive),
        ("NAME", b => b.Name ?? ""),
        ("STATE", b => b.IsStopped ? $"{b.State}, stopped" : b.State),
        ("BLKDEVS", b => string.Join(' ', b.Blkdevs)),
        ("SIZE", b => b.BackendId < 0 ? "" : VerbOutput.Size(b.SizeBytes)),
        ("BLOCK", b => b.BlockBytes == 0 ? "" : $"{b.BlockBytes}"),
        ("MODE", b => b.ReadOnly ? "ro" : "rw"),
        ("HANDLERS", b => $"{b.Handlers}"),
        ("ENGINE", b => b.Engine),
        ("FLUSH ERROR", b => b.FlushError == 0 ? "" : $"errno {b.FlushError}"),
        ("FAULTS", b => string.Join(' ', (b.Faults ?? []).Select(f => $"{f.Spec} ({f.Struck})"))),
        ("REASON", b => b.Reason ?? ""));

    private static Verb Adm()
    {
        var transport = CommonOptions.Transport();
        var text = new Argument<string>("COMMAND") { Description = "op=backend-start,path=… as written to the original's adm attribute" };
        var command = new Command("adm", "Do a command of the original's adm attribute") { transport, text };
        return new Verb(command, (line, control, output) =>
        {
            if (AdmCommand.Parse(line.GetValue(text)!).Execute(control, line.GetValue(transport)) is { } answer)
                output.Line(answer);
        });
    }
}
