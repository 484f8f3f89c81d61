using System.Globalization;
using System.Runtime.InteropServices;
using Cbd.Control;
using Cbd.Control.Api.Client;
using Cbd.Control.Server;
using Cbd.Control.Verbs;
using Cbd.Memory;
using Cbd.Memory.Sockets;
using Cbd.Programs.Daemon.Logs;
using Cbd.Programs.Daemon.State;
using Cbd.Host;
using Cbd.Host.Wanted;
using Cbd.Protocol;
using Microsoft.Extensions.Logging;

namespace Cbd.Programs.Daemon;

/// <summary>
/// One life of a daemon: directories, node, control socket, what the record wants, verbs, wait, drain. The socket answers at
/// once; 'cbdctrl wait' waits until all that is wanted is there.
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

        var record = OpenRecord(state.Path);
        Action heard = static () => { };
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
            IsNameReserved = record.IsNameReserved,
            Moved = () => heard(),
            // The disk of the record may be slow.
            DeviceFailed = (name, reason) => ThreadPool.UnsafeQueueUserWorkItem(_ => record.SetFailed(name, reason), null),
        }, given);
        using var flights = new FlightFiles(node, state.Path, _logger);
        using var dump = new FlightSignal(flights, _logger);
        using var reconciler = new Reconciler(new CheckedControl(node), record, _logger);
        heard = reconciler.Hear;
        using var hangup = PosixSignalRegistration.Create(PosixSignal.SIGHUP, context =>
        {
            context.Cancel = true;
            reconciler.Wake();
        });
        node.KeepNames(record.KernelNames);
        var recording = new RecordingControl(node, record)
        {
            IsStarting = true,
            Moved = () =>
            {
                reconciler.Wake();
                node.KeepNames(record.KernelNames);
            },
        };
        var gate = new CheckedControl(recording);
        try
        {
            var access = new PeerAccess(ControlSyscalls.EffectiveUserId, group);
            await using var server = await ControlServer.StartAsync(gate, socketPath, access, logs, socket);
            _logger.LogInformation("cbdd {Version} pid {Pid} answers on {Socket}", ProductVersion.Text, Environment.ProcessId, socketPath);
            await Task.Run(() => reconciler.Pass(() => stop.IsSet));
            reconciler.Start();
            var runLines = new RunLines(node, record, recording, stop, _logger);
            foreach (var line in lines)
                await Task.Run(() => runLines.Do(line));
            runLines.SayHeld();
            recording.IsStarting = false;
            _logger.LogInformation("{Signal}: stopping", await stop.WaitAsync());
            // What is being started gives up when its transport is left.
            reconciler.End();
        }
        catch (CbdException)
        {
            reconciler.End();
            Draining.Drain(node, _logger);
            throw;
        }

        return Draining.Drain(node, _logger) ? ErrorKinds.ExitSuccess : ErrorKinds.ExitCode(CbdErrorKind.Failed);
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

    /// <summary>
    /// The record, with what is held of it: all, if this run was told so, and what only lines of an earlier command line wanted. Throws,
    /// and changes nothing, if it cannot be read, or another machine has written it.
    /// </summary>
    private StateRecord OpenRecord(string directory)
    {
        var machine = MachineFiles.Read();
        var file = new StateFile(directory, machine);
        var entries = file.Read();
        if (!options.AdoptRecord && WantedRules<SafePolicy>.FindForeign(machine, file.Writer) is { } difference)
        {
            throw new CbdException(CbdErrorKind.Denied,
                $"the record '{file.FilePath}' is another machine's ({difference}), which may still run: start cbdd with --adopt-record if that is gone and this one takes its place; if this is a copy of it, remove the state directory '{directory}'");
        }

        file.Reserve();
        var record = new StateRecord(file, _logger, [.. entries.Select(entry => entry with
        {
            Held = options.NoRestore ? "the record has it, and this cbdd was started with --no-restore"
                : entry.FromRun == true ? "only a --run line of an earlier cbdd wanted it"
                : null,
        })]);
        record.Keep();
        if (options.NoRestore && entries.Count > 0)
            _logger.LogWarning("the record '{Record}' has {Count} things of an earlier run, which are kept and not started, because of --no-restore: see cbdctrl wait", file.FilePath, entries.Count);
        return record;
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
