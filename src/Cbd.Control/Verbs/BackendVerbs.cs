using System.CommandLine;
using Cbd.Control.Json;
using Cbd.Memory;
using Cbd.Host;

namespace Cbd.Control.Verbs;

/// <summary>backend-start, -stop, -clear, -resize, -fault, -list, and the original's adm.</summary>
internal static class BackendVerbs
{
    public static IEnumerable<Verb> All() => [Start(), Stop(), Clear(), Resize(), Fault(), List(), Adm()];

    private static Verb Start()
    {
        var transport = CommonOptions.Transport();
        var path = VerbOptions.Text("--path", "-p", "the disk: a file, a block device, memory:SIZE or null:SIZE", "PATH", required: true);
        var handlers = VerbOptions.NumberOr("--handlers", "-n", "handler threads, 1 to 128", 1);
        var startDevice = VerbOptions.Flag("--start-dev", "-D", "start a device on it here, too; prints the device");
        var backend = VerbOptions.Number("--backend", "-b", "take over this backend, whose session is gone");
        var readOnly = VerbOptions.Flag("--read-only", null, "offer it read-only");
        var engine = VerbOptions.Choice("--engine", null, "how the disk is driven", "auto", "auto", "io_uring", "pread");
        var blockSize = VerbOptions.Number("--block-size", null, "logical block to offer: 512 or 4096; by default the disk's own");
        var cacheSize = VerbOptions.Text("--cache-size", "-c", "known from the original; there is no cache in this version", "SIZE");
        var fenced = CommonOptions.Fenced();
        var mode = CommonOptions.Mode();
        var faults = VerbOptions.Texts("--fault", "a fault that strikes its requests, as error,op=write,rate=0.01; off: to be switched later. May be repeated", "SPEC");
        var command = new Command("backend-start", "Offer a disk on a transport; prints the backend id")
        {
            transport, path, handlers, startDevice, backend, readOnly, engine, blockSize, cacheSize, fenced, mode, faults,
        };
        return new Verb(command, (line, node, output) =>
        {
            if (line.GetValue(cacheSize) is { } size)
                throw new CbdException(CbdErrorKind.Unsupported, $"no cache in this version; leave --cache-size {size} out");
            var options = new StartBackendOptions
            {
                Transport = line.GetValue(transport),
                Path = PathText.FromCaller(line.GetValue(path)!),
                Handlers = line.GetValue(handlers),
                Backend = line.GetValue(backend),
                ReadOnly = line.GetValue(readOnly),
                Engine = line.GetValue(engine)!,
                BlockBytes = line.GetValue(blockSize),
                Fenced = line.GetValue(fenced),
                Mode = PollModeText.Parse(line.GetValue(mode)!),
                Faults = line.GetValue(faults) is { Length: > 0 } given ? given : null,
            };
            var id = node.StartBackend(options);
            if (line.GetValue(startDevice))
                output.Device(StartDeviceOn(node, options, id));
            else
                output.Line(id);
        });
    }

    /// <summary>-D: both or none. The backend that was started for it goes again if the device cannot be started.</summary>
    private static StartedDevice StartDeviceOn(INode node, StartBackendOptions options, int backend)
    {
        try
        {
            return node.StartDevice(new StartDeviceOptions
            {
                Transport = options.Transport,
                Backend = backend,
                ReadOnly = options.ReadOnly,
                Mode = options.Mode,
            });
        }
        catch (CbdException e)
        {
            try
            {
                node.StopBackend(options.Transport, backend, force: false);
            }
            catch (CbdException stop)
            {
                throw new CbdException(e.Kind, $"{e.Message}; backend {backend} was started and could not be stopped again: {stop.Message}", e);
            }

            throw;
        }
    }

    private static Verb Stop()
    {
        var transport = CommonOptions.Transport();
        var backend = VerbOptions.Number("--backend", "-b", "the backend", required: true);
        var force = CommonOptions.Force("even if blkdevs use it: they answer with EIO until it is started again");
        var command = new Command("backend-stop", "Stop a backend of this host") { transport, backend, force };
        return new Verb(command, (line, node, _) =>
            node.StopBackend(line.GetValue(transport), line.GetValue(backend)!.Value, line.GetValue(force)));
    }

