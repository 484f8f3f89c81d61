using System.Globalization;
using Cbd.Control;
using Cbd.Control.Api.Client;
using Cbd.Control.Server;
using Cbd.Control.Verbs;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Cbd.Programs.Daemon.Logs;
using Cbd.Programs.Daemon.State;
using Cbd.Host;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon;

/// <summary>
/// One life of a daemon: directories, node, restore, verbs, control socket, wait, drain. The socket comes last, so
/// that a socket that answers means that everything asked for at start is up.
/// </summary>
internal sealed class Daemon(DaemonOptions options, StderrLogs logs, GivenSockets given, Func<NodeOptions, GivenSockets, INode> createNode)
{
    /// <summary>The name of the service manager's socket for the control API.</summary>
    private const string ControlSocketName = "control";

    private readonly ILogger _logger = logs.CreateLogger("cbdd");

    /// <summary>Runs until a signal; returns the exit code. Throws <see cref="CbdException"/> if it cannot start.</summary>
    public async Task<int> RunAsync()
    {
        using var stop = new StopSignal();
        var verbs = VerbSet.ForDaemon();
        var lines = options.RunLines.Select(verbs.ParseLine).ToList();
        var group = options.SocketGroup is null ? null : FindGroup(options.SocketGroup);
        using var run = OwnedDirectory.Take(options.RunDirectory, "run directory", "--run-dir", group);
        using var state = OwnedDirectory.Take(options.StateDirectory, "state directory", "--state-dir");
        var socketPath = Path.Combine(run.Path, RunDirectories.SocketName);
        using var socket = TakeControlSocket(socketPath);
        if (socket is null)
            File.Delete(socketPath); // a leftover: the lock is ours

        var file = new StateFile(state.Path);
        var record = new StateRecord(file, _logger, options.Restore ? file.Read() : []);
        using var node = createNode(new NodeOptions
        {
            RunDirectory = run.Path,
            StateDirectory = state.Path,
            DisksDirectory = options.DisksDirectory,
            HostUuid = HostIdentity.LoadOrCreate(state.Path),
            Logger = logs.CreateLogger("node"),
            BeatMs = options.BeatMs,
            DeadMs = options.DeadMs,
            FenceMs = options.FenceMs,
            MaxTransports = options.MaxTransports,
        }, given);
        using var flights = new FlightFiles(node, state.Path, _logger);
        using var dump = new FlightSignal(flights, _logger);
        var gate = new CheckedControl(new RecordingControl(node, record));
        try
        {
            new Restore(gate, record, _logger).Run(() => stop.IsSet);
            foreach (var line in lines)
            {
                if (!stop.IsSet)
                    Do(line, gate);
            }

            var access = new PeerAccess(ControlSyscalls.EffectiveUserId, group);
            await using var server = await ControlServer.StartAsync(gate, socketPath, access, logs, socket);
            _logger.LogInformation("cbdd {Version} pid {Pid} answers on {Socket}", ProductVersion.Text, Environment.ProcessId, socketPath);
            _logger.LogInformation("{Signal}: stopping", await stop.WaitAsync());
        }
        catch (CbdException)
        {
            Drain(node);
            throw;
        }

        return Drain(node) ? ErrorKinds.ExitSuccess : ErrorKinds.ExitCode(CbdErrorKind.Failed);
    }

    /// <summary>
    /// The socket that the service manager opened for the control API, if it did; clients look for it at
    /// <paramref name="path"/> alone.
    /// </summary>
    private StreamSocket? TakeControlSocket(string path)
    {
        if (!given.Has(ControlSocketName))
            return null;
        var socket = given.Take(ControlSocketName, "the control socket");
        var place = socket.GetPlace();
        if (place?.UnixPath == path)
            return socket;
        socket.Dispose();
        throw new CbdException(CbdErrorKind.Invalid,
            $"socket '{ControlSocketName}' of the service manager is bound to '{place?.UnixPath ?? place?.Address?.ToString()}', and clients look for '{path}': set ListenStream= to that, or --run-dir to the other's directory");
    }

    private void Do(ParsedVerb verb, IControl control)
    {
        var answer = new StringWriter();
        try
        {
            verb.Execute(control, new VerbOutput(answer, toTerminal: false, note => _logger.LogInformation("{Verb}: {Note}", verb.Name, note)));
        }
        catch (CbdException e)
        {
            throw new CbdException(e.Kind, $"--run {verb.Name}: {e.Message}", e);
        }

        _logger.LogInformation("{Verb}: {Answer}", verb.Name, answer.ToString().TrimEnd('\n'));
    }

    /// <summary>
    /// Stops devices, then backends, then leaves the transports, so that every entry is free again. The record keeps
    /// them: they are what --restore starts again. True if all of it went.
    /// </summary>
    private bool Drain(INode node)
    {
        var isClean = true;
        foreach (var transport in node.ListTransports())
        {
            var id = transport.TransportId;
            var own = new ListRequest { Transport = id };
            foreach (var device in Try(() => node.Execute(Operations.ListDevices, own), ref isClean) ?? [])
            {
                var stop = new StopRequest { Transport = id, Id = device.BlkdevId, Force = true };
                isClean &= Try($"device {device.BlkdevId}", () => node.Execute(Operations.StopDevice, stop).ThrowIfStopping());
            }

            foreach (var backend in Try(() => node.Execute(Operations.ListBackends, own), ref isClean) ?? [])
                isClean &= Try($"backend {backend.BackendId}", () => node.LeaveBackend(id, backend.BackendId));
            isClean &= Try($"transport {id}", () => node.Execute(Operations.UnregisterTransport, new TransportTarget { Transport = id }));
        }

        return isClean;
    }

    private bool Try(string what, Action stop)
    {
        try
        {
            stop();
            return true;
        }
        catch (CbdException e)
        {
            _logger.LogError("{What} is not stopped: {Reason}", what, e.Message);
            return false;
        }
    }

    private T? Try<T>(Func<T> list, ref bool isClean)
        where T : class
    {
        T? items = null;
        isClean &= Try("a list", () => items = list());
        return items;
    }

    private static SocketGroup FindGroup(string name)
    {
        if (uint.TryParse(name, NumberStyles.None, CultureInfo.InvariantCulture, out var id))
            return new SocketGroup(name, id);
        return ControlSyscalls.FindGroupId(name) is { } found
            ? new SocketGroup(name, found)
            : throw new CbdException(CbdErrorKind.NotFound, $"there is no group '{name}' on this machine; make it with groupadd, or give another --socket-group");
    }
}