    private static Verb Clear()
    {
        var transport = CommonOptions.Transport();
        var backend = VerbOptions.Number("--backend", "-b", "the backend", required: true);
        var force = CommonOptions.Force("without proof that its owner is dead");
        var fenced = CommonOptions.Fenced();
        var command = new Command("backend-clear", "Clear a backend whose owner is gone, or a flush failure of this host's")
        {
            transport, backend, force, fenced,
        };
        return new Verb(command, (line, node, _) => node.ClearBackend(
            line.GetValue(transport), line.GetValue(backend)!.Value, line.GetValue(force), line.GetValue(fenced)));
    }

    private static Verb Resize()
    {
        var transport = CommonOptions.Transport();
        var backend = VerbOptions.Number("--backend", "-b", "the backend", required: true);
        var size = VerbOptions.Size("--size", "grow the disk to this size; by default the size that it has now is served");
        var command = new Command("backend-resize", "Make a served backend of this host larger; prints its size in bytes")
        {
            transport, backend, size,
        };
        return new Verb(command, (line, node, output) =>
        {
            var resized = node.ResizeBackend(line.GetValue(transport), line.GetValue(backend)!.Value, line.GetValue(size));
            output.Line(resized.SizeBytes);
            output.Note(resized.Note);
        });
    }

    private static Verb Fault()
    {
        var transport = CommonOptions.Transport();
        var backend = VerbOptions.Number("--backend", "-b", "the backend", required: true);
        var specs = new Argument<string[]>("SPEC")
        {
            Description = "the faults that are in force from now on, or off; without any, those in force are printed",
            Arity = ArgumentArity.ZeroOrMore,
        };
        var command = new Command("backend-fault", "Switch the faults of a backend of this host that was started with --fault") { transport, backend, specs };
        return new Verb(command, (line, node, output) =>
        {
            int id = line.GetValue(backend)!.Value;
            if (line.GetValue(specs) is { Length: > 0 } given)
                node.SetFaults(line.GetValue(transport), id, given);
            else
                ShowFaults(node, line.GetValue(transport), id, output);
        });
    }

    private static void ShowFaults(INode node, int transport, int id, VerbOutput output)
    {
        BackendDescription backend = node.ListBackends(transport, all: false).FirstOrDefault(b => b.BackendId == id)
            ?? throw new CbdException(CbdErrorKind.NotFound, $"this host has no backend {id} on transport {transport}; see backend-list");
        if (backend.Faults is null)
            throw new CbdException(CbdErrorKind.Unsupported, $"backend {id} was started without a place for faults; start it with --fault off, and switch them then");
        foreach (FaultDescription fault in backend.Faults)
            output.Line(fault.Spec);
    }

    private static Verb List()
    {
        var transport = CommonOptions.Transport();
        var all = CommonOptions.All();
        var format = CommonOptions.Output();
        var command = new Command("backend-list", "List the backends of this host, or of all hosts") { transport, all, format };
        return new Verb(command, (line, node, output) =>
        {
            output.Format = line.GetValue(format);
            output.List(
                [.. node.ListBackends(line.GetValue(transport), line.GetValue(all)).Select(BackendInfo.From)],
                ControlJson.Readable.BackendInfoArray,
                ("ID", b => $"{b.BackendId}"),
                ("HOST", b => $"{b.HostId}"),
                ("PATH", b => b.BackendPath),
                ("ALIVE", b => b.Alive),
                ("STATE", b => b.Stopped ? $"{b.State}, stopped" : b.State),
                ("BLKDEVS", b => string.Join(' ', b.Blkdevs)),
                ("SIZE", b => VerbOutput.Size(b.SizeBytes)),
                ("BLOCK", b => $"{b.BlockSize}"),
                ("MODE", b => b.ReadOnly ? "ro" : "rw"),
                ("HANDLERS", b => $"{b.Handlers}"),
                ("ENGINE", b => b.Engine),
                ("FLUSH ERROR", b => b.FlushError == 0 ? "" : $"errno {b.FlushError}"),
                ("FAULTS", b => string.Join(' ', (b.Faults ?? []).Select(f => $"{f.Spec} ({f.Struck})"))));
        });
    }

    private static Verb Adm()
    {
        var transport = CommonOptions.Transport();
        var text = new Argument<string>("COMMAND") { Description = "op=backend-start,path=… as written to the original's adm attribute" };
        var command = new Command("adm", "Do a command of the original's adm attribute") { transport, text };
        return new Verb(command, (line, node, output) =>
        {
            if (AdmCommand.Parse(line.GetValue(text)!).Execute(node, line.GetValue(transport)) is { } answer)
                output.Line(answer);
        });
    }
}
